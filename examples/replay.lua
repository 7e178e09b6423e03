-- replay.lua - a trace's KV cache moves between processes: the main job of the system.
--
-- Prefill nodes and decode nodes are processes of their own, each with an engine and a
-- pool of KV blocks. For every request of the trace the decode node says which blocks it
-- lacks and where they should go; the prefill node has them in its pool and writes them
-- there, followed by a notification (or, with --pull, the decode node reads them). What
-- lies in a block is a function of its id and the seed, so the decode node can tell
-- whether every byte of every block of the request is what it should be. Nothing computes
-- attention here: a prefill node "computes" a block by filling it.
--
-- Memory is bounded whatever the trace: it is read as it is replayed, and both pools put
-- out the least recently used block when full.
--
-- The parts: replay/options.lua, replay/node.lua, replay/wire.lua, replay/report.lua.

local ffi = require "ffi"
local bit = require "bit"
local C = require "mooncake.ffi"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local options = require "replay.options"
local proc = require "mooncake.proc"
local report = require "replay.report"
local trace = require "mooncake.trace"
local util = require "mooncake.util"
local wire = require "replay.wire"

local now_us, pack = wire.now_us, wire.pack
local node_script = arg[0]:gsub("[^/]*$", "") .. "replay/node.lua"

local function check(ok, why, ...)
   if not ok then error(why, 0) end
   return ok, why, ...
end

local give_up_after = 3

local Master = {}
Master.__index = Master

