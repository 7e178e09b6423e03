-- node.lua - a prefill or a decode node of replay.lua, a process of its own.
--
-- Its only argument is a JSON object: role, index, master and the options it shares with
-- the others. It says "ready HOST:PORT" on stdout, or "failed WHY"; it takes messages
-- until "finish", and ends with one line of JSON: what it counted. It also ends when its
-- stdin does.

package.path = arg[0]:gsub("[^/]*$", "") .. "../?.lua;" .. package.path

local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"
local lru = require "mooncake.lru"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local wire = require "replay.wire"

local head_size, block_size = wire.head_size, wire.block_size
local now_us, pack = wire.now_us, wire.pack

local EMPTY, LOADING, READY = 0, 1, 2

local Node = {}
Node.__index = Node

-- What the world refuses is said without a traceback.
local function check(ok, why, ...)
   if not ok then error({ user = why }, 0) end
   return ok, why, ...
end

-- What the other side may do with a pool: only the end that initiates reaches out.
local access = { push = { prefill = "local", decode = "w" },
   pull = { prefill = "r", decode = "local" } }

-- Start the engine and the pool. The first line on stdout is the engine's address.
local function start_node(opt)
   local e = check(mooncake.open { listen = opt.listen .. ":0",
      transports = opt.transport })
   local slots = math.floor(opt.pool / opt.block)
   local self = setmetatable({ e = e, opt = opt, slots = slots, index = lru.new(slots),
      state = ffi.new("uint8_t[?]", slots), transfers = wire.hist(), busy_us = 0,
      bytes = 0, peers = {}, finished = false, reqs = mooncake.reqs(wire.block_limit) },
      Node)
   self.pool = check(e:alloc(slots * opt.block, { huge = true, populate = true,
      access = access[opt.pull and "pull" or "push"][opt.role] }))
   self.master = check(e:segment(opt.master, 5000))
   io.stdout:write("ready ", e:addr(), "\n")
   io.stdout:flush()
   return self
end

function Node:at(slot) return self.pool.addr + slot * self.opt.block end

function Node:content(id)
   return id * 0x9e3779b97f4a7c15ULL + ffi.cast("uint64_t", self.opt.seed)
end

-- Segments of the nodes on the other side, by their number.
function Node:on_peers(msg)
   for i, addr in ipairs(json.decode(msg)) do
      self.peers[i - 1] = check(self.e:segment(addr, 5000))
   end
end

-- Move @n blocks in one batch; with @notify, that is told behind the data.
function Node:move(op, peer, blocks, n, notify)
   local reqs, push = self.reqs, op == C.MC_WRITE
   for i = 0, n - 1 do
      local req, to, from = reqs[i], blocks[i].to, blocks[i].from
      req.op, req.segment, req.len = op, peer.id, self.opt.block
      req.buf = ffi.cast("void *", ffi.cast("uintptr_t", push and from or to))
      req.remote = push and to or from
   end
   local start = now_us()
   local ok, why = self.e:transfer(reqs, { n = n, notify = notify })
   if not ok then return nil, why end
   local took = now_us() - start
   self.transfers:add(took)
   self.busy_us = self.busy_us + took
   self.bytes = self.bytes + n * self.opt.block
   return true
end

-- What the node has to say at the end: one line of JSON.
function Node:on_finish()
   local rails = json.array()
   for _, rail in ipairs(self.e:rails()) do
      rails[#rails + 1] = { transport = rail.transport, state = rail.state,
         bytes = rail.bytes_read + rail.bytes_written, errors = rail.errors }
   end
   io.stdout:write(json.encode { bytes = self.bytes, busy_us = self.busy_us,
      transfers = self.transfers:list(), rails = rails,
      evicted = self.index.evicted }, "\n")
   io.stdout:flush()
   self.finished = true
end

-- Take messages until the end, or until the process that started us has gone.
function Node:serve(handlers)
   while not self.finished do
      local note = self.e:next_notify(200)
      if note then
         local handle = handlers[note.name] or error("no message " .. note.name, 0)
         handle(self, note.msg)
      elseif proc.wait_readable(0, 0) then
         return
      end
   end
end

-- ---- prefill ------------------------------------------------------------

local prefill = { peers = Node.on_peers, finish = Node.on_finish }

-- The blocks of a request, pinned in our pool: nil if it is full of pinned ones.
local function compute(self, blocks, n, slots)
   for i = 0, n - 1 do
      local id = blocks[i].id
      local slot = self.index:find(id)
      if not slot then
         slot = self.index:insert(id)
         if not slot then return nil, i end
         if self.opt.verify then
            C.mc_fill(ffi.cast("void *", self:at(slot)), self.opt.block, self:content(id))
         end
      end
      self.index:pin(slot)
      slots[i], blocks[i].from = slot, self:at(slot)
   end
   return true, n
