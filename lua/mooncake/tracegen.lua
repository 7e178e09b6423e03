-- tracegen.lua - request traces that are made: from parameters, with the statistics of
-- another trace, or by the name of a published workload.
--
--    for req in assert(tracegen.requests { rate = 4, input = "8192:1" }) do
--       print(tracegen.line(req))      -- req: a struct mc_trace_req, until the next
--    end
--
-- The same parameters give the same requests everywhere; one at a time, so there may be
-- any number of them. The models: tracegen_load.lua and tracegen_like.lua.

local ffi = require "ffi"
local like = require "mooncake.tracegen_like"
local load = require "mooncake.tracegen_load"
local random = require "mooncake.tracegen_random"

local M = {}

-- ---- parameters ------------------------------------------------------------

local function number(low, high, whole)
   return {
      what = ("a %snumber from %g to %g"):format(whole and "whole " or "", low, high),
      of = function(v)
         local n = tonumber(v)
         if n and n >= low and n <= high and (not whole or n % 1 == 0) then return n end
      end,
   }
end

local lengths = { what = "MEAN, MEAN:CV, MEAN:exp or MEAN:uniform", of = random.lengths }

local seconds = number(1e-6, 1e6)

local arrivals = {
   what = "poisson or batch:SECONDS",
   of = function(v)
      return v == "poisson" and 0 or seconds.of(tostring(v):match "^batch:(.+)$")
   end,
}

local anything = { what = "anything", of = function(v) return v end }

-- Name, default, what a value is, how help calls it, and what it is for.
M.parameters = {
   { "requests", 1000, number(0, math.huge), "N", "how many; inf for no end" },
   { "seed", 1, number(-2 ^ 31, 2 ^ 32 - 1, true), "N", "another one, another trace" },
   { "rate", 1, number(1e-6, 1e9), "N", "requests per second" },
   { "arrivals", "poisson", arrivals, "HOW", "poisson, or batch:SECONDS" },
   { "input", "8192", lengths, "LENGTH", "tokens of a prompt, of a session's first one" },
   { "output", "256", lengths, "LENGTH", "tokens of an answer" },
   { "prefix_ratio", 0, number(0, 1), "SHARE", "of a prompt that is a shared prefix" },
   { "prefixes", 1, number(1, 1e7, true), "N", "how many shared prefixes there are" },
   { "zipf", 1, number(0, 10), "S", "their popularity: k^-S; 0 for all the same" },
   { "turns", 1, number(1, 1e6), "N", "of a session, on average" },
   { "think", 60, number(0, 1e7), "SECONDS", "pause between turns, on average" },
   { "message", "256:exp", lengths, "LENGTH", "tokens that a later turn adds" },
   { "block_tokens", 512, number(1, 1e6, true), "N", "tokens of a block" },
   { "context", 131072, number(1, 1e8, true), "N", "tokens of a prompt at most" },
   { "like", nil, anything, "TRACE", "with its statistics; conversation is built in" },
   { "preset", nil, anything, "NAME", "the parameters of a published workload" },
}

-- ---- workloads that were published -----------------------------------------

