-- fs.lua - files by descriptor: sizes, reads and writes at offsets, mappings, and paths
-- that cannot leave a folder.

local ffi = require "ffi"
local proc = require "mooncake.proc"

ffi.cdef [[
struct mcl_open_how { uint64_t flags, mode, resolve; };
int mcl_fs_open(const char *path, int flags, ...) __asm__("open");
int mcl_fs_close(int fd) __asm__("close");
long mcl_fs_syscall(long nr, ...) __asm__("syscall");
int64_t mcl_fs_lseek(int fd, int64_t off, int whence) __asm__("lseek64");
int64_t mcl_fs_pread(int fd, void *buf, size_t n, int64_t off) __asm__("pread64");
int64_t mcl_fs_pwrite(int fd, const void *buf, size_t n, int64_t off)
                      __asm__("pwrite64");
int mcl_fs_ftruncate(int fd, int64_t len) __asm__("ftruncate64");
int mcl_fs_fallocate(int fd, int64_t off, int64_t len) __asm__("posix_fallocate64");
int mcl_fs_fsync(int fd) __asm__("fsync");
int mcl_fs_rename(const char *from, const char *to) __asm__("rename");
int mcl_fs_renameat(int a, const char *from, int b, const char *to) __asm__("renameat");
int mcl_fs_unlink(const char *path) __asm__("unlink");
int mcl_fs_mkdirat(int fd, const char *path, unsigned mode) __asm__("mkdirat");
void *mcl_fs_mmap(void *at, size_t n, int prot, int flags, int fd, int64_t off)
                  __asm__("mmap64");
int mcl_fs_munmap(void *at, size_t n) __asm__("munmap");
]]

local C = ffi.C
local fs = {}

local O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC = 0, 1, 2, 0x40, 0x200
local O_CLOEXEC, O_DIRECTORY, O_NONBLOCK = 0x80000, 0x10000, 0x800
local SYS_OPENAT2, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS = 437, 8, 2
local SEEK_END = 2
local EINTR, EISDIR, ENOENT, EEXIST, ENODATA, EXDEV = 4, 21, 2, 17, 61, 18
local READ, WRITE, SHARED, PRIVATE, ANONYMOUS = 1, 2, 1, 2, 0x20

fs.ENOENT = ENOENT

local File = {}
File.__index = File

local function failed(path, errno)
   errno = errno or ffi.errno()
   return nil, path .. ": " .. proc.strerror(errno), errno
end

-- A folder opens and has a size of its own idea; only reading tells.
local function wrap(fd, path)
   local f = setmetatable({ fd = fd, path = path }, File)
   if C.mcl_fs_pread(fd, ffi.new "char[1]", 1, 0) < 0 and ffi.errno() == EISDIR then
      f:close()
      return failed(path, EISDIR)
   end
   return f
end

-- A pipe without a writer is not waited for.
local MODES = { r = O_RDONLY + O_NONBLOCK, rw = O_RDWR, a = O_RDWR + O_CREAT,
                w = O_RDWR + O_CREAT + O_TRUNC }

-- mode: "r", "rw" (must exist), "a" (made if need be, kept), "w" (made, emptied).
function fs.open(path, mode)
   local fd = C.mcl_fs_open(path, MODES[mode or "r"] + O_CLOEXEC, ffi.cast("int", 420))
   if fd < 0 then return failed(path) end
   return wrap(fd, path)
end

function File:close()
   if self.fd then C.mcl_fs_close(self.fd) end
   self.fd = nil
end

function File:size()
   local n = C.mcl_fs_lseek(self.fd, 0, SEEK_END)
   if n < 0 then return failed(self.path) end
   return tonumber(n)
end

local function whole(self, call, ptr, n, off)
   ptr = ffi.cast("char *", ptr)
   local at = 0
   while at < n do
      local r = tonumber(call(self.fd, ptr + at, n - at, off + at))
      if r < 0 and ffi.errno() ~= EINTR then return failed(self.path) end
      if r == 0 then
         return nil, ("%s: ends at %d"):format(self.path, off + at), ENODATA
      end
      at = at + math.max(r, 0)
   end
   return n
end

-- All n bytes, or nil, why, errno.
function File:pread(ptr, n, off) return whole(self, C.mcl_fs_pread, ptr, n, off) end
function File:pwrite(ptr, n, off) return whole(self, C.mcl_fs_pwrite, ptr, n, off) end

function File:truncate(n)
   if C.mcl_fs_ftruncate(self.fd, n) < 0 then return failed(self.path) end
   return true
end

-- Have the blocks on disk now, so that writing to a mapping cannot run out of them.
function File:allocate(n)
   local err = n > 0 and C.mcl_fs_fallocate(self.fd, 0, n) or 0
   if err ~= 0 then return failed(self.path, err) end
   return true
