-- sim_report.lua - a simulation, or a sweep of them, as a page with plots.

local plot = require "mooncake.plot"
local tables = require "mooncake.sim_table"
local util = require "mooncake.util"

local report = {}

local POINTS = 300
local percent, time = tables.percent, tables.time

local function rate(v) return util.rate(v) end

-- ---- distributions ---------------------------------------------------------

-- The share of a column below x, as a line of at most POINTS steps.
local function cdf(title, col, slo)
   local x, y = {}, {}
   local n = math.min(POINTS, col.n)
   for i = 1, n do
      x[i], y[i] = math.max(col:quantile(i / n - 0.5 / n), 1e-4), i / n
   end
   return plot.lines { title = title, y = "of the requests that completed",
      series = { { x = x, y = y, step = true } }, log_x = true, x_format = "time",
      x_max = slo and math.max(1.2 * slo, x[n]) or nil,
      y_format = "percent", y_min = 0, y_max = 1,
      marks = slo and { { x = slo, label = "SLO" } } or nil }
end

local STAGES = { "fetch", "wait", "prefill", "transfer", "decode" }

local function stages(r)
   local y = {}
   for i, name in ipairs(STAGES) do y[i] = r.stages_s[name] end
   return plot.bars { title = "Where the time of a request goes", y = "mean",
      labels = STAGES, y_format = "time", series = { { y = y } },
      note = "fetch: until the prefix is there; wait: for the prefill to begin; " ..
             "transfer: from the first token until decoding goes on." }
end

-- ---- over time -------------------------------------------------------------

