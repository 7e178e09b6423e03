-- gpu.lua - memory of a GPU, in the virtual machine of scripts/vm: it goes over RDMA and
-- over nothing else, whichever end it is at. There is no GPU here: a library that stands
-- in for the driver's says which memory is one's, and the devices reach that as memory
-- for which nvidia-peermem is loaded. (On a real GPU: unit/gpu_test.c.)
--
--   mooncake run gpu.lua DEVICE FAR-DEVICE

local ffi = require "ffi"
local peer = dofile "tests/vm/peer.lua"

local LEN, EOPNOTSUPP = 2 ^ 20, 95

-- ---- the stand-in --------------------------------------------------------------

local dir = os.tmpname()
os.remove(dir)
local cc = assert(io.popen(("mkdir %s && cc -shared -fPIC -w -o %s/libcuda.so.1 " ..
   "-Wl,-soname,libcuda.so.1 -x c -"):format(dir, dir), "w"))
cc:write [[
static unsigned long long from, to;
void gpu_has(unsigned long long at, unsigned long long n) { from = at; to = at + n; }
int cuPointerGetAttribute(void *out, int what, unsigned long long at)
{ if ((what != 2 && what != 9) || at < from || at >= to) return 1;
  *(unsigned *)out = what == 9 ? 1 : 2; return 0; }
]]
cc:close()
ffi.cdef [[
void gpu_has(unsigned long long at, unsigned long long n);
void *aligned_alloc(size_t align, size_t n);
]]
local driver = ffi.load(dir .. "/libcuda.so.1")
peer.sh("rm -r %s", dir)
local memory = ffi.cast("uint8_t *", ffi.C.aligned_alloc(4096, 2 * LEN))
driver.gpu_has(tonumber(ffi.cast("uintptr_t", memory)), 2 * LEN)

-- ---- what is moved by what -------------------------------------------------------

local function open(devices)
   return assert(mooncake.open {
      transports = devices and "rdma,tcp" or "tcp", devices = devices,
   })
end

local function carried(e)
   local n = { rdma = 0, tcp = 0 }
   for _, r in ipairs(e:rails()) do
      n[r.transport] = n[r.transport] + r.bytes_read + r.bytes_written
   end
   return n
end

local near, far, plain = open(arg[1]), open(arg[2]), open()
local mine = assert(near:register(memory, LEN))
local theirs = assert(far:register(memory + LEN, LEN))
local host = { near = assert(near:alloc(LEN)), far = assert(far:alloc(LEN)),
               plain = assert(plain:alloc(LEN)) }
for _, b in ipairs(near:buffers()) do
   if b.addr == mine.addr and b.location ~= "cuda:1" then error("at " .. b.location) end
end
local s = assert(near:segment(far:addr(), 10000))
local opts = { timeout_ms = 10000 }

-- From a GPU, to one, and from one to the other.
local moved = 0
for i, c in ipairs { { mine, host.far }, { host.near, theirs }, { mine, theirs } } do
   c[1]:fill(i)
   assert(s:write(c[1], c[2].addr, LEN, opts))
   if c[2]:hash() ~= c[1]:hash() then error "other bytes were written" end
   c[1]:fill(9)
   assert(s:read(c[1], c[2].addr, LEN, opts))
   if c[2]:hash() ~= c[1]:hash() then error "other bytes were read" end
   moved = moved + 2 * LEN
end
local n = carried(near)
print(("  %d bytes by rdma, %d by tcp"):format(n.rdma, n.tcp))
if n.rdma ~= moved or n.tcp ~= 0 then error "it went another way" end

-- Without rdma it is refused, at either end, with a reason.
local function refused(what, r, why, errno)
   print(("  %s: %s"):format(what, tostring(why)))
   if not r and errno == EOPNOTSUPP and why:find "GPU" then return end
   error(what .. ": not refused")
end
local r, why, errno = plain:register(memory, LEN)
refused("registered without rdma", r, why, errno)
local ps = assert(plain:segment(far:addr(), 10000))
r, why, errno = ps:read(host.plain, theirs.addr, LEN, opts)
refused("read over tcp", r, why, errno)
assert(ps:read(host.plain, host.far.addr, LEN, opts))
local sp = assert(near:segment(plain:addr(), 10000))
r, why, errno = sp:write(mine, host.plain.addr, LEN, opts)
refused("written to one without rdma", r, why, errno)

-- With the link down it waits for it, and does not go over tcp; other memory does.
peer.sh("ip link set %s down", peer.eth(arg[1]))
host.near:fill(3)
assert(s:write(host.near, host.far.addr, LEN, opts))
r, why = s:write(mine, host.far.addr, LEN, { timeout_ms = 1500 })
print("  link down: " .. tostring(why))
if r or host.far:hash() ~= host.near:hash() then error "it was written all the same" end
peer.sh("ip link set %s up", peer.eth(arg[1]))
assert(s:write(mine, host.far.addr, LEN, opts))
if host.far:hash() ~= mine:hash() then error "other bytes came after the link was up" end
near:close()
far:close()
plain:close()
print "ok"
