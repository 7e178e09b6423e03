-- p2p_test.lua - the store as scripts see it, and `mooncake p2p` where processes die.

local files = require "mooncake.p2p.files"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local tests = {}

local MIB = 2 ^ 20

local function registry()
   local r = assert(mooncake.registry_server "127.0.0.1:0")
   test.defer(function() r:close() end)
   return "http://" .. r:addr() .. "/metadata"
end

local function store(url, more)
   local spec = { registry = url }
   for k, v in pairs(more or {}) do spec[k] = v end
   local s = assert(mooncake.p2p(spec))
   test.defer(function() s:close() end)
   return s
end

function tests.strings_go_from_store_to_store()
   local url = registry()
   local a, b = store(url), store(url)
   assert(a:register("greeting", { "hello", "world" }, { note = "two words" }))
   local info = assert(b:stat "greeting")
   test.eq({ info.bytes, info.sizes, info.note, info.nodes, info.sources, info.pinned },
           { 10, { 5, 5 }, "two words", 1, 1, false })
   assert(b:get "greeting")
   local p = assert(b:wait("greeting", 10000))
   test.eq({ p.done, p.bytes_here, p.from_source, p.bad }, { true, 10, 10, 0 })
   local list = b:buffers "greeting"
   test.eq(require("ffi").string(list[2].ptr, list[2].len), "world")
   test.eq(a:list "gr", { "greeting" })
   assert(b:delete_replica "greeting")
   assert(a:unregister "greeting")
   test.eq(a:list(), {})
end

function tests.errors_name_what_is_wrong()
   local a = store(registry())
   local _, why, errno = a:get "nothing"
   test.eq({ why, errno }, { "no object 'nothing'", 2 })
   _, why, errno = a:wait "nothing"
   test.eq({ why, errno }, { "object 'nothing' is not held here", 2 })
   test.raises("unknown option 'size'", function()
      a:register("x", { "y" }, { size = 1 })
   end)
   test.raises("a list of buffers", function() a:register("x", {}) end)
   test.raises("unknown option 'registri'", function()
      mooncake.p2p { registry = "http://127.0.0.1:1", registri = "x" }
   end)
   _, why = mooncake.p2p { registry = "http://127.0.0.1:1", parallel = 99 }
   assert(why:find "parallel is of 1 to")
end

function tests.news_come_to_who_watches()
   local url = registry()
   local a, b = store(url), store(url)
   local w = assert(b:watch "w/")
   assert(a:register("w/1", { "x" }))
   local change = w:next(3000)
   test.eq({ change.name, change.gone }, { "w/1", false })
   assert(a:unregister "w/1")
   change = w:next(3000)
   test.eq({ change.name, change.gone }, { "w/1", true })
   test.eq(w:next(10), nil)
   w:close()
end

-- ---- files -----------------------------------------------------------------

function tests.names_of_files_lead_nowhere_else()
   for _, name in ipairs { "/etc/passwd", "../up", "a/../../b", "", "a//b", "." } do
      local list, why = files.of {
         name = "n", sizes = { 1 },
         note = json.encode { files = { { name = name, size = 1 } } },
      }
      assert(not list and why:find "cannot be one", name)
   end
   local list = assert(files.of { name = "a/b", sizes = { 1, 2 }, note = "" })
   test.eq({ list[1].name, list[2].name }, { "b.0", "b.1" })
   local _, why = files.of { name = "n", sizes = { 2 },
      note = json.encode { files = { { name = "f", size = 1 } } } }
   assert(why:find "differ")
end

local function server(state)
   local p = test.spawn { "mooncake", "serve", "--registry", "127.0.0.1:0", "--state",
                          state, "--quiet" }
   local addr = assert(p:read_line(10000)):match "^registry (%S+)$"
   assert(p:read_line(10000))
   return "http://" .. addr .. "/metadata"
end

local function fill_file(path, n)
   local e = assert(mooncake.open { listen = "none" })
   local b = assert(e:alloc(n))
   b:fill(5)
   assert(util.write_file(path, b:string()))
   e:close()
end

local function put(url, name, path)
   local p = test.spawn { "mooncake", "p2p", "put", "--registry", url, "--lease", "2",
                          "--transport", "tcp", name, path }
   assert((p:read_line(20000) or ""):match "^ready")
   return p
end

local function get_args(url, name, path, ...)
   return { "mooncake", "p2p", "get", "--registry", url, "--lease", "2", "--transport",
            "tcp", "--json", "--timeout", "20", name, path, ... }
end

local function finished(p, what)
   local report = p:read_line(60000)
   test.eq(p:wait(60000), 0, what)
   return json.decode(report)
end

local function same(a, b)
   local _, status = proc.run { "cmp", a, b }
   test.eq(status, 0, "cmp")
end

function tests.a_get_that_was_killed_goes_on()
   local dir = test.tmpdir()
   local url = server(dir .. "/state")
   fill_file(dir .. "/big", 192 * MIB)
   put(url, "big", dir .. "/big")
   local part = dir .. "/copy.part"
   local killed = test.spawn(get_args(url, "big", dir .. "/copy"))
   -- Bytes of its second half are there before it ends, or it is done.
   for _ = 1, 4000 do
      local f = io.open(part)
      if f then
         f:seek("set", 64 * MIB)
         local text = f:read(MIB) or ""
         f:close()
         if text:find "[^%z]" then break end
      end
      if io.open(dir .. "/copy") then break end
      mooncake.sleep(1)
   end
   killed:kill "KILL"
   killed:wait(5000)
   local report = finished(test.spawn(get_args(url, "big", dir .. "/copy")), "get")
   same(dir .. "/big", dir .. "/copy")
   assert(report.resumed > 0 or report.from_source == report.bytes)
   test.eq(report.bad, 0)
end

function tests.the_source_may_die()
   local dir = test.tmpdir()
   local url = server(dir .. "/state")
   fill_file(dir .. "/big", 64 * MIB)
   local source = put(url, "big", dir .. "/big")
   local seed = test.spawn(get_args(url, "big", dir .. "/one", "--seed"))
   assert(json.decode(seed:read_line(60000)).bytes == 64 * MIB)
   local late = test.spawn(get_args(url, "big", dir .. "/two"))
   source:kill "KILL"
   finished(late, "late")
   same(dir .. "/big", dir .. "/two")
   seed:kill "INT"
   test.eq(seed:wait(10000), 0)
end

-- ---- the simulation ----------------------------------------------------------

function tests.a_simulated_swarm_is_done_soon()
   local example = test.dir .. "/../examples/p2p_swarm.lua"
   local text, status = proc.run { proc.exe(), "run", example, "--nodes", "16,60",
                                   "--shards", "256", "--json" }
   test.eq(status, 0)
   local n = 0
   for line in text:gmatch "[^\n]+" do
      local r = json.decode(line)
      assert(r.ratio > 1 and r.ratio < 2, r.ratio)
      assert(r.source_copies >= 1 and r.source_copies < 2, r.source_copies)
      n = n + 1
   end
   test.eq(n, 2)
end

return tests