end

local function unpin(self, slots, n)
   for i = 0, n - 1 do self.index:unpin(slots[i]) end
end

local function reply(self, head, name, msg)
   check(self.e:notify(self.peers[head.node], name, msg))
end

local function push(self, head, blocks, msg)
   local peer = self.peers[head.node]
   local ok, why = self:move(C.MC_WRITE, peer, blocks, head.n,
      { segment = peer, name = "ready", msg = msg })
   if not ok then reply(self, head, "failed", msg .. why) end
end

local function lend(self, head, blocks, slots)
   self.lent[#self.lent + 1] = { req = head.req, node = head.node, n = head.n,
      slots = slots }
   reply(self, head, "here", pack(head.req, head.sent_ns, self.opt.index, head.n, blocks,
      block_size))
end

-- Give the decode node the blocks: false while the pool is full of what is lent.
local function give(self, msg)
   local head = wire.unpack(msg)
   local n = head.n
   local blocks = ffi.new("struct replay_block[?]", n)
   ffi.copy(blocks, ffi.cast("const char *", msg) + head_size, n * block_size)
   local slots = ffi.new("int32_t[?]", n)
   local ok, pinned = compute(self, blocks, n, slots)
   if ok and self.opt.pull then
      lend(self, head, blocks, slots)
      return true
   end
   local answer = pack(head.req, head.sent_ns, head.node, n)
   if ok then
      push(self, head, blocks, answer)
   elseif #self.lent == 0 then
      reply(self, head, "failed", ("%s%d blocks, and the pool of the prefill node has %d")
         :format(answer, n, self.slots))
   end
   unpin(self, slots, pinned)
   return ok or #self.lent == 0
end

local function give_waiting(self)
   while self.queue[1] and give(self, self.queue[1]) do table.remove(self.queue, 1) end
end

