-- sim_table.lua - a result of mooncake.sim as text for people.

local util = require "mooncake.util"

local M = {}

local COLUMNS = { "mean", "min", "p50", "p75", "p90", "p95", "p99", "max", "std" }

local TIMES = {
   { "ttft_s", "TTFT" }, { "ttst_s", "TTST" }, { "tbt_s", "TBT" }, { "itl_s", "ITL" },
   { "e2e_s", "end to end" }, { "queue_s", "queue" },
}

local function time(x)
   return x == nil and "-" or x == 0 and "0" or util.duration(x)
end

local function percent(x) return ("%.1f %%"):format(100 * x) end

M.percent, M.time = percent, time

-- Head and rows of the distributions.
function M.times(r)
   local rows = {}
   for i, t in ipairs(TIMES) do
      rows[i] = { t[2] }
      for c, name in ipairs(COLUMNS) do rows[i][c + 1] = time(r[t[1]][name]) end
   end
   local user = { "tokens/s" }
   for c, name in ipairs(COLUMNS) do
      local x = r.user_tokens_per_s[name]
      user[c + 1] = x and ("%.1f"):format(x) or "-"
   end
   rows[#rows + 1] = user
   return { head = { "", unpack(COLUMNS) }, rows = rows }
end

local function times(r)
   local t = M.times(r)
   return util.table(t.head, t.rows, "lrrrrrrrrr")
end

local function counts(r)
   local parts = { util.commas(r.completed) .. " completed" }
   local function add(n, what)
      if n > 0 then parts[#parts + 1] = util.commas(n) .. " " .. what end
   end
   add(r.rejected_arrival, "refused at arrival")
   add(r.rejected_after_prefill, "refused after their prefill")
   add(r.unfinished, "unfinished")
   return ("%s: %s"):format(util.commas(r.requests), table.concat(parts, ", "))
end

local function goodput(r)
   local parts = {}
   for _, name in ipairs { "ttft", "tbt", "e2e" } do
      local met = r.slo_met[name]
      if met then
         parts[#parts + 1] = ("%s <= %s: %s"):format(name:upper(), time(r.slo[name]),
                                                     percent(met))
      end
   end
   local all = ("%s of requests, %.3g a second"):format(percent(r.goodput_ratio),
                                                       r.goodput_per_s)
   return #parts > 0 and all .. " (" .. table.concat(parts, ", ") .. ")" or all
end

local function stages(r)
   local parts = {}
   for _, name in ipairs { "fetch", "wait", "prefill", "transfer", "decode" } do
      parts[#parts + 1] = name .. " " .. time(r.stages_s[name])
   end
   return table.concat(parts, ", ")
end

local function hits(r)
   if r.blocks == 0 then return "the trace has no blocks" end
   local text = ("%s of %s blocks: %s where placed, %s from another"):format(
      percent(r.hit_rate), util.commas(r.blocks), percent(r.hit_rate_local),
      percent(r.hit_rate_remote))
   local hot = r.hot_blocks
   if hot.replicas_mean == 0 then return text end
   return text .. ("; the %d hottest lay on up to %.1f instances"):format(hot.blocks,
      hot.replicas_mean)
end

local function gpu(r)
   return ("prefill %s a request, %s in all; decode %s; nodes there for %s"):format(
      time(r.prefill_gpu_s_per_request), time(r.prefill_gpu_s), time(r.decode_gpu_s),
      time(r.node_s))
end

local function links(r)
   local b = r.links.busiest
   local text = ("%s; mean %s, peak %s; busiest instance %d %s, mean %s"):format(
      util.bytes(r.links.bytes), util.rate(r.links.mean_Bps), util.rate(r.links.peak_Bps),
      b.instance, b.way, util.rate(b.mean_Bps))
   return b.use and text .. ", " .. percent(b.use) .. " of its network" or text
end

local function throughput(r)
   local t = r.throughput
   return ("%.3g requests, %s input and %s output tokens a second"):format(
      t.requests_per_s, util.commas(t.input_tokens_per_s),
      util.commas(t.output_tokens_per_s))
end

-- One result.
function M.result(r)
   local rows = {
      { "requests", counts(r) }, { "goodput", goodput(r) },
      { "throughput", throughput(r) }, { "blocks hit", hits(r) },
      { "mean stages", stages(r) }, { "GPU time", gpu(r) }, { "links", links(r) },
   }
   if r.preemptions > 0 then
      rows[#rows + 1] = { "preempted", util.commas(r.preemptions) .. " times" }
   end
   rows[#rows + 1] = { "time", ("%s simulated in %s%s"):format(time(r.span_s),
      time(r.wall_s), r.interrupted and ", INTERRUPTED" or "") }
   return times(r) .. "\n\n" .. util.table(nil, rows, "ll")
end

local SWEEP = {
   { "completed", function(r) return util.commas(r.completed) end },
   { "refused", function(r)
      return util.commas(r.rejected_arrival + r.rejected_after_prefill)
   end },
   { "goodput", function(r) return percent(r.goodput_ratio) end },
   { "TTFT mean", function(r) return time(r.ttft_s.mean) end },
   { "p50", function(r) return time(r.ttft_s.p50) end },
   { "p90", function(r) return time(r.ttft_s.p90) end },
   { "p99", function(r) return time(r.ttft_s.p99) end },
   { "TBT p90", function(r) return time(r.tbt_s.p90) end },
   { "p99", function(r) return time(r.tbt_s.p99) end },
   { "hit rate", function(r) return percent(r.hit_rate) end },
   { "prefill/req", function(r) return time(r.prefill_gpu_s_per_request) end },
}

-- The runs of a sweep, one row each: { head =, rows =, align = }.
function M.sweep_rows(axes, points, runs)
   local head, rows, align = {}, {}, ""
   for i, axis in ipairs(axes) do head[i], align = axis.name, align .. "l" end
   for _, column in ipairs(SWEEP) do
      head[#head + 1], align = column[1], align .. "r"
   end
   for i, r in ipairs(runs) do
      rows[i] = { unpack(points[i]) }
      for _, column in ipairs(SWEEP) do rows[i][#rows[i] + 1] = column[2](r) end
   end
   return { head = head, rows = rows, align = align }
end

function M.sweep(axes, points, runs)
   local t = M.sweep_rows(axes, points, runs)
   return util.table(t.head, t.rows, t.align)
end

return M
