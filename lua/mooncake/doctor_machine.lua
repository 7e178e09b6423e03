-- doctor_machine.lua - what `mooncake doctor` finds out about the machine: limits,
-- kernel switches, libraries and devices that decide which transports work, and how
-- well. Each check is { name, state = "ok" | "warn" | "missing", detail, remedy };
-- "missing" is something that can be had, "warn" something that costs speed or fails
-- under load. Nothing is changed but for one empty file in /dev/shm, made and removed.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local registry = require "mooncake.registry"
local util = require "mooncake.util"

ffi.cdef [[
long mcl_syscall(long number, ...) __asm__("syscall");
]]

local CAP_IPC_LOCK, CAP_SYS_PTRACE = 14, 19
local SYS_IO_URING_SETUP = 425   -- the same number on all architectures
local ENOSYS, EPERM = 38, 1

local function ok(name, detail) return { name = name, state = "ok", detail = detail } end

local function warn(name, detail, remedy)
   return { name = name, state = "warn", detail = detail, remedy = remedy }
end

local function missing(name, detail, remedy)
   return { name = name, state = "missing", detail = detail, remedy = remedy }
end

-- ---- reading ---------------------------------------------------------------

local function text(m, path)
   local f = io.open(m.root .. path)
   local s = f and f:read "*a"
   if f then f:close() end
   return s and s:match "^%s*(.-)%s*$"
end

local function number(m, path) return tonumber(text(m, path) or "") end

local function capable(m, bit)
   local hex = (text(m, "/proc/self/status") or ""):match "CapEff:%s*(%x+)"
   if not hex then return false end
   local digit = tonumber(hex:sub(-1 - math.floor(bit / 4), -1 - math.floor(bit / 4)), 16)
   return digit ~= nil and math.floor(digit / 2 ^ (bit % 4)) % 2 == 1
end

-- The soft and hard limit of a line in /proc/self/limits: numbers, math.huge.
local function limit(m, what)
   local limits = text(m, "/proc/self/limits") or ""
   local soft, hard = limits:match(what .. "%s+(%w+)%s+(%w+)")
   local function value(s) return s == "unlimited" and math.huge or tonumber(s or "") end
   return value(soft), value(hard)
end

-- How many "0-3,8,10-11" are; and nil for nothing.
local function count(list)
   local n = 0
   for part in (list or ""):gmatch "[^,%s]+" do
      local a, b = part:match "^(%d+)%-?(%d*)$"
      if a then n = n + (tonumber(b) or tonumber(a)) - tonumber(a) + 1 end
   end
   return n > 0 and n or nil
end

local function bytes(n)
   if n == math.huge then return "unlimited" end
   local units = { "B", "KiB", "MiB", "GiB", "TiB" }
   local i = 1
   while n >= 1024 and i < #units do n, i = n / 1024, i + 1 end
   return ("%.4g %s"):format(n, units[i])
end

local function library(m, name)
   if m.libraries then return m.libraries[name] end
   return (pcall(ffi.load, name))
end

-- Devices by kind, as the topology has them.
local function devices(root)
   local out = ffi.new "struct mc_topology *[1]"
   local found = { cpu = {}, net = {}, rdma = {}, gpu = {}, nvme = {} }
   if C.mc_topology_open(out, root) < 0 then return found end
   local info = ffi.new "struct mc_device_info"
   for i = 0, C.mc_topology_count(out[0]) - 1 do
      C.mc_topology_device(out[0], i, info)
      local list = found[ffi.string(info.kind)]
      if list then
         list[#list + 1] = { name = ffi.string(info.name), up = info.up == 1,
                             addr = ffi.string(info.addr) }
      end
   end
   C.mc_topology_close(out[0])
   return found
end

local function names(list)
   local t = {}
   for i, d in ipairs(list) do t[i] = d.up and d.name or d.name .. " (down)" end
   return table.concat(t, " ")
end

-- ---- the machine -----------------------------------------------------------

local function kernel(m)
   local release = text(m, "/proc/sys/kernel/osrelease") or "unknown"
   local major, minor = release:match "^(%d+)%.(%d+)"
   if major and tonumber(major) * 1000 + tonumber(minor) < 5004 then
      return warn("kernel", release .. ": older than any it is tested on",
                  "run Linux 5.4 or later")
   end
   return ok("kernel", release)
end

