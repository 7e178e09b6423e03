-- cp.lua - `mooncake cp`: files and memory between this machine and serving nodes.

local copy = require "mooncake.copy"
local ends = require "mooncake.ends"
local environment = require "mooncake.environment"
local fs = require "mooncake.fs"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local OK, FAILED, DIFFERS, BROKEN, INTERRUPTED = 0, 1, 3, 4, 130
local ENOTDIR = 20

-- ---- what is copied where ----------------------------------------------------

local function places(opt, args)
   local src = util.check(ends.parse(args[1], opt.join))
   local dst = util.check(ends.parse(args[2], opt.join))
   local base = ends.base(src)
   if dst.kind == "file" and (dst.name == "" or dst.name:match "/$") then
      if not base and not opt.recursive then util.fail("%s: no file name", args[2]) end
      dst.name = dst.name .. (base or "")
   elseif dst.kind == "local" and fs.is_dir(dst.path) then
      if not base and not opt.recursive then
         util.fail("%s is a folder, and the source has no name", dst.path)
      end
      dst.path = base and dst.path:gsub("/+$", "") .. "/" .. base or dst.path
   end
   return src, dst
end

local function warn(fmt, ...)
   io.stderr:write("mooncake cp: ", fmt:format(...), "\n")
end

-- The copies to make, as { src, dst, len }, and how many files cannot be read. len is
-- nil where it is not known yet.
local function jobs(opt, e, src, dst)
   if not opt.recursive then
      if src.kind == "local" and fs.is_dir(src.path) then
         util.fail("%s is a folder: -r copies the files below it", src.path)
      end
      return { { src, dst } }, 0
   end
   local found, why, errno = ends.list(e, src)
   if errno == ENOTDIR then return { { src, dst } }, 0 end
   if dst.kind == "range" then util.fail "a folder does not go into memory" end
   local list, failed = {}, 0
   for _, f in ipairs(util.check(found, why)) do
      if f.len then
         list[#list + 1] = { ends.below(src, f.name), ends.below(dst, f.name), f.len }
      else
         local named = f.why:find(f.name, 1, true)
         warn("%s%s%s", named and "" or f.name .. ": ", f.why,
              f.failed and "" or ": left out")
         failed = failed + (f.failed and 1 or 0)
      end
   end
   return list, failed
end

-- ---- copying -----------------------------------------------------------------

-- All of it: what has been done, and the line that shows it.
local Work = {}
Work.__index = Work

function Work:begin(len, have)
   self.bar = self.bar or util.progress {
      label = self.label, total = self.total or len, base = have, quiet = self.quiet,
   }
   self.start = self.start or mooncake.now()
end

function Work:note(fmt, ...)
   if self.bar then self.bar:finish() end
   warn(fmt, ...)
end

local function name_of(at) return at.path or at.name or "memory" end

-- What went wrong, with the file's name where there are several; the exit status.
function Work:failed(job, c, why, broken)
   local status = c.stopped() and INTERRUPTED or c.mismatch and DIFFERS or
                  broken and BROKEN or FAILED
   if status == INTERRUPTED then why = "interrupted" end
   local kept = c.len and c.done > 0 and job[2].kind ~= "range" and
                ("; %s are kept, --resume goes on"):format(util.bytes(c.done)) or ""
   local name = name_of(job[1])
   local named = not self.many or tostring(why):find(name, 1, true)
   self:note("%s%s%s", named and "" or name .. ": ", tostring(why), kept)
   return status
end

function Work:copy(job, opt)
   local c = copy.new {
      source = ends.source(self.engine, job[1]), dest = ends.dest(self.engine, job[2]),
      there = job[2].kind ~= "range" and ends.source(self.engine, job[2]),
      engine = self.engine, slots = self.slots, stopped = self.stopped,
      verify = opt.verify, resume = opt.resume, retry = opt.retry, rate = opt.rate,
      on_start = function(len, have) self:begin(len, have) end,
      on_progress = function(done) self.bar:update(self.bytes + done) end,
      on_note = function(text)
         self:note("%s%s", self.many and name_of(job[1]) .. ": " or "", text)
      end,
   }
   local ok, why, _, broken = c:run()
   local status = ok and OK or self:failed(job, c, why, broken)
   c:close()
   self.slots, self.retries = c.slots, self.retries + c.retries
   if not ok then
      self.lost = self.lost + 1
      return status
   end
   self.files, self.bytes = self.files + 1, self.bytes + c.len
   self.resumed = self.resumed + c.resumed_at
   return OK
end

-- Copies all: the exit status. What is wrong with one file does not keep the others.
function Work:run(list, opt)
   local worst = OK
   for _, job in ipairs(list) do
      local status = self:copy(job, opt)
      worst = math.max(worst, status)
      if status == BROKEN or status == INTERRUPTED then break end
   end
   if self.bar then self.bar:finish() end
   return worst
end

-- ---- the report --------------------------------------------------------------

local function moved_by(e)
   local names = {}
   for _, r in ipairs(e:rails() or {}) do
      if r.bytes_read + r.bytes_written > 0 and not names[r.transport] then
         names[#names + 1], names[r.transport] = r.transport, true
      end
   end
   return #names > 0 and table.concat(names, ", ") or "local files"
end

function Work:report(opt)
   local seconds = self.start and mooncake.now() - self.start or 0
   local moved = self.bytes - self.resumed
   local r = {
      files = self.files, failed = self.lost, bytes = self.bytes, moved = moved,
      seconds = seconds, gb_per_s = seconds > 0 and moved / seconds / 1e9 or 0,
      retries = self.retries, verified = opt.verify, resumed_at = self.resumed,
      by = moved_by(self.engine),
   }
   if opt.json then
      print(json.encode(r))
   elseif not opt.quiet then
      print(("%s%s in %s, %s, by %s%s%s%s"):format(
         self.many and ("%d file%s, "):format(r.files, r.files == 1 and "" or "s") or "",
         util.bytes(moved),
         util.duration(seconds), util.rate(moved / math.max(seconds, 1e-9)), r.by,
         opt.verify and ", verified" or "",
         r.resumed_at > 0 and ", resumed at " .. util.bytes(r.resumed_at) or "",
         r.retries > 0 and (", after %d broken link%s"):format(
            r.retries, r.retries == 1 and "" or "s") or ""))
   end
end

local function run(opt, args)
   local src, dst = places(opt, args)
   local stopped = proc.on_sigint()
   local e = util.check(mooncake.open {
      listen = "none", registry = opt.join, transports = opt.transport,
      key_file = opt.key, timeout_ms = opt.timeout and opt.timeout * 1000,
   })
   local list, lost = jobs(opt, e, src, dst)
   local total = 0
   for _, job in ipairs(list) do total = total and job[3] and total + job[3] end
   local work = setmetatable({
      engine = e, stopped = stopped, label = ends.base(src) or "memory",
      quiet = opt.quiet, many = opt.recursive, total = total,
      files = 0, bytes = 0, resumed = 0, retries = 0, lost = lost,
   }, Work)
   local status = work:run(list, opt)
   if status == OK or work.files > 0 then work:report(opt) end
   e:close()
   return math.max(status, lost > 0 and FAILED or OK)
end

return {
   usage = "cp [OPTIONS] SRC DST",
   summary = "copy files and memory between nodes",
   help = [[
Either side is a local path; HOST:PORT/NAME, a file of a `mooncake serve` there; or
HOST:PORT#ADDRESS+LENGTH, memory of any engine. With --join they may also be NODE:NAME
and NODE#ADDRESS+LENGTH, the node by its name in that registry. To make a file on a
node, it must serve with --dir. A folder as DST keeps the name.

-r copies the files below a folder, into folders that are made; links to folders are
left out. What fails is said by its name, and does not keep the others. HOST:PORT/ is
all that a node offers.

A file is written as NAME.part and gets its name when it is complete. When the link
breaks, the copy goes on from the last good byte as soon as the node is back, for
--retry seconds. --resume goes on with a part that an earlier copy left, after comparing
sums of what is there, and leaves a file alone that is there already. --verify compares
a checksum of both ends and of what came between, and copies again what differs.

Exit status: 0 copied, 1 failed, 2 wrong usage, 3 the bytes differ, 4 the link broke and
stayed so, 130 interrupted.]] .. environment,
   options = {
      recursive = { false, "the files below a folder", short = "r" },
      join = { nil, "the registry that knows the nodes' names", "URL" },
      verify = { false, "compare checksums at both ends" },
      resume = { false, "go on with a partial file" },
      retry = { 30, "keep trying for so long after the link broke", "SECONDS" },
      rate = { nil, "at most so many bytes per second", "BYTES", number = true },
      transport = { nil, "only these: tcp, shm", "LIST" },
      key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
      timeout = { nil, "a request fails after so long; default: 0.9 s without progress",
                  "SECONDS", number = true },
      quiet = { false, "no progress, no report", short = "q" },
      json = { false, "print the report as JSON" },
   },
   run = run,
}
