-- policy.lua - scheduling policies: loading them, putting them together, asking them.
--
-- A policy is a Lua file that returns a function, its place(), or a table of it and of
-- what else it has to say (`mooncake help policy`):
--
--   return {
--      options = { threshold = { 2, "what it is" } },
--      place = function(request, cluster, options) return prefill, decode, source end,
--      admit = function(request, cluster, prefill, decode, source, options) ... end,
--      admit_decode = function(request, cluster, decode, options) ... end,
--   }
--
-- Who runs a cluster, a simulator or a conductor, is the host: it shows the facts, asks
-- policy:place() for each request, and does what it says. Nothing here knows which.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local strict = require "mooncake.strict"

local policy = {}

-- ---- the cluster as policies see it ------------------------------------

local Cluster = {}
local cluster_mt = {}

-- The fields of struct mc_cluster as they are now; a name that is none is an error.
function cluster_mt.__index(self, key) return self.facts[key] end

function cluster_mt.__newindex(_, key)
   error(("cluster.%s: a policy reads, and decides by what it returns"):format(key), 2)
end

-- @facts: a struct mc_cluster or a pointer to it, alive while this is used. @host has
-- random(), from 0 to less than 1, and forecast(at_s): the sequences and the tokens of
-- context that all who decode are expected to carry then.
function policy.cluster(facts, host)
   local self = { facts = facts, host = host }
   -- Nearer than in a metatable: a decision calls some thousand times.
   for name, method in pairs(Cluster) do self[name] = method end
   return setmetatable(self, cluster_mt)
end

function Cluster:random() return self.host.random() end
function Cluster:forecast(at_s) return self.host.forecast(at_s) end

-- Seconds to compute @tokens of a prompt behind a prefix that is there. In a pipeline
-- each node has a part of the layers, and the chunks of a prompt follow one another.
function Cluster:prefill_s(tokens, prefix)
   local facts = self.facts
   local alone_s = C.mc_cost_prefill_s(facts.cost, tokens, prefix)
   local nodes, chunk = facts.prefill_nodes, facts.chunk_tokens
   if nodes <= 1 or chunk == 0 then return alone_s end
   return alone_s / nodes * (1 + (nodes - 1) / math.ceil(tokens / chunk))
end

-- Seconds of an iteration: one token more for each of @sequences.
function Cluster:decode_s(sequences, context_tokens)
   return C.mc_cost_decode_s(self.facts.cost, sequences, context_tokens)
end

-- Seconds to move the KV cache of @tokens between two instances, as busy as they are.
function Cluster:transfer_s(tokens, from, to)
   if from == to then return 0 end
   local facts = self.facts
   local inst = facts.instances
   local rate = math.min(inst[from].out_Bps, inst[to].in_Bps)
   return tokens * facts.cost.kv_bytes_token / rate
end

-- Seconds from now to the first token, if @prefill fetches what @source has beyond its
-- own prefix: fetch, wait in the queue, compute the rest.
function Cluster:ttft_s(request, prefill, source)
   local inst = self.facts.instances
   local have, wait_s = inst[prefill].prefix_tokens, inst[prefill].queue_s
   local more = inst[source].prefix_tokens - have
   if more > 0 then
      wait_s = wait_s + self:transfer_s(more, source, prefill)
      have = have + more
   end
   return wait_s + self:prefill_s(request.input_tokens - have, have)
end

-- Seconds between two tokens, if @request joined so many sequences on @decode; for ever
-- if its VRAM does not hold them.
function Cluster:joined_s(request, decode, sequences, context_tokens)
   local tokens = context_tokens + request.input_tokens
   local room = self.facts.instances[decode].vram_tokens
   if room > 0 and tokens > room then return math.huge end
   return self:decode_s(sequences + 1, tokens)
end

-- The same among those that @decode decodes now.
function Cluster:tbt_s(request, decode)
   local inst = self.facts.instances[decode]
   return self:joined_s(request, decode, inst.running, inst.running_tokens)
end

-- Sequences that the decode instances together decode now, and their tokens of context.
function Cluster:decoding()
   local facts = self.facts
   local sequences, context_tokens = 0, 0
   for i = facts.decode_first, facts.n - 1 do
      local inst = facts.instances[i]
      sequences = sequences + inst.running
      context_tokens = context_tokens + inst.running_tokens
   end
   return sequences, context_tokens
end

local function scan(request, cluster, first, n, cost, options)
   local best, best_cost
   local start = first + tonumber(request.id) % (n - first)
   for k = start, start + n - first - 1 do
      local i = k < n and k or k - n + first
      local c = cost(request, cluster, i, options)
      if not best or c < best_cost then best, best_cost = i, c end
   end
   return best
