-- engines.lua - what the REPL shows of the engines of a process: peers(), rails(),
-- buffers(), counters(), probe(). Each returns text; weak, so that no engine is kept.

local util = require "mooncake.util"

local engines = {}

local all = setmetatable({}, { __mode = "k" })
local count = 0

-- Called by whoever opens an engine.
function engines.add(e)
   count = count + 1
   all[e] = count
end

-- The open ones, oldest first.
function engines.list()
   local list = {}
   for e in pairs(all) do
      if e.c then list[#list + 1] = e end
   end
   table.sort(list, function(a, b) return all[a] < all[b] end)
   return list
end

-- rows(e) of every engine under one head; with several engines, each with its name. What
-- more(e) says comes below.
local function tabulate(head, rows, more)
   local list, out = engines.list(), {}
   if #list == 0 then return "no engine is open; see mooncake.open" end
   for _, e in ipairs(list) do
      local r = rows(e)
      local title = #list > 1 and e:name() .. "\n" or ""
      out[#out + 1] = title .. (#r > 0 and util.table(head, r) or "none")
      out[#out + 1] = more and more(e)
   end
   return table.concat(out, "\n")
end

-- Connections that others made to an engine; with `each` every one, else by engine.
local function connected(e, each)
   local rows, by = {}, {}
   for _, c in ipairs(e:connections() or {}) do
      local row = not each and by[tostring(c.epoch)]
      if not row then
         row = { peer = c.peer, from = c.from, n = 0, age = 0, read = 0, written = 0 }
         rows[#rows + 1], by[tostring(c.epoch)] = row, row
      end
      row.n, row.age = row.n + 1, math.max(row.age, c.age)
      row.read, row.written = row.read + c.bytes_out, row.written + c.bytes_in
   end
   if #rows == 0 then return nil end
   for i, r in ipairs(rows) do
      rows[i] = { r.peer, each and r.from or r.n, util.duration(r.age),
                  util.bytes(r.read), util.bytes(r.written) }
   end
   return "\nconnected to it, and what they took and brought\n" .. util.table(
      { "peer", each and "from" or "connections", "for", "out", "in" }, rows)
end

-- The engines whose segments are open here, and those that have ours open.
function engines.peers()
   local head = { "id", "peer", "address", "buffers", "bytes", "rails up" }
   return tabulate(head, function(e)
      local rows, up = {}, {}
      for _, r in ipairs(e:rails() or {}) do
         up[r.segment] = (up[r.segment] or 0) + (r.state == "up" and 1 or 0)
      end
      for _, s in ipairs(e:segments()) do
         local i = s:stat() or { addr = "?", buffers = 0, bytes = 0 }
         rows[#rows + 1] = { s.id, s.name, i.addr, i.buffers, util.bytes(i.bytes),
                             up[s.id] or 0 }
      end
      return rows
   end, connected)
end

local function or_dash(s) return s ~= "" and s or "-" end

-- Which end the errors of a rail speak of: "rail rxe1 -> node2:7000/rxe0: 1,541 errors,
-- all with local rxe1".
function engines.fault(r)
   local ours, n = r.local_errors, r.errors
   local share = ours == n and "all" or ours == 0 and "none" or util.commas(ours)
   return ("rail %s -> %s: %s error%s, %s with local %s"):format(r.local_dev,
      or_dash(r.remote_dev), util.commas(n), n == 1 and "" or "s", share, r.local_dev)
end

local function faults(e)
   local out = {}
   for _, r in ipairs(e:rails() or {}) do
      if r.errors > 0 and r.state ~= "absent" then out[#out + 1] = engines.fault(r) end
   end
   if #out == 0 then return nil end
   return "\n" .. table.concat(out, "\n")
end

function engines.rails()
   local head = { "peer", "rail", "to", "state", "read", "written", "slices", "errors",
                  "rate", "latency", "why" }
   return tabulate(head, function(e)
      local rows = {}
      for _, r in ipairs(e:rails() or {}) do
         local name = r.transport
         local dev = r.local_dev
         if dev ~= "" and dev ~= name then name = name .. " " .. dev end
         rows[#rows + 1] = {
            r.peer, name, or_dash(r.remote_dev), r.state, util.bytes(r.bytes_read),
            util.bytes(r.bytes_written), r.slices, r.errors, util.rate(r.bw),
            util.duration(r.latency_us / 1e6), or_dash(r.why),
         }
      end
      return rows
   end, function(e)
      local out = { faults(e) }
      out[#out + 1] = connected(e, true)
      return #out > 0 and table.concat(out, "\n") or nil
   end)
end

function engines.buffers()
   return tabulate({ "address", "bytes", "access", "location", "id" }, function(e)
      local rows = {}
      for _, b in ipairs(e:buffers() or {}) do
         rows[#rows + 1] = { ("0x%x"):format(b.addr), util.bytes(b.len), b.access,
                             b.location, b.id }
      end
      return rows
   end)
end

function engines.segments() return engines.peers() end

local function sorted(t)
   local keys = {}
   for k in pairs(t) do keys[#keys + 1] = k end
   table.sort(keys)
   return keys
end

function engines.counters()
   return tabulate(nil, function(e)
      local stats, rows = e:stats() or {}, {}
      for _, k in ipairs(sorted(stats)) do
         local n = stats[k]
         local sized = n >= 1024 and (k:find "^bytes_" or k:find "^served_")
         rows[#rows + 1] = { k, util.commas(n), sized and util.bytes(n) or nil }
      end
      return rows
   end)
end

-- Round trips to a peer, by the first engine: "median of 5: 31.2 us".
function engines.probe(peer)
   local e = engines.list()[1]
   if not e then return "no engine is open; see mooncake.open" end
   local s, why = e:segment(type(peer) == "table" and peer.name or peer)
   if not s then return why end
   local times = {}
   for i = 1, 5 do
      times[i], why = s:probe()
      if not times[i] then return why end
   end
   table.sort(times)
   return ("%s: round trip %s, best %s of 5"):format(
      s.name, util.duration(times[3] / 1e6), util.duration(times[1] / 1e6))
end

-- ---- tracing ---------------------------------------------------------------

-- Counters of all engines together, to be compared later.
function engines.totals()
   local sum = {}
   for _, e in ipairs(engines.list()) do
      for k, v in pairs(e:stats() or {}) do sum[k] = (sum[k] or 0) + v end
   end
   return sum
end

-- What has changed since, on one line: "bytes_written +4096  requests +1".
function engines.changes(before)
   local after, out = engines.totals(), {}
   for _, k in ipairs(sorted(after)) do
      local d = after[k] - (before[k] or 0)
      if d ~= 0 then out[#out + 1] = ("%s %+d"):format(k, d) end
   end
   return table.concat(out, "  ")
end

return engines
