-- cp_tree_test.lua - `mooncake cp -r`, and nodes that are named in a registry.

local ends = require "mooncake.ends"
local fs = require "mooncake.fs"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local tree = require "mooncake.tree"
local util = require "mooncake.util"

local tests = {}

local function write_file(path, text)
   assert(util.write_file(path, text))
end

local read_file = util.read_file

local function serve(...)
   local p = test.spawn { "mooncake", "serve", "--quiet", ... }
   return assert((p:read_line(10000) or ""):match "^ready (%S+)$"), p
end

-- A registry's URL and a node's address, in one process.
local function serve_named(name, ...)
   local p = test.spawn { "mooncake", "serve", "--quiet", "--registry", "127.0.0.1:0",
                          "--name", name, stderr = "null", ... }
   local registry = assert((p:read_line(10000) or ""):match "^registry (%S+)$")
   local addr = assert((p:read_line(10000) or ""):match "^ready (%S+)$")
   return "http://" .. registry .. "/metadata", addr
end

-- Exit status, stdout, stderr.
local function cp(...)
   local err = test.tmpdir() .. "/err"
   local out, status = proc.run { proc.exe(), "cp", stderr = err, ... }
   return status, out, read_file(err)
end

local function succeeds(...)
   local status, out, err = cp(...)
   if status ~= 0 then error(("status %d: %s"):format(status, err), 2) end
   return out, err
end