end

-- A loop that calls many functions is compiled for the first; so each has a copy.
local scans = setmetatable({}, { __mode = "k" })

local function scan_of(cost)
   local own = scans[cost]
   if not own then
      own = loadstring(string.dump(scan))
      scans[cost] = own
   end
   return own
end

-- The instance of [first, n) for which cost(request, cluster, i, options) is least.
-- Equals are taken in turn. @cost is one function, not one made for each request.
function Cluster:least(request, first, n, cost, options)
   return scan_of(cost)(request, self, first, n, cost, options)
end

-- The instance for prefill for which cost() is least.
function Cluster:least_prefill(request, cost, options)
   return self:least(request, 0, self.facts.prefill_n, cost, options)
end

-- Where none has room, the one that lacks least of it.
local function decode_cost(request, cluster, i)
   local inst = cluster.facts.instances[i]
   local tokens = inst.context_tokens + request.input_tokens
   local room = inst.vram_tokens
   local turns = room > 0 and tokens > room and tokens / room or 1
   return cluster:decode_s(inst.running + inst.coming + 1, tokens) * turns
end

-- The instance for decode with the least time between two tokens once this request and
-- all that were placed there have come; nil if the cluster is coupled.
function Cluster:least_decode(request)
   local facts = self.facts
   if facts.decode_first == 0 then return nil end
   return self:least(request, facts.decode_first, facts.n, decode_cost)
end

-- Is what was promised kept, or that part of it, as far as these can say? What was not
-- promised is.
function Cluster:keeps_ttft(request, prefill, source, part)
   local slo_s = self.facts.ttft_slo_s * (part or 1)
   return slo_s == 0 or self:ttft_s(request, prefill, source) <= slo_s
end

function Cluster:keeps_tbt(request, decode, part)
   local slo_s = self.facts.tbt_slo_s * (part or 1)
   return slo_s == 0 or self:tbt_s(request, decode) <= slo_s
end

-- The same for all decode instances as one pool that shares so many sequences evenly.
function Cluster:pool_keeps_tbt(request, decode, sequences, context_tokens, part)
   local slo_s = self.facts.tbt_slo_s * (part or 1)
   local n = self.facts.n - self.facts.decode_first
   return slo_s == 0 or
          self:joined_s(request, decode, sequences / n, context_tokens / n) <= slo_s
end

-- ---- asking a policy ---------------------------------------------------

local Policy = {}
Policy.__index = Policy

-- An error of a policy, with the place where the function that made it begins.
local function blame(fn, fmt, ...)
   local at = debug.getinfo(fn, "S")
   error(("%s:%d: %s"):format(at.short_src, at.linedefined, fmt:format(...)), 0)
end

local function check_index(fn, what, i, first, n)
   if type(i) == "number" and i >= first and i < n and i % 1 == 0 then return end
   blame(fn, "%s instance %s, want one of %d to %d", what, tostring(i), first, n - 1)
end

local function ask(gate, ...)
   local ok, why = gate.fn(...)
   if ok == true then return true end
   if ok == false then return false, why or "refused" end
   blame(gate.fn, "answer %s, want true or false", tostring(ok))
end

-- Where @request goes: prefill, decode, source; or nil and why it is refused.
function Policy:place(request, cluster)
   local place, options = self.decide, self.options
   local prefill, decode, source = place(request, cluster, options)
   if not prefill then return nil, decode or "refused" end
   local facts = cluster.facts
   check_index(place, "prefill", prefill, 0, facts.prefill_n)
   if facts.prefill_n == facts.n then decode = prefill end
   check_index(place, "decode", decode, facts.decode_first, facts.n)
   source = source or prefill
   check_index(place, "source", source, 0, facts.prefill_n)
   for _, gate in ipairs(self.admits) do
      local ok, why = ask(gate, request, cluster, prefill, decode, source, gate.options)
      if not ok then return nil, why end
   end
   return prefill, decode, source
end

-- After the prefill, for a host that asks then (self.asks_decode): true, or false and
-- why not.
function Policy:admit_decode(request, cluster, decode)
   for _, gate in ipairs(self.admits_decode) do
      local ok, why = ask(gate, request, cluster, decode, gate.options)
      if not ok then return false, why end
   end
   return true
end

-- ---- loading -----------------------------------------------------------

local SHIPPED = "mooncake.policies."

-- "name:key=value,key=value" as the name and the table.
local function parse(spec)
   local name, rest = spec:match "^(.-):([%w_]+=.*)$"
   if not name then return spec, {} end
   local values = {}
   for key, value in rest:gmatch "([%w_]+)=([^,]*)" do values[key] = value end
   return name, values
end

