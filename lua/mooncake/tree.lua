-- tree.lua - the files below a folder, by name: what `cp -r` copies. A list of
-- { name, len }, and for what cannot be copied { name, why }, with failed = true where
-- it is a file all the same.
--
-- Links to files count as those files; links to folders are not followed, as they may
-- lead round and round.

local ffi = require "ffi"
local fs = require "mooncake.fs"
local proc = require "mooncake.proc"

ffi.cdef [[
struct mcl_dirent {
   uint64_t ino;
   int64_t off;
   uint16_t reclen;
   uint8_t type;
   char name[256];
};
int mcl_tree_openat(int fd, const char *path, int flags, ...) __asm__("openat");
int mcl_tree_mkdir(const char *path, unsigned mode) __asm__("mkdir");
void *mcl_tree_opendir(int fd) __asm__("fdopendir");
struct mcl_dirent *mcl_tree_readdir(void *dir) __asm__("readdir64");
int mcl_tree_closedir(void *dir) __asm__("closedir");
]]

local C = ffi.C

local FOLDER, FILE, LINK, UNKNOWN = 4, 8, 10, 0
local O_DIRECTORY, O_CLOEXEC = 0x10000, 0x80000
local EEXIST, EISDIR, ESPIPE, E2BIG = 17, 21, 29, 7
local MOST = 2 ^ 20

local tree = {}

-- What is in an open folder: a list of { name, type } by name.
local function entries(dir)
   local fd = C.mcl_tree_openat(dir.fd, ".", O_DIRECTORY + O_CLOEXEC)
   local d = fd >= 0 and C.mcl_tree_opendir(fd) or nil
   local list = {}
   if d == nil then return nil, proc.strerror(ffi.errno()) end
   while true do
      local e = C.mcl_tree_readdir(d)
      if e == nil then break end
      local name = ffi.string(e.name)
      if name ~= "." and name ~= ".." then list[#list + 1] = { name, e.type } end
   end
   C.mcl_tree_closedir(d)
   table.sort(list, function(a, b) return a[1] < b[1] end)
   return list
end

-- A name in a folder: it goes on `list`, or on `folders` to be looked into.
local function add(list, folders, name, type, open)
   if type == FOLDER then
      folders[#folders + 1] = name
      return
   end
   if type ~= FILE and type ~= LINK and type ~= UNKNOWN then
      list[#list + 1] = { name = name, why = "no file" }
      return
   end
   local file, why, errno = open(name)
   local len
   if file then
      len, why, errno = file:size()
      file:close()
   end
   if len then
      list[#list + 1] = { name = name, len = len }
   elseif errno == EISDIR and type == UNKNOWN then
      folders[#folders + 1] = name
   elseif errno == EISDIR or errno == ESPIPE then
      list[#list + 1] = { name = name,
                          why = errno == EISDIR and "a link to a folder" or "no file" }
   else
      list[#list + 1] = { name = name, why = why, failed = true }
   end
end

-- enter(name) is the folder of that name, "" the first, and open(name) a file, both as
-- fs.lua has them.
local function walk(enter, open)
   local list, folders = {}, { "" }
   while #folders > 0 do
      local up = table.remove(folders)
      local dir, why, errno = enter(up)
      local inside = dir
      if dir then
         inside, why = entries(dir)
         if dir.owned then dir:close() end
      end
      if not inside and up == "" then return nil, why, errno end
      if not inside then list[#list + 1] = { name = up, why = why, failed = true } end
      for _, entry in ipairs(inside or {}) do
         add(list, folders, (up == "" and "" or up .. "/") .. entry[1], entry[2], open)
      end
      if #list > MOST then return nil, ("more than %d files"):format(MOST), E2BIG end
   end
   table.sort(list, function(a, b) return a.name < b.name end)
   return list
end

-- Below the folder at a path.
function tree.below(path)
   local function at(name) return path:gsub("/+$", "") .. "/" .. name end
   return walk(function(name)
      local dir, why, errno = fs.dir(name == "" and path or at(name))
      if not dir then return nil, why, errno end
      dir.owned = true
      return dir
   end, function(name) return fs.open(at(name), "r") end)
end

-- Below folder `top` ("": the first) of a folder that is not left.
function tree.beneath(root, top)
   local function at(name) return top == "" and name or top .. "/" .. name end
   return walk(function(name)
      local path = name == "" and top or at(name)
      if path == "" then return root end
      return root:parent(path .. "/-")
   end, function(name) return root:open(at(name), "r") end)
end

-- Make the folders that a file at this path lies in.
function tree.make_parents(path)
   for up in path:gmatch "()/" do
      local folder = path:sub(1, up - 1)
      if folder ~= "" and C.mcl_tree_mkdir(folder, 493) < 0 and ffi.errno() ~= EEXIST then
         local errno = ffi.errno()
         return nil, folder .. ": " .. proc.strerror(errno), errno
      end
   end
   return true
end

return tree
