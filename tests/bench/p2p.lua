-- p2p.lua - how long it takes until a number of nodes have an object, over links of a
-- given rate: `make bench-p2p`, or
--
--   mooncake run tests/bench/p2p.lua --receivers 8 --mode stream --json
--
-- Each node is a process in a network namespace of its own, with one link, limited by tbf
-- in both directions; the registry is a real etcd. Modes: stream is the store; naive, all
-- read from the source; whole, a node is read from once it has all, so that the number of
-- those who have it doubles in each round.

local cli = require "mooncake.cli"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local net = require "p2p_net"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local HERE = arg[0]:match "^(.*)/" or "."
local OBJECT = "bench/object"

-- ---- processes -------------------------------------------------------------

local Node = {}
Node.__index = Node

function Node:say(line) util.check(self.p:write(line .. "\n")) end

function Node:hear(ms)
   local line, why = self.p:read_line(ms or 120000)
   if not line then util.fail("%s: no answer: %s", self.label, why) end
   return json.decode(line)
end

function Node:ask(line, ms)
   self:say(line)
   return self:hear(ms)
end

local function start_node(run, i)
   local words = { proc.exe(), "run", HERE .. "/p2p_node.lua", run.net:addr(i), run.url,
                   OBJECT, ("%d"):format(run.bytes), ("%d"):format(run.shard),
                   tostring(run.parallel or 0), stdin = "pipe", stdout = "pipe" }
   local p = util.check(proc.spawn(run.net:within(i, words)))
   return setmetatable({ p = p, label = "node " .. i, i = i }, Node)
end

local function wait_for(seconds, f)
   local stop = mooncake.now() + seconds
   while not f() do
      if mooncake.now() > stop then return nil end
      mooncake.sleep(50)
   end
   return true
end

local function start_registry(run, kind)
   local at = run.net:addr "h"
   run.dir = proc.run { "mktemp", "-d" }:gsub("\n", "")
   local words = { proc.exe(), "serve", "--registry", at .. ":2379", "--quiet",
                   "--state", run.dir .. "/state", "--listen", at .. ":0",
                   stdout = "/dev/null" }
   run.url = ("http://%s:2379/metadata"):format(at)
   if kind == "etcd" then
      local client = ("http://%s:2379"):format(at)
      words = { "etcd", "--data-dir", run.dir .. "/etcd", "--listen-client-urls", client,
                "--advertise-client-urls", client, "--listen-peer-urls",
                "http://127.0.0.1:2380", "--log-level", "error", "--unsafe-no-fsync",
                stdout = "/dev/null", stderr = "/dev/null" }
      run.url = "etcd://" .. at .. ":2379"
   end
   run.registry = util.check(proc.spawn(run.net:within("h", words)))
   -- It is there when a process in a namespace can use it.
   local probe = { proc.exe(), "p2p", "list", "--registry", run.url,
                   stderr = "/dev/null" }
   util.check(wait_for(15, function()
      local _, status = proc.run(run.net:within("h", probe))
      return status == 0
   end), "the registry does not answer")
end

local function start(opt, n)
   local run = { bytes = opt.size, shard = opt.shard, parallel = opt.parallel,
                 nodes = {} }
   local rates = {}
   if opt.slow then rates[n + 1] = opt.slow end
   run.net = util.check(net.open(n + 1, opt.rate, rates))
   start_registry(run, opt.registry)
   for i = 1, n + 1 do run.nodes[i] = start_node(run, i) end
   for _, node in ipairs(run.nodes) do node:hear(20000) end
   return run
end

local function stop(run)
   for _, node in ipairs(run.nodes) do
      if not node.p.status then
         node.p:kill "KILL"
         node.p:wait(5000)
      end
      node.p:close()
   end
   if run.registry then
      run.registry:kill "KILL"
      run.registry:wait(5000)
   end
   if run.dir then os.execute("rm -rf " .. run.dir) end
   run.net:close()
end

-- ---- modes -----------------------------------------------------------------

local modes = {}

