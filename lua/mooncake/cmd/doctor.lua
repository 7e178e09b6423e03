-- doctor.lua - `mooncake doctor`: what this machine lets the engine do. Every transport
-- is tried for real: engines of two processes move bytes both ways and compare them.

local ffi = require "ffi"
local json = require "mooncake.json"
local machine = require "mooncake.doctor_machine"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local LEN = 2 ^ 20
local TIMEOUT_MS = 3000

-- What to try: a transport, and whose memory is at the far end.
local TRIALS = {
   { "local", "allocated" },
   { "shm", "allocated" },
   { "shm", "foreign" },
   { "rdma", "foreign" },
   { "tcp", "allocated" },
   { "v1", "allocated" },
}

local REMEDY = {
   ["local"] = "report it: nothing of a machine should prevent this",
   shm = "see ptrace scope above; in containers, share the network and pid namespaces",
   rdma = "see the devices above, and memlock",
   tcp = "look at the firewall's rules for 127.0.0.1",
   v1 = "see profile above; it matters only to programs of the public Mooncake",
}

local function open(transport)
   return mooncake.open { listen = "127.0.0.1:0", transports = transport,
                          profile = transport == "v1" and "v1" or "native" }
end

-- ---- the far end -------------------------------------------------------------

-- "foreign" is what the engine is only told of, as a serving framework's memory is.
local MEMORY = {
   allocated = function(engine) return engine:alloc(LEN) end,
   foreign = function(engine)
      return engine:register(ffi.new("uint8_t[?]", LEN), LEN, { access = "rw" })
   end,
}

-- In a process of its own, as peers are: says where its memory is, and waits for the
-- end of stdin.
local function be_far(trial)
   local transport, memory = trial:match "^(%w+),(%w+)$"
   if not MEMORY[memory] then util.fail("--far takes TRANSPORT,MEMORY") end
   local engine = util.check(open(transport))
   local buffer = util.check(MEMORY[memory](engine))
   print(("far %s %.0f"):format(engine:addr(), buffer.addr))
   io.stdout:flush()
   io.read "*a"
   engine:close()
   return 0
end

local function start_far(transport, memory)
   local p, err = proc.spawn {
      proc.exe(), "doctor", "--far", transport .. "," .. memory,
      stdin = "pipe", stdout = "pipe", stderr = "stdout",
   }
   if not p then return nil, err end
   local line, why = p:read_line(TIMEOUT_MS)
   local addr, remote = (line or ""):match "^far (%S+) (%d+)$"
   if addr then return { process = p, addr = addr, remote = tonumber(remote) } end
   p:kill "KILL"
   p:wait()
   p:close()
   return nil, "the second process: " .. (line or why)
end

local function end_far(far)
   far.process:close_stdin()
   if not far.process:wait(TIMEOUT_MS) then
      far.process:kill "KILL"
      far.process:wait()
   end
   far.process:close()
end

-- ---- the near end ------------------------------------------------------------

-- Write a pattern, put another in its place here, read, and compare. The seconds that
-- the two moves took, or nil and what went wrong.
local function both_ways(segment, near, remote, seed)
   local opts = { timeout_ms = TIMEOUT_MS }
   local hash, start = near:fill(seed):hash(), mooncake.now()
   local n, err = segment:write(near, remote, LEN, opts)
   if not n then return nil, "write: " .. err end
   local write_s = mooncake.now() - start
   near:fill(seed + 1)
   start = mooncake.now()
   n, err = segment:read(near, remote, LEN, opts)
   if not n then return nil, "read: " .. err end
   local read_s = mooncake.now() - start
   if near:hash() ~= hash then return nil, "read: not the bytes that were written" end
   return write_s + read_s
end

