-- proc.lua - processes, pipes, signals and the clock, by plain libc calls. Names are
-- declared under mcl_ with the symbol they stand for, so that a script may declare
-- the same functions as it likes. Linux only.
--
--   local p = proc.spawn { "mooncake", "serve", stdout = "pipe" }
--   local line = p:read_line(1000)      -- nil, "timeout" or nil, "eof"
--   p:kill "TERM"
--   local status = p:wait(1000)         -- 0..255, 128 + signal; nil, "timeout"

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
struct mcl_pollfd { int fd; short events; short revents; };
struct mcl_timespec { long s; long ns; };
int mcl_poll(struct mcl_pollfd *p, unsigned long n, int ms) __asm__("poll");
int mcl_clock_gettime(int clock, struct mcl_timespec *t) __asm__("clock_gettime");
int mcl_pipe2(int fds[2], int flags) __asm__("pipe2");
long mcl_read(int fd, void *buf, size_t n) __asm__("read");
long mcl_write(int fd, const void *buf, size_t n) __asm__("write");
int mcl_open(const char *path, int flags, ...) __asm__("open");
int mcl_close(int fd) __asm__("close");
int mcl_kill(int pid, int sig) __asm__("kill");
int mcl_getpid(void) __asm__("getpid");
int mcl_waitpid(int pid, int *status, int flags) __asm__("waitpid");
long mcl_syscall(long nr, ...) __asm__("syscall");
int mcl_prctl(int option, unsigned long arg, ...) __asm__("prctl");
char *mcl_strerror(int err) __asm__("strerror");
long mcl_readlink(const char *path, char *buf, size_t n) __asm__("readlink");
int mcl_sched_getaffinity(int pid, size_t n, void *set) __asm__("sched_getaffinity");
int mcl_sigemptyset(void *set) __asm__("sigemptyset");
int mcl_sigfillset(void *set) __asm__("sigfillset");
int mcl_sigaddset(void *set, int sig) __asm__("sigaddset");
int mcl_sigmask(int how, const void *set, void *old) __asm__("pthread_sigmask");
void *mcl_signal(int sig, void *handler) __asm__("signal");
int mcl_signalfd(int fd, const void *set, int flags) __asm__("signalfd");
int mcl_spawnp(int *pid, const char *file, const void *actions, const void *attr,
               const char *const argv[], const char *const envp[])
               __asm__("posix_spawnp");
int mcl_fa_init(void *fa) __asm__("posix_spawn_file_actions_init");
int mcl_fa_dup2(void *fa, int fd, int to) __asm__("posix_spawn_file_actions_adddup2");
int mcl_fa_destroy(void *fa) __asm__("posix_spawn_file_actions_destroy");
int mcl_attr_init(void *attr) __asm__("posix_spawnattr_init");
int mcl_attr_flags(void *attr, short flags) __asm__("posix_spawnattr_setflags");
int mcl_attr_mask(void *attr, const void *set) __asm__("posix_spawnattr_setsigmask");
int mcl_attr_default(void *attr, const void *set)
                     __asm__("posix_spawnattr_setsigdefault");
int mcl_attr_group(void *attr, int pgroup) __asm__("posix_spawnattr_setpgroup");
int mcl_attr_destroy(void *attr) __asm__("posix_spawnattr_destroy");
extern char **mcl_environ __asm__("environ");
]]

local C = ffi.C
local proc = {}

local CLOEXEC, NONBLOCK = 0x80000, 0x800
local EINTR, EAGAIN, ENOSYS = 4, 11, 38
local POLLIN = 1
local WNOHANG = 1
local SPAWN_PGROUP, SPAWN_SIGDEF, SPAWN_SIGMASK = 2, 4, 8
local SYS_PIDFD_OPEN = 434
local PR_SET_PDEATHSIG = 1
local SIGNALS = { HUP = 1, INT = 2, QUIT = 3, ABRT = 6, KILL = 9, USR1 = 10, SEGV = 11,
                  USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15, CHLD = 17, CONT = 18,
                  STOP = 19 }

-- Larger than any libc's sigset_t, posix_spawnattr_t or file actions, and aligned.
local function opaque()
   return ffi.new "uint64_t[128]"
end

local function strerror(err)
   return ffi.string(C.mcl_strerror(err))