local function spawn_node(self, role, index)
   local opt = self.opt
   local spec = { role = role, index = index, master = self.e:addr(), block = opt.block,
      pool = opt.pool, seed = opt.seed, verify = opt.verify, pull = opt.pull or false,
      transport = opt.transport, listen = opt.listen }
   local p = check(proc.spawn { proc.exe(), "run", node_script, json.encode(spec),
      stdin = "pipe", stdout = "pipe", group = true })
   local node = { role = role, index = index, p = p, name = role .. " " .. index }
   self.nodes[#self.nodes + 1] = node
   return node
end

local function start_nodes(self)
   for i = 0, self.opt.prefill - 1 do self.prefill[i] = spawn_node(self, "prefill", i) end
   for i = 0, self.opt.decode - 1 do self.decode[i] = spawn_node(self, "decode", i) end
   local addrs = { prefill = json.array(), decode = json.array() }
   for _, node in ipairs(self.nodes) do
      local line, why = node.p:read_line(10000)
      local addr = line and line:match "^ready (.+)$"
      if not addr then
         why = line and line:match "^failed (.+)$" or line or why
         error(("%s did not start: %s"):format(node.name, why), 0)
      end
      table.insert(addrs[node.role], addr)
      node.segment = check(self.e:segment(addr, 5000))
   end
   for _, node in ipairs(self.nodes) do
      local others = node.role == "prefill" and addrs.decode or addrs.prefill
      check(self.e:notify(node.segment, "peers", json.encode(others)))
   end
end

local function count_error(self, why)
   self.failed = self.failed + 1
   if self.errors[why] then
      self.errors[why] = self.errors[why] + 1
   elseif #self.causes < 20 then
      self.errors[why] = 1
      self.causes[#self.causes + 1] = why
   end
end

local function on_done(self, msg)
   local done = ffi.cast("const struct replay_done *", ffi.cast("const char *", msg))
   self.outstanding, self.done = self.outstanding - 1, self.done + 1
   self.moved, self.reused = self.moved + done.moved, self.reused + done.reused
   self.verified, self.bad = self.verified + done.verified, self.bad + done.bad
   self.bytes = self.bytes + tonumber(done.bytes)
   self.ready:add(done.ready_us)
   self.in_a_row = 0
   if done.bad > 0 then
      count_error(self, ("request %d: %d of %d blocks are not what was sent"):format(
         tonumber(done.req), done.bad, done.verified))
   end
end

-- Take what the nodes have to say, waiting up to @ms for the first of it.
local function listen(self, ms)
   local note = self.e:next_notify(ms)
   while note do
      self.heard = now_us()
      if note.name == "done" then
         on_done(self, note.msg)
      else
         self.outstanding, self.done = self.outstanding - 1, self.done + 1
         self.in_a_row = self.in_a_row + 1
         count_error(self, ("request %d: %s"):format(tonumber(wire.unpack(note.msg).req),
            note.msg:sub(wire.head_size + 1)))
      end
      note = self.e:next_notify(0)
   end
end

-- True while the replay may go on: no signal, no dead node, no silence, no failure
-- that does not end.
local function alive(self)
   if self.stop() then
      self.interrupted = true
      return false
   end
   local now = now_us()
   if now < (self.looked or 0) + 100000 then return true end
   self.looked = now
   for _, node in ipairs(self.nodes) do
      local status = node.p:wait(0)
      if status then error(("%s has ended (status %d)"):format(node.name, status), 0) end
   end
   if self.in_a_row >= give_up_after then
      error(("giving up after %d failed requests in a row"):format(self.in_a_row), 0)
   end
   if self.outstanding > 0 and now > self.heard + 30e6 then
      error(("%d requests under way, and nothing heard for 30 s"):format(
         self.outstanding), 0)
   end
   return true
end

local function progress(self)
   self.bar:update(self.bytes)
end

-- Wait until the request may start: for its time, and for room in the window.
local function wait_turn(self, at_ns)
   local due = self.start
   if self.opt.speed > 0 then
      self.first_ns = self.first_ns or at_ns
      due = due + tonumber(at_ns - self.first_ns) / 1000 / self.opt.speed
   end
   while alive(self) do
      local left = due - now_us()
      if left <= 0 and self.outstanding < self.opt.window then
         self.late_us = math.max(self.late_us, self.opt.speed > 0 and -left or 0)
         return true
      end
      listen(self, left <= 0 and 100 or math.min(100, math.ceil(left / 1000)))
      progress(self)
   end
end

-- Requests that share more than the first block go to the same nodes: that is where the
-- blocks of their session are.
local function dispatch(self, req)
   local n = req.n_blocks
   if n == 0 then
      self.sent, self.done = self.sent + 1, self.done + 1
      return
   end
   if n > wire.id_limit then
      error(("line %d: %d blocks in one request; at most %d can be told in a message")
         :format(tonumber(req.line), n, wire.id_limit), 0)
   end
   local session = bit.rshift(req.blocks[math.min(1, n - 1)] * 0x9e3779b97f4a7c15ULL, 32)
   local p = tonumber(session % self.opt.prefill)
   local d = tonumber(session / self.opt.prefill % self.opt.decode)
   check(self.e:notify(self.decode[d].segment, "request",
      pack(self.sent, C.mc_now_ns(), p, n, req.blocks, 8)))
   self.sent, self.outstanding = self.sent + 1, self.outstanding + 1
end

local function run_trace(self)
   self.start = now_us()
   self.heard = self.start
   while self.sent ~= self.opt.limit do
      local req, why = self.reader:next()
      self.unreadable = why
      if not req or not wait_turn(self, req.at_ns) then break end
      if self.outstanding == 0 then self.heard = now_us() end
      dispatch(self, req)
      listen(self, 0)
      progress(self)
   end
   local patience = self.interrupted and now_us() + 1e6 or math.huge
   while self.outstanding > 0 and now_us() < patience do
      if not self.interrupted and not alive(self) then patience = now_us() + 1e6 end
      listen(self, 100)
      progress(self)
   end
end

-- Ask each node for what it counted, and see it end.
local function stop_nodes(self)
   for _, node in ipairs(self.nodes) do
      if node.segment and not node.p:wait(0) then
         self.e:notify(node.segment, "finish", "")
      end
   end
   for _, node in ipairs(self.nodes) do
      local line = node.segment and node.p:read_line(2000)
      node.report = line and json.decode(line)
      node.p:close_stdin()
      if not node.p:wait(node.report and 2000 or 100) then
         node.p:kill "KILL"
         node.p:wait(1000)
      end
      node.p:close()
   end
end

local function banner(opt, found)
   if opt.json or opt.quiet then return end
   io.stderr:write(("replay: %s: %s; %s KV cache at 1/%.0f: %s a block; %d prefill, %d "
      .. "decode, pools of %s\n"):format(opt.path, found and util.commas(found.requests)
      .. " requests, " .. util.commas(found.blocks) .. " blocks" or "a stream", opt.model,
      1 / opt.scale, util.bytes(opt.block), opt.prefill, opt.decode,
      util.bytes(opt.pool)))
end

local function bar_text(self)
   return function(bar, now)
      local total = self.found and self.found.requests
      return ("%s%s requests  %s moved  %s  %d errors"):format(
         total and ("%3.0f %%  "):format(100 * self.done / math.max(1, total)) or "",
         util.commas(self.done), util.bytes(self.bytes), util.rate(bar:rate(now)),
         self.failed)
   end
end

-- The engine and the nodes; an option that the engine does not take ends the program.
local function start(self, bad)
   local opt, why = self.opt, nil
   self.e, why = mooncake.open { listen = opt.listen .. ":0", transports = opt.transport }
   if not self.e then bad("%s", why) end
   local ok, failure = pcall(start_nodes, self)
   return ok, failure
end

local function end_all(self)
   if self.bar then self.bar:finish() end
   stop_nodes(self)
   self.e:close()
end

-- Without a table: nothing has been moved.
local function gave_up(self, why, status)
   end_all(self)
   if self.stop() then return 130 end
   io.stderr:write("replay: ", tostring(why), "\n")
   return status
end

local function status_of(self, ok)
   if self.interrupted then return 130 end
   if self.unreadable then return 2 end
   return ok and self.failed == 0 and 0 or 1
end

local function new_master(opt, reader, found)
   return setmetatable({ opt = opt, reader = reader, found = found, nodes = {},
      prefill = {}, decode = {}, sent = 0, done = 0, outstanding = 0, failed = 0,
      moved = 0, reused = 0, verified = 0, bad = 0, bytes = 0, late_us = 0, in_a_row = 0,
      ready = wire.hist(), errors = {}, causes = {}, stop = proc.on_sigint() }, Master)
end

local function run_master(args)
   local opt, bad = options.read(args)
   local reader, why = trace.open(opt.path)
   if not reader then bad("%s", why) end
   local found = options.scan(reader, opt, bad)
   options.choose_sizes(opt, found, bad)
   local self = new_master(opt, reader, found)
   local ok, failure = start(self, bad)
   if not ok or self.stop() then return gave_up(self, failure, 1) end
   banner(opt, found)
   self.bar = util.progress { quiet = opt.quiet }
   self.bar.text = bar_text(self)
   ok, failure = pcall(run_trace, self)
   if ok and self.sent == 0 and not self.interrupted then
      return gave_up(self, self.unreadable or "no requests in standard input", 2)
   end
   local seconds = (now_us() - self.start) / 1e6
   end_all(self)
   failure = self.unreadable or not ok and tostring(failure) or nil
   local r = report.results(self, seconds, failure)
   if opt.json then print(json.encode(r)) else report.print(r, opt.verify) end
   return status_of(self, ok)
end

return run_master(arg)
