-- get.lua - `mooncake p2p get`: fetches an object into files, and serves it to those who
-- fetch it at the same time.

local common = require "mooncake.p2p.common"
local files = require "mooncake.p2p.files"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local OK, FAILED, DIFFERS, NOTHING_CAME, INTERRUPTED = 0, 1, 3, 4, 130
local ETIMEDOUT = 110
local LINGER_S, SETTLE_S = 30, 0.7

local function fetch(store, name, opt, stopped)
   local bar, p, why, errno
   repeat
      p, why, errno = store:wait(name, 100)
      if p then
         bar = bar or util.progress { label = name, total = p.bytes,
                                      base = p.bytes_here,
                                      quiet = opt.quiet or opt.json }
         bar:update(p.bytes_here)
      end
   until not p or p.done or stopped()
   if bar then bar:finish() end
   if p and not p.done then return nil, "interrupted", 4 end
   return p, why, errno
end

-- The bytes as they are in the files now: all must be there when it is fetched again.
local function verify(store, name, buffers)
   util.check(store:unregister(name))
   util.check(store:get(name, buffers, { resume = true }))
   local p = util.check(store:wait(name))
   return p.resumed == p.shards, p.shards - p.resumed
end

-- Do not go from under who is reading.
local function linger(store, name, opt, stopped, fd)
   local p = store:progress(name)
   if not opt.seed and (not p or p.holders < 2) then return end
   local start, quiet = mooncake.now(), mooncake.now()
   repeat
      proc.wait_readable(fd, 100)
      p = store:progress(name)
      if not p or p.readers > 0 then quiet = mooncake.now() end
   until stopped() or not opt.seed and (mooncake.now() - quiet > SETTLE_S or
                                        mooncake.now() - start > LINGER_S)
end

local function report(name, p, seconds, opt, list)
   if opt.json then
      print(json.encode {
         name = name, bytes = p.bytes, files = #list, seconds = seconds,
         gb_per_s = p.bytes / seconds / 1e9, from_source = p.from_source,
         wasted = p.wasted, resumed = p.resumed, bad = p.bad, failed = p.failed,
         holders = p.holders, shards = p.shards, verified = opt.verify, why = p.why,
      })
   elseif not opt.quiet then
      print(("%s, %s in %d files, %s, %s; %d %% from the source%s"):format(
         name, util.bytes(p.bytes), #list, util.duration(seconds),
         util.rate(p.bytes / seconds), p.from_source / p.bytes * 100 + 0.5,
         p.resumed > 0 and (", %d of %d shards were there"):format(p.resumed, p.shards)
         or ""))
      if p.bad > 0 then print(("%d bad copies: %s"):format(p.bad, p.why)) end
   end
   io.stdout:flush()
end

local function status_of(errno, stopped)
   return stopped() and INTERRUPTED or errno == ETIMEDOUT and NOTHING_CAME or FAILED
end

local function run(opt, args)
   local name, dest = args[1], args[2]
   local stopped, fd = proc.on_sigint()
   local store = common.open(opt, { parallel = opt.parallel })
   local list = util.check(files.of(util.check(store:stat(name))))
   files.place(list, dest)
   local buffers, resumable = files.map(list, true)
   util.check(buffers, resumable)
   local start = mooncake.now()
   util.check(store:get(name, buffers, { resume = resumable and opt.resume,
                                         timeout_ms = opt.timeout * 1000 }))
   local p, why, errno = fetch(store, name, opt, stopped)
   if not p then
      io.stderr:write("mooncake p2p get: ", why, "\n")
      store:close()
      return status_of(errno, stopped)
   end
   local seconds = mooncake.now() - start
   local same, differ = true, 0
   if opt.verify then same, differ = verify(store, name, buffers) end
   util.check(files.commit(list))
   report(name, p, seconds, opt, list)
   if not same then
      io.stderr:write(("mooncake p2p get: %d shards had changed\n"):format(differ))
   end
   linger(store, name, opt, stopped, fd)
   store:close()
   return same and OK or DIFFERS
end

return {
   usage = "p2p get [OPTIONS] NAME DEST",
   summary = "fetch an object into files",
   help = [[
Fetches object NAME into the folder DEST, or, if it is one file, into the file DEST, and
serves what is there to other nodes meanwhile, and afterwards for as long as someone reads
from it. A file is written as PATH.part and gets its name when all is complete. A get that
is started again goes on with the parts that are there: what has the right checksum does
not come again.

Exit status: 0 fetched, 1 failed, 2 wrong usage, 3 --verify found bytes that differ (and
fetched them again), 4 nothing came any more, 130 interrupted.]] .. common.help,
   options = common.options {
      verify = { false, "read the files once more and compare checksums" },
      resume = { true, "use the parts that an earlier get left" },
      seed = { false, "serve it until Ctrl-C" },
      timeout = { 30, "give up when nothing has come for so long", "SECONDS" },
      parallel = { nil, "shards on their way at once", "N", number = true },
      quiet = { false, "no progress, no report", short = "q" },
      json = { false, "print the report as JSON" },
   },
   run = run,
}
