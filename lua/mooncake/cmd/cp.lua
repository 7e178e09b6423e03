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

local function places(args)
   local src, dst = util.check(ends.parse(args[1])), util.check(ends.parse(args[2]))
   local base = ends.base(src)
   if dst.kind == "file" and (dst.name == "" or dst.name:match "/$") then
      dst.name = dst.name .. (base or util.fail("%s: no file name", args[2]))
   elseif dst.kind == "local" and fs.is_dir(dst.path) then
      if not base then
         util.fail("%s is a folder, and the source has no name", dst.path)
      end
      dst.path = dst.path:gsub("/*$", "/") .. base
   end
   return src, dst
end

local function engine(opt)
   local e = util.check(mooncake.open {
      listen = "none", transports = opt.transport, key_file = opt.key,
      timeout_ms = opt.timeout and opt.timeout * 1000,
   })
   return e
end

local function moved_by(e)
   local names = {}
   for _, r in ipairs(e:rails() or {}) do
      if r.bytes_read + r.bytes_written > 0 and not names[r.transport] then
         names[#names + 1], names[r.transport] = r.transport, true
      end
   end
   return #names > 0 and table.concat(names, ", ") or "local files"
end

local function report(c, opt, seconds)
   local moved = c.len - c.resumed_at
   local r = {
      bytes = c.len, moved = moved, seconds = seconds, retries = c.retries,
      gb_per_s = seconds > 0 and moved / seconds / 1e9 or 0, verified = opt.verify,
      resumed_at = c.resumed_at, by = moved_by(c.engine),
   }
   if opt.json then
      print(json.encode(r))
   elseif not opt.quiet then
      print(("%s in %s, %s, by %s%s%s%s"):format(
         util.bytes(moved), util.duration(seconds),
         util.rate(moved / math.max(seconds, 1e-9)), r.by,
         opt.verify and ", verified" or "",
         c.resumed_at > 0 and ", resumed at " .. util.bytes(c.resumed_at) or "",
         c.retries > 0 and (", after %d broken link%s"):format(
            c.retries, c.retries == 1 and "" or "s") or ""))
   end
end

local function status_of(c, why, broken)
   if c.stopped() then return INTERRUPTED, "interrupted" end
   if c.mismatch then return DIFFERS, why end
   return broken and BROKEN or FAILED, why
end

local function run(opt, args)
   local src, dst = places(args)
   local stopped = proc.on_sigint()
   local e, bar, start = engine(opt), nil, mooncake.now()
   local c = copy.new {
      source = ends.source(e, src), dest = ends.dest(e, dst), engine = e,
      stopped = stopped, verify = opt.verify, resume = opt.resume, retry = opt.retry,
      rate = opt.rate,
      on_start = function(len, have)
         bar = util.progress { label = ends.base(src) or "memory", total = len,
                               base = have, quiet = opt.quiet }
         start = mooncake.now()
      end,
      on_progress = function(done) bar:update(done) end,
      on_note = function(text)
         if bar then bar:finish() end
         io.stderr:write("mooncake cp: ", text, "\n")
      end,
   }
   local ok, why, _, broken = c:run()
   local seconds = mooncake.now() - start
   if bar then bar:finish() end
   if ok then report(c, opt, seconds) end
   local status = OK
   if not ok then
      status, why = status_of(c, why, broken)
      local kept = c.len and c.done > 0 and dst.kind ~= "range" and
                   ("; %s are kept, --resume goes on"):format(util.bytes(c.done)) or ""
      io.stderr:write("mooncake cp: ", tostring(why), kept, "\n")
   end
   c:close()
   e:close()
   return status
end

return {
   usage = "cp [OPTIONS] SRC DST",
   summary = "copy files and memory between nodes",
   help = [[
Either side is a local path; HOST:PORT/NAME, a file of a `mooncake serve` there; or
HOST:PORT#ADDRESS+LENGTH, memory of any engine. To make a file on a node, it must serve
with --dir. A folder as DST keeps the name.

A file is written as NAME.part and gets its name when it is complete. When the link
breaks, the copy goes on from the last good byte as soon as the node is back, for
--retry seconds. --resume goes on with a part that an earlier copy left, after comparing
sums of what is there. --verify compares a checksum of both ends and of what came
between, and copies again what differs.

Exit status: 0 copied, 1 failed, 2 wrong usage, 3 the bytes differ, 4 the link broke and
stayed so, 130 interrupted.]] .. environment,
   options = {
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