-- The files below a folder as "name=content" by name.
local function content(path)
   local list = {}
   for _, f in ipairs(assert(tree.below(path))) do
      list[#list + 1] = f.name .. "=" .. read_file(path .. "/" .. f.name)
   end
   return list
end

local FILES = { "a/b/empty=", "a/two=2", "one=1", "three=333" }

local function folder(path)
   os.execute(("mkdir -p %s/a/b"):format(path))
   for _, f in ipairs(FILES) do
      local name, text = f:match "^(.-)=(.*)$"
      write_file(path .. "/" .. name, text)
   end
end

-- ---- folders ---------------------------------------------------------------

function tests.a_folder_goes_there_and_back()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   os.execute("mkdir " .. dir .. "/pool " .. dir .. "/back")
   local addr = serve("--dir", dir .. "/pool")
   succeeds("-r", "--verify", dir .. "/src", addr .. "/in/")
   test.eq(content(dir .. "/pool/in/src"), FILES)
   succeeds("-r", dir .. "/src/", addr .. "/as")
   test.eq(content(dir .. "/pool/as"), FILES)
   local out = succeeds("-r", "--transport", "tcp", addr .. "/as", dir .. "/back")
   assert(out:find "^4 files, 5 B in ", out)
   test.eq(content(dir .. "/back/as"), FILES)
   succeeds("-r", addr .. "/as", dir .. "/new/folder")
   test.eq(content(dir .. "/new/folder"), FILES)
   succeeds("-r", dir .. "/src", dir .. "/here")
   test.eq(content(dir .. "/here"), FILES)
   local other = serve("--dir", dir .. "/back")
   succeeds("-r", addr .. "/in/src", other .. "/deep/er")
   test.eq(content(dir .. "/back/deep/er"), FILES)
end

function tests.all_that_a_node_offers_is_a_folder()
   local dir = test.tmpdir()
   folder(dir .. "/pool")
   write_file(dir .. "/x", "served")
   local addr = serve("--file", dir .. "/x", "--dir", dir .. "/pool")
   succeeds("-r", addr .. "/", dir .. "/all")
   local want = { unpack(FILES) }
   want[#want + 1] = "x=served"
   test.eq(content(dir .. "/all"), want)
   addr = serve("--file", "y=" .. dir .. "/x")
   succeeds("-r", addr .. "/", dir .. "/one")
   test.eq(content(dir .. "/one"), { "y=served" })
   succeeds("-r", addr .. "/y", dir .. "/z")
   test.eq(read_file(dir .. "/z"), "served")
end

function tests.what_is_no_file_is_said()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   os.execute(("cd %s; mkfifo src/pipe; ln -s pipe src/to_pipe; ln -s .. src/up; " ..
               "ln -s ../out src/link; echo out > out; mkdir pool"):format(dir))
   local addr = serve("--dir", dir .. "/pool")
   local _, err = succeeds("-r", dir .. "/src", addr .. "/")
   assert(err:find("pipe: no file: left out", 1, true), err)
   assert(err:find("to_pipe: no file: left out", 1, true), err)
   assert(err:find("up: a link to a folder: left out", 1, true), err)
   test.eq(read_file(dir .. "/pool/src/link"), "out\n")
   -- Below a node's folder a link leads nowhere else.
   os.execute(("ln -s ../out %s/pool/link; ln -s src %s/pool/loop"):format(dir, dir))
   local status
   status, _, err = cp("-r", addr .. "/", dir .. "/back")
   test.eq(status, 1)
   assert(err:find("link: leads out of the folder", 1, true), err)
   assert(err:find("loop: a link to a folder: left out", 1, true), err)
   test.eq(#content(dir .. "/back/src"), #FILES + 1)
end

function tests.what_fails_has_a_name_and_keeps_no_one()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   os.execute(("ln -s nowhere %s/src/none; mkdir %s/pool"):format(dir, dir))
   local addr = serve("--dir", dir .. "/pool")
   local status, out, err = cp("-r", "--json", dir .. "/src/", addr .. "/src")
   test.eq(status, 1)
   assert(err:find("none: No such file", 1, true), err)
   local r = json.decode(out)
   test.eq({ r.files, r.failed, r.bytes }, { 4, 1, 5 })
   test.eq(content(dir .. "/pool/src"), FILES)
   -- One is refused by the node, as a folder has its name.
   os.execute(("cd %s; rm src/none pool/src/one; mkdir pool/src/one"):format(dir))
   status, out, err = cp("-r", dir .. "/src", addr .. "/")
   test.eq(status, 1)
   assert(err:find("src/one: Is a directory", 1, true), err)
   assert(out:find "^3 files", out)
end

function tests.a_folder_is_asked_for()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   local addr = serve("--dir", dir .. "/src")
   local status, _, err = cp(dir .. "/src", dir .. "/x")
   test.eq(status, 1)
   assert(err:find("-r copies", 1, true), err)
   status, _, err = cp(addr .. "/a", dir .. "/x")
   test.eq(status, 1)
   assert(err:find "directory", err)
   for _, name in ipairs { "../src", "none", "a/../..", "/etc" } do
      status, _, err = cp("-r", addr .. "/" .. name, dir .. "/x")
      test.eq(status, 1, name)
      assert(err:find "folder" or err:find "No such", err)
   end
   status, _, err = cp("-r", dir .. "/src", addr .. "#0x1000")
   test.eq(status, 1)
   assert(err:find "memory", err)
   status, _, err = cp("-r", addr .. "#0x1000+10", dir .. "/x")
   test.eq(status, 1)
   assert(err:find "memory", err)
   test.eq(fs.is_dir(dir .. "/x"), false)
end

function tests.a_folder_is_resumed_by_file()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   local e = assert(mooncake.open())
   local b = assert(e:alloc(30 * 2 ^ 20))
   b:fill(1)
   write_file(dir .. "/src/big", b:string())
   e:close()
   os.execute("mkdir " .. dir .. "/pool")
   local addr = serve("--dir", dir .. "/pool")
   local p = test.spawn { "mooncake", "cp", "-r", "--rate", "30M", dir .. "/src",
                          addr .. "/", stderr = dir .. "/err" }
   while not fs.open(dir .. "/pool/src/big.part") do proc.sleep_ms(10) end
   proc.sleep_ms(300)
   p:kill "INT"
   test.eq(p:wait(5000), 130)
   assert(read_file(dir .. "/err"):find("src/big: interrupted", 1, true))
   test.eq(read_file(dir .. "/pool/src/a/two"), "2")
   write_file(dir .. "/pool/src/a/two", "X")
   local out = succeeds("-r", "--resume", "--json", dir .. "/src", addr .. "/")
   local r = json.decode(out)
   test.eq({ r.files, r.bytes }, { 5, 30 * 2 ^ 20 + 5 })
   assert(r.resumed_at > 0 and r.moved < r.bytes, out)
   test.eq(read_file(dir .. "/pool/src/a/two"), "2")
   test.eq(read_file(dir .. "/pool/src/big") == read_file(dir .. "/src/big"), true)
   -- Now all is there, here and when it is looked at from the other side.
   r = json.decode(succeeds("-r", "--resume", "--json", dir .. "/src", addr .. "/"))
   test.eq({ r.files, r.moved }, { 5, 0 })
   os.execute(("cp -r %s/pool/src %s/back"):format(dir, dir))
   r = json.decode(succeeds("-r", "--resume", "--json", addr .. "/src/", dir .. "/back/.."
                            .. "/back/."))
   test.eq(r.files, 5)
end

-- ---- names -----------------------------------------------------------------

function tests.names_of_a_registry_are_understood()
   local function is(text, want) test.eq(ends.parse(text, "http://x/y"), want, text) end
   is("store:a/b", { kind = "file", node = "store", name = "a/b" })
   is("store:", { kind = "file", node = "store", name = "" })
   is("store#16+4", { kind = "range", node = "store", addr = 16, len = 4 })
   is("h:1/x", { kind = "file", node = "h:1", name = "x" })
   is("./a:b", { kind = "local", path = "./a:b" })
   is("a/b", { kind = "local", path = "a/b" })
   test.eq(ends.parse "store:a", { kind = "local", path = "store:a" })
end

function tests.a_node_is_found_by_its_name()
   local dir = test.tmpdir()
   folder(dir .. "/src")
   os.execute("mkdir " .. dir .. "/pool")
   local url, addr = serve_named("store", "--dir", dir .. "/pool", "--memory", "4M")
   succeeds("--join", url, dir .. "/src/three", "store:x/")
   succeeds("--join", url, "store:x/three", dir .. "/back")
   test.eq(read_file(dir .. "/back"), "333")
   succeeds("--join", url, "-r", dir .. "/src", "store:")
   test.eq(content(dir .. "/pool/src"), FILES)
   -- The registry does not know it by its address, which is enough.
   succeeds("--join", url, addr .. "/x/three", dir .. "/again")
   test.eq(read_file(dir .. "/again"), "333")
   local status, _, err = cp("--join", url, "nobody:x", dir .. "/y")
   test.eq(status, 1)
   assert(err:find("no segment 'nobody'", 1, true), err)
   local out
   out, status = proc.run { proc.exe(), "bench", "--join", url, "--span", "4M", "--json",
                            "--block", "4k", "--batch", "1", "--duration", "0.05",
                            "store" }
   test.eq(status, 0, out)
   test.eq(json.decode(out).errors, 0)
end

function tests.a_target_of_bench_has_a_name()
   local url = serve_named "any"
   local t = test.spawn { "mooncake", "bench", "--target", "--span", "4M", "--join", url,
                          "--name", "target-3" }
   assert(t:read_line(10000):match "^ready")
   local out, status = proc.run { proc.exe(), "bench", "--join", url, "--span", "4M",
                                  "--block", "4k", "--batch", "1", "--duration", "0.05",
                                  "--json", "target-3", stderr = "stdout" }
   test.eq(status, 0, out)
   test.eq(json.decode(out).cpu_of_target, true)
   out, status = proc.run { proc.exe(), "bench", "--self", "--name", "x",
                            stderr = "stdout" }
   test.eq(status, 2, out)
end

return tests
