-- report.lua - what replay.lua says at the end: a table, or one JSON object.

local json = require "mooncake.json"
local util = require "mooncake.util"
local wire = require "replay.wire"

local report = {}

-- ---- results ------------------------------------------------------------

local function sum_reports(self)
   local moved, busy, rails, by = 0, 0, json.array(), {}
   local transfers = wire.hist()
   for _, node in ipairs(self.nodes) do
      for _, rail in ipairs(node.report and node.report.rails or {}) do
         local sum = by[rail.transport]
         if rail.bytes > 0 and not sum then
            sum = { transport = rail.transport, bytes = 0, rails = 0, errors = 0 }
            by[rail.transport], rails[#rails + 1] = sum, sum
         end
         if rail.bytes > 0 then
            sum.bytes, sum.rails = sum.bytes + rail.bytes, sum.rails + 1
            sum.errors = sum.errors + rail.errors
         end
      end
      if node.report then
         moved, busy = moved + node.report.bytes, busy + node.report.busy_us
         transfers:merge(node.report.transfers)
      end
   end
   return transfers, busy > 0 and moved / busy / 1000 or 0, rails
end

local function percentiles(h)
   if h.n == 0 then return json.null end
   return { p50 = h:percentile(50) / 1000, p99 = h:percentile(99) / 1000 }
end

function report.results(self, seconds, why)
   local transfers, busy_rate, rails = sum_reports(self)
   local errors = json.array()
   for _, cause in ipairs(self.causes) do
      errors[#errors + 1] = { error = cause, count = self.errors[cause] }
   end
   if why then errors[#errors + 1] = { error = why, count = 1 } end
   local opt = self.opt
   return { trace = opt.path, model = opt.model, scale = opt.scale,
      block_bytes = opt.block, pool_bytes = opt.pool,
      prefill = opt.prefill, decode = opt.decode,
      direction = opt.pull and "pull" or "push", requests = self.done,
      requests_of = self.found and self.found.requests or json.null,
      blocks_moved = self.moved, blocks_reused = self.reused,
      blocks_verified = self.verified, blocks_bad = self.bad, bytes = self.bytes,
      seconds = seconds, gb_per_s = self.bytes / seconds / 1e9,
      transfer_gb_per_s = busy_rate, kv_ready_ms = percentiles(self.ready),
      transfer_ms = percentiles(transfers), late_s = self.late_us / 1e6, rails = rails,
      failed = self.failed + (why and 1 or 0), errors = errors,
      interrupted = self.interrupted or false }
end

local function spread(p)
   if p == json.null then return "-" end
   return ("p50 %s, p99 %s"):format(util.duration(p.p50 / 1000),
      util.duration(p.p99 / 1000))
end

function report.print(r, verify)
   local blocks = r.blocks_moved + r.blocks_reused
   local rails = {}
   for i, rail in ipairs(r.rails) do
      rails[i] = ("%s: %s over %d rail%s"):format(rail.transport, util.bytes(rail.bytes),
         rail.rails, rail.rails == 1 and "" or "s")
   end
   local of = r.requests_of ~= json.null and " of " .. util.commas(r.requests_of) or ""
   local rows = {
      { "requests", util.commas(r.requests) .. of
         .. (r.interrupted and ", interrupted" or "") },
      { "blocks moved", ("%s of %s: %.2f GB"):format(util.commas(r.blocks_moved),
         util.bytes(r.block_bytes), r.bytes / 1e9) },
      { "blocks reused", ("%s (%.1f %%)"):format(util.commas(r.blocks_reused),
         100 * r.blocks_reused / math.max(1, blocks)) },
      { "blocks verified", not verify and "not asked for" or ("%s, %s wrong"):format(
         util.commas(r.blocks_verified), util.commas(r.blocks_bad)) },
      { "time", util.duration(r.seconds) },
      { "rate", ("%.2f GB/s in all, %.2f GB/s within a transfer"):format(r.gb_per_s,
         r.transfer_gb_per_s) },
      { "time to KV ready", spread(r.kv_ready_ms) },
      { "of that, transfer", spread(r.transfer_ms) },
      { "rails used", #rails > 0 and table.concat(rails, "; ") or "none" },
      { "errors", util.commas(r.failed) },
   }
   if r.late_s > 0.1 then
      table.insert(rows, 6, { "behind the trace", "at most " .. util.duration(r.late_s) })
   end
   print(util.table(nil, rows, "ll"))
   for _, e in ipairs(r.errors) do
      local times = e.count > 1 and (" (%d times)"):format(e.count) or ""
      print("  " .. e.error .. times)
   end
end

return report