local function cpus(m)
   local online = count(text(m, "/sys/devices/system/cpu/online")) or 1
   local status = text(m, "/proc/self/status") or ""
   local allowed = count(status:match "Cpus_allowed_list:%s*(%S+)") or online
   local quota, period = (text(m, "/sys/fs/cgroup/cpu.max") or ""):match "^(%d+) (%d+)"
   local share = quota and tonumber(quota) / tonumber(period)
   local detail = ("%d of %d usable"):format(math.min(allowed, online), online)
   if share and share < allowed then
      return warn("cpus", ("%s, %.3g by quota: transfers stall when it is used up")
                  :format(detail, share), "raise the container's CPU limit")
   end
   return ok("cpus", detail)
end

local function numa(m)
   local n = count(text(m, "/sys/devices/system/node/online")) or 1
   if n > 1 and number(m, "/proc/sys/kernel/numa_balancing") == 1 then
      return warn("numa", n .. " nodes; the kernel moves pages between them by itself",
                  "sysctl -w kernel.numa_balancing=0")
   end
   return ok("numa", n == 1 and "1 node" or n .. " nodes")
end

local function loopback(m)
   for _, d in ipairs(m.devices.net) do
      if d.name == "lo" and d.up then return ok("loopback", "up") end
   end
   return missing("loopback", "lo is down: no connection inside this host works",
                  "ip link set lo up")
end

-- ---- limits ----------------------------------------------------------------

local function memlock(m)
   local soft = limit(m, "Max locked memory")
   if not soft then return warn("memlock", "not known: no /proc") end
   if soft == math.huge then return ok("memlock", "unlimited") end
   if capable(m, CAP_IPC_LOCK) then
      return ok("memlock", bytes(soft) .. ", which does not bind this process")
   end
   return warn("memlock", bytes(soft) .. ": RDMA buffers beyond it cannot be registered",
               "ulimit -l unlimited (LimitMEMLOCK=infinity for a systemd unit)")
end

local function open_files(m)
   local soft, hard = limit(m, "Max open files")
   if not soft then return warn("open files", "not known: no /proc") end
   local detail = ("%g, may be raised to %g"):format(soft, hard or soft)
   if soft < 4096 then
      return warn("open files", detail .. ": each peer takes several connections",
                  ("ulimit -n %g"):format(math.max(4096, math.min(hard or 0, 1048576))))
   end
   return ok("open files", detail)
end

local function huge_pages(m)
   local info = text(m, "/proc/meminfo") or ""
   local total = tonumber(info:match "HugePages_Total:%s*(%d+)") or 0
   local free = tonumber(info:match "HugePages_Free:%s*(%d+)") or 0
   local kib = tonumber(info:match "Hugepagesize:%s*(%d+)") or 2048
   if total == 0 then
      return missing("huge pages", "none reserved: buffers get 4 KiB pages",
                     "sysctl -w vm.nr_hugepages=N, each of " .. bytes(kib * 1024))
   end
   local detail = ("%d of %d free, each of %s"):format(free, total, bytes(kib * 1024))
   if free == 0 then
      return warn("huge pages", detail, "sysctl -w vm.nr_hugepages=" .. total * 2)
   end
   return ok("huge pages", detail)
end

-- ---- memory of other processes ----------------------------------------------

local PTRACE = {
   [1] = "only the memory of a process's children",
   [2] = "only with CAP_SYS_PTRACE",
   [3] = "never",
}

local function ptrace(m)
   local scope = number(m, "/proc/sys/kernel/yama/ptrace_scope")
   if not scope then return ok("ptrace scope", "no restriction in this kernel") end
   if scope == 0 or (scope < 3 and capable(m, CAP_SYS_PTRACE)) then
      return ok("ptrace scope", scope .. ", which does not bind this process")
   end
   return warn("ptrace scope", ("%d: %s. shm then moves only memory that an engine " ..
               "allocated"):format(scope, PTRACE[scope] or "unknown"),
               scope == 3 and "boot with kernel.yama.ptrace_scope below 3" or
               "sysctl -w kernel.yama.ptrace_scope=0")
end

