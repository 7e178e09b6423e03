-- common.lua - what the subcommands of `mooncake p2p` share: options, and the store.

local environment = require "mooncake.environment"
local mooncake = require "mooncake"
local util = require "mooncake.util"

local common = {}

local OPTIONS = {
   registry = { nil, "URL of the registry; default $MOONCAKE_REGISTRY", "URL" },
   listen = { "127.0.0.1:0", "where other nodes reach this one", "HOST:PORT" },
   advertise = { nil, "the address to tell others", "HOST[:PORT]" },
   lease = { 10, "a node that died is listed for so long", "SECONDS" },
   transport = { nil, "only these: tcp, shm", "LIST" },
   devices = { nil, "interfaces for tcp, as eth0,eth1", "LIST" },
   key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
}

common.help = environment .. [[

MOONCAKE_REGISTRY is the registry's URL, as etcd://host:2379, redis://host:6379 or
http://host:port/metadata.]]

-- Options of a subcommand with those that all have.
function common.options(own)
   for name, spec in pairs(OPTIONS) do own[name] = own[name] or spec end
   return own
end

function common.open(opt, more)
   local url = opt.registry or os.getenv "MOONCAKE_REGISTRY"
   if not url then util.fail "no registry: give --registry, or set MOONCAKE_REGISTRY" end
   local spec = {
      registry = url, listen = opt.listen, advertise = opt.advertise,
      lease_ms = opt.lease * 1000, transports = opt.transport, devices = opt.devices,
      key_file = opt.key,
   }
   for k, v in pairs(more or {}) do spec[k] = v end
   return util.check(mooncake.p2p(spec))
end

return common