end

function File:sync()
   if C.mcl_fs_fsync(self.fd) < 0 then return failed(self.path) end
   return true
end

-- Map the first n bytes, shared; the descriptor is not needed for it any more.
function File:map(n, writable)
   local prot = READ + (writable and WRITE or 0)
   local p = C.mcl_fs_mmap(nil, n, prot, SHARED, self.fd, 0)
   if ffi.cast("intptr_t", p) == -1 then return failed(self.path) end
   return ffi.cast("uint8_t *", p)
end

-- Memory of the process's own, as a program that uses us would have.
function fs.anonymous(n)
   local p = C.mcl_fs_mmap(nil, n, READ + WRITE, PRIVATE + ANONYMOUS, -1, 0)
   if ffi.cast("intptr_t", p) == -1 then return failed("memory") end
   return ffi.cast("uint8_t *", p)
end

function fs.unmap(ptr, n) C.mcl_fs_munmap(ptr, n) end

function fs.rename(from, to)
   if C.mcl_fs_rename(from, to) < 0 then return failed(to) end
   return true
end

function fs.unlink(path)
   if C.mcl_fs_unlink(path) < 0 then return failed(path) end
   return true
end

function fs.is_dir(path)
   local fd = C.mcl_fs_open(path, O_RDONLY + O_DIRECTORY + O_CLOEXEC)
   if fd >= 0 then C.mcl_fs_close(fd) end
   return fd >= 0
end

-- ---- folders that are not left ---------------------------------------------

local Dir = {}
Dir.__index = Dir

function fs.dir(path)
   local fd = C.mcl_fs_open(path, O_RDONLY + O_DIRECTORY + O_CLOEXEC)
   if fd < 0 then return failed(path) end
   return setmetatable({ fd = fd, path = path }, Dir)
end

local function plain(name)
   if name == "" or name:find "%z" or name:sub(1, 1) == "/" then return false end
   for part in (name .. "/"):gmatch "([^/]*)/" do
      if part == "" or part == "." or part == ".." then return false end
   end
   return true
end

-- Resolved by the kernel, which follows no link that leads out (openat2).
local function beneath(self, name, flags)
   if not plain(name) then
      return nil, ("%s: not a name below the folder"):format(name), 1
   end
   local how = ffi.new "struct mcl_open_how"
   how.flags, how.resolve = flags + O_CLOEXEC, RESOLVE_BENEATH + RESOLVE_NO_MAGICLINKS
   how.mode = flags >= O_CREAT and flags % (2 * O_CREAT) >= O_CREAT and 420 or 0
   local fd = tonumber(C.mcl_fs_syscall(SYS_OPENAT2, ffi.cast("int", self.fd),
                                        ffi.cast("const char *", name), how,
                                        ffi.cast("size_t", ffi.sizeof(how))))
   if fd >= 0 then return fd end
   if ffi.errno() == EXDEV then return nil, name .. ": leads out of the folder", EXDEV end
   return failed(name)
end

function Dir:open(name, mode)
   local fd, why, errno = beneath(self, name, MODES[mode or "r"])
   if not fd then return nil, why, errno end
   return wrap(fd, name)
end

-- The folder that holds name, as a Dir, and the last part of the name.
function Dir:parent(name)
   local up, last = name:match "^(.*)/([^/]*)$"
   if not up then return self, name end
   local fd, why, errno = beneath(self, up, O_RDONLY + O_DIRECTORY)
   if not fd then return nil, why, errno end
   return setmetatable({ fd = fd, path = up, owned = true }, Dir), last
end

-- Make the folders that name lies in.
function Dir:make_parents(name)
   local at = 1
   while true do
      local stop = name:find("/", at, true)
      if not stop then return true end
      local part = name:sub(1, stop - 1)
      local dir, last = self:parent(part)
      if not dir then return nil, last end
      local r, errno = C.mcl_fs_mkdirat(dir.fd, last, 493), ffi.errno()
      if dir.owned then dir:close() end
      if r < 0 and errno ~= EEXIST then return failed(part, errno) end
      at = stop + 1
   end
end

function Dir:rename(from, to)
   local a, x = self:parent(from)
   if not a then return nil, x end
   local b, y, errno = self:parent(to)
   if not b then return nil, y, errno end
   local r = C.mcl_fs_renameat(a.fd, x, b.fd, y)
   errno = ffi.errno()
   if a.owned then a:close() end
   if b.owned then b:close() end
   if r < 0 then return failed(to, errno) end
   return true
end

function Dir:close()
   C.mcl_fs_close(self.fd)
end

return fs