-- Requests, mean lengths and cache ratio of conversation, toolagent and synthetic are
-- those of "Mooncake: Trading More Storage for Less Computation" (FAST'25), table 2; of
-- the others those of arXiv 2407.00079, table 2 and the trace published with it. How
-- lengths are spread, prefixes, sessions, and rates where there are no times, were not
-- published: they are chosen. So are input and prefix_ratio: with sessions, and a cache
-- that begins empty, the published means and ratio come out (tests/tracegen_test.lua).
M.presets = {
   conversation = { like = "conversation" },
   toolagent = { requests = 23608, rate = 6.67, arrivals = "batch:3", input = "8100:1.1",
      output = "182:2", prefix_ratio = 0.41, prefixes = 3, turns = 1.6, think = 120,
      message = "500:exp" },
   synthetic = { requests = 3993, rate = 3.9, input = "15325:1", output = "149:1",
      prefix_ratio = 0.83, prefixes = 220, zipf = 0 },
   arxiv_summarization = { requests = 2000, input = "8088:0.7", output = "229:0.5" },
   l_eval = { requests = 2000, input = "19019:0.5", output = "72:1", prefix_ratio = 0.9,
      prefixes = 40, zipf = 0 },
   arxiv_real = { requests = 23000, rate = 6.4, input = "7650:1.1", output = "194:2",
      prefix_ratio = 0.36, prefixes = 4, turns = 1.4, think = 180, message = "500:exp" },
   arxiv_open = { requests = 23608, rate = 6.558, arrivals = "batch:3",
      input = "7300:1.1", output = "182:2", prefix_ratio = 0.36, prefixes = 4,
      turns = 1.4, think = 180, message = "500:exp" },
}

for _, k in ipairs { 16, 32, 64, 128 } do
   M.presets["simulated_" .. k .. "k"] = { requests = 2000, rate = 16 / k, output = "512",
      input = tostring(k * 1024), prefix_ratio = 0.5, prefixes = 16 }
end

local function names_of(t)
   local names = {}
   for name in pairs(t) do names[#names + 1] = name end
   table.sort(names)
   return table.concat(names, ", ")
end

M.preset_names = names_of(M.presets)

-- ---- requests --------------------------------------------------------------

-- Of what the words say, the preset, and the defaults: the first that there is. Pauses of
-- a preset shrink with its number of requests, so that as much of it is sessions.
local function merged(words)
   local preset = M.presets[words.preset or ""] or {}
   if words.preset and not next(preset) then
      return nil, ("no preset '%s'; there are %s"):format(words.preset, M.preset_names)
   end
   local p, all = {}, {}
   for _, def in ipairs(M.parameters) do
      local name, v = def[1], words[def[1]]
      all[name] = true
      if v == nil then v = preset[name] end
      if v == nil then v = def[2] end
      if v ~= nil then p[name] = def[3].of(v) end
      if v ~= nil and p[name] == nil then
         return nil, ("%s takes %s, not '%s'"):format(name, def[3].what, tostring(v))
      end
   end
   for name in pairs(words) do
      if not all[name] then
         return nil, ("no parameter '%s'; there are %s"):format(name, names_of(all))
      end
   end
   if preset.think and not words.think then
      p.think = p.think * math.min(1, p.requests / preset.requests)
   end
   return p
end

local function loaded(p)
   if math.max(p.input.mean, p.message.mean, p.output.mean) > p.context then
      return nil, ("a mean length is more than the context of %d"):format(p.context)
   end
   if p.context / p.block_tokens > 1e7 then
      return nil, ("block_tokens: a context of %d tokens has too many"):format(p.context)
   end
   if p.rate * p.think > 1e7 then
      return nil, "think: more than ten million sessions would pause at a time"
   end
   return load.requests(p)
end

local function profile_of(source)
   if type(source) == "table" then return source end
   if source == "conversation" then return like.conversation end
   local reader, why, errno = require "mooncake.trace".open(source)
   if not reader then return nil, why, errno end
   return like.measure(reader)
end

local of_like = { requests = true, seed = true, think = true, like = true, preset = true }

-- An iterator over requests, or nil, message, and errno if it was the world's fault.
-- @words: parameters by name, as in M.parameters. like may be a profile, too.
function M.requests(words)
   local p, why, errno = merged(words)
   if not p then return nil, why end
   if not p.like then return loaded(p) end
   for name in pairs(words) do
      if not of_like[name] then
         return nil, ("%s is as in the trace that this one is like"):format(name)
      end
   end
   local profile
   profile, why, errno = profile_of(p.like)
   if not profile then return nil, why, errno end
   return like.requests(profile, words.requests and p.requests, p.seed,
                        words.think and p.think)
end

-- The line of a request in the Mooncake format.
function M.line(req)
   local ids = {}
   for i = 0, req.n_blocks - 1 do
      local id = req.blocks[i]
      ids[i + 1] = id < 2 ^ 53 and ("%d"):format(tonumber(id)) or
         tostring(id):gsub("ULL$", "")
   end
   local ms = ("%.6f"):format(tonumber(req.at_ns) / 1e6):gsub("%.?0+$", "")
   return ('{"timestamp": %s, "input_length": %d, "output_length": %d, "hash_ids": [%s]}')
      :format(ms, req.input_tokens, req.output_tokens, table.concat(ids, ", "))
end

return M
