-- p2p_swarm.lua - thousands of nodes fetch an object at once, in virtual time:
--
--    mooncake run examples/p2p_swarm.lua --nodes 1000,10000 --plot swarm.html
--
-- Each node does what a node of the P2P store does: it names itself in the registry,
-- lists a part of those that are there, reads the maps of up to 24 of them, and chooses
-- by mc_p2p_choose(), the store's own function. What is modelled: links that those who
-- use them share evenly, at both ends; maps that are as old as in the store; nodes that
-- begin within --join seconds of each other. What is not: latency, losses, the fabric
-- between the links, and time that the registry or a CPU takes.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local cli = require "mooncake.cli"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local plot = require "mooncake.plot"
local util = require "mooncake.util"

local NEIGHBOURS, PARALLEL, PER_HOLDER = 24, 8, 2
local MAP_S, HUNGRY_S = 0.1, 0.025              -- how old a map may be
local LIST_S, DIGITS = 0.1, 2
local RING = 6                                  -- so many, about, ask the source
local FAIR = 4
local KEY_BYTES = 60                            -- of a node's key in a list

local band, lshift, rshift = bit.band, bit.lshift, bit.rshift

-- ---- random numbers: xorshift, so that a run can be repeated ------------------------

local Random = {}
Random.__index = Random

local function random(seed)
   return setmetatable({ s = bit.tobit(seed * 2654435761 + 1) }, Random)
end

function Random:next(n)
   local s = self.s
   s = bit.bxor(s, lshift(s, 13))
   s = bit.bxor(s, rshift(s, 17))
   s = bit.bxor(s, lshift(s, 5))
   self.s = s
   return rshift(s, 1) % n
end

-- ---- the registry ---------------------------------------------------------

local Registry = {}
Registry.__index = Registry

-- Keys of nodes by the first digits of their hashes, and what they cost by the second.
local function registry(lease_s)
   local self = { lease_s = lease_s, ops = {}, bytes = 0, all = 0 }
   for digits = 0, DIGITS do
      self[digits] = {}
      for part = 0, 16 ^ digits - 1 do self[digits][part] = {} end
   end
   return setmetatable(self, Registry)
end

function Registry:count(at_s)
   local second = math.floor(at_s)
   self.ops[second] = (self.ops[second] or 0) + 1
   self.all = self.all + 1
end

