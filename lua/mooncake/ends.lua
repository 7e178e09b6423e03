-- ends.lua - the two ends of a copy: a local file, a file of a serving node, a range of
-- a segment's memory. All work alike, and ends.list() says what is below a folder:
--
--   source:open() -> len         source:fill(buffer, off, n)    source:sum(off, n)
--   dest:open(len, resume) -> have                              dest:sum(off, n)
--   dest:drain(buffer, off, n)   dest:mark(done)                dest:commit()
--   either:close()
--
-- fill() and drain() return true, or a future, or nil, why, errno; a fourth result says
-- that trying again is of no use.

local desk = require "mooncake.desk"
local fs = require "mooncake.fs"
local json = require "mooncake.json"
local proc = require "mooncake.proc"
local sum = require "mooncake.sum"
local tree = require "mooncake.tree"

local ends = {}

-- Who we are to a node that we lost and found again.
local CLIENT = ("%d %.9f"):format(proc.pid(), proc.now())

-- ---- names -----------------------------------------------------------------

-- "HOST:PORT/name", "HOST:PORT#addr+len", or a path; with a registry also "NODE:name"
-- and "NODE#addr+len".
function ends.parse(text, registry)
   local host, sep, rest = text:match "^(%[[^%]]+%]:%d+)([/#])(.*)$"
   if not host then host, sep, rest = text:match "^([^/:#]+:%d+)([/#])(.*)$" end
   if not host and registry then host, sep, rest = text:match "^([^/:#]+)([:#])(.*)$" end
   if not host then return { kind = "local", path = text } end
   if sep ~= "#" then return { kind = "file", node = host, name = rest } end
   local addr, len = rest:match "^([^+]+)%+?(.*)$"
   addr, len = tonumber(addr or ""), len ~= "" and tonumber(len) or nil
   if not addr or rest:find "+" and not len then
      return nil, ("%s: a range is NODE#ADDRESS+LENGTH"):format(text)
   end
   return { kind = "range", node = host, addr = addr, len = len }
end

-- The last part of a name, for a folder as destination.
function ends.base(at)
   local name = at.kind == "local" and at.path or at.name
   return name and name:match "([^/]+)/*$"
end

-- A name below a folder, as an end of its own.
function ends.below(at, name)
   local path = at.path and at.path:gsub("/+$", "") .. "/" .. name
   local above = (at.name or ""):gsub("/+$", "")
   return { kind = at.kind, node = at.node, path = path, parents = true,
            name = at.name and (above == "" and name or above .. "/" .. name) }
end

-- ---- local files -----------------------------------------------------------

local Local = {}
Local.__index = Local

function Local:fill(buffer, off, n)
   local ok, why, errno = self.file:pread(buffer.ptr, n, off)
   if not ok then return nil, why, errno, true end
   return true
end

function Local:drain(buffer, off, n)
   local ok, why, errno = self.file:pwrite(buffer.ptr, n, off)
   if not ok then return nil, why, errno, true end
   return true
end

function Local:sum(off, n)
   local hex, why, errno = sum.file(self.file, off, n)
   if not hex then return nil, why, errno, true end
   return hex
end

function Local:reopen() return true end

function Local:close()
   if self.file then self.file:close() end
   self.file = nil
end

local LocalSource = setmetatable({}, { __index = Local })
LocalSource.__index = LocalSource

function LocalSource:open()
   local why, errno
   self.file, why, errno = fs.open(self.path, "r")
   if not self.file then return nil, why, errno, true end
   self.len, why, errno = self.file:size()
   return self.len, why, errno, true
end

-- Written as PATH.part; its size is how far it has got.
local LocalDest = setmetatable({}, { __index = Local })
LocalDest.__index = LocalDest

function LocalDest:open(len, resume)
   local ok, why, errno = true, nil, nil
   if self.parents then ok, why, errno = tree.make_parents(self.path) end
   if not ok then return nil, why, errno, true end
   self.file, why, errno = fs.open(self.path .. ".part", resume and "a" or "w")
   if not self.file then return nil, why, errno, true end
   local have = self.file:size()
   if have <= len then return have end
   ok, why, errno = self.file:truncate(0)
   if not ok then return nil, why, errno, true end
   return 0
end

-- What is in the file past this point is not to be trusted when it is resumed.
function LocalDest:mark() return true end

function LocalDest:rewind(off) return self.file:truncate(off) end

function LocalDest:commit()
   local ok, why, errno = fs.rename(self.path .. ".part", self.path)
   if not ok then return nil, why, errno, true end
   return true
end

-- ---- what is at a node -----------------------------------------------------

local Remote = {}
Remote.__index = Remote

-- The segment and its desk, which others use too; anew after the link broke.
function Remote:connect(anew)
   local s, why, errno = self.engine:segment(self.node, 3000)
   if not s then return nil, why, errno end
   if anew and s.desk then
      s.desk:close()
      s.desk = nil
   end
   if not s.desk then s.desk, why, errno = desk.find(s) end
   self.segment, self.desk = s, s.desk
   if not s.desk and not self.plain then return nil, why, errno end
   return true
