-- put.lua - `mooncake p2p put`: offers files as an object until it is told to stop.

local common = require "mooncake.p2p.common"
local files = require "mooncake.p2p.files"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local LOOK_S = 5

-- Until a signal comes, or the object is no longer ours.
local function serve(store, name, id, stopped, fd)
   local look = mooncake.now() + LOOK_S
   while not stopped() do
      proc.wait_readable(fd, 500)
      if mooncake.now() > look then
         look = mooncake.now() + LOOK_S
         local info, why, errno = store:stat(name)
         if info and info.id ~= id then return "replaced" end
         if not info and errno == 2 then return "removed" end
         if not info then io.stderr:write("mooncake p2p put: ", why, "\n") end
      end
   end
end

local function run(opt, args)
   local name = table.remove(args, 1)
   local stopped, fd = proc.on_sigint()
   local list = util.check(files.at(args))
   local buffers = util.check(files.map(list))
   if #buffers == 0 then util.fail "no bytes: there are no files, or all are empty" end
   local store = common.open(opt)
   local start = mooncake.now()
   util.check(store:register(name, buffers, {
      note = files.note(list), force = opt.force, shard_bytes = opt.shard,
   }))
   local info = util.check(store:stat(name))
   if opt.json then
      print(json.encode { name = name, addr = store:addr(), bytes = info.bytes,
                          files = #list, shards = info.shards,
                          shard_bytes = info.shard_bytes,
                          seconds = mooncake.now() - start })
   else
      print(("ready %s, %s in %d files, %d shards of %s, at %s"):format(
         name, util.bytes(info.bytes), #list, info.shards,
         util.bytes(info.shard_bytes), store:addr()))
   end
   io.stdout:flush()
   local why = serve(store, name, info.id, stopped, fd)
   if why then io.stderr:write("mooncake p2p put: ", name, " has been ", why, "\n") end
   store:close()
   return 0
end

return {
   usage = "p2p put [OPTIONS] NAME PATH...",
   summary = "offer files as an object",
   help = [[
Offers files, or all files of a folder, as object NAME, until Ctrl-C or until it is
removed. Nothing is copied: the files are mapped, and are not to be changed meanwhile.
Prints "ready" once others can fetch it.]] .. common.help,
   options = common.options {
      force = { false, "in place of an object of that name" },
      shard = { nil, "shards of that size; default: by the object's", "BYTES",
                number = true },
      json = { false, "say it as JSON" },
   },
   run = run,
}
