-- two_nodes.lua - two processes: a prefill node writes scattered blocks into a decode
-- node's memory in one batch, and announces them; the decode node checks them.
--
--   mooncake run examples/two_nodes.lua

local BLOCK, N = 16384, 1024

-- The decode node offers memory, says where, and waits for the announcement.
if arg[1] == "decode" then
   local e = assert(mooncake.open())
   local pool = assert(e:alloc(N * BLOCK, { access = "rw" }))
   print(("%s %d"):format(e:addr(), pool.addr))
   io.stdout:flush()
   local note = assert(e:next_notify(10000), "no announcement")
   local block, equal = assert(e:alloc(BLOCK, { access = "local" })), true
   for i = 0, N - 1 do
      equal = equal and pool:hash(i * BLOCK, BLOCK) == block:fill(i):hash()
   end
   print(note.name, note.msg, equal and "all equal" or "DIFFERENT")
   return equal
end

local decode = assert(mooncake.spawn {
   "mooncake", "run", arg[0], "decode", stdout = "pipe",
})
local addr, base = decode:read_line(5000):match "(%S+)%s+(%d+)"

local e = assert(mooncake.open())
local cache = assert(e:alloc(N * BLOCK, { access = "local" }))
local segment = assert(e:segment(addr))

-- Block i is at another place there than here, as in a paged KV cache.
local reqs = mooncake.reqs(N)
for i = 0, N - 1 do
   local here = (i * 7) % N
   cache:fill(i, here * BLOCK, BLOCK)
   reqs[i].op, reqs[i].segment, reqs[i].len = "MC_WRITE", segment.id, BLOCK
   reqs[i].buf, reqs[i].remote = cache.ptr + here * BLOCK, tonumber(base) + i * BLOCK
end

local start = mooncake.now()
local r = assert(e:transfer(reqs, {
   notify = { segment = segment, name = "request 1", msg = "1,024 blocks" },
}))
local ms = (mooncake.now() - start) * 1000
print(decode:read_line(5000))
local by
for _, rail in ipairs(e:rails()) do
   if rail.bytes_written > 0 then by = rail.transport end
end
print(("%d bytes in %.2f ms, %.2f GB/s, by %s"):format(r.bytes, ms, r.bytes / ms / 1e6,
                                                       by))
return decode:wait(5000)
