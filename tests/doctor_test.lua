-- doctor_test.lua - what the machine's files say, and what doctor makes of it.

local machine = require "mooncake.doctor_machine"

local function put(root, path, text)
   assert(os.execute(("mkdir -p '%s%s'"):format(root, path:match "^(.*)/")) == 0)
   local f = assert(io.open(root .. path, "w"))
   f:write(text)
   f:close()
end

-- A machine as a table of files; the check called @name of it.
local function check(name, files, fake)
   local root = os.tmpname()
   os.remove(root)
   fake = fake or {}
   fake.root = root
   put(root, "/sys/kernel/notes", "")
   for path, text in pairs(files) do put(root, path, text) end
   local list = machine.checks(fake)
   os.execute("rm -r '" .. root .. "'")
   for _, c in ipairs(list) do
      if c.name == name then return c end
   end
   error("no check " .. name)
end

local function expect(c, state, pattern)
   if c.state ~= state or not c.detail:find(pattern) then
      error(("%s: %s, %s; expected %s, %s"):format(c.name, c.state, c.detail, state,
                                                  pattern), 2)
   end
   if state ~= "ok" and not (c.remedy or c.detail:find "not known") then
      error(c.name .. ": no remedy", 2)
   end
end

local LIMITS = [[
Limit                     Soft Limit           Hard Limit           Units
Max open files            %s                 %s               files
Max locked memory         %s              %s              bytes
]]

local function limits(files, locked)
   return { ["/proc/self/limits"] = LIMITS:format(files, 524288, locked, locked),
            ["/proc/self/status"] = "CapEff:\t0000000000000000\n" }
end

local tests = {}

function tests.every_check_has_name_state_and_detail()
   for _, c in ipairs(machine.checks()) do
      assert(c.name and c.detail, c.name)
      assert(c.state == "ok" or c.state == "warn" or c.state == "missing", c.name)
   end
end

function tests.tcp_may_mean_shared_memory()
   expect(check("same host", {}, { transports = "" }), "ok", "may choose shared memory")
   expect(check("same host", {}, { transports = "tcp" }), "ok", "is not used")
   expect(check("same host", {}, { transports = "shm, tcp" }), "ok", "may be chosen")
end

function tests.an_empty_machine_is_no_error()
   for _, name in ipairs { "kernel", "cpus", "numa", "memlock", "open files" } do
      assert(check(name, {}))
   end
end

function tests.limits_are_read_with_their_words()
   expect(check("memlock", limits(1024, "unlimited")), "ok", "unlimited")
   expect(check("memlock", limits(1024, "65536")), "warn", "64 KiB")
   expect(check("open files", limits(1024, "65536")), "warn", "1024")
   expect(check("open files", limits(65536, "65536")), "ok", "65536")
end

function tests.a_capability_lifts_a_limit()
   local files = limits(1024, "65536")
   files["/proc/self/status"] = "CapEff:\t0000000000004000\n"
   expect(check("memlock", files), "ok", "does not bind")
end

function tests.ptrace_scope_binds_the_unprivileged()
   local path = "/proc/sys/kernel/yama/ptrace_scope"
   local status = "/proc/self/status"
   expect(check("ptrace scope", {}), "ok", "no restriction")
   expect(check("ptrace scope", { [path] = "0\n" }), "ok", "^0")
   expect(check("ptrace scope", { [path] = "1\n" }), "warn", "children")
   local files = { [path] = "1\n", [status] = "CapEff:\t00080000\n" }
   expect(check("ptrace scope", files), "ok", "^1")
   files[path] = "3\n"
   expect(check("ptrace scope", files), "warn", "never")
end

function tests.huge_pages_in_use_are_not_free_ones()
   local path = "/proc/meminfo"
   local text = "HugePages_Total: %d\nHugePages_Free: %d\nHugepagesize: 2048 kB\n"
   expect(check("huge pages", { [path] = text:format(0, 0) }), "missing", "none")
   expect(check("huge pages", { [path] = text:format(8, 0) }), "warn", "0 of 8")
   expect(check("huge pages", { [path] = text:format(8, 3) }), "ok", "3 of 8")
end

function tests.cpus_count_what_may_be_used()
   local files = { ["/sys/devices/system/cpu/online"] = "0-7\n",
                   ["/proc/self/status"] = "Cpus_allowed_list:\t0-1,4\n" }
   expect(check("cpus", files), "ok", "3 of 8")
   files["/sys/fs/cgroup/cpu.max"] = "150000 100000\n"
   expect(check("cpus", files), "warn", "1.5 by quota")
   files["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
   expect(check("cpus", files), "ok", "3 of 8")
end

function tests.io_uring_says_who_refused()
   expect(check("io_uring", {}, { io_uring_errno = 14 }), "ok", "usable")
   expect(check("io_uring", {}, { io_uring_errno = 38 }), "missing", "not in this kernel")
   expect(check("io_uring", {}, { io_uring_errno = 1 }), "missing", "seccomp")
   local off = { ["/proc/sys/kernel/io_uring_disabled"] = "2\n" }
   expect(check("io_uring", off, { io_uring_errno = 1 }), "missing", "switched off")
end

function tests.socket_buffers_bound_a_connection()
   local path = "/proc/sys/net/ipv4/tcp_wmem"
   expect(check("tcp_wmem", { [path] = "4096\t16384\t4194304\n" }), "ok", "4 MiB")
   expect(check("tcp_wmem", { [path] = "4096\t16384\t131072\n" }), "warn", "1.05 Gb/s")
   expect(check("tcp_wmem", {}), "warn", "not known")
end

function tests.rdma_needs_library_device_and_its_file()
   local libraries = { libraries = {} }
   local dev = { ["/sys/class/infiniband/mlx5_0/ports/1/state"] = "4: ACTIVE\n" }
   expect(check("rdma library", {}, libraries), "missing", "no libibverbs")
   expect(check("rdma devices", {}), "missing", "none")
   expect(check("rdma devices", dev), "warn", "uverbs")
   dev["/dev/infiniband/uverbs0"] = ""
   expect(check("rdma devices", dev), "ok", "mlx5_0")
end

function tests.numa_balancing_is_told_where_there_are_nodes()
   local files = { ["/proc/sys/kernel/numa_balancing"] = "1\n",
                   ["/sys/devices/system/node/online"] = "0\n" }
   expect(check("numa", files), "ok", "1 node")
   files["/sys/devices/system/node/online"] = "0-1\n"
   expect(check("numa", files), "warn", "2 nodes")
end

function tests.registries_that_lack_a_library_are_named()
   expect(check("registries", {}), "ok", "^peer, http, etcd, redis$")
   local function lacks_redis(url)
      if url:find "^redis" then return nil, "registry: no libhiredis.so.9" end
      return { close = function() end }
   end
   expect(check("registries", {}, { open_registry = lacks_redis }), "missing",
          "^peer, http, etcd; redis: registry: no libhiredis.so.9$")
end

return tests
