-- sim_figures.lua - what a simulation found out: counts and columns while it runs, and
-- the result of it as a table of plain figures.
--
-- Of a request that arrived before the warm-up was over nothing is counted; what the
-- simulator counts itself is taken as the difference to then.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local column = require "mooncake.sim_column"
local hot = require "mooncake.sim_hot"
local json = require "mooncake.json"

local rounded = column.rounded

ffi.cdef [[
struct mcl_sim_instance {
   double prefills, prefill_gpu_s, decodes, output_tokens;
};
]]

local Figures = {}
Figures.__index = Figures

local figures = {}

local HOT_BLOCKS = 100

local COLUMNS = { "ttft_s", "ttst_s", "tbt_s", "itl_s", "e2e_s", "queue_s",
   "user_tokens_per_s" }
local STAGES = { "fetch", "wait", "prefill", "transfer", "decode" }

-- slo: bounds ttft, tbt and e2e in seconds, each or none; warmup_s.
function figures.new(instances, slo, warmup_s)
   local self = setmetatable({
      warmup_s = warmup_s, instances = instances,
      ttft_slo = slo.ttft or math.huge, tbt_slo = slo.tbt or math.huge,
      e2e_slo = slo.e2e or math.huge, slo = slo,
      completed = 0, refused = 0, refused_late = 0, good = 0,
      met_ttft = 0, met_tbt = 0, met_e2e = 0, input_tokens = 0, output_tokens = 0,
      local_tokens = 0, remote_tokens = 0, last_s = 0,
      fetch_s = 0, wait_s = 0, prefill_s = 0, transfer_s = 0, decode_s = 0,
      each = ffi.new("struct mcl_sim_instance[?]", instances), hot = hot.new(),
      before = ffi.new "struct mc_sim_totals", warm = warmup_s <= 0,
   }, Figures)
   for _, name in ipairs(COLUMNS) do self[name] = column.new() end
   return self
end

-- ---- while it runs ---------------------------------------------------------

-- A request is about to be placed. The first one after the warm-up ends that.
function Figures:placing(sim, prompt)
   if not self.warm then
      if prompt.arrived_s < self.warmup_s then return end
      C.mc_sim_totals(sim, self.before)
      self.warm = true
   end
   self.hot:add(sim, prompt.blocks, prompt.n_blocks)
end

local function add_stages(self, r)
   local joined_s = math.max(r.joined_s, r.first_s)
   self.fetch_s = self.fetch_s + r.ready_s - r.arrived_s
   self.wait_s = self.wait_s + r.started_s - r.ready_s
   self.prefill_s = self.prefill_s + r.first_s - r.started_s
   self.transfer_s = self.transfer_s + joined_s - r.first_s
   self.decode_s = self.decode_s + r.done_s - joined_s
end

local function add_completed(self, r)
   local ttft, e2e = r.first_s - r.arrived_s, r.done_s - r.arrived_s
   self.completed = self.completed + 1
   self.input_tokens = self.input_tokens + r.input_tokens
   self.output_tokens = self.output_tokens + r.output_tokens
   self.ttft_s:add(ttft)
   self.e2e_s:add(e2e)
   self.queue_s:add(r.started_s - r.arrived_s)
   local tbt = 0
   if r.output_tokens > 1 then
      tbt = r.tbt_s
      self.tbt_s:add(tbt)
      self.itl_s:add(r.itl_s)
      self.ttst_s:add(r.second_s - r.arrived_s)
      self.user_tokens_per_s:add(1 / r.itl_s)
   end
   local in_ttft, in_tbt = ttft <= self.ttft_slo, tbt <= self.tbt_slo
   local in_e2e = e2e <= self.e2e_slo
   if in_ttft then self.met_ttft = self.met_ttft + 1 end
   if in_tbt then self.met_tbt = self.met_tbt + 1 end
   if in_e2e then self.met_e2e = self.met_e2e + 1 end
   if in_ttft and in_tbt and in_e2e then self.good = self.good + 1 end
   add_stages(self, r)
   if r.decode < self.instances then
      local d = self.each[r.decode]
      d.decodes, d.output_tokens = d.decodes + 1, d.output_tokens + r.output_tokens
   end
end

-- A request has ended.
function Figures:done(r)
   if r.arrived_s < self.warmup_s then return end
   self.last_s = math.max(self.last_s, r.done_s)
   if r.outcome == C.MC_SIM_COMPLETED then
      add_completed(self, r)
   elseif r.outcome == C.MC_SIM_REFUSED_LATE then
      self.refused_late = self.refused_late + 1
   else
      self.refused = self.refused + 1
      return
   end
   self.local_tokens = self.local_tokens + r.local_tokens
   self.remote_tokens = self.remote_tokens + r.remote_tokens
   local p = self.each[r.prefill]
   p.prefills, p.prefill_gpu_s = p.prefills + 1, p.prefill_gpu_s + r.prefill_gpu_s
end

-- ---- the result ------------------------------------------------------------

local function ratio(a, b)
   return b > 0 and rounded(a / b) or 0
end

-- Totals since the warm-up, as numbers.
local function since(self, sim)
   local now, t = ffi.new "struct mc_sim_totals", {}
   C.mc_sim_totals(sim, now)
   if not self.warm then C.mc_sim_totals(sim, self.before) end
   for _, k in ipairs { "blocks", "blocks_hit", "ssd_tokens", "preemptions", "iterations",
                        "prefill_gpu_s", "decode_gpu_s", "bytes_sent", "stored",
                        "evicted" } do
      t[k] = tonumber(now[k] - self.before[k])
   end
   t.in_flight, t.cached_blocks = tonumber(now.in_flight), tonumber(now.cached_blocks)
   return t