-- Answers of those that are not killed.
local function gather(run, count, opt)
   local list = {}
   local third = opt.kill and math.max(1, math.floor(count / 3)) or 0
   if third > 0 then mooncake.sleep(opt.line_s * opt.kill * 1000) end
   for i = 2, third + 1 do
      run.nodes[i].p:kill "KILL"
      run.nodes[i].p:wait(5000)
   end
   for i = 2 + third, count + 1 do list[#list + 1] = run.nodes[i]:hear() end
   return list, third
end

function modes.stream(run, count, opt)
   run.nodes[1]:ask "put"
   for i = 2, count + 1 do run.nodes[i]:say "get" end
   return gather(run, count, opt)
end

local function offer(run)
   for _, node in ipairs(run.nodes) do node.at = node:ask "open" end
end

local function read(run, node, parent)
   local at = run.nodes[parent].at
   node:say(("from %s %d"):format(at.segment, at.addr))
end

function modes.naive(run, count, opt)
   run.nodes[1]:ask "put"
   offer(run)
   for i = 2, count + 1 do read(run, run.nodes[i], 1) end
   return gather(run, count, opt)
end

function modes.whole(run, count)
   run.nodes[1]:ask "put"
   offer(run)
   local have, list, elapsed = 1, {}, 0
   while have < count + 1 do
      local now, longest = math.min(have, count + 1 - have), 0
      for k = 1, now do read(run, run.nodes[have + k], k) end
      for k = 1, now do
         local r = run.nodes[have + k]:hear()
         longest = math.max(longest, r.seconds)
         list[#list + 1] = r
      end
      elapsed, have = elapsed + longest, have + now
      for k = #list - now + 1, #list do list[k].seconds = elapsed end
   end
   return list, 0
end

-- ---- results ---------------------------------------------------------------

local function same_bytes(run, killed)
   local want = run.nodes[1]:ask("hash").hash
   for i = 2 + killed, #run.nodes do
      if run.nodes[i]:ask("hash").hash ~= want then
         util.fail("%s has other bytes", run.nodes[i].label)
      end
   end
end

local function result(run, opt, mode, count, list, killed, sent)
   local line_s, worst, busy, wasted, failed = opt.line_s, 0, math.huge, 0, 0
   for k, r in ipairs(list) do
      local slow = opt.slow and k == #list
      if not slow then
         worst = math.max(worst, r.seconds)
         busy = math.min(busy, r.received * 8 / (opt.rate * 1e6) / r.seconds)
      end
      wasted, failed = wasted + (r.wasted or 0), failed + (r.failed or 0)
   end
   return {
      mode = mode, receivers = count, seconds = worst, line_rate_seconds = line_s,
      ratio = worst / line_s, source_bytes_ratio = sent / run.bytes,
      min_link_busy = busy, killed = killed, wasted_ratio = wasted / run.bytes / count,
      failed = failed, rate_mbit = opt.rate, bytes = run.bytes, shard_bytes = run.shard,
      registry = opt.registry,
   }
end

local function measure(opt, mode, count)
   local run = start(opt, count)
   local ok, r = pcall(function()
      local before = run.nodes[1]:ask("sent").sent
      local list, killed = modes[mode](run, count, opt)
      local sent = run.nodes[1]:ask("sent").sent - before
      same_bytes(run, killed)
      return result(run, opt, mode, count, list, killed, sent)
   end)
   stop(run)
   if not ok then error(r, 0) end
   return r
end

local function show(r)
   return { r.mode, r.receivers, ("%.2f"):format(r.seconds),
            ("%.2f"):format(r.line_rate_seconds), ("%.2f"):format(r.ratio),
            ("%.2f"):format(r.source_bytes_ratio),
            ("%.0f %%"):format(r.min_link_busy * 100),
            r.killed > 0 and ("%d killed"):format(r.killed) or nil }
end

local function numbers(text)
   local list = {}
   for word in text:gmatch "[^,]+" do
      list[#list + 1] = tonumber(word) or util.fail("'%s' is no number", word)
   end
   return list
end

local function run(opt)
   local missing = net.missing()
   if missing then
      print("skipped: " .. missing)
      return 77
   end
   opt.line_s = opt.size * 8 / (opt.rate * 1e6)
   local rows = {}
   for mode in opt.mode:gmatch "[^,]+" do
      if not modes[mode] then util.fail("'%s' is no mode", mode) end
      for _, count in ipairs(numbers(opt.receivers)) do
         local r = measure(opt, mode, count)
         rows[#rows + 1] = show(r)
         if opt.json then
            print(json.encode(r))
            io.stdout:flush()
         end
      end
   end
   if opt.json then return 0 end
   print(("%s in shards of %s, links of %d Mbit/s"):format(util.bytes(opt.size),
                                                        util.bytes(opt.shard), opt.rate))
   util.print_table({ "MODE", "NODES", "SECONDS", "LINE RATE", "RATIO", "SOURCE SENT",
                      "LINK BUSY", "" }, rows)
   return 0
end

local bench = {
   usage = "bench-p2p [OPTIONS]",
   help = [[
SECONDS until the last receiver has all; LINE RATE, the object's bits over the link's;
RATIO of the two; SOURCE SENT, in copies, headers and all; LINK BUSY, of the receiver's
link that was so least, from its start to its end.]],
   options = {
      receivers = { "1,2,4,8,16", "how many nodes fetch it", "N,..." },
      mode = { "stream,naive,whole", "how", "MODE,..." },
      rate = { 400, "of each link, in Mbit/s", "MBIT" },
      size = { 268435456, "of the object", "BYTES" },
      shard = { 262144, "of a shard", "BYTES" },
      parallel = { nil, "shards on their way to a node", "N", number = true },
      kill = { nil, "kill a third of the receivers after that part of the line-rate time",
               "PART", number = true },
      slow = { nil, "the last receiver's link has only so much", "MBIT", number = true },
      registry = { "etcd", "etcd or http", "KIND" },
      json = { false, "one object a line" },
   },
   run = run,
}

return cli.call(bench, arg, 1)