end

-- ---- time ------------------------------------------------------------------

-- Seconds that only grow.
function proc.now()
   local t = ffi.new "struct mcl_timespec"
   C.mcl_clock_gettime(1, t)
   return tonumber(t.s) + tonumber(t.ns) / 1e9
end

-- poll() that goes on after a signal. ms < 0 waits for ever.
local function poll(fd, ms)
   local p = ffi.new("struct mcl_pollfd", fd, POLLIN, 0)
   local deadline = proc.now() + ms / 1000
   while true do
      local n = C.mcl_poll(p, fd >= 0 and 1 or 0, ms < 0 and -1 or math.ceil(ms))
      if n >= 0 then return n > 0 end
      if ffi.errno() ~= EINTR then error("poll: " .. strerror(ffi.errno())) end
      if ms >= 0 then ms = math.max(0, (deadline - proc.now()) * 1000) end
   end
end

function proc.sleep_ms(ms)
   poll(-1, math.max(0, ms))
end

-- Wait until a descriptor can be read: true, or false after ms (-1: for ever).
function proc.wait_readable(fd, ms)
   return poll(fd, ms)
end

-- ---- this process and machine ------------------------------------------------

function proc.pid()
   return C.mcl_getpid()
end

-- For a process that works for the one that started it: end with it, however it ends.
function proc.die_with_parent()
   C.mcl_prctl(PR_SET_PDEATHSIG, SIGNALS.KILL)
end

-- CPUs this process may use.
function proc.cpu_count()
   local set = ffi.new "uint8_t[1024]"
   local n, count = C.mcl_sched_getaffinity(0, 1024, set), 0
   if n < 0 then return 1 end
   for i = 0, 1023 do
      local byte = set[i]
      while byte ~= 0 do
         byte, count = bit.band(byte, byte - 1), count + 1
      end
   end
   return count
end

-- The file of the running program; the one now in its place if it was built again.
function proc.exe()
   local buf = ffi.new "char[4096]"
   local n = C.mcl_readlink("/proc/self/exe", buf, 4096)
   return n > 0 and (ffi.string(buf, n):gsub(" %(deleted%)$", "")) or nil
end

-- ---- what a child writes -----------------------------------------------------

local reader = {}
reader.__index = reader

local function new_reader(fd)
   return setmetatable({ fd = fd, text = "", buf = ffi.new "char[65536]" }, reader)
end

-- More bytes: true, or false and "timeout" or "eof".
function reader:fill(ms)
   if self.fd < 0 then return false, "eof" end
   if not poll(self.fd, ms) then return false, "timeout" end
   local n
   repeat
      n = C.mcl_read(self.fd, self.buf, 65536)
   until n >= 0 or ffi.errno() ~= EINTR
   if n <= 0 then
      self:close()
      return false, "eof"
   end
   self.text = self.text .. ffi.string(self.buf, n)
   return true
end

-- The next line without its end, or nil and "timeout" or "eof". A last line without
-- an end counts.
function reader:line(ms)
   local deadline = proc.now() + (ms or -1) / 1000
   while true do
      local stop = self.text:find("\n", 1, true)
      if stop then
         local line = self.text:sub(1, stop - 1)
         self.text = self.text:sub(stop + 1)
         return line
      end
      local left = (ms or -1) < 0 and -1 or math.max(0, (deadline - proc.now()) * 1000)
      local ok, why = self:fill(left)
      if not ok then
         if why == "timeout" or self.text == "" then return nil, why end
         local line = self.text
         self.text = ""
         return line
      end
   end
end

-- All that comes until the end, or nil, "timeout".
function reader:all(ms)
   local deadline = proc.now() + (ms or -1) / 1000
   while true do
      local left = (ms or -1) < 0 and -1 or math.max(0, (deadline - proc.now()) * 1000)
      local ok, why = self:fill(left)
      if not ok then
         if why == "timeout" then return nil, why end
         local text = self.text
         self.text = ""
         return text
      end
   end
end

function reader:close()
   if self.fd >= 0 then C.mcl_close(self.fd) end
   self.fd = -1
end

-- ---- processes ---------------------------------------------------------------

local process = {}
process.__index = process