end

-- What was found where: shares of all blocks of requests that were placed.
local function add_hits(self, t, r)
   local found = self.local_tokens + self.remote_tokens
   r.blocks, r.blocks_hit = t.blocks, t.blocks_hit
   r.hit_rate = ratio(t.blocks_hit, t.blocks)
   r.hit_rate_local = rounded(r.hit_rate * ratio(self.local_tokens, found))
   r.hit_rate_remote = rounded(r.hit_rate * ratio(self.remote_tokens, found))
   r.ssd_tokens = t.ssd_tokens
end

local function add_counts(self, t, r, span_s)
   r.completed, r.rejected_arrival = self.completed, self.refused
   r.rejected_after_prefill, r.unfinished = self.refused_late, t.in_flight
   r.requests = r.completed + r.rejected_arrival + r.rejected_after_prefill +
                r.unfinished
   r.goodput_ratio = ratio(self.good, r.requests)
   r.goodput_per_s = ratio(self.good, span_s)
   r.slo_met = {}
   for name in pairs(self.slo) do
      r.slo_met[name] = ratio(self["met_" .. name], r.requests)
   end
   r.throughput = {
      requests_per_s = ratio(self.completed, span_s),
      input_tokens_per_s = ratio(self.input_tokens, span_s),
      output_tokens_per_s = ratio(self.output_tokens, span_s),
   }
end

local function add_times(self, r)
   for _, name in ipairs(COLUMNS) do r[name] = self[name]:summary() end
   r.stages_s = {}
   for _, name in ipairs(STAGES) do
      r.stages_s[name] = ratio(self[name .. "_s"], self.completed)
   end
end

local function add_gpu(self, t, r, cluster, span_s)
   r.prefill_gpu_s, r.decode_gpu_s = rounded(t.prefill_gpu_s), rounded(t.decode_gpu_s)
   r.prefill_gpu_s_per_request = ratio(t.prefill_gpu_s, self.completed)
   r.node_s = rounded(cluster.all_nodes * span_s)
   r.preemptions, r.iterations = t.preemptions, t.iterations
end

-- The instances, and how much went over their links.
local function add_links(self, sim, t, r, cluster, span_s)
   local link, list, busiest = ffi.new "struct mc_sim_link", json.array(), nil
   for i = 0, self.instances - 1 do
      C.mc_sim_link(sim, i, link)
      local e = self.each[i]
      local one = {
         role = cluster.role(i), prefills = e.prefills,
         prefill_gpu_s = rounded(e.prefill_gpu_s), decodes = e.decodes,
         output_tokens = e.output_tokens, out_bytes = rounded(link.out_bytes),
         in_bytes = rounded(link.in_bytes), out_busy_s = rounded(link.out_busy_s),
         in_busy_s = rounded(link.in_busy_s),
         cached_blocks = tonumber(link.cached_blocks),
      }
      list[i + 1] = one
      local bytes = math.max(link.out_bytes, link.in_bytes)
      if not busiest or bytes > busiest.bytes then
         busiest = { instance = i, bytes = bytes,
                     out = link.out_bytes >= link.in_bytes }
      end
   end
   r.instances = list
   local busy_Bps = ratio(busiest.bytes, span_s)
   r.links = {
      bytes = rounded(t.bytes_sent), mean_Bps = ratio(t.bytes_sent, span_s),
      peak_Bps = 0, nic_Bps = cluster.nic_Bps, busiest = {
         instance = busiest.instance, way = busiest.out and "out" or "in",
         mean_Bps = busy_Bps, use = cluster.nic_Bps > 0 and
            ratio(busy_Bps, cluster.nic_Bps) or nil },
   }
end

local function add_peak(sim, r)
   local out = ffi.new "const struct mc_sim_sample *[1]"
   local n, peak = C.mc_sim_samples(sim, out), 0
   for i = 0, n - 1 do peak = math.max(peak, out[0][i].link_Bps) end
   r.links.peak_Bps = rounded(peak)
end

-- How widely the blocks that were used most have spread: at the end, and at most.
local function add_hot(self, sim, r)
   local top, sum = self.hot:top(HOT_BLOCKS), 0
   local list = json.array()
   for i, block in ipairs(top) do
      sum = sum + block.most
      list[i] = { uses = block.uses, replicas_most = block.most,
                  replicas = C.mc_sim_replicas(sim, block.id) }
   end
   r.hot_blocks = { blocks = #top, replicas_mean = ratio(sum, #top), list = list }
end

-- All figures, as a table that can be JSON. cluster: as mooncake.sim has it.
function Figures:result(sim, cluster)
   local r, t = {}, since(self, sim)
   local span_s = math.max(0, self.last_s - self.warmup_s)
   r.span_s = rounded(span_s)
   add_counts(self, t, r, span_s)
   add_times(self, r)
   add_hits(self, t, r)
   add_gpu(self, t, r, cluster, span_s)
   add_links(self, sim, t, r, cluster, span_s)
   add_peak(sim, r)
   add_hot(self, sim, r)
   r.cached_blocks, r.stored_blocks = t.cached_blocks, t.stored
   r.evicted_blocks = t.evicted
   return r
end

return figures