-- Samples in at most POINTS groups: t = middle; mean(name) and diff(name) are lists of
-- the mean of a field and of how much it grew per second.
local function grouped(detail)
   local n = detail.n_samples
   local size = math.max(1, math.ceil(n / POINTS))
   local g = { t = {} }
   for first = 0, n - 1, size do
      local last = math.min(n, first + size) - 1
      g[#g + 1] = { first, last }
      g.t[#g] = detail.samples[last].at_s
   end
   function g.mean(name)
      local list = {}
      for i, span in ipairs(g) do
         local sum = 0
         for k = span[1], span[2] do sum = sum + tonumber(detail.samples[k][name]) end
         list[i] = sum / (span[2] - span[1] + 1)
      end
      return list
   end
   function g.growth(name)
      local list, before = {}, 0
      for i, span in ipairs(g) do
         local now = tonumber(detail.samples[span[2]][name])
         list[i], before = now - before, now
      end
      return list
   end
   function g.seconds(i) return g.t[i] - (g.t[i - 1] or 0) end
   return g
end

local function lines(g, title, y, list, more)
   local spec = { title = title, x = "simulated time", y = y, x_format = "time",
                  series = {}, x_min = 0, x_max = g.t[#g], y_min = 0 }
   for i, s in ipairs(list) do spec.series[i] = { name = s[1], x = g.t, y = s[2] } end
   for k, v in pairs(more or {}) do spec[k] = v end
   return plot.lines(spec)
end

local function per_second(g, list)
   for i, v in ipairs(list) do list[i] = v / g.seconds(i) end
   return list
end

local function hit_rate(g)
   local hit, all, list = g.growth "hit_tokens", g.growth "input_tokens", {}
   for i = 1, #hit do list[i] = all[i] > 0 and hit[i] / all[i] or 0 / 0 end
   return list
end

local function load_chart(g, slo)
   local both = slo.ttft and slo.tbt
   return lines(g, "Load of the pools", both and "predicted, over SLO" or "predicted",
      { { both and "prefill: TTFT / SLO" or "prefill: seconds in the queue",
          g.mean "prefill_load" },
        { both and "decode: TBT / SLO" or "decode: seconds between tokens",
          g.mean "decode_load" } },
      { y_format = not both and "time" or nil, marks = both and
        { { y = 1, label = "SLO" } } or nil })
end

local function over_time(r, g)
   if #g < 2 then return nil end
   return { title = "Over time", charts = {
      load_chart(g, r.slo),
      lines(g, "Requests in the cluster", "requests", {
         { "in the queue or in prefill", g.mean "queued" },
         { "decoding", g.mean "running" } }),
      lines(g, "Completed and refused", "a second", {
         { "completed", per_second(g, g.growth "completed") },
         { "refused at arrival", per_second(g, g.growth "refused") },
         { "refused after their prefill", per_second(g, g.growth "refused_late") } }),
      lines(g, "Hit rate", "of input tokens", { { nil, hit_rate(g) } },
         { y_format = "percent", y_max = 1 }),
   } }
end

-- ---- instances, blocks -----------------------------------------------------

local MOST_BARS = 64

-- Figures by instance; of many instances as a line from the largest to the smallest.
local function by_instance(title, y, list, series, format)
   local spec = { title = title, y = y, y_format = format, series = {}, labels = {} }
   for i, s in ipairs(series) do
      local ranks, values = {}, {}
      for k, inst in ipairs(list) do
         ranks[k], values[k], spec.labels[k] = k, s[2](inst), inst.label
      end
      spec.series[i] = { name = s[1], y = values, ranks = ranks }
   end
   if #list <= MOST_BARS then return plot.bars(spec) end
   for _, s in ipairs(spec.series) do
      s.x, s.step = s.ranks, true
      table.sort(s.y, function(a, b) return a > b end)
   end
   spec.x, spec.y_min, spec.labels = "instances, from the largest", 0, nil
   return plot.lines(spec)
end

-- With a label each, such as P0; with a cache, or all of them.
local function listed(r, cached)
   local list = {}
   for i, inst in ipairs(r.instances) do
      if not cached or inst.role ~= "decode" then
         local label = inst.role:match("^."):upper() .. i - 1
         list[#list + 1] = setmetatable({ label = label }, { __index = inst })
      end
   end
   return list
end

local function instances(r)
   return { title = "Instances", charts = {
      by_instance("Requests", "requests", listed(r), {
         { "prefilled", function(i) return i.prefills end },
         { "decoded", function(i) return i.decodes end } }),
      by_instance("Cache at the end", "blocks", listed(r, true), {
         { nil, function(i) return i.cached_blocks end } }),
   } }
end

local function network(r, g)
   local charts = {}
   if #g > 1 then
      charts[1] = lines(g, "All links", "sent", { { nil, g.mean "link_Bps" } },
                        { y_format = rate })
   end
   local full = r.links.nic_Bps * r.span_s
   if full > 0 then
      charts[#charts + 1] = by_instance("Links by instance",
         "mean use of " .. rate(r.links.nic_Bps), listed(r), {
         { "out", function(i) return i.out_bytes / full end },
         { "in", function(i) return i.in_bytes / full end } }, "percent")
   end
   return #charts > 0 and { title = "Network", charts = charts } or nil
end

local function hot_blocks(r)
   local list = r.hot_blocks.list
   if #list < 2 then return nil end
   local x, most, last, uses = {}, {}, {}, {}
   for i, block in ipairs(list) do
      x[i], uses[i] = i, block.uses
      most[i], last[i] = block.replicas_most, block.replicas
   end
   return { title = "Hot blocks", charts = {
      plot.lines { title = "Replicas of the hottest blocks", x = "block, by uses",
         y = "instances that have it", y_min = 0, series = {
            { name = "at most, when it was asked for", x = x, y = most, step = true },
            { name = "at the end", x = x, y = last, step = true } } },
      plot.lines { title = "Their uses", x = "block, by uses", y = "requests",
         series = { { x = x, y = uses, step = true } }, log_y = true },
   } }
end

-- ---- one run ---------------------------------------------------------------

local function tiles(r)
   local list = {
      { util.commas(r.completed), "of " .. util.commas(r.requests) .. " completed" },
      { percent(r.goodput_ratio), "goodput" },
      { time(r.ttft_s.p50), "TTFT p50; p99 " .. time(r.ttft_s.p99) },
      { time(r.tbt_s.p50), "TBT p50; p99 " .. time(r.tbt_s.p99) },
      { time(r.e2e_s.p50), "end to end p50; p99 " .. time(r.e2e_s.p99) },
      { percent(r.hit_rate), "blocks hit" },
      { time(r.prefill_gpu_s_per_request), "prefill GPU time a request" },
   }
   local refused = r.rejected_arrival + r.rejected_after_prefill
   if refused > 0 then
      table.insert(list, 3, { util.commas(refused), ("refused, %s of them after their "
         .. "prefill"):format(util.commas(r.rejected_after_prefill)) })
   end
   return list
end

local function options_table(r)
   local names, rows = {}, {}
   for name in pairs(r.options) do names[#names + 1] = name end
   table.sort(names)
   for i, name in ipairs(names) do
      rows[i] = { ("%s = %s"):format(name, tostring(r.options[name])) }
   end
   return { title = "Options", table = { rows = rows } }
end

local function latency(r, f)
   local charts = {}
   if f.ttft_s.n > 0 then
      charts[1] = cdf("Time to first token (TTFT)", f.ttft_s, r.slo.ttft)
   end
   if f.tbt_s.n > 0 then
      charts[#charts + 1] = cdf("Time between tokens (TBT)", f.tbt_s, r.slo.tbt)
   end
   if f.e2e_s.n > 0 then
      charts[#charts + 1] = cdf("End to end", f.e2e_s, r.slo.e2e)
      charts[#charts + 1] = stages(r)
   end
   return { title = "Latency", charts = charts, table = tables.times(r),
      text = "The TBT of a request is the mean of the longest tenth of the intervals " ..
             "between its tokens, ITL that of all of them." }
end

local function title_of(r)
   local trace = r.options.trace or "synthetic load"
   return ("%s on %s"):format(trace:match "[^/]*$", r.options.cluster)
end

local function save(path, page)
   local list = {}
   for i = 1, table.maxn(page.sections) do list[#list + 1] = page.sections[i] end
   page.sections = list
   return plot.save(path, page)
end

-- Write the page of a result and its detail. true, or nil and why.
function report.run(path, r, detail)
   local g = grouped(detail)
   return save(path, { title = title_of(r),
      text = ("Policy %s, admission %s; %s on %s; %s simulated%s."):format(
         r.options.policy, r.options.admission, r.options.model, r.options.gpu,
         time(r.span_s), r.interrupted and ", until it was interrupted" or ""),
      sections = { { figures = tiles(r) }, latency(r, detail.figures),
                   over_time(r, g), instances(r), network(r, g), hot_blocks(r),
                   options_table(r) } })
end

-- ---- a sweep ---------------------------------------------------------------

-- What is drawn over the swept value: title, its format, and lines { name, figure }.
local CURVES = {
   { "Time to first token (TTFT)", "time", {
      { "mean", function(r) return r.ttft_s.mean end },
      { "p50", function(r) return r.ttft_s.p50 end },
      { "p90", function(r) return r.ttft_s.p90 end },
      { "p99", function(r) return r.ttft_s.p99 end } }, "p90", "ttft" },
   { "Time between tokens (TBT)", "time", {
      { "mean", function(r) return r.tbt_s.mean end },
      { "p50", function(r) return r.tbt_s.p50 end },
      { "p90", function(r) return r.tbt_s.p90 end },
      { "p99", function(r) return r.tbt_s.p99 end } }, "p90", "tbt" },
   { "Goodput", "percent", { { "of requests",
      function(r) return r.goodput_ratio end } } },
   { "Goodput", "number", { { "requests a second",
      function(r) return r.goodput_per_s end } } },
   { "Refused", "number", {
      { "at arrival", function(r) return r.rejected_arrival end },
      { "after their prefill", function(r) return r.rejected_after_prefill end } },
      "at arrival" },
   { "Hit rate", "percent", {
      { "all", function(r) return r.hit_rate end },
      { "where placed", function(r) return r.hit_rate_local end },
      { "from another", function(r) return r.hit_rate_remote end } }, "all" },
   { "Prefill GPU time", "time", { { "a request",
      function(r) return r.prefill_gpu_s_per_request end } } },
   { "Links, mean", rate, { { "sent", function(r) return r.links.mean_Bps end } } },
}

local function numeric(axis)
   for _, v in ipairs(axis.values) do
      if not tonumber(v) then return false end
   end
   return #axis.values > 1
end

-- The axis to draw along: the first of numbers, or none.
local function along(axes)
   for i, axis in ipairs(axes) do
      if numeric(axis) then return i end
   end
end

-- The runs that differ only in axis a, as lines: { name =, x =, runs = }.
local function families(axes, points, runs, a)
   local list, by_name = {}, {}
   for i, run in ipairs(runs) do
      local rest = {}
      for k, axis in ipairs(axes) do
         if k ~= a then rest[#rest + 1] = axis.name .. "=" .. points[i][k] end
      end
      local name = table.concat(rest, " ")
      local f = by_name[name]
      if not f then
         f = { name = name, x = {}, runs = {} }
         by_name[name], list[#list + 1] = f, f
      end
      f.x[#f.x + 1], f.runs[#f.runs + 1] = tonumber(points[i][a]), run
   end
   return list
end

local function values(runs, figure)
   local y = {}
   for i, r in ipairs(runs) do y[i] = figure(r) or 0 / 0 end
   return y
end

local function slo_mark(curve, runs)
   local slo = curve[5] and runs[1].slo[curve[5]]
   return slo and { { y = slo, label = "SLO" } } or nil
end

local function curve_chart(curve, axis, list, runs)
   local series = {}
   local one = #list == 1
   for _, f in ipairs(list) do
      for _, line in ipairs(curve[3]) do
         if one or not curve[4] or line[1] == curve[4] then
            series[#series + 1] = { name = one and line[1] or f.name, x = f.x,
                                    y = values(f.runs, line[2]) }
         end
      end
   end
   local which = not one and curve[4] and ", " .. curve[4] or ""
   local x = list[1].x
   local wide = math.min(unpack(x)) > 0 and math.max(unpack(x)) > 30 * math.min(unpack(x))
   return plot.lines { title = curve[1] .. which, x = axis.name, y_format = curve[2],
      log_x = wide,
      y = #curve[3] == 1 and curve[3][1][1] or nil, series = series, y_min = 0,
      marks = slo_mark(curve, runs) }
end

local function bar_chart(curve, labels, runs)
   local series = {}
   for i, line in ipairs(curve[3]) do
      series[i] = { name = line[1], y = values(runs, line[2]) }
   end
   return plot.bars { title = curve[1], labels = labels, series = series,
      y_format = curve[2], marks = slo_mark(curve, runs) }
end

local function sweep_charts(axes, points, runs)
   local charts, a = {}, along(axes)
   local list = a and families(axes, points, runs, a)
   local labels = {}
   for i, point in ipairs(points) do labels[i] = table.concat(point, " ") end
   for i, curve in ipairs(CURVES) do
      charts[i] = a and curve_chart(curve, axes[a], list, runs) or
                  bar_chart(curve, labels, runs)
   end
   return charts
end

-- Write the page of a sweep. true, or nil and why.
function report.sweep(path, axes, points, runs)
   local names = {}
   for i, axis in ipairs(axes) do names[i] = axis.name end
   return save(path, { title = title_of(runs[1]) .. " by " .. table.concat(names, ", "),
      text = ("%d runs."):format(#runs),
      sections = { { charts = sweep_charts(axes, points, runs) },
                   { title = "Runs", table = tables.sweep_rows(axes, points, runs) },
                   options_table(runs[1]) } })
end

return report