local function dev_shm(m)
   local mounts = text(m, "/proc/self/mounts") or ""
   local options = ("\n" .. mounts):match "\n%S+ /dev/shm %S+ (%S+)"
   -- The address of a new table makes the name differ between two doctors.
   local path = m.root .. "/dev/shm/mooncake-doctor-" .. tostring({}):match "%x+$"
   local f = io.open(path, "w")
   if not f then
      return warn("/dev/shm", "not writable; engines do not need it, other programs do",
                  "mount -t tmpfs tmpfs /dev/shm")
   end
   f:close()
   os.remove(path)
   local kib = (options or ""):match "size=(%d+)k"
   return ok("/dev/shm", kib and bytes(tonumber(kib) * 1024) or "writable")
end

local function io_uring(m)
   local disabled = number(m, "/proc/sys/kernel/io_uring_disabled") or 0
   local errno = m.io_uring_errno
   if not errno then
      ffi.C.mcl_syscall(SYS_IO_URING_SETUP, ffi.cast("long", 0), ffi.cast("void *", nil))
      errno = ffi.errno()
   end
   if errno == ENOSYS then
      return missing("io_uring", "not in this kernel", "run Linux 5.4 or later")
   elseif errno == EPERM and disabled > 0 then
      return missing("io_uring", "switched off: kernel.io_uring_disabled is " .. disabled,
                     "sysctl -w kernel.io_uring_disabled=0")
   elseif errno == EPERM then
      return missing("io_uring", "refused, as a container's seccomp profile does",
                     "allow io_uring_setup, io_uring_enter and io_uring_register")
   end
   return ok("io_uring", "usable")
end

-- ---- network buffers -------------------------------------------------------

-- A connection has at most one window on its way per round trip.
local function tcp_buffers(m, file, other)
   local sizes = text(m, "/proc/sys/net/ipv4/" .. file) or ""
   local largest = tonumber(sizes:match "(%d+)%s*$")
   local core = number(m, "/proc/sys/net/core/" .. other)
   if not largest then return warn(file, "not known: no /proc/sys/net") end
   local detail = ("up to %s: at most %.3g Gb/s per connection at a round trip of 1 ms")
                  :format(bytes(largest), largest * 8 / 1e6)
   if core then detail = ("%s; %s is %s"):format(detail, other, bytes(core)) end
   if largest < 4194304 then
      return warn(file, detail,
                  "sysctl -w net.ipv4." .. file .. "='4096 131072 16777216'")
   end
   return ok(file, detail)
end

-- ---- hardware --------------------------------------------------------------

local function rdma_library(m)
   if library(m, "libibverbs.so.1") then return ok("rdma library", "libibverbs.so.1") end
   return missing("rdma library", "no libibverbs.so.1",
                  "install libibverbs1 and ibverbs-providers")
end

-- What the library says of the devices that can be opened: their ports, and how each is
-- reached.
local function rdma_ports()
   local info = ffi.new "struct mc_rdma_info[16]"
   local list = {}
   for i = 0, C.mc_rdma_list(info, 16) - 1 do
      local d = info[i]
      list[#list + 1] = {
         name = ffi.string(d.name), port = d.port, link = ffi.string(d.link),
         up = d.up == 1, mtu = d.mtu, bw = tonumber(d.bw), gid = ffi.string(d.gid),
         gid_index = d.gid_index, why = ffi.string(d.why),
      }
   end
   return list
end

local function port_text(d)
   if d.why ~= "" then return d.why end
   return ("port %d %s, %s, %g Gb/s, MTU %d, GID %d %s"):format(d.port,
      d.up and "up" or "down", d.link, d.bw * 8 / 1e9, d.mtu, d.gid_index, d.gid)
end

-- One check for each device, with what would keep it from being used.
local function rdma_devices_open()
   local list = {}
   for i, d in ipairs(rdma_ports()) do
      local text = port_text(d)
      list[i] = d.why ~= "" and warn(d.name, text, "give its interface an address") or
                not d.up and warn(d.name, text, "ip link set its interface up") or
                ok(d.name, text)
   end
   return list
end

local function rdma_devices(m)
   local list = m.devices.rdma
   if #list == 0 then
      return missing("rdma devices", "none",
                     "load the NIC's RDMA driver; or, in software: " ..
                     "rdma link add rxe0 type rxe netdev INTERFACE")
   end
   for i = 0, #list + 7 do
      local f = io.open(m.root .. "/dev/infiniband/uverbs" .. i)
      if f then
         f:close()
         return ok("rdma devices", names(list))
      end
   end
   return warn("rdma devices", names(list) .. ", but no /dev/infiniband/uverbs to open",
               "modprobe ib_uverbs; pass /dev/infiniband to the container")
end

