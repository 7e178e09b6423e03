-- files.lua - the files that a node offers: mapped, registered, and found by name.
--
-- Those given at the start are mapped at once and can be read. With a folder, what is
-- below it can be read too, and new files can be made: as NAME.part until they are
-- complete. Behind the bytes of such a part, 16 more say how far it has got, so that
-- one that was broken off can go on.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local fs = require "mooncake.fs"
local json = require "mooncake.json"
local sum = require "mooncake.sum"
local tree = require "mooncake.tree"

ffi.cdef [[
struct mcl_part_end { uint64_t tag, done; };
]]

local PART_END = ffi.sizeof "struct mcl_part_end"
local TAG = 0x70617274ULL * 2 ^ 32
local IDLE_NS, BUSY_NS = 600e9, 5e9
local MAX_HANDLES = 1024
local ENOENT, EBUSY, EPERM, EINVAL, EMFILE, ESTALE = 2, 16, 1, 22, 24, 116
local ENOTDIR = 20

local files = {}

local Files = {}
Files.__index = Files

local function now() return tonumber(C.mc_now_ns()) end

function files.open(engine)
   return setmetatable({
      engine = engine, fixed = {}, names = {}, handles = {}, last = 0,
   }, Files)
end

-- Map a file and register it; both are the entry's until it is dropped.
local function attach(self, entry, file, len, writable)
   entry.file, entry.len = file, len
   local size = entry.part and len + PART_END or len
   if size == 0 then return entry end
   local ptr, why, errno = file:map(size, writable)
   if not ptr then return nil, why, errno end
   entry.ptr, entry.size = ptr, size
   if len == 0 then return entry end
   entry.buffer, why, errno = self.engine:register(ptr, len, {
      access = writable and "rw" or "r",
   })
   if entry.buffer then return entry end
   fs.unmap(ptr, size)
   return nil, why, errno
end

-- True, or nil, why, errno while a peer is still at it.
local function detach(entry)
   if entry.buffer then
      local ok, why, errno = entry.buffer:free()
      if not ok then return nil, why, errno end
      entry.buffer = nil
   end
   if entry.ptr then fs.unmap(entry.ptr, entry.size) end
   entry.ptr = nil
   if entry.file then entry.file:close() end
   return true
end

local function map_readable(self, entry, file)
   local len, why, errno = file:size()
   if len then entry, why, errno = attach(self, entry, file, len, false) end
   if not len or not entry then
      file:close()
      return nil, why, errno
   end
   return entry
end