-- Each load is a policy of its own: what a file keeps between requests is not shared.
local function load_shipped(name)
   local module = SHIPPED .. name
   package.loaded[module] = nil
   local ok, found = pcall(require, module)
   package.loaded[module] = nil
   if ok then return found end
   if not tostring(found):find("module '" .. module .. "' not found", 1, true) then
      return nil, found
   end
   return nil, ("no policy '%s'; shipped are %s; else the name of a .lua file"):format(
      name, table.concat(policy.names(), ", "))
end

local function load_file(path)
   local chunk, why = loadfile(path)
   if not chunk then return nil, why end
   setfenv(chunk, strict.env { mooncake = require "mooncake" })
   local ok, found = pcall(chunk)
   if not ok then return nil, tostring(found) end
   return found
end

local KNOWN = { place = "function", admit = "function", admit_decode = "function",
                options = "table" }

local function check_table(name, t)
   if type(t) ~= "table" then
      return nil, ("%s: returns %s, want a table or a function"):format(name, type(t))
   end
   for key, value in pairs(t) do
      local want = KNOWN[key]
      if type(value) ~= want then
         return nil, want and ("%s: %s is a %s, want a %s"):format(name, key, type(value),
            want) or ("%s: unknown field '%s'"):format(name, tostring(key))
      end
   end
   return t
end

local function convert(value, default)
   if type(default) == "number" then return tonumber(value) end
   if type(default) ~= "boolean" then return tostring(value) end
   value = tostring(value)
   if value == "true" or value == "false" then return value == "true" end
end

-- The defaults of a policy with the values that were given.
local function options_of(name, specs, given)
   local options, names = {}, {}
   for key, spec in pairs(specs or {}) do
      options[key], names[#names + 1] = spec[1], key
   end
   table.sort(names)
   for key, value in pairs(given) do
      if options[key] == nil then
         local has = #names > 0 and table.concat(names, ", ") or "none"
         return nil, ("%s: no option '%s'; it has %s"):format(name, key, has)
      end
      options[key] = convert(value, options[key])
      if options[key] == nil then
         return nil, ("%s: option %s: '%s' is no %s"):format(name, key, tostring(value),
                                                        type(specs[key][1]))
      end
   end
   return options
end

local function gates(fn, options)
   return fn and { { fn = fn, options = options } } or {}
end

local function open(spec, values)
   local name, given = parse(spec)
   for key, value in pairs(values or {}) do given[key] = value end
   local found, why
   if name:match "^[%w_]+$" then
      found, why = load_shipped(name)
   else
      found, why = load_file(name)
   end
   if why then return nil, why end
   if type(found) == "function" then found = { place = found } end
   local t
   t, why = check_table(name, found)
   if not t then return nil, why end
   local options
   options, why = options_of(name, t.options, given)
   if not options then return nil, why end
   return setmetatable({ name = spec, decide = t.place, options = options,
      admits = gates(t.admit, options), admits_decode = gates(t.admit_decode, options),
      asks_decode = t.admit_decode ~= nil }, Policy)
end

-- A policy by the name of a shipped one or of a file; options after a colon, as
-- "kvcache_centric:threshold=3", or in a table. nil, why if there is none such.
function policy.load(spec, values)
   local p, why = open(spec, values)
   if p and not p.decide then
      return nil, spec .. ": no place(): it only admits what another places"
   end
   return p, why
end

-- As policy.load(), for one that only admits.
function policy.admission(spec, values)
   local p, why = open(spec, values)
   if p and p.decide then
      return nil, spec .. ": has a place(): it is no admission policy"
   end
   return p, why
end

local function joined(a, b)
   local list = {}
   for _, x in ipairs(a) do list[#list + 1] = x end
   for _, x in ipairs(b) do list[#list + 1] = x end
   return list
end

-- One that places as @placement and admits what both do.
function policy.compose(placement, admission)
   return setmetatable({ name = placement.name .. " + " .. admission.name,
      decide = placement.decide, options = placement.options,
      admits = joined(placement.admits, admission.admits),
      admits_decode = joined(placement.admits_decode, admission.admits_decode),
      asks_decode = placement.asks_decode or admission.asks_decode }, Policy)
end

-- ---- what is shipped ---------------------------------------------------

-- The names of the policies in the program, sorted: those that place, or with @admission
-- those that only admit.
function policy.names(admission)
   local embedded = package.loaded["mooncake.embedded"]
   local names = {}
   for module in pairs(embedded and embedded.files or {}) do
      local name = module:match "^mooncake%.policies%.([%w_]+)$"
      local p = name and open(name)
      if p and (p.decide == nil) == (admission == true) then names[#names + 1] = name end
   end
   table.sort(names)
   return names
end

return policy