-- The decode node lacks blocks: write them, or say where they are and keep them there.
function prefill.want(self, msg)
   self.queue[#self.queue + 1] = msg
   give_waiting(self)
end

-- The decode node has read what we lent it.
function prefill.release(self, msg)
   local head = wire.unpack(msg)
   for i, loan in ipairs(self.lent) do
      if loan.req == head.req and loan.node == head.node and loan.n == head.n then
         unpin(self, loan.slots, loan.n)
         table.remove(self.lent, i)
         break
      end
   end
   give_waiting(self)
end

-- ---- decode -------------------------------------------------------------

local decode = { peers = Node.on_peers, finish = Node.on_finish }

-- Pin the blocks that are there; then find room for the others. Undone if there is none.
local function place(self, r)
   local index, pinned = self.index, {}
   for i = 0, r.n - 1 do
      local slot = index:find(r.ids[i])
      r.slots[i] = slot or -1
      if slot then
         index:pin(slot)
         pinned[#pinned + 1] = slot
      end
   end
   for i = 0, r.n - 1 do
      if r.slots[i] < 0 then
         local slot = index:find(r.ids[i])
         if not slot then
            slot = index:insert(r.ids[i])
            if slot then self.state[slot] = EMPTY end
         end
         if not slot then
            for _, s in ipairs(pinned) do index:unpin(s) end
            return false
         end
         index:pin(slot)
         pinned[#pinned + 1], r.slots[i] = slot, slot
      end
   end
   return true
end

local function finish(self, r)
   for i = 0, r.n - 1 do self.index:unpin(r.slots[i]) end
   self.active[r.req] = nil
   self.n_active = self.n_active - 1
   if r.why then
      check(self.e:notify(self.master, "failed",
         pack(r.req, 0, self.opt.index, 0) .. r.why))
   else
      local done = ffi.new("struct replay_done", r.req, r.moved * self.opt.block,
         r.ready_us, r.moved, r.n - r.moved, self.opt.verify and r.n or 0, r.bad)
      check(self.e:notify(self.master, "done", ffi.string(done, ffi.sizeof(done))))
   end
end

-- Compare each block with what it should be, made anew beside it.
local function verify(self, r)
   local len, want = self.opt.block, self.scratch
   for i = 0, r.n - 1 do
      C.mc_fill(want, len, self:content(r.ids[i]))
      local got = ffi.cast("const void *", self:at(r.slots[i]))
      if C.replay_memcmp(got, want, len) ~= 0 then
         r.bad = r.bad + 1
         self.state[r.slots[i]] = EMPTY
      end
   end
end

-- All that the request waited for has come, or failed.
local function complete(self, r)
   r.ready_us = tonumber(C.mc_now_ns() - r.sent_ns) / 1000
   if not r.why and self.opt.verify then verify(self, r) end
   finish(self, r)
end

local function release_one(self, r)
   r.left = r.left - 1
   if r.left == 0 then complete(self, r) end
end

-- The request's own blocks are there: so they are for those that waited for them.
local function loaded(self, r)
   for i = 0, r.n - 1 do
      local slot = r.slots[i]
      if self.loader[slot] == r then
         self.loader[slot], self.state[slot] = nil, r.why and EMPTY or READY
      end
   end
   for _, follower in ipairs(r.followers) do
      follower.why = follower.why or r.why
      release_one(self, follower)
   end
   release_one(self, r)
end

local function part_done(self, req, why)
   local r = self.active[tonumber(req)]
   r.why = r.why or why
   r.parts = r.parts - 1
   if r.parts == 0 then loaded(self, r) end
end

-- Ask for the blocks in the list, in as many messages as they need.
local function ask(self, r, want, n)
   r.parts = math.ceil(n / wire.block_limit)
   for part = 0, r.parts - 1 do
      local first = part * wire.block_limit
      local ok, why = self.e:notify(self.peers[r.prefill], "want", pack(r.req, r.sent_ns,
         self.opt.index, math.min(wire.block_limit, n - first), want + first, block_size))
      if not ok then part_done(self, r.req, why) end
   end
end

-- What the request lacks, and whom it has to wait for who is loading it already.
local function lacking(self, r)
   local want, n, waits = ffi.new("struct replay_block[?]", r.n), 0, {}
   for i = 0, r.n - 1 do
      local slot = r.slots[i]
      local loader = self.loader[slot]
      if self.state[slot] == EMPTY then
         self.state[slot], self.loader[slot] = LOADING, r
         want[n].id, want[n].to = r.ids[i], self:at(slot)
         n = n + 1
      elseif loader and loader ~= r and not waits[loader] then
         waits[loader] = true
         loader.followers[#loader.followers + 1] = r
         r.left = r.left + 1
      end
   end
   return want, n
end

local function begin(self, r)
   self.active[r.req] = r
   self.n_active = self.n_active + 1
   local want, n = lacking(self, r)
   r.moved = n
   if n == 0 then
      release_one(self, r)
   else
      ask(self, r, want, n)
   end
end

-- Begin what waits, in order, as far as there is room.
local function begin_waiting(self)
   while self.queue[1] do
      local r = self.queue[1]
      if not place(self, r) then
         if self.n_active > 0 then return end
         r.why = ("%d blocks, and the pool has %d: give a larger --pool or a smaller "
            .. "--scale"):format(r.n, self.slots)
         r.n, self.active[r.req], self.n_active = 0, r, 1
         finish(self, r)
      else
         begin(self, r)
      end
      table.remove(self.queue, 1)
   end
end

-- A request to decode: its number, its prefill node, the ids of its blocks.
function decode.request(self, msg)
   local head, ids = wire.unpack(msg, "const uint64_t *")
   self.queue[#self.queue + 1] = { req = tonumber(head.req), sent_ns = head.sent_ns,
      prefill = head.node, n = head.n, ids = ids, text = msg, left = 1, bad = 0,
      moved = 0, followers = {}, slots = ffi.new("int32_t[?]", head.n) }
   begin_waiting(self)
end

function decode.ready(self, msg)
   part_done(self, wire.unpack(msg).req)
   begin_waiting(self)
end

function decode.failed(self, msg)
   part_done(self, wire.unpack(msg).req, msg:sub(head_size + 1))
   begin_waiting(self)
end

-- With --pull: the blocks lie there; read them and say so.
function decode.here(self, msg)
   local head, blocks = wire.unpack(msg, "const struct replay_block *")
   local peer = self.peers[head.node]
   local ok, why = self:move(C.MC_READ, peer, blocks, head.n)
   check(self.e:notify(peer, "release", pack(head.req, 0, self.opt.index, head.n)))
   part_done(self, head.req, not ok and why or nil)
   begin_waiting(self)
end

local opt = assert(json.decode(arg[1]))
local started, node = pcall(start_node, opt)
if not started then
   print("failed " .. tostring(type(node) == "table" and node.user or node))
   return 1
end
if opt.role == "decode" then
   node.scratch = ffi.new("uint8_t[?]", opt.block)
   node.queue, node.active, node.n_active, node.loader = {}, {}, 0, {}
else
   node.queue, node.lent = {}, {}
end
local ok, why = xpcall(function()
   node:serve(opt.role == "decode" and decode or prefill)
end, function(e)
   return type(e) == "table" and e or { user = debug.traceback(tostring(e), 2) }
end)
-- Without the process that started us nothing can be said to it, which is no news.
if not ok and not proc.wait_readable(0, 0) then error(why, 0) end
node.e:close()
