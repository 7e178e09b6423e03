-- catalog.lua - `mooncake p2p list`, `rm`, `pin` and `watch`: what the registry says.

local common = require "mooncake.p2p.common"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local ENOENT, ESTALE = 2, 116

-- Nothing is served: no port is needed.
local function open(opt)
   return common.open(opt, { listen = "none" })
end

local function row(store, name)
   local info, why, errno = store:stat(name)
   if not info and errno == ENOENT then return nil end
   if not info then return { name = name, why = why } end
   return { name = name, bytes = info.bytes, shards = info.shards,
            shard_bytes = info.shard_bytes, buffers = info.buffers, nodes = info.nodes,
            sources = info.sources, pinned = info.pinned,
            id = mooncake.hex(info.id) }
end

local function list(opt, args)
   local store = open(opt)
   local names, rows = util.check(store:list(args[1])), {}
   table.sort(names)
   for _, name in ipairs(names) do
      local r = row(store, name)
      if r and opt.json then print(json.encode(r)) end
      if r and not opt.json then
         rows[#rows + 1] = r.why and { name, "-", "-", "-", "-", r.why } or {
            name, util.bytes(r.bytes), r.shards, r.nodes, r.sources,
            r.pinned and "pinned" or nil }
      end
   end
   store:close()
   if not opt.json and #rows > 0 then
      util.print_table({ "NAME", "SIZE", "SHARDS", "NODES", "SOURCES", "" }, rows,
                       "lrrrrl")
   end
   return 0
end

local function rm(opt, args)
   local store, status = open(opt), 0
   for _, name in ipairs(args) do
      local ok, why = store:remove(name, opt.force)
      if not ok then
         io.stderr:write("mooncake p2p rm: ", why, "\n")
         status = 1
      end
   end
   store:close()
   return status
end

local function pin(opt, args)
   local store = open(opt)
   util.check(store:pin(args[1], not opt.off))
   store:close()
   return 0
end

local function say(opt, name, what)
   print(opt.json and json.encode { name = name, change = what } or
         what .. " " .. name)
   io.stdout:flush()
end

local function watch(opt, args)
   local stopped = proc.on_sigint()
   local store = open(opt)
   local w = util.check(store:watch(args[1]))
   for _, name in ipairs(util.check(store:list(args[1]))) do say(opt, name, "is") end
   while not stopped() do
      local change, why, errno = w:next(500)
      if change then
         say(opt, change.name, change.gone and "gone" or "put")
      elseif why then
         io.stderr:write("mooncake p2p watch: ", why, "\n")
         if errno ~= ESTALE then mooncake.sleep(1000) end
      end
   end
   store:close()
   return 0
end

return {
   list = {
      usage = "p2p list [OPTIONS] [PREFIX]",
      summary = "what objects there are",
      help = [[
Objects whose names begin with PREFIX: their size, how many nodes hold or fetch them, and
how many registered them.]] .. common.help,
      options = common.options { json = { false, "one object of JSON a line" } },
      run = list,
   },
   rm = {
      usage = "p2p rm [OPTIONS] NAME...",
      summary = "take objects out of the registry",
      help = [[
Who is fetching one goes on; no one else finds it.]] .. common.help,
      options = common.options { force = { false, "also those that are pinned" } },
      run = rm,
   },
   pin = {
      usage = "p2p pin [OPTIONS] NAME",
      summary = "keep an object from being removed or replaced",
      help = "A pinned object is removed or replaced only by force." .. common.help,
      options = common.options { off = { false, "unpin it" } },
      run = pin,
   },
   watch = {
      usage = "p2p watch [OPTIONS] [PREFIX]",
      summary = "say when objects come, change and go",
      help = [[
First what there is, then a line for each change, until Ctrl-C: "is", "put" or "gone" and
the name.]] .. common.help,
      options = common.options { json = { false, "one object of JSON a line" } },
      run = watch,
   },
}
