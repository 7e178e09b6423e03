-- registry_test.lua - nodes that publish in etcd and redis, by the command and from Lua.

local mooncake = require "mooncake"
local proc = require "mooncake.proc"

local ENOENT, ECONNREFUSED = 2, 111
local READY_MS = 30000

local tests = {}

local function free_port()
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   local port = e:addr():match "%d+$"
   e:close()
   return port
end

-- Start a server of the test's own, and wait until it answers at @url.
local function start(url, command)
   command.stdout, command.stderr = test.tmpdir() .. "/log", "stdout"
   local p = test.spawn(command)
   local r = assert(mooncake.registry(url))
   local until_s = mooncake.now() + READY_MS / 1000
   repeat
      local _, why, errno = r:get "ready?"
      if errno == ENOENT then return r end
      if mooncake.now() > until_s or p:wait(20) then error(why, 2) end
   until false
end

local SERVERS = {
   redis = function()
      local port = free_port()
      local url = "redis://127.0.0.1:" .. port
      return url, start(url, { "redis-server", "--port", port, "--bind", "127.0.0.1",
                               "--dir", test.tmpdir(), "--save", "" })
   end,
   etcd = function()
      local port, peer = free_port(), "http://127.0.0.1:" .. free_port()
      local url, client = "etcd://127.0.0.1:" .. port, "http://127.0.0.1:" .. port
      return url, start(url, {
         "etcd", "--name", "m", "--data-dir", test.tmpdir() .. "/data",
         "--listen-client-urls", client, "--advertise-client-urls", client,
         "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
         "--initial-cluster", "m=" .. peer, "--log-level", "error", "--logger", "zap",
      })
   end,
}

for kind, server in pairs(SERVERS) do
   tests["nodes_are_found_in_" .. kind] = function()
      local url, r = server()
      local p = test.spawn { "mooncake", "serve", "-q", "--join", url, "--memory", "1M",
                             "--name", "decode-0", stdout = "pipe" }
      assert(p:read_line(READY_MS):match "^ready ")
      test.eq(r:list "mooncake/", { "mooncake/ram/decode-0" })
      local e = assert(mooncake.open { listen = "none", registry = url })
      assert(#assert(e:segment "decode-0"):buffers() > 0)
      e:close()
      p:kill "TERM"
      test.eq(p:wait(READY_MS), 0)
      test.eq(r:list "mooncake/", {})
      r:close()
   end

   tests["values_are_kept_by_" .. kind] = function()
      local _, r = server()
      assert(r:put("a/1", ("x"):rep(10000)))
      local value, version = r:get "a/1"
      test.eq(value, ("x"):rep(10000))
      assert(r:cas("a/1", "y", version))
      local ok, why, errno = r:cas("a/1", "z", version)
      test.eq(ok, nil)
      test.eq(errno, 11)
      assert(why:find "another version")
      assert(r:cas("a/2", "new", 0))
      test.eq(r:list "a/", { "a/1", "a/2" })
      assert(r:del "a/1")
      test.eq(r:list "a/", { "a/2" })
      r:close()
   end

   tests["doctor_tries_" .. kind] = function()
      local url = server()
      local out = proc.run { proc.exe(), "doctor", "--join", url }
      assert(out:find "\n  ok       registry      a record put, read and deleted in ")
      assert(out:find "\n  ok       registries    peer, http, etcd, redis\n")
   end
end

function tests.doctor_says_what_is_wrong_with_a_registry()
   local url = "redis://127.0.0.1:" .. free_port()
   local out = proc.run { proc.exe(), "doctor", "--join", url }
   assert(out:find("\n  missing  registry      registry " .. url .. ": put '", 1, true))
end

function tests.a_server_that_is_not_there_is_said_so()
   local url = "etcd://127.0.0.1:" .. free_port()
   local r = assert(mooncake.registry(url))
   local value, why, errno = r:get "a"
   test.eq(value, nil)
   test.eq(errno, ECONNREFUSED)
   assert(why:find(url .. ": get 'a'", 1, true))
   local e, err = mooncake.open { name = "n", registry = url }
   test.eq(e, nil)
   assert(err:find(url, 1, true))
end

return tests
