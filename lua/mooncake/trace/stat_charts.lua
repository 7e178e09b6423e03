-- stat_charts.lua - the statistics of a trace as charts, and as a page.

local plot = require "mooncake.plot"
local util = require "mooncake.util"

local M = {}

local function hit_rate(s)
   local series, ideal = {}, s.ideal_block_rate
   for i, policy in ipairs(s.policies) do
      local line = { name = policy, x = {}, y = {}, dashed = policy == "belady",
         color = policy == "belady" and 8 or i }
      for _, n in ipairs(s.capacities) do
         if n ~= "inf" then
            line.x[#line.x + 1], line.y[#line.y + 1] = tonumber(n), s.hit_rate[policy][n]
         end
      end
      series[i] = line
   end
   return plot.lines { title = "Hit rate against capacity", x = "capacity, blocks of "
      .. s.block_tokens .. " tokens", log_x = true, y_format = "percent", y_min = 0,
      series = series, marks = { { y = ideal, label = "no bound, "
      .. plot.formats.percent(ideal) } } }
end

local function lengths(values, title, x, bins)
   return plot.histogram { title = title, x = x, y = "requests", values = values,
      log_x = true, bins = bins or 30 }
end

-- Windows of a rate, each drawn where it begins.
local function over_time(s, key, title, y)
   local a = s.arrivals
   local x, rate = {}, {}
   for i, n in ipairs(a.over_time[key]) do
      x[i], rate[i] = (i - 1) * a.window_s, n / a.window_s
   end
   return plot.lines { title = title, x = ("time, windows of %g s"):format(a.window_s),
      x_format = "time", y = y, y_min = 0, series = { { x = x, y = rate } } }
end

local function reuse(s)
   local labels, blocks = {}, {}
   for i, r in ipairs(s.sharing.reuse) do
      labels[i] = r.from .. (r.from < r.to and "+" or "")
      blocks[i] = r.blocks
   end
   return plot.bars { title = "Blocks by how many requests use them", x = "requests",
      y = "blocks", labels = labels, series = { { y = blocks } }, log_y = true,
      y_min = 0.5 }
end

local function ranks(s)
   local r = s.sharing.by_rank
   return plot.lines { title = "Uses of the hottest blocks", x = "block, by uses",
      y = "requests that use it", log_x = true, log_y = true,
      series = { { x = r.rank, y = r.uses } } }
end

local function policy_table(s)
   local head, rows = { "policy" }, {}
   for i, n in ipairs(s.capacities) do
      head[i + 1] = n == "inf" and n or util.commas(n)
   end
   for i, policy in ipairs(s.policies) do
      rows[i] = { policy }
      for _, n in ipairs(s.capacities) do
         table.insert(rows[i], ("%.4f"):format(s.hit_rate[policy][n]))
      end
   end
   return { head = head, rows = rows }
end

local function figures(s)
   local list = {
      { util.commas(s.requests), "requests" },
      { util.duration(s.span_ms / 1000), "from first to last" },
      { ("%.2f/s"):format(s.arrivals.mean_per_s), "requests" },
      { util.commas(s.input_tokens_mean), "input tokens, mean" },
      { util.commas(s.output_tokens_mean), "output tokens, mean" },
   }
   if s.blocks > 0 then
      table.insert(list, { util.commas(s.blocks), "blocks" })
      table.insert(list, { util.commas(s.unique_blocks), "different blocks" })
      table.insert(list, { plot.formats.percent(s.sharing.never_reused),
         "of these never reused" })
      table.insert(list, { plot.formats.percent(s.ideal_token_rate),
         "of input tokens can be reused" })
   end
   return list
end

-- What is drawn of the statistics: text (charts for a terminal) and page. @lists has the
-- lengths of the requests.
function M.of(s, lists, path)
   local name = path:match "[^/]*$"
   if s.requests == 0 then
      return { text = {}, page = { title = name, text = "No requests.", sections = {} } }
   end
   local prompts = lengths(lists.input, "Prompts", "input tokens", 16)
   local sections = {
      { figures = figures(s) },
      { title = "Lengths", charts = {
         lengths(lists.input, "Prompts", "input tokens"),
         lengths(lists.output, "Answers", "output tokens") } },
      { title = "Arrivals", charts = {
         over_time(s, "requests", "Requests", "requests a second"),
         over_time(s, "input_tokens", "Input", "input tokens a second") } },
   }
   if s.blocks == 0 then
      return { text = { prompts }, page = { title = name, sections = sections } }
   end
   local rates = hit_rate(s)
   table.insert(sections, { title = "Sharing", charts = { reuse(s), ranks(s) } })
   table.insert(sections, { title = "Caches", text = "A request's hits are its longest "
      .. "prefix of blocks that are in the cache when it comes; the hit rate is the hits "
      .. "of all over the blocks of all. Capacities in blocks.",
      charts = { rates }, table = policy_table(s) })
   return { text = { rates, prompts }, page = { title = name, sections = sections } }
end

return M
