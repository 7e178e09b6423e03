-- sim.lua - how long the simulator takes, as `mooncake sim` in processes of its own.
--
--   mooncake run tests/bench/sim.lua [--json] [--rounds N] [--trace FILE] [--large N]
--
-- The whole conversation trace (or one generated like it, where that is not at hand) on
-- 8 prefill and 8 decode instances, and then N (ten million) synthetic requests on 1,024
-- instances, once. Medians of 5 rounds. The exit status is 1 if a bar is missed.

local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local opt = kit.options(arg, { rounds = 5, large = 1e7, json = false,
   trace = "../shared/traces/conversation_trace.jsonl" })
local figures = kit.figures(opt.json)

-- The result of `mooncake sim` with these words, and the most memory that it had.
local function run(words)
   local argv = { proc.exe(), "sim", "--json", "--quiet", stdout = "pipe" }
   for word in words:gmatch "%S+" do argv[#argv + 1] = word end
   local p = assert(proc.spawn(argv))
   local rss, text = 0, ""
   repeat
      local line, why = p:read_line(100)
      local f = io.open("/proc/" .. p.pid .. "/status")
      local peak = f and f:read "*a":match "VmHWM:%s*(%d+)"
      if f then f:close() end
      rss = math.max(rss, tonumber(peak or 0) * 1024)
      if line then text = text .. line end
   until not line and why == "eof"
   local status = p:wait()
   if status ~= 0 then util.fail("mooncake sim %s: exit status %s", words, status) end
   return json.decode(text), rss
end

local function trace()
   local words = kit.exists(opt.trace) and opt.trace or
                 "--synthetic like=conversation,requests=12031"
   local what = kit.exists(opt.trace) and "the conversation trace" or
                "12,031 requests like the conversation trace"
   for _, policy in ipairs { "kvcache_centric", "round_robin" } do
      local list = {}
      for i = 1, opt.rounds do
         list[i] = run(("%s --cluster 8P+8D --policy %s"):format(words, policy)).wall_s
      end
      figures:add(("%s, 8P+8D, %s"):format(what, policy), list, util.duration,
         policy == "kvcache_centric" and { most = 0.5 } or nil)
   end
end

local function large()
   local words = "--synthetic rate=2000,input=2000,output=50,prefix_ratio=0.5," ..
                 "prefixes=10000,requests=%d --cluster 512P+512D --policy round_robin"
   local r, rss = run(words:format(opt.large))
   local what = util.commas(opt.large) .. " requests, 512P+512D, round_robin"
   figures:add(what, { r.wall_s }, util.duration)
   figures:add(what .. ": memory", { rss }, util.bytes, { most = 4 * 2 ^ 30 })
end

kit.print_machine(opt.json, "medians of %d rounds", opt.rounds)
trace()
large()
return figures:finish()
