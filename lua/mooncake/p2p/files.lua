-- files.lua - an object that is a file or a folder of files: each file that is not empty
-- is a buffer, and the object's note says what they are called:
--
--    {"files":[{"name":"model-00001.safetensors","size":4096},...]}

local fs = require "mooncake.fs"
local json = require "mooncake.json"
local tree = require "mooncake.tree"

local files = {}

local EINVAL = 22

local function base(path)
   return path:gsub("/+$", ""):match "[^/]+$" or path
end

-- All below a path, as a list of { name, path, size }; names begin with prefix.
local function collect(path, prefix, list)
   if not fs.is_dir(path) then
      local f, why, errno = fs.open(path, "r")
      if not f then return nil, why, errno end
      list[#list + 1] = { name = prefix .. base(path), path = path, size = f:size() }
      f:close()
      return true
   end
   local inside, why, errno = tree.below(path)
   if not inside then return nil, why, errno end
   for _, x in ipairs(inside) do
      if x.why then return nil, x.name .. ": " .. x.why, EINVAL end
      list[#list + 1] = { name = prefix .. x.name, size = x.len,
                          path = path:gsub("/+$", "") .. "/" .. x.name }
   end
   return true
end

-- What is at these paths. A folder that is alone gives its files their names in it; of
-- several paths, each name begins with its path's last part.
function files.at(paths)
   local list = {}
   for _, path in ipairs(paths) do
      local prefix = #paths > 1 and fs.is_dir(path) and base(path) .. "/" or ""
      local ok, why, errno = collect(path, prefix, list)
      if not ok then return nil, why, errno end
   end
   local seen = {}
   for _, f in ipairs(list) do
      if seen[f.name] then return nil, f.name .. " is there twice", EINVAL end
      seen[f.name] = true
   end
   return list
end

function files.note(list)
   local out = {}
   for i, f in ipairs(list) do out[i] = { name = f.name, size = f.size } end
   return json.encode { files = json.array(out) }
end

local function inside(name)
   if name:sub(1, 1) == "/" or name:find "%z" then return false end
   for part in (name .. "/"):gmatch "([^/]*)/" do
      if part == "" or part == "." or part == ".." then return false end
   end
   return true
end

-- The files of an object by what store:stat() says of it. One without a note of ours has
-- as many as buffers, named by their numbers.
function files.of(info)
   local note = json.decode(info.note)
   local list, sizes = {}, {}
   for i, f in ipairs(type(note) == "table" and note.files or {}) do
      if type(f) ~= "table" or type(f.name) ~= "string" or type(f.size) ~= "number" or
         not inside(f.name) then
         return nil, info.name .. ": its note names a file that cannot be one", EINVAL
      end
      list[i] = { name = f.name, size = f.size }
      if f.size > 0 then sizes[#sizes + 1] = f.size end
   end
   if #list == 0 then
      for i, size in ipairs(info.sizes) do
         list[i] = { name = ("%s.%d"):format(base(info.name), i - 1), size = size }
         sizes[i] = size
      end
      if #list == 1 then list[1].name = base(info.name) end
   end
   for i = 1, math.max(#sizes, #info.sizes) do
      if sizes[i] ~= info.sizes[i] then
         return nil, info.name .. ": its note and its buffers differ", EINVAL
      end
   end
   return list
end

-- Where they go: dest itself for one file, unless it is, or is named as, a folder.
function files.place(list, dest)
   local folder = #list > 1 or dest:match "/$" or fs.is_dir(dest) or
                  list[1].name:find "/"
   for _, f in ipairs(list) do
      f.path = folder and dest:gsub("/+$", "") .. "/" .. f.name or dest
   end
   return folder
end

-- Map each file, those that are written as PATH.part: the buffers.
function files.map(list, writable)
   local buffers, resumable = {}, false
   for _, f in ipairs(list) do
      local path = writable and f.path .. ".part" or f.path
      local ok, why, errno = true, nil, nil
      if writable then ok, why, errno = tree.make_parents(path) end
      local file
      if ok then file, why, errno = fs.open(path, writable and "a" or "r") end
      if not file then return nil, why, errno end
      if writable then
         resumable = resumable or file:size() > 0
         ok, why, errno = file:truncate(f.size)
         if ok then ok, why, errno = file:allocate(f.size) end
      end
      if ok and f.size > 0 then
         ok, why, errno = file:map(f.size, writable)
         buffers[#buffers + 1] = { ptr = ok, len = f.size }
      end
      file:close()
      if not ok then return nil, why, errno end
   end
   return buffers, resumable
end

-- They are complete: give them their names.
function files.commit(list)
   for _, f in ipairs(list) do
      local file, why, errno = fs.open(f.path .. ".part", "rw")
      if not file then return nil, why, errno end
      local ok
      ok, why, errno = file:sync()
      file:close()
      if ok then ok, why, errno = fs.rename(f.path .. ".part", f.path) end
      if not ok then return nil, why, errno end
   end
   return true
end

return files