local function pipe()
   local fds = ffi.new "int[2]"
   if C.mcl_pipe2(fds, CLOEXEC) < 0 then error("pipe: " .. strerror(ffi.errno())) end
   return fds[0], fds[1]
end

-- Connect descriptor to (0, 1 or 2) of a child; returns our end of a pipe.
local function connect(fa, how, to, opened)
   if how == nil or how == "inherit" then return end
   local theirs, ours
   if how == "pipe" then
      local r, w = pipe()
      theirs, ours = to == 0 and r or w, to == 0 and w or r
   elseif how == "stdout" then
      C.mcl_fa_dup2(fa, 1, to)
      return
   elseif type(how) == "number" then
      C.mcl_fa_dup2(fa, how, to)
      return
   else
      local path = how == "null" and "/dev/null" or how
      local flags = to == 0 and 0 or 0x441          -- O_WRONLY|O_CREAT|O_APPEND
      theirs = C.mcl_open(path, flags + CLOEXEC, ffi.cast("int", 420))
      if theirs < 0 then error(path .. ": " .. strerror(ffi.errno()), 0) end
   end
   opened[#opened + 1] = theirs
   C.mcl_fa_dup2(fa, theirs, to)
   return ours
end

-- The environment of this process with changes: { NAME = "value" or false }.
local function environment(changes)
   local list, seen = {}, {}
   for name, value in pairs(changes or {}) do
      seen[name] = true
      if value then list[#list + 1] = name .. "=" .. tostring(value) end
   end
   local env, i = C.mcl_environ, 0
   while env[i] ~= nil do
      local entry = ffi.string(env[i])
      if not seen[entry:match "^[^=]*"] then list[#list + 1] = entry end
      i = i + 1
   end
   return list
end

local function c_array(list)
   local a = ffi.new("const char *[?]", #list + 1)
   for i, s in ipairs(list) do a[i - 1] = s end
   a[#list] = nil
   return a
end

-- Children do not inherit blocked or ignored signals.
local function attributes(group)
   local attr, set = opaque(), opaque()
   local flags = SPAWN_SIGDEF + SPAWN_SIGMASK
   C.mcl_attr_init(attr)
   C.mcl_sigemptyset(set)
   C.mcl_attr_mask(attr, set)
   C.mcl_sigfillset(set)
   C.mcl_attr_default(attr, set)
   if group then
      C.mcl_attr_group(attr, 0)
      flags = flags + SPAWN_PGROUP
   end
   C.mcl_attr_flags(attr, flags)
   return attr
end

-- Start a program: the array part of spec is its arguments, the first looked up in
-- PATH. spec.stdin, .stdout, .stderr: "inherit" (default), "pipe", "null", a
-- descriptor or a path (appended to); stderr also "stdout". spec.env changes the
-- environment. spec.group makes it the leader of a process group, and kill() then
-- means the group. Returns a process, or nil and why not.
function proc.spawn(spec)
   local fa, opened, argv = opaque(), {}, {}
   for i, s in ipairs(spec) do argv[i] = tostring(s) end
   local env = environment(spec.env)
   C.mcl_fa_init(fa)
   local p = setmetatable({ group = spec.group, name = argv[1] }, process)
   p.stdin = connect(fa, spec.stdin, 0, opened)
   local out = connect(fa, spec.stdout, 1, opened)
   local err = connect(fa, spec.stderr, 2, opened)
   p.out, p.err = out and new_reader(out), err and new_reader(err)
   local attr, pid = attributes(spec.group), ffi.new "int[1]"
   local failed = C.mcl_spawnp(pid, argv[1], fa, attr, c_array(argv), c_array(env))
   for _, fd in ipairs(opened) do C.mcl_close(fd) end
   C.mcl_attr_destroy(attr)
   C.mcl_fa_destroy(fa)
   if failed ~= 0 then
      p:close()
      return nil, argv[1] .. ": " .. strerror(failed), failed
   end
   p.pid = pid[0]
   p.pidfd = tonumber(C.mcl_syscall(SYS_PIDFD_OPEN, ffi.cast("int", p.pid),
                                    ffi.cast("int", 0)))
   return p
end

-- Send a signal by number or name ("TERM", "KILL", "STOP"; default TERM). False if
-- the process has gone.
function process:kill(sig)
   if self.status then return false end
   if type(sig) == "string" then
      sig = SIGNALS[sig:gsub("^SIG", "")] or error("unknown signal " .. sig, 2)
   end
   return C.mcl_kill(self.group and -self.pid or self.pid, sig or 15) == 0
end

-- What is left of a process group, its leader waited for or not.
function proc.kill_group(pid)
   return C.mcl_kill(-pid, SIGNALS.KILL) == 0
end

local function status_of(raw)
   local sig = bit.band(raw, 0x7f)
   return sig ~= 0 and 128 + sig or bit.band(bit.rshift(raw, 8), 0xff)
end

function process:reap(flags)
   local raw = ffi.new "int[1]"
   local r
   repeat
      r = C.mcl_waitpid(self.pid, raw, flags)
   until r >= 0 or ffi.errno() ~= EINTR
   if r == 0 then return nil end
   self.status = r < 0 and 255 or status_of(raw[0])
   if self.pidfd >= 0 then C.mcl_close(self.pidfd) end
   return self.status
end

-- Wait for the end: exit status, 128 + n for signal n. nil, "timeout" after ms
-- milliseconds (nil: for ever).
function process:wait(ms)
   if self.status then return self.status end
   if not ms or ms < 0 then return self:reap(0) end
   local deadline = proc.now() + ms / 1000
   while not self:reap(WNOHANG) do
      local left = (deadline - proc.now()) * 1000
      if left <= 0 then return nil, "timeout" end
      if self.pidfd >= 0 then
         poll(self.pidfd, left)
      else
         proc.sleep_ms(math.min(left, 2))
      end
   end
   return self.status
end

-- Next line of its stdout, see reader:line().
function process:read_line(ms)
   return self.out:line(ms)
end

-- All of its stdout up to the end.
function process:read_all(ms)
   return self.out:all(ms)
end

-- for line in p:lines() do
function process:lines()
   return function() return self.out:line() end
end

-- Write to its stdin, all of it: true, or nil and why not.
function process:write(text)
   local at = 0
   local bytes = ffi.cast("const char *", text)
   while at < #text do
      local n = tonumber(C.mcl_write(self.stdin, bytes + at, #text - at))
      if n < 0 and ffi.errno() ~= EINTR then return nil, strerror(ffi.errno()) end
      at = at + math.max(n, 0)
   end
   return true
end

function process:close_stdin()
   if self.stdin then C.mcl_close(self.stdin) end
   self.stdin = nil
end

-- Close our ends of its pipes.
function process:close()
   self:close_stdin()
   if self.out then self.out:close() end
   if self.err then self.err:close() end
end

-- Run to the end: stdout, status, stderr.
function proc.run(spec)
   spec.stdout = spec.stdout or "pipe"
   local p, why = proc.spawn(spec)
   if not p then return nil, why end
   local text = p.out and p.out:all()
   local err = p.err and p.err:all()
   local status = p:wait()
   p:close()
   return text, status, err
end

-- ---- signals -----------------------------------------------------------------

-- Take SIGINT, SIGTERM and SIGHUP from now on: returns a function that says whether
-- one has come, and a descriptor to poll. Call it before threads start, which
-- inherit the mask. After the first signal the next one kills as usual.
function proc.on_sigint()
   local set, old = opaque(), opaque()
   C.mcl_sigemptyset(set)
   for _, name in ipairs { "INT", "TERM", "HUP" } do
      C.mcl_sigaddset(set, SIGNALS[name])
   end
   C.mcl_sigmask(0, set, old)
   local fd = C.mcl_signalfd(-1, set, CLOEXEC + NONBLOCK)
   if fd < 0 then error("signalfd: " .. strerror(ffi.errno())) end
   local buf, came = ffi.new "uint32_t[32]", false
   return function()
      if not came and C.mcl_read(fd, buf, 128) == 128 then
         came = true
         C.mcl_sigmask(2, old, nil)
      end
      return came, came and tonumber(buf[0]) or nil
   end, fd
end

-- From now on Ctrl-C does nothing, where nothing waits for it; to children, it does.
function proc.ignore_sigint()
   C.mcl_signal(SIGNALS.INT, ffi.cast("void *", 1))      -- SIG_IGN
end

proc.signals = SIGNALS
proc.strerror = strerror

return proc
