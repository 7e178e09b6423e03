-- serve.lua - `mooncake serve`: a node that offers memory and files.

local environment = require "mooncake.environment"
local mooncake = require "mooncake"
local node = require "mooncake.node"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local function start_registry(opt)
   if opt.state and not opt.registry then util.fail "--state is of a --registry" end
   if not opt.registry then return nil end
   local r = util.check(mooncake.registry_server(opt.registry, opt.state))
   print("registry " .. r:addr())
   if not opt.state then
      io.stderr:write "mooncake serve: the registry forgets when it stops (no --state)\n"
   end
   return r
end

local function engine_options(opt, registry)
   local join = opt.join
   if not join and registry and opt.name then
      join = "http://" .. registry:addr() .. "/metadata"
   end
   return {
      listen = opt.listen, advertise = opt.advertise, name = opt.name, registry = join,
      transports = opt.transport, devices = opt.devices, key_file = opt.key,
      tls_cert = opt.tls_cert, tls_key = opt.tls_key, tls_ca = opt.tls_ca,
      profile = opt.profile,
   }
end

local function announce(n, opt)
   if not opt.quiet then
      local list = {}
      for _, name in ipairs(n.files.names) do list[#list + 1] = name end
      if n.memory then
         io.stderr:write(("mooncake serve: memory %s#0x%x+%d\n"):format(
            n.engine:addr(), n.memory.addr, n.memory.len))
      end
      for _, name in ipairs(list) do
         io.stderr:write(("mooncake serve: file %s/%s, %s\n"):format(
            n.engine:addr(), name, util.bytes(n.files.fixed[name].len)))
      end
      if opt.dir then io.stderr:write("mooncake serve: folder ", opt.dir, "\n") end
   end
   print("ready " .. n.engine:addr())
   io.stdout:flush()
end

local function run(opt)
   if opt.eval_timeout <= 0 then util.fail "--eval-timeout is of more than 0 seconds" end
   if opt.gid_index then util.setenv("MC_GID_INDEX", opt.gid_index) end
   local stopped, fd = proc.on_sigint()
   local registry = start_registry(opt)
   local n = util.check(node.open {
      engine = engine_options(opt, registry), memory = opt.memory, huge = opt.huge,
      foreign = opt.foreign, files = opt.file, dir = opt.dir, allow_repl = opt.allow_repl,
      eval_timeout = opt.eval_timeout,
   })
   announce(n, opt)
   n:serve(stopped, { fd })
   n:close()
   if registry then registry:close() end
   return 0
end

return {
   usage = "serve [OPTIONS]",
   summary = "a node that offers memory and files",
   help = [[
Offers memory and files to other nodes until Ctrl-C. Prints "ready HOST:PORT" once it can
be reached. Files are mapped and can be read by `mooncake cp HOST:PORT/NAME DST`; with
--dir, also files below that folder, and new ones can be made there. No name leads out
of the folder.

With --registry this process is also the registry server; --state keeps its records over
restarts. With --allow-repl, who has the cluster key can evaluate Lua in this process
(`mooncake repl --node HOST:PORT`): that is as much as a shell. A text that takes longer
than --eval-timeout is stopped, for a node has others to serve.]] .. environment,
   options = {
      listen = { "127.0.0.1:0", "where to be reached; a port of 0 is a free one",
                 "HOST:PORT" },
      advertise = { nil, "the address to tell others", "HOST[:PORT]" },
      name = { nil, "name of the segment in the registry; default: the address", "NAME" },
      join = { nil, "registry in which to publish: http://, etcd:// or redis://",
               "URL" },
      registry = { nil, "be a registry server at this address", "HOST:PORT" },
      state = { nil, "keep the registry's records in this file", "FILE" },
      memory = { nil, "offer so much memory", "BYTES", number = true },
      huge = { false, "in pages of 2 MiB where there are any" },
      foreign = { false, "the memory is the process's own, as a program's that uses us" },
      file = { nil, "offer a file, as its last part or as NAME; may be repeated",
               "[NAME=]PATH", list = true },
      dir = { nil, "let nodes read and make files below this folder", "DIR" },
      ["allow-repl"] = { false, "evaluate Lua that nodes with the key send" },
      ["eval-timeout"] = { 5, "stop such a text after so long", "SECONDS" },
      transport = { nil, "only these: tcp, shm", "LIST" },
      devices = { nil, "devices for rdma, interfaces for tcp: as mlx5_0,mlx5_1", "LIST" },
      ["gid-index"] = { nil, "the GID of rdma devices; default: the best, or " ..
                        "$MC_GID_INDEX", "N", number = true },
      key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
      ["tls-cert"] = { nil, "PEM file; with its key it turns TLS 1.3 on", "FILE" },
      ["tls-key"] = { nil, "its key", "FILE" },
      ["tls-ca"] = { nil, "who signs the peers'; default: the certificate", "FILE" },
      profile = { nil, "v1: speak the public Mooncake's protocol too, to anyone; " ..
                  "default $MOONCAKE_PROFILE", "NAME" },
      quiet = { false, "no list of what is offered", short = "q" },
   },
   run = run,
}
