-- stat.lua - `mooncake trace stat`: what a trace is like, for people and programs.

local charts = require "mooncake.trace.stat_charts"
local json = require "mooncake.json"
local plot = require "mooncake.plot"
local proc = require "mooncake.proc"
local statistics = require "mooncake.trace.statistics"
local trace = require "mooncake.trace"
local util = require "mooncake.util"

local function wrong(fmt, ...)
   error({ user = fmt:format(...), status = 2 }, 0)
end

-- ---- options ---------------------------------------------------------------

local POWER = { [""] = 1, k = 1e3, K = 1e3, M = 1e6, G = 1e9 }

-- "5859" blocks, "3M" tokens, "inf".
local function capacity(word)
   if word == "inf" then return math.huge end
   local n, unit, t = word:match "^(%d+%.?%d*)([kKMG]?)(t?)$"
   n = n and tonumber(n) * POWER[unit]
   if not n or n < 1 or unit .. t == "" and n % 1 ~= 0 then
      wrong("--capacity takes blocks as 5859, tokens as 3M, or inf, not '%s'", word)
   end
   return unit .. t == "" and n or { tokens = n }
end

local function capacities(text)
   if not text then return nil end
   local list = {}
   for word in text:gmatch "[^,%s]+" do list[#list + 1] = capacity(word) end
   if #list == 0 then wrong "--capacity: there is none" end
   return list
end

local function policies(text)
   if not text then return nil end
   local list, known = {}, {}
   for _, name in ipairs(statistics.policies) do known[name] = true end
   for name in text:gmatch "[^,%s]+" do
      if not known[name] then
         wrong("--policy: no '%s'; there are %s", name,
            table.concat(statistics.policies, ", "))
      end
      list[#list + 1] = name
   end
   if #list == 0 then wrong "--policy: there is none" end
   return list
end

-- ---- progress --------------------------------------------------------------

-- Nothing of work that takes less than two seconds.
local function progress(opt)
   local bar = util.progress { quiet = opt.quiet }
   local from, shown = proc.now(), false
   function bar:text() return self.says end
   return function(what, n, of)
      if not shown and proc.now() - from < 2 then return end
      bar.says = what .. ": " .. util.commas(n)
         .. (of and " of " .. util.commas(of) or "")
      shown = true
      bar:update(n)
   end, function()
      if shown then bar:finish() end
   end
end

-- ---- text ------------------------------------------------------------------

local function percent(part)
   return ("%.1f %%"):format(100 * part)
end

local function heading(text)
   print("\n" .. text)
end

local function spread(name, s)
   local row = { "  " .. name, util.commas(s.mean) }
   for _, key in ipairs { "p10", "p25", "p50", "p75", "p90", "p99", "max" } do
      row[#row + 1] = util.commas(s[key])
   end
   return row
end

local function lengths(s)
   heading "lengths"
   local rows = { spread("input tokens", s.input), spread("output tokens", s.output) }
   if s.blocks > 0 then rows[3] = spread("blocks", s.blocks_of_request) end
   util.print_table({ "", "mean", "p10", "p25", "p50", "p75", "p90", "p99", "max" }, rows)
end

local function arrivals(s)
   local a = s.arrivals
   heading "arrivals"
   util.print_table(nil, {
      { "  rate", ("%.2f requests a second; %.2f in the busiest %g s"):format(
         a.mean_per_s, a.peak_per_s, a.window_s) },
      { "  burstiness", ("%.2f: variance over mean of the requests in %g s (Poisson: 1)")
         :format(a.dispersion, a.window_s) },
      { "  gaps", ("%.2f: standard deviation over mean (Poisson: 1)"):format(a.gap_cv) },
      { "  batches", ("%s times, with %.2f requests each; p90 %d, at most %d"):format(
         util.commas(s.batches), s.batch.mean, s.batch.p90, s.batch.max) },
   }, "ll")
end

-- Blocks by how many requests have them.
local function reuse(s)
   local rows = {}
   for _, r in ipairs(s.sharing.reuse) do
      if r.blocks > 0 then
         rows[#rows + 1] = { "  " .. (r.from == r.to and util.commas(r.from) or
            util.commas(r.from) .. " to " .. util.commas(r.to)), util.commas(r.blocks),
            percent(r.blocks / s.unique_blocks), util.commas(r.uses),
            percent(r.uses / s.blocks) }
      end
   end
   print()
   util.print_table({ "  in requests", "blocks", "", "uses", "" }, rows, "rrrrr")
end

local function sharing(s)
   local h = s.sharing
   heading "sharing"
   util.print_table(nil, {
      { "  blocks", ("%s of %d tokens, %s different"):format(util.commas(s.blocks),
         s.block_tokens, util.commas(s.unique_blocks)) },
      { "  never reused", percent(h.never_reused) .. " of the different blocks" },
      { "  hottest 1 %", percent(h.hottest_percent_uses) .. " of all uses" },
      { "  continued", ("%s of the requests share more than their first block with an "
         .. "earlier one"):format(percent(s.continued / s.requests)) },
      { "  at best", ("%s of the blocks are hits without a bound, %s of the tokens")
         :format(percent(s.ideal_block_rate), percent(s.ideal_token_rate)) },
   }, "ll")
   reuse(s)
   local rows = {}
   for i, b in ipairs(h.hottest) do
      rows[i] = { "  " .. (tostring(b.id):gsub("U?LL$", "")), util.commas(b.uses) }
   end
   if #rows == 0 then return end
   print()
   util.print_table({ "  hottest block", "requests" }, rows, "rr")
end

local function hit_rates(s)
   heading "hit rate against capacity"
   local head, rows = { "  blocks", "tokens" }, {}
   for _, policy in ipairs(s.policies) do head[#head + 1] = policy end
   for i, n in ipairs(s.capacities) do
      local inf = n == "inf"
      rows[i] = { "  " .. (inf and n or util.commas(n)),
         inf and n or plot.formats.number(tonumber(n) * s.block_tokens) }
      for _, policy in ipairs(s.policies) do
         table.insert(rows[i], ("%.4f"):format(s.hit_rate[policy][n]))
      end
   end
   util.print_table(head, rows, ("r"):rep(#head))
end

local function print_text(s, reader, opt, drawn)
   print(("%s, format %s: %s requests in %s"):format(reader.path, reader:format(),
      util.commas(s.requests), util.duration(s.span_ms / 1000)))
   if s.requests == 0 then return end
   lengths(s)
   arrivals(s)
   if s.blocks > 0 then
      sharing(s)
      hit_rates(s)
   end
   if not opt.charts then return end
   for _, c in ipairs(drawn.text) do print("\n" .. plot.text(c, 78, 16)) end
end

-- ---- the command -----------------------------------------------------------

local function run(opt, args)
   if opt.plot and not plot.kind(opt.plot) then
      wrong("--plot takes a file .svg or .html, not '%s'", opt.plot)
   end
   local wanted = { lists = {}, capacities = capacities(opt.capacity),
      policies = policies(opt.policy) }
   local reader = util.check(trace.open(args[1], { format = opt.format,
      block_tokens = opt.block_tokens }))
   local finish
   wanted.progress, finish = progress(opt)
   local s, why = trace.stat(reader, wanted)
   finish()
   util.check(s, why)
   local drawn = charts.of(s, wanted.lists, args[1])
   if opt.plot then util.check(plot.save(opt.plot, drawn.page)) end
   if opt.json then
      print(json.encode(s))
   else
      print_text(s, reader, opt, drawn)
   end
   reader:close()
   return 0
end

return {
   usage = "trace stat [OPTIONS] FILE",
   summary = "lengths, arrivals, sharing, and hit rates of caches",
   help = [[
Reads a trace once ("-": standard input) and says what it is like: how long prompts and
answers are, when requests come, how much they share, and how many of their blocks caches
would have had.

A request's hits are its longest prefix of blocks that are in the cache when it comes; the
hit rate is the hits of all over the blocks of all. Capacities are in blocks, or in tokens
with a suffix (3M), or inf. Policies: lru, lfu, fifo; length (as lfu, and among equals
what is late in its request goes first); s3fifo and sieve; belady, which knows the future
and is the bound of all others.]],
   options = {
      capacity = { nil, "of caches; default: 1, 2, 5, 10, ... and inf", "LIST" },
      policy = { nil, "of caches; default: all", "LIST" },
      json = { false, "print one JSON object" },
      plot = { nil, "write the charts", "FILE.svg|.html" },
      charts = { true, "draw charts in the text" },
      format = { nil, "of the trace; default: seen at its first line", "NAME" },
      ["block-tokens"] = { nil, "of the trace; default: as its format has it", "TOKENS",
         number = true },
      quiet = { false, "no progress on standard error", short = "q" },
   },
   run = run,
}