-- Offer a file from the start: "PATH", known by its last part, or "NAME=PATH".
function Files:add(spec)
   local name, path = spec:match "^([^/=]+)=(.+)$"
   path = path or spec
   name = name or path:match "([^/]+)$"
   if not name or self.fixed[name] then
      return nil, ("%s: %s"):format(spec, name and "the name is taken" or "no name")
   end
   local file, why, errno = fs.open(path, "r")
   if not file then return nil, why, errno end
   local entry
   entry, why, errno = map_readable(self, { name = name }, file)
   if not entry then return nil, why, errno end
   self.fixed[name] = entry
   self.names[#self.names + 1] = name
   return entry
end

-- Let peers read and make files below a folder.
function Files:below(path)
   local dir, why, errno = fs.dir(path)
   if not dir then return nil, why, errno end
   self.dir = dir
   return true
end

-- ---- handles ---------------------------------------------------------------

local function drop(self, id)
   local entry = self.handles[id]
   if not entry then return true end
   if not entry.fixed then
      local ok, why, errno = detach(entry)
      if not ok then return nil, why, errno end
   end
   self.handles[id] = nil
   return true
end

-- Those whose client has not been heard of for long.
function Files:expire(all)
   for id, entry in pairs(self.handles) do
      if all or now() - entry.used > IDLE_NS then drop(self, id) end
   end
end

local function handle(self, id)
   local entry = self.handles[id]
   if not entry then
      return nil, "no such handle: it was closed, or the node restarted", ESTALE
   end
   entry.used = now()
   return entry
end

local function add_handle(self, entry, extra)
   local count = 0
   for _ in pairs(self.handles) do count = count + 1 end
   if count >= MAX_HANDLES then return nil, "too many open files", EMFILE end
   self.last = self.last + 1
   self.handles[self.last] = entry
   entry.used = now()
   local answer = {
      handle = self.last, len = entry.len, addr = entry.buffer and entry.buffer.addr or 0,
   }
   for k, v in pairs(extra or {}) do answer[k] = v end
   return answer
end

local function no_file(self, name)
   local have = #self.names > 0 and "; it has " .. table.concat(self.names, ", ", 1,
                math.min(#self.names, 8)) or ""
   return nil, ("no file '%s' there%s"):format(name, have), ENOENT
end

local function open_to_read(self, name)
   local fixed = self.fixed[name]
   if fixed then
      return add_handle(self, { fixed = true, len = fixed.len, buffer = fixed.buffer,
                                file = fixed.file })
   end
   if not self.dir then return no_file(self, name) end
   local file, why, errno = self.dir:open(name, "r")
   if not file then
      if errno == ENOENT then return no_file(self, name) end
      return nil, why, errno
   end
   local entry
   entry, why, errno = map_readable(self, { name = name }, file)
   if not entry then return nil, why, errno end
   return add_handle(self, entry)
end

-- The files below a folder, as tree.lua lists them, in memory that can be read like a
-- file; below "", those given at the start too.
local function open_to_list(self, name)
   if self.fixed[name] then return nil, name .. ": not a folder", ENOTDIR end
   local list, why, errno = {}, nil, nil
   if self.dir then
      list, why, errno = tree.beneath(self.dir, name)
   elseif name ~= "" then
      list, why, errno = no_file(self, name)
   end
   if not list then return nil, why, errno end
   for _, fixed in ipairs(name == "" and self.names or {}) do
      list[#list + 1] = { name = fixed, len = self.fixed[fixed].len }
   end
   local text, buffer = json.encode(list), nil
   buffer, why, errno = self.engine:alloc(#text, { access = "r" })
   if not buffer then return nil, why, errno end
   buffer:set(0, text)
   return add_handle(self, { buffer = buffer, len = #text })
end

-- A file is written by one at a time. Who comes again has lost the old handle; someone
-- else has to wait until nothing has been heard of the first for a while.
local function take_over(self, name, client)
   for id, entry in pairs(self.handles) do
      if entry.part and entry.name == name then
         local theirs = entry.client ~= client and now() - entry.used < BUSY_NS
         if theirs or not drop(self, id) then
            return nil, name .. " is being written by someone else", EBUSY
         end
      end
   end
   return true
end

local function part_of(self, name, len, resume)
   local file, why, errno = self.dir:open(name .. ".part", resume and "a" or "w")
   if not file then return nil, (why:gsub("%.part: ", ": ")), errno end
   local size = file:size()
   if size ~= len + PART_END then file:truncate(0) end
   local ok
   ok, why, errno = file:allocate(len + PART_END)
   if ok then return file end
   file:close()
   return nil, why, errno
end

local function open_to_write(self, q)
   local name, len = q.name, q.len
   if not self.dir then
      return nil, "this node takes no files: it was not started with --dir", EPERM
   end
   -- Who reads the name gets that file, so a new one could never be read.
   if self.fixed[name] then return nil, name .. " is a served file", EPERM end
   if type(len) ~= "number" or len < 0 or len % 1 ~= 0 or len > 2 ^ 52 then
      return nil, "no length", EINVAL
   end
   local ok, why, errno = self.dir:make_parents(name)
   if ok then ok, why, errno = take_over(self, name, q.client) end
   if not ok then return nil, why, errno end
   local file
   file, why, errno = part_of(self, name, len, q.resume)
   if not file then return nil, why, errno end
   local entry
   entry, why, errno = attach(self, { name = name, part = true, client = q.client }, file,
                              len, true)
   if not entry then
      file:close()
      return nil, why, errno
   end
   entry.note = ffi.cast("struct mcl_part_end *", entry.ptr + len)
   if entry.note.tag ~= TAG + len or entry.note.done > len then
      entry.note.done, entry.note.tag = 0, TAG + len
   end
   return add_handle(self, entry, { have = tonumber(entry.note.done) })
end

-- ---- questions (see desk.lua) ----------------------------------------------

local ops = {}

function ops.open(self, q)
   if type(q.name) ~= "string" then return nil, "no name", EINVAL end
   if q.mode == "w" then return open_to_write(self, q) end
   if q.mode == "list" then return open_to_list(self, q.name) end
   return open_to_read(self, q.name)
end

-- All bytes up to q.done are there.
function ops.mark(self, q)
   local entry, why, errno = handle(self, q.handle)
   if not entry then return nil, why, errno end
   if entry.note and type(q.done) == "number" and q.done >= 0 and q.done <= entry.len then
      entry.note.done = q.done
   end
   return {}
end

local function inside(entry, q)
   return type(q.off) == "number" and type(q.len) == "number" and q.off >= 0 and
          q.len >= 0 and q.off + q.len <= entry.len
end

-- The sum of a part of an open file.
function ops.sum(self, q)
   local entry, why, errno = handle(self, q.handle)
   if not entry then return nil, why, errno end
   if not inside(entry, q) then return nil, "outside of the file", EINVAL end
   local hex
   hex, why, errno = sum.file(entry.file, q.off, q.len)
   if not hex then return nil, why, errno end
   return { sum = hex }
end

function ops.close(self, q)
   local ok, why, errno = drop(self, q.handle)
   if not ok then return nil, why, errno end
   return {}
end

-- The file is complete: give it its name.
function ops.commit(self, q)
   local entry, why, errno = handle(self, q.handle)
   if not entry then return nil, why, errno end
   if not entry.part then return nil, "not opened to write", EINVAL end
   local ok
   ok, why, errno = entry.file:truncate(entry.len)
   if ok then ok, why, errno = self.dir:rename(entry.name .. ".part", entry.name) end
   if not ok then return nil, why, errno end
   entry.note = nil
   ok, why, errno = drop(self, q.handle)
   if not ok then return nil, why, errno end
   return {}
end

function ops.list(self, q)
   local list, skip = {}, tonumber(q.skip) or 0
   for i = skip + 1, math.min(skip + 8, #self.names) do
      local name = self.names[i]
      list[#list + 1] = { name = name:sub(1, 100), len = self.fixed[name].len }
   end
   return { files = list, n = #self.names, dir = self.dir ~= nil }
end

-- What a node answers about files, as functions of the question.
function Files:ops()
   local bound = {}
   for name, op in pairs(ops) do
      bound[name] = function(q) return op(self, q) end
   end
   return bound
end

function Files:close()
   self:expire(true)
   for _, entry in pairs(self.fixed) do detach(entry) end
   self.fixed, self.names = {}, {}
   if self.dir then self.dir:close() end
end

return files