function Registry:add(node, hash, at_s)
   for digits = 0, DIGITS do
      local list = self[digits][hash % 16 ^ digits]
      list[#list + 1] = node
   end
   self:count(at_s)
end

function Registry:list(part, digits, at_s)
   local list = self[digits][part % 16 ^ digits]
   self:count(at_s)
   self.bytes = self.bytes + #list * KEY_BYTES
   return list
end

-- ---- a swarm --------------------------------------------------------------

local Swarm = {}
Swarm.__index = Swarm

local function new(opt, nodes)
   local n, s, k, p = nodes + 1, opt.shards, NEIGHBOURS, PARALLEL
   local w = math.ceil(s / 64)
   local function of(kind, count) return ffi.new(kind .. "[?]", count) end
   local self = setmetatable({
      n = n, shards = s, words = w, now = 0, random = random(opt.seed),
      registry = registry(opt.lease), left = nodes, from_source = 0, choices = 0,
      shard_s = opt.size / s * 8 / (opt.rate * 1e9), done_s = {},
      -- Of each node: what it has, in the order in which it came; what it wants; which
      -- shards are out, by rumour; how many copies it knows of.
      log = of("int32_t", n * s), here = of("int32_t", n), wanted = of("uint64_t", n * w),
      told = of("uint64_t", n * w), copies = of("uint16_t", n * s),
      ring = of("uint8_t", n), digits = of("int32_t", n), join_s = of("double", n),
      looks = of("int32_t", n), list_s = of("double", n), pause_s = of("double", n),
      renew_s = of("double", n),
      map_s = of("double", n), flight_s = of("double", n),
      -- Its link: how many flights pass it, and what they get in all.
      up = of("int32_t", n), down = of("int32_t", n), sent = of("double", n),
      got = of("double", n),
      -- Its neighbours: who they are, how much of their logs it has seen, what it has of
      -- them under way, and how long a shard takes them.
      peers = of("int32_t", n * k), n_peers = of("int32_t", n),
      rank = of("int32_t", n * k), read = of("int32_t", n * k),
      seen = of("uint64_t", n * k * w),
      mine = of("int32_t", n * k), took = of("float", n * k),
      took_s = of("double", n * k), source = of("uint8_t", n * k),
      -- Its flights: from whom, which neighbour that is, what, how much is left, since
      -- when.
      to = ffi.new("int32_t[?]", n * p, -1), with = of("int32_t", n * p),
      shard = of("int32_t", n * p), todo = of("double", n * p),
      since = of("double", n * p), rate = of("double", n * p),
      cost = of("float", k), view = ffi.new "struct mc_p2p_view",
      out = ffi.new "uint32_t[2]",
   }, Swarm)
   for node = 0, n - 1 do
      self.join_s[node] = node == 0 and 0 or self.random:next(1e6) / 1e6 * opt.join
      self.digits[node] = DIGITS
      for i = 0, s - 1 do
         local at = node * w + rshift(i, 6)
         self.wanted[at] = self.wanted[at] + lshift(1ULL, band(i, 63))
      end
   end
   for i = 0, s - 1 do self.log[i] = i end
   self.here[0] = s
   return self
end

-- ---- who knows whom -------------------------------------------------------

local function knows(self, node, other)
   local base = node * NEIGHBOURS
   for i = base, base + self.n_peers[node] - 1 do
      if self.peers[i] == other then return true end
   end
   return false
end

-- Someone but the source has this shard, or waits for it: one copy more.
local function rumour(self, node, s)
   local word, bits = node * self.words + rshift(s, 6), lshift(1ULL, band(s, 63))
   if band(self.told[word], bits) ~= 0 then return end
   self.told[word] = bit.bor(self.told[word], bits)
   self.copies[node * self.shards + s] = self.copies[node * self.shards + s] + 1
end

local function hear(self, node, other)
   local from, to = self.told + other * self.words, self.told + node * self.words
   for i = 0, self.words - 1 do
      local new = band(from[i], bit.bnot(to[i]))
      local s = i * 64
      while new ~= 0 do
         if band(new, 255) == 0 then
            new, s = rshift(new, 8), s + 8
         else
            if band(new, 1) ~= 0 then rumour(self, node, s) end
            new, s = rshift(new, 1), s + 1
         end
      end
   end
end

-- What a neighbour has now, as one who reads its map sees it.
local function read_map(self, node, k)
   local at = node * NEIGHBOURS + k
   local log, seen = self.log + self.peers[at] * self.shards, self.seen + at * self.words
   local copies, count = self.copies + node * self.shards, 1 - self.source[at]
   for i = self.read[at], self.here[self.peers[at]] - 1 do
      local s = log[i]
      local word = rshift(s, 6)
      seen[word] = bit.bor(seen[word], lshift(1ULL, band(s, 63)))
      copies[s] = copies[s] + count
   end
   self.read[at] = self.here[self.peers[at]]
   hear(self, node, self.peers[at])
end

local function forget(self, node, k)
   local at = node * NEIGHBOURS + k
   local log = self.log + self.peers[at] * self.shards
   local copies, count = self.copies + node * self.shards, 1 - self.source[at]
   for i = 0, self.read[at] - 1 do copies[log[i]] = copies[log[i]] - count end
   ffi.fill(self.seen + at * self.words, 8 * self.words)
   self.read[at], self.took[at] = 0, 0
end

-- Which nodes one prefers to know is a matter of chance, but of the same chance whenever
-- it is asked: so those who came first are known to no more than those who came last.
local function rank_of(node, other)
   return bit.tobit(bit.bxor(node * 40503, other * 30011) * 69069 + other)
end

local function mix(x)
   x = bit.bxor(x, rshift(x, 16)) * 73244475 % 2 ^ 32
   x = bit.tobit(x)
   return bit.bxor(x, rshift(x, 15))
end

-- The place for a node in the list of neighbours: a new one, or that of one of a worse
-- rank from which nothing is on its way.
local function place_for(self, node, rank)
   local base, n = node * NEIGHBOURS, self.n_peers[node]
   if n < NEIGHBOURS then return n end
   local worst
   for k = 0, n - 1 do
      if self.mine[base + k] == 0 and self.rank[base + k] > rank and
         (not worst or self.rank[base + k] > self.rank[base + worst]) then
         worst = k
      end
   end
   return worst
end

local function meet(self, node, other)
   local rank = other == 0 and -2 ^ 31 or mix(rank_of(node, other))
   local k = place_for(self, node, rank)
   if not k or knows(self, node, other) then return false end
   local at = node * NEIGHBOURS + k
   if k < self.n_peers[node] then forget(self, node, k) end
   self.peers[at], self.rank[at], self.source[at] = other, rank, other == 0 and 1 or 0
   self.n_peers[node] = math.max(self.n_peers[node], k + 1)
   read_map(self, node, k)
   return true
end

-- Is a node among the few that ask the source? If all are listed, those who come first
-- in an order that is the same for all; else by a lot that so many, about, draw.
local function in_ring(self, node, list)
   local mine, before = mix(node * 3 + 1), 0
   if self.digits[node] > 0 then
      local all = #list * 16 ^ self.digits[node]
      return (mine / 2 ^ 32 + 0.5) * all < 2 * RING
   end
   for i = 1, #list do
      if list[i] ~= 0 and mix(list[i] * 3 + 1) < mine then before = before + 1 end
   end
   return before < RING
end

-- As the store's scout: one of four parts of all in turn, as parts are not of one size,
-- and more of them if they are few.
local function look(self, node)
   local list
   self.looks[node] = self.looks[node] + 1
   repeat
      local part = band(mix(node * 4 + self.looks[node] % 4), 65535)
      list = self.registry:list(part, self.digits[node], self.now)
      local enough = #list > NEIGHBOURS / 2 or self.digits[node] == 0
      if not enough then self.digits[node] = self.digits[node] - 1 end
   until enough
   local added = false
   -- Not at the first look: others may be about to come.
   self.ring[node] = self.pause_s[node] > 0 and in_ring(self, node, list) and 1 or 0
   if self.ring[node] == 1 then added = meet(self, node, 0) end
   for i = 1, #list do
      if list[i] ~= node and list[i] ~= 0 then
         added = meet(self, node, list[i]) or added
      end
   end
   local pause, full = self.pause_s[node], self.n_peers[node] == NEIGHBOURS
   self.pause_s[node] = pause == 0 and LIST_S / 2 or added and not full and LIST_S or
                        math.min(2 * pause, self.registry.lease_s / 3)
   self.list_s[node] = self.now + self.pause_s[node]
end

local function lease(self, node)
   if self.renew_s[node] == 0 then
      self.registry:count(self.now)              -- the object's record
      self.registry:add(node, self.random:next(2 ^ 30), self.now)
   else
      self.registry:count(self.now)
   end
   self.renew_s[node] = self.now + self.registry.lease_s / 3
end

-- ---- flights --------------------------------------------------------------

local function price(self, node)
   local base, n, sum, known = node * NEIGHBOURS, self.n_peers[node], 0, 0
   for i = 0, n - 1 do
      local took = self.took[base + i]
      if took > 0 then sum, known = sum + took, known + 1 end
   end
   local usual = known > 0 and sum / known or 1
   local most = n == 1 and PARALLEL or self.here[node] > 0 and PER_HOLDER or 1
   local fresh = self.flight_s[node] > 0 and 1 / (8 * self.flight_s[node]) or 0
   for i = 0, n - 1 do
      local mine, took = self.mine[base + i], self.took[base + i]
      if took > 0 then
         local trust = math.max(0, 1 - (self.now - self.took_s[base + i]) * fresh)
         took = usual + (took - usual) * trust
      end
      self.cost[i] = (mine >= most or self.source[base + i] > self.ring[node]) and
                     math.huge or
                     (mine + 1) * (took > 0 and took or usual)
   end
end

local function start(self, node, slot, credit)
   local v, base = self.view, node * NEIGHBOURS
   price(self, node)
   v.shards, v.holders = self.shards, self.n_peers[node]
   v.wanted, v.have = self.wanted + node * self.words, self.seen + base * self.words
   v.copies, v.cost = self.copies + node * self.shards, self.cost
   v.source = self.source + base
   self.choices = self.choices + 1
   if not C.mc_p2p_choose(v, self.choices, self.out, self.out + 1) then return false end
   local s, k = tonumber(self.out[0]), tonumber(self.out[1])
   local f, holder = node * PARALLEL + slot, self.peers[base + k]
   self.to[f], self.shard[f], self.with[f], self.since[f] = holder, s, k, self.now
   self.todo[f] = 1 - credit
   self.mine[base + k] = self.mine[base + k] + 1
   self.up[holder], self.down[node] = self.up[holder] + 1, self.down[node] + 1
   rumour(self, node, s)
   local at = node * self.words + rshift(s, 6)
   self.wanted[at] = band(self.wanted[at], bit.bnot(lshift(1ULL, band(s, 63))))
   return true
end

local function finish(self, node, f)
   local holder, s, k = self.to[f], self.shard[f], self.with[f]
   local at = node * NEIGHBOURS + k
   local took = (self.now - self.since[f]) / self.mine[at]
   self.took[at] = self.took[at] > 0 and self.took[at] * 0.75 + took * 0.25 or took
   self.took_s[at] = self.now
   local flight, flight_s = self.now - self.since[f], self.flight_s
   flight_s[node] = flight_s[node] > 0 and flight_s[node] * 0.75 + flight * 0.25 or flight
   self.mine[at] = self.mine[at] - 1
   self.up[holder], self.down[node] = self.up[holder] - 1, self.down[node] - 1
   self.to[f] = -1
   self.log[node * self.shards + self.here[node]] = s
   self.here[node] = self.here[node] + 1
   if holder == 0 then self.from_source = self.from_source + 1 end
   read_map(self, node, k)                       -- it comes with the shard
   if self.here[node] == self.shards then
      self.left = self.left - 1
      self.done_s[#self.done_s + 1] = self.now
   end
end

-- ---- time -----------------------------------------------------------------

-- What each flight gets. It begins with its share at the narrower of its ends; then, a
-- few times, all that pass an end grow or shrink together until it is full, as far as
-- their other ends allow: about what TCP comes to.
local function share_links(self)
   local sent, got, rate, to = self.sent, self.got, self.rate, self.to
   for f = 0, self.n * PARALLEL - 1 do
      rate[f] = to[f] < 0 and 0 or
                1 / math.max(self.up[to[f]], self.down[math.floor(f / PARALLEL)])
   end
   for _ = 1, FAIR do
      ffi.fill(sent, 8 * self.n)
      ffi.fill(got, 8 * self.n)
      for f = 0, self.n * PARALLEL - 1 do
         if to[f] >= 0 then
            local node = math.floor(f / PARALLEL)
            sent[to[f]], got[node] = sent[to[f]] + rate[f], got[node] + rate[f]
         end
      end
      for f = 0, self.n * PARALLEL - 1 do
         if to[f] >= 0 then
            rate[f] = rate[f] / math.max(sent[to[f]], got[math.floor(f / PARALLEL)])
         end
      end
   end
end

-- All flights go on for a step. What is left of it when one ends is its successor's.
local function move(self, node, step)
   for slot = 0, PARALLEL - 1 do
      local f = node * PARALLEL + slot
      if self.to[f] >= 0 then
         self.todo[f] = self.todo[f] - self.rate[f] * step
         if self.todo[f] <= 0 then
            local credit = -self.todo[f]
            finish(self, node, f)
            if start(self, node, slot, credit) then self.rate[f] = 0 end
         end
      end
   end
end

local function fill(self, node)
   local flying = self.down[node]
   local due = flying <= PARALLEL / 3 and HUNGRY_S or MAP_S
   if self.now >= self.map_s[node] + due then
      self.map_s[node] = self.now
      for k = 0, self.n_peers[node] - 1 do read_map(self, node, k) end
   end
   for slot = 0, PARALLEL - 1 do
      if self.to[node * PARALLEL + slot] < 0 and not start(self, node, slot, 0) then
         return
      end
   end
end

local function run_node(self, node, step)
   if self.now < self.join_s[node] then return end
   if self.now >= self.renew_s[node] then lease(self, node) end
   if node == 0 or self.here[node] == self.shards then return end
   if self.now >= self.list_s[node] then look(self, node) end
   move(self, node, step)
   if self.here[node] < self.shards then fill(self, node) end
end

function Swarm:run(limit_s)
   local step = 0.25
   while self.left > 0 and self.now < limit_s do
      self.now = self.now + step * self.shard_s
      share_links(self)
      for node = 0, self.n - 1 do run_node(self, node, step) end
   end
end

-- ---- results --------------------------------------------------------------

local function peak(ops)
   local most = 0
   for _, n in pairs(ops) do most = math.max(most, n) end
   return most
end

local function simulate(opt, nodes)
   local began = mooncake.now()
   local s = new(opt, nodes)
   local line_s = s.shard_s * s.shards
   s:run(line_s * 20 + 60)
   if s.left > 0 then util.fail("%d of %d nodes are not done", s.left, nodes) end
   return {
      nodes = nodes, seconds = s.now, line_rate_seconds = line_s, ratio = s.now / line_s,
      median_ratio = s.done_s[math.ceil(#s.done_s / 2)] / line_s,
      source_copies = s.from_source / s.shards, registry_ops = s.registry.all,
      registry_ops_per_s = s.registry.all / s.now, registry_peak = peak(s.registry.ops),
      registry_bytes = s.registry.bytes, choices = s.choices,
      computed_s = mooncake.now() - began,
   }, s
end

local function charts(results, swarms)
   local done, load = {}, {}
   for i, r in ipairs(results) do
      local x, y = {}, {}
      for second = 0, math.floor(r.seconds) do
         x[#x + 1], y[#y + 1] = second, swarms[i].registry.ops[second] or 0
      end
      local name, ratios = util.commas(r.nodes) .. " nodes", {}
      for k, s in ipairs(swarms[i].done_s) do ratios[k] = s / r.line_rate_seconds end
      done[i] = { name = name, values = ratios }
      load[i] = { name = name, x = x, y = y, step = true }
   end
   return plot.cdf { title = "Nodes that have the object", series = done,
                     x = "time, in times of one transfer at line rate" },
          plot.lines { title = "Operations that the registry sees", x = "seconds",
                       y = "operations per second", series = load }
end

local function run(opt)
   local results, swarms, rows = {}, {}, {}
   for word in opt.nodes:gmatch "[^,]+" do
      local nodes = tonumber(word) or util.fail("'%s' is no number", word)
      local r, s = simulate(opt, nodes)
      results[#results + 1], swarms[#swarms + 1] = r, s
      if opt.json then print(json.encode(r)) end
      rows[#rows + 1] = {
         util.commas(nodes), ("%.2f"):format(r.seconds), ("%.2f"):format(r.ratio),
         ("%.2f"):format(r.median_ratio), ("%.1f"):format(r.source_copies),
         util.commas(r.registry_ops_per_s), util.commas(r.registry_peak),
         util.bytes(r.registry_bytes), ("%.1f"):format(r.computed_s) }
   end
   local done, load = charts(results, swarms)
   if not opt.json then
      print(("%s in %d shards, links of %g Gbit/s: %.2f s at line rate"):format(
         util.bytes(opt.size), opt.shards, opt.rate, results[1].line_rate_seconds))
      util.print_table({ "NODES", "SECONDS", "RATIO", "MEDIAN", "SOURCE SENT", "REG/S",
                         "PEAK", "LISTED", "COMPUTED S" }, rows)
   end
   if opt.plot then
      util.check(plot.save(opt.plot, { title = "A swarm", sections = {
         { title = "A swarm", charts = { done, load } } } }))
   elseif not opt.json then
      print "\n" io.write(plot.text(done, 80, 16), "\n", plot.text(load, 80, 12), "\n")
   end
   return 0
end

return cli.call({
   usage = "p2p_swarm [OPTIONS]",
   help = [[
RATIO, the time until all nodes have the object over one transfer at line rate, and until
half of them have; SOURCE SENT, in copies; REG/S and PEAK, operations per second that the
registry sees, on average and in the worst second; LISTED, bytes of its answers.]],
   options = {
      nodes = { "1000,10000", "how many fetch it", "N,..." },
      size = { 137438953472, "of the object", "BYTES" },
      shards = { 1024, "that it is cut into", "N" },
      rate = { 100, "of each link, in Gbit/s", "GBIT" },
      join = { 0.2, "seconds within which all begin", "SECONDS" },
      lease = { 10, "of a node's key", "SECONDS" },
      seed = { 1, "of what is random", "N" },
      plot = { nil, "write the charts to a file, .svg or .html", "FILE" },
      json = { false, "one object a line" },
   },
   run = run,
}, arg, 1)
