-- wire.lua - what the processes of replay.lua say to each other, and how they count.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"

ffi.cdef [[
struct replay_head {
	uint64_t req;			/* number of the request */
	uint64_t sent_ns;		/* when it was given to the decode node */
	uint32_t node;			/* the prefill or decode node concerned */
	uint32_t n;			/* entries that follow */
};
struct replay_block {
	uint64_t id;
	uint64_t to;			/* address in the decode node's pool */
	uint64_t from;			/* in the prefill node's, with --pull */
};
struct replay_done {
	uint64_t req, bytes;
	double ready_us;		/* sent to all blocks being there */
	uint32_t moved, reused, verified, bad;
};
int replay_memcmp(const void *a, const void *b, size_t n) __asm__("memcmp");
]]

local head_size = ffi.sizeof "struct replay_head"
local block_size = ffi.sizeof "struct replay_block"

local wire = { head_size = head_size, block_size = block_size,
   id_limit = math.floor((C.MC_NOTIFY_MAX - head_size) / 8),
   block_limit = math.floor((C.MC_NOTIFY_MAX - head_size) / block_size) }

function wire.now_us() return tonumber(C.mc_now_ns()) / 1000 end

-- A message: head, and the @n entries of @size bytes at @entries if they are given.
function wire.pack(req, sent_ns, node, n, entries, size)
   local head = ffi.new("struct replay_head", req, sent_ns, node, n)
   return ffi.string(head, head_size) .. (entries and ffi.string(entries, n * size) or "")
end

-- Its head, and its entries as @ctype; valid as long as the string.
function wire.unpack(msg, ctype)
   local p = ffi.cast("const char *", msg)
   local head = ffi.cast("const struct replay_head *", p)
   return head, ctype and ffi.cast(ctype, p + head_size)
end

-- Latencies in buckets of 1/16 of a doubling, from 0.1 us on: percentiles to 3 %.
local Hist = {}
Hist.__index = Hist

function wire.hist()
   return setmetatable({ n = 0, bucket = ffi.new "double[640]" }, Hist)
end

function Hist:add(us)
   local i = math.floor(16 * math.log(math.max(us, 0.1) / 0.1) / math.log(2))
   i = math.min(i, 639)
   self.bucket[i], self.n = self.bucket[i] + 1, self.n + 1
end

-- In microseconds; nil without samples.
function Hist:percentile(p)
   local left = math.max(1, p / 100 * self.n)
   for i = 0, 639 do
      left = left - self.bucket[i]
      if left <= 0 then return 0.1 * 2 ^ ((i + 0.5) / 16) end
   end
end

function Hist:list()
   local list = json.array()
   for i = 0, 639 do
      if self.bucket[i] > 0 then list[#list + 1] = { i, self.bucket[i] } end
   end
   return list
end

function Hist:merge(list)
   for _, pair in ipairs(list) do
      self.bucket[pair[1]] = self.bucket[pair[1]] + pair[2]
      self.n = self.n + pair[2]
   end
end

return wire
