-- sim_diff.lua - two results of `mooncake sim --json` beside each other: what is other in
-- their options, and for each figure the change, the ratio, and which one is better.

local json = require "mooncake.json"
local util = require "mooncake.util"

local diff = {}

-- Path in the result, and which way is better: -1 less, 1 more, 0 neither.
local FIGURES = {
   { "requests", 0 }, { "completed", 1 }, { "rejected_arrival", -1 },
   { "rejected_after_prefill", -1 }, { "goodput_ratio", 1 }, { "goodput_per_s", 1 },
   { "ttft_s.mean", -1 }, { "ttft_s.p50", -1 }, { "ttft_s.p90", -1 },
   { "ttft_s.p99", -1 }, { "tbt_s.mean", -1 }, { "tbt_s.p50", -1 },
   { "tbt_s.p90", -1 }, { "tbt_s.p99", -1 }, { "itl_s.mean", -1 },
   { "e2e_s.mean", -1 }, { "e2e_s.p99", -1 }, { "queue_s.mean", -1 },
   { "stages_s.fetch", -1 }, { "stages_s.wait", -1 }, { "stages_s.prefill", -1 },
   { "stages_s.transfer", -1 }, { "stages_s.decode", -1 },
   { "throughput.requests_per_s", 1 }, { "throughput.output_tokens_per_s", 1 },
   { "hit_rate", 1 }, { "hit_rate_local", 1 }, { "hit_rate_remote", 0 },
   { "prefill_gpu_s_per_request", -1 }, { "decode_gpu_s", -1 }, { "node_s", -1 },
   { "preemptions", -1 }, { "links.bytes", -1 }, { "links.mean_Bps", 0 },
   { "links.peak_Bps", 0 }, { "hot_blocks.replicas_mean", 0 }, { "span_s", 0 },
}

local SAME = 1e-9

local function at(t, path)
   for key in path:gmatch "[^.]+" do
      t = type(t) == "table" and t[key] or nil
   end
   return type(t) == "number" and t or nil
end

local function verdict(a, b, way)
   if math.abs(b - a) <= SAME * math.max(math.abs(a), math.abs(b)) then return "same" end
   if way == 0 then return "other" end
   return (b - a) * way > 0 and "better" or "worse"
end

-- One row for each figure that both have: { figure, a, b, delta, ratio, verdict }.
local function figures(a, b)
   local rows = json.array()
   for _, f in ipairs(FIGURES) do
      local x, y = at(a, f[1]), at(b, f[1])
      if x and y then
         rows[#rows + 1] = { figure = f[1], a = x, b = y, delta = y - x,
                             ratio = x ~= 0 and y / x or nil,
                             verdict = verdict(x, y, f[2]) }
      end
   end
   return rows
end

local function options(a, b)
   local rows, names = json.array(), {}
   for k in pairs(a) do names[k] = true end
   for k in pairs(b) do names[k] = true end
   local sorted = {}
   for k in pairs(names) do sorted[#sorted + 1] = k end
   table.sort(sorted)
   for _, k in ipairs(sorted) do
      if a[k] ~= b[k] then rows[#rows + 1] = { option = k, a = a[k], b = b[k] } end
   end
   return rows
end

-- What is other in b than in a, both results.
function diff.of(a, b)
   return { options = options(a.options, b.options), figures = figures(a, b) }
end

-- ---- files -----------------------------------------------------------------

-- The results in a file: those of a sweep, or the only one.
function diff.read(path)
   local text, why = util.read_file(path)
   if not text then return nil, why end
   local t
   t, why = json.decode(text)
   if not t then return nil, path .. ": " .. why end
   local runs = type(t) == "table" and (t.runs or { t })
   for _, r in ipairs(runs or {}) do
      if type(r) ~= "table" or type(r.options) ~= "table" or not r.requests then
         runs = nil
         break
      end
   end
   if runs and #runs > 0 then return runs end
   return nil, path .. ": not a result of `mooncake sim --json`"
end

-- ---- text ------------------------------------------------------------------

local function number(x)
   if x % 1 == 0 and math.abs(x) < 1e7 then return ("%d"):format(x) end
   return ("%.4g"):format(x)
end

-- A difference as text; all = false leaves out figures that are the same.
function diff.text(d, all)
   local out, rows = {}, {}
   if #d.options > 0 then
      for i, o in ipairs(d.options) do
         rows[i] = { o.option, o.a == nil and "-" or tostring(o.a),
                     o.b == nil and "-" or tostring(o.b) }
      end
      out[1] = util.table({ "option", "A", "B" }, rows, "lll") .. "\n"
   end
   rows = {}
   for _, f in ipairs(d.figures) do
      if all or f.verdict ~= "same" then
         local delta = f.delta > 0 and "+" .. number(f.delta) or number(f.delta)
         rows[#rows + 1] = { f.figure, number(f.a), number(f.b), delta,
            f.ratio and ("%.3f"):format(f.ratio) or "-",
            f.verdict ~= "other" and f.verdict or "" }
      end
   end
   out[#out + 1] = #rows > 0 and
      util.table({ "figure", "A", "B", "B - A", "B / A", "" }, rows, "lrrrrl") or
      "all figures are the same"
   return table.concat(out, "\n")
end

return diff