end

local function at(self, op, buffer, off, n)
   local f, why, errno = self.engine:submit {
      op = op, segment = self.segment, buf = buffer, remote = self.addr + off, len = n,
   }
   return f, why, errno
end

function Remote:fill(buffer, off, n) return at(self, "read", buffer, off, n) end
function Remote:drain(buffer, off, n) return at(self, "write", buffer, off, n) end

-- Errors that the node answers with are final; those of the way to it are not. A handle
-- that the node does not know is a way that broke.
local ESTALE, EOPNOTSUPP, EINVAL, EFBIG = 116, 95, 22, 27
local SUM_MS, CLOSE_MS = 30000, 500

function Remote:ask(op, args, timeout_ms)
   local answer, why, errno, answered = self.desk:ask(op, args, timeout_ms)
   if answer then return answer end
   return nil, why, errno, answered and errno ~= ESTALE
end

function Remote:sum(off, n)
   if not self.desk then
      return nil, self.node .. " cannot check sums", EOPNOTSUPP, true
   end
   local op, question = "sum_range", { addr = self.addr + off, len = n }
   if self.handle then
      op, question = "sum", { handle = self.handle, off = off, len = n }
   end
   local answer, why, errno, final = self:ask(op, question, SUM_MS)
   if not answer then return nil, why, errno, final end
   return answer.sum
end

function Remote:close()
   if self.handle and self.desk then
      self.desk:ask("close", { handle = self.handle }, CLOSE_MS)
   end
   self.handle = nil
end

local FileSource = setmetatable({}, { __index = Remote })
FileSource.__index = FileSource

function FileSource:open(anew)
   local ok, why, errno = self:connect(anew)
   if not ok then return nil, why, errno end
   local a, final
   a, why, errno, final = self:ask("open", { name = self.name, mode = self.mode or "r" })
   if not a then return nil, why, errno, final end
   if self.len and self.len ~= a.len then
      return nil, self.name .. " has another length now", ESTALE, true
   end
   self.handle, self.addr, self.len = a.handle, a.addr, a.len
   return a.len
end

function FileSource:reopen() return self:open(true) end

local FileDest = setmetatable({}, { __index = Remote })
FileDest.__index = FileDest

function FileDest:open(len, resume, anew)
   local ok, why, errno = self:connect(anew)
   if not ok then return nil, why, errno end
   local a, final
   a, why, errno, final = self:ask("open", {
      name = self.name, mode = "w", len = len, resume = resume, client = CLIENT,
   })
   if not a then return nil, why, errno, final end
   self.len, self.handle, self.addr = len, a.handle, a.addr
   return a.have
end

function FileDest:reopen()
   local have, why, errno, final = self:open(self.len, true, true)
   return have, why, errno, final
end

function FileDest:mark(done)
   local ok, why, errno, final = self:ask("mark", { handle = self.handle, done = done })
   if not ok then return nil, why, errno, final end
   return true
end

function FileDest:rewind() return true end

function FileDest:commit()
   local ok, why, errno, final = self:ask("commit", { handle = self.handle })
   if not ok then return nil, why, errno, final end
   self.handle = nil
   return true
end

-- Memory at an address: any engine will do, and only sums need a serving node.
local Range = setmetatable({ plain = true }, { __index = Remote })
Range.__index = Range

function Range:open(len)
   local ok, why, errno = self:connect()
   if not ok then return nil, why, errno end
   if not len and not self.len then
      return nil, "a range to read needs +LENGTH", EINVAL, true
   end
   if len and self.len and len > self.len then
      local text = "%d bytes do not fit in the %d of the range"
      return nil, text:format(len, self.len), EFBIG, true
   end
   self.len = self.len or len
   return len and 0 or self.len
end

function Range:reopen()
   local ok, why, errno, final = self:connect(true)
   return ok, why, errno, final
end

function Range:mark() return true end
function Range:rewind() return true end
function Range:commit() return true end

-- ---- making them -----------------------------------------------------------

local SOURCE = { ["local"] = LocalSource, file = FileSource, range = Range }
local DEST = { ["local"] = LocalDest, file = FileDest, range = Range }

local function new(classes, engine, place)
   local self = { engine = engine }
   for k, v in pairs(place) do self[k] = v end
   return setmetatable(self, classes[place.kind])
end

function ends.source(engine, place) return new(SOURCE, engine, place) end
function ends.dest(engine, place) return new(DEST, engine, place) end

-- The files below a folder, as tree.lua lists them.
function ends.list(engine, place)
   if place.kind == "local" then return tree.below(place.path) end
   if place.kind ~= "file" then return nil, "memory has no files", EINVAL end
   local source = new(SOURCE, engine, place)
   source.name, source.mode = place.name:gsub("/+$", ""), "list"
   local len, why, errno = source:open()
   if not len then return nil, why, errno end
   local text
   text, why, errno = source.segment:read_string(source.addr, len)
   source:close()
   if not text then return nil, why, errno end
   return json.decode(text)
end

return ends