-- The rails that moved bytes, and the reasons of those that could not.
local function rails(engine)
   local used, absent = {}, {}
   for _, r in ipairs(engine:rails() or {}) do
      if r.bytes_read + r.bytes_written > 0 then
         used[#used + 1] = r.transport
      elseif r.why ~= "" then
         absent[#absent + 1] = r.why
      end
   end
   return table.concat(used, ", "), table.concat(absent, "; ")
end

local function attempt(engine, addr, remote)
   local near, err = engine:alloc(LEN)
   if not near then return nil, err end
   local segment
   segment, err = engine:segment(addr, TIMEOUT_MS)
   if not segment then return nil, err end
   local s
   s, err = both_ways(segment, near, remote, 1)
   -- The first time connects; the second is the one that counts.
   if s then s, err = both_ways(segment, near, remote, 3) end
   local used, absent = rails(engine)
   if s then return { us = s * 1e6, rail = used } end
   if absent ~= "" and not err:find(absent, 1, true) then err = err .. "; " .. absent end
   return nil, err
end

-- ---- transports ------------------------------------------------------------

local function with_far(transport, memory, engine)
   local far, err = start_far(transport, memory)
   if not far then return nil, err end
   local result
   result, err = attempt(engine, far.addr, far.remote)
   end_far(far)
   return result, err
end

local function try(transport, memory)
   local engine, err = open(transport)
   if not engine then return nil, err end
   local result
   if transport == "local" then
      local own
      own, err = MEMORY[memory](engine)
      if own then result, err = attempt(engine, engine:addr(), own.addr) end
   else
      result, err = with_far(transport, memory, engine)
   end
   engine:close()
   return result, err
end

-- Engines find each other through loopback, whatever then moves the bytes.
local function remedy(transport, checks)
   for _, c in ipairs(checks) do
      if c.name == "loopback" and c.state ~= "ok" then return "see loopback above" end
   end
   return REMEDY[transport]
end

-- Each as { name, memory, state, detail, remedy, rail, us }.
local function transports(checks)
   local list, no_rdma = {}, #machine.rdma_ports() == 0
   for _, trial in ipairs(TRIALS) do
      local name, memory = trial[1], trial[2]
      if name == "rdma" and no_rdma then goto skip end
      local result, err = try(name, memory)
      local c = { name = name, memory = memory, state = result and "ok" or "missing" }
      if result then
         c.rail, c.us = result.rail, result.us
         c.detail = ("%s memory: 1 MiB written and read back in %s, equal, by rail %s")
                    :format(memory, util.duration(c.us / 1e6), c.rail)
      else
         c.detail, c.remedy = memory .. " memory: " .. err, remedy(name, checks)
      end
      list[#list + 1] = c
      ::skip::
   end
   return list
end

-- ---- the command -----------------------------------------------------------

local function show(title, list)
   print(title)
   for _, c in ipairs(list) do
      print(("  %-8s %-13s %s"):format(c.state, c.name, c.detail))
      if c.remedy then print(("  %-8s %-13s -> %s"):format("", "", c.remedy)) end
   end
end

local function run(opt)
   if opt.far ~= "" then return be_far(opt.far) end
   local checks = machine.checks()
   if opt.join then checks[#checks + 1] = machine.registry_at(opt.join) end
   local report = { machine = checks, transports = transports(checks) }
   local status = 1
   for _, c in ipairs(report.transports) do
      if c.name == "tcp" and c.state == "ok" then status = 0 end
   end
   if opt.json then
      report.version = mooncake.version()
      report.usable = status == 0
      print(json.encode(report))
   else
      show("machine", report.machine)
      print()
      show("transports", report.transports)
   end
   return status
end

return {
   usage = "doctor [OPTIONS]",
   summary = "what works on this machine, what does not, and the remedy",
   help = [[
Looks at the limits, kernel switches, libraries and devices that transfers depend on,
then tries each transport: two processes on this host move 1 MiB there and back.

  ok       works
  warn     works, but costs speed or fails under load
  missing  does not work here; the line with the arrow says what would change that

Ends with status 0 if tcp, which everything can fall back to, works; else 1.]],
   options = {
      join = { nil, "try this registry too", "URL" },
      json = { false, "print one JSON object" },
      far = { "", "be the second process of a trial; doctor starts it so", "TRIAL",
              hidden = true },
   },
   run = run,
}