local function cuda(m)
   local gpus = #m.devices.gpu
   local seen = gpus == 1 and "1 GPU" or gpus .. " GPUs"
   if library(m, "libcuda.so.1") then
      return ok("cuda driver", "libcuda.so.1, " .. seen .. " on the PCI bus")
   end
   return missing("cuda driver", "no libcuda.so.1, " .. seen .. " on the PCI bus",
                  gpus > 0 and "install the GPU's driver, or pass it to the container" or
                  "needs a GPU and its driver")
end

-- ---- the public protocol -----------------------------------------------------

-- Who may reach the memory of engines that the environment tells how to open.
local function profile(m)
   local name = m.profile or os.getenv "MOONCAKE_PROFILE" or "native"
   local keyed = m.key_file or os.getenv "MOONCAKE_KEY_FILE"
   if name == "" or name == "native" then
      return ok("profile", "native; v1, for the public Mooncake, has no authentication")
   end
   if name == "v1" and keyed then
      return warn("profile", "v1 has no authentication, and there is a cluster key: " ..
                  "engines do not open", "MOONCAKE_PROFILE=v1,unauthenticated lets " ..
                  "anyone in; without it, only those with the key")
   end
   return warn("profile", name .. ": who reaches an engine's ports reads and writes " ..
               "its memory, without authentication", "keep the ports within the cluster")
end

-- What programs get that ask the Python package for tcp.
local function same_host(m)
   local list = m.transports or os.getenv "MOONCAKE_TRANSPORTS" or ""
   if list == "" then
      return ok("same host", "'tcp' of the Python package may choose shared memory " ..
                "between processes of one host; MOONCAKE_TRANSPORTS=tcp forbids it")
   end
   local shared = ("," .. list:gsub("%s", "") .. ","):find(",shm,", 1, true)
   return ok("same host", ("shared memory %s, as MOONCAKE_TRANSPORTS=%s says"):format(
                shared and "may be chosen" or "is not used", list))
end

-- ---- registries ------------------------------------------------------------

-- Opening one loads what its client needs, and reaches no server.
local function registries(m)
   local usable, absent = { "peer" }, {}
   for _, scheme in ipairs { "http", "etcd", "redis" } do
      local r, err = (m.open_registry or registry.open)(scheme .. "://localhost")
      if r then
         r:close()
         usable[#usable + 1] = scheme
      else
         absent[#absent + 1] = scheme .. ": " .. err
      end
   end
   local detail = table.concat(usable, ", ")
   if #absent == 0 then return ok("registries", detail) end
   return missing("registries", detail .. "; " .. table.concat(absent, "; "),
                  "install what is named there: libcurl4, libhiredis")
end

-- All that an engine does to its record, to one that nobody else has.
local function use(r)
   local key = "mooncake/doctor/" .. tostring({}):match "%x+$"
   local start = C.mc_now_ns()
   local done, err = r:put(key, "1", 60000)
   local value
   if done then value, err = r:get(key) end
   if value and value ~= "1" then value, err = nil, "got another value than was put" end
   if value then done, err = r:del(key) end
   return value and done and tonumber(C.mc_now_ns() - start) / 1e9, err
end

local function registry_at(url)
   local r, err = registry.open(url)
   if not r then return missing("registry", err, "see `mooncake help lua`, REGISTRY") end
   local s
   s, err = use(r)
   r:close()
   if s then
      return ok("registry", "a record put, read and deleted in " .. util.duration(s))
   end
   return missing("registry", err, "look at the server, its address, user and password")
end

-- @fake replaces parts of the machine in tests: root, libraries, io_uring_errno,
-- open_registry, profile, key_file, transports.
local function checks(fake)
   local m = fake or {}
   m.root = m.root or ""
   m.devices = devices(m.root)
   local list = {
      kernel(m), cpus(m), numa(m), loopback(m),
      memlock(m), open_files(m), huge_pages(m),
      ptrace(m), dev_shm(m), io_uring(m),
      tcp_buffers(m, "tcp_rmem", "rmem_max"), tcp_buffers(m, "tcp_wmem", "wmem_max"),
      rdma_library(m), rdma_devices(m), cuda(m), registries(m), profile(m),
      same_host(m),
   }
   if m.root ~= "" then return list end
   for _, c in ipairs(rdma_devices_open()) do list[#list + 1] = c end
   return list
end

return { checks = checks, registry_at = registry_at, rdma_ports = rdma_ports }
