-- cp_test.lua - `mooncake cp` and `mooncake serve`: every pair of ends, broken links,
-- partial files, checksums, and what a node does not allow.

local copy = require "mooncake.copy"
local ends = require "mooncake.ends"
local fs = require "mooncake.fs"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local tests = {}

local function write_file(path, text)
   assert(util.write_file(path, text))
end

local read_file = util.read_file

-- Bytes that differ from place to place, and do not compress into luck.
local function bytes(n, seed)
   local e = assert(mooncake.open())
   local b = assert(e:alloc(math.max(n, 1)))
   b:fill(seed or 1)
   local text = b:string(0, n)
   e:close()
   return text
end

local function serve(args)
   local argv = { "mooncake", "serve", "--quiet" }
   for _, a in ipairs(args) do argv[#argv + 1] = a end
   local p = test.spawn(argv)
   local addr = (p:read_line(10000) or ""):match "^ready (%S+)$"
   assert(addr, "no ready line")
   return p, addr
end

-- Exit status, stdout, stderr.
local function cp(args)
   local err = test.tmpdir() .. "/err"
   local argv = { proc.exe(), "cp", stderr = err }
   for _, a in ipairs(args) do argv[#argv + 1] = a end
   local out, status = proc.run(argv)
   return status, out, read_file(err)
end

local function succeeds(args)
   local status, out, err = cp(args)
   if status ~= 0 then error(("status %d: %s"):format(status, err), 2) end
   return out
end

function tests.names_of_ends_are_understood()
   local function is(text, want) test.eq(ends.parse(text), want, text) end
   is("a/b", { kind = "local", path = "a/b" })
   is("./h:1/x", { kind = "local", path = "./h:1/x" })
   is("h:1", { kind = "local", path = "h:1" })
   is("h:1/x/y", { kind = "file", node = "h:1", name = "x/y" })
   is("[::1]:70/x", { kind = "file", node = "[::1]:70", name = "x" })
   is("h:1#0x10+32", { kind = "range", node = "h:1", addr = 16, len = 32 })
   is("h:1#16", { kind = "range", node = "h:1", addr = 16 })
   test.eq(ends.parse "h:1#x+1", nil)
   test.eq(ends.parse "h:1#1+", nil)
   test.eq(ends.parse "h:1#", nil)
   test.eq(ends.base { kind = "local", path = "/a/b/" }, "b")
end

-- ---- pairs of ends ------------------------------------------------------

function tests.files_go_both_ways()
   local dir = test.tmpdir()
   local text = bytes(9 * 2 ^ 20 + 17)
   write_file(dir .. "/a", text)
   os.execute("mkdir " .. dir .. "/pool")
   for _, transport in ipairs { "shm", "tcp" } do
      local p, addr = serve { "--file", dir .. "/a", "--dir", dir .. "/pool",
                              "--transport", transport }
      succeeds { addr .. "/a", dir .. "/b", "--verify", "--transport", transport }
      test.eq(read_file(dir .. "/b") == text, true, transport)
      succeeds { dir .. "/a", addr .. "/deep/er/c", "--verify", "--transport", transport }
      test.eq(read_file(dir .. "/pool/deep/er/c") == text, true, transport)
      test.eq(fs.open(dir .. "/pool/deep/er/c.part"), nil)
      succeeds { addr .. "/deep/er/c", addr .. "/d", "--verify" }
      test.eq(read_file(dir .. "/pool/d") == text, true, transport)
      p:kill "INT"
      test.eq(p:wait(5000), 0)
   end
end

function tests.a_folder_keeps_the_name()
   local dir = test.tmpdir()
   write_file(dir .. "/name", "content")
   os.execute("mkdir " .. dir .. "/in " .. dir .. "/pool")
   local _, addr = serve { "--file", "other=" .. dir .. "/name", "--dir", dir .. "/pool" }
   succeeds { addr .. "/other", dir .. "/in" }
   test.eq(read_file(dir .. "/in/other"), "content")
   succeeds { dir .. "/name", addr .. "/" }
   test.eq(read_file(dir .. "/pool/name"), "content")
   succeeds { dir .. "/name", addr .. "/sub/" }
   test.eq(read_file(dir .. "/pool/sub/name"), "content")
end

function tests.empty_and_local_files_are_files()
   local dir = test.tmpdir()
   write_file(dir .. "/empty", "")
   os.execute("mkdir " .. dir .. "/pool")
   local _, addr = serve { "--dir", dir .. "/pool" }
   succeeds { dir .. "/empty", addr .. "/e", "--verify" }
   test.eq(read_file(dir .. "/pool/e"), "")
   succeeds { addr .. "/e", dir .. "/e2", "--verify" }
   test.eq(read_file(dir .. "/e2"), "")
   write_file(dir .. "/x", bytes(5 * 2 ^ 20))
   succeeds { dir .. "/x", dir .. "/y", "--verify" }
   test.eq(read_file(dir .. "/y") == read_file(dir .. "/x"), true)
end

function tests.memory_is_an_end_too()
   local dir = test.tmpdir()
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   test.defer(function() e:close() end)
   local b = assert(e:alloc(100000))
   b:fill(5)
   local range = ("%s#0x%x+%d"):format(e:addr(), b.addr, 100000)
   succeeds { range, dir .. "/m" }
   test.eq(read_file(dir .. "/m") == b:string(), true)
   write_file(dir .. "/n", "written into memory")
   succeeds { dir .. "/n", ("%s#%d"):format(e:addr(), b.addr + 10) }
   test.eq(b:string(10, 19), "written into memory")
   local status, _, err = cp { dir .. "/m", ("%s#%d+5"):format(e:addr(), b.addr) }
   test.eq(status, 1)
   assert(err:find "do not fit", err)
   status, _, err = cp { ("%s#%d"):format(e:addr(), b.addr), dir .. "/o" }
   test.eq(status, 1)
   assert(err:find "LENGTH", err)
   status, _, err = cp { range, dir .. "/o", "--verify" }
   test.eq(status, 1)
   assert(err:find "cannot check sums", err)
end

function tests.memory_of_a_node_is_verified()
   local dir = test.tmpdir()
   local p = test.spawn { "mooncake", "serve", "--memory", "1M", stderr = dir .. "/err" }
   assert(p:read_line(10000):match "^ready")
   local range = read_file(dir .. "/err"):match "memory (%S+)"
   local addr = range:match "^[^+]+"
   write_file(dir .. "/n", bytes(70000))
   succeeds { dir .. "/n", addr .. "+70000", "--verify" }
   succeeds { addr .. "+70000", dir .. "/m", "--verify" }
   test.eq(read_file(dir .. "/m") == read_file(dir .. "/n"), true)
end

function tests.the_report_is_json_too()
   local dir = test.tmpdir()
   write_file(dir .. "/a", bytes(100000))
   local _, addr = serve { "--file", dir .. "/a" }
   local out = succeeds { addr .. "/a", dir .. "/b", "--json", "--verify" }
   local r = require("mooncake.json").decode(out)
   test.eq({ r.bytes, r.moved, r.verified, r.retries, r.by },
           { 100000, 100000, true, 0, "shm" })
   test.eq(succeeds { addr .. "/a", dir .. "/b", "-q" }, "")
end

-- ---- what is not allowed ------------------------------------------------

function tests.no_name_leads_out_of_the_folder()
   local dir = test.tmpdir()
   write_file(dir .. "/secret", "secret")
   write_file(dir .. "/new", "new")
   os.execute(("mkdir %s/pool; ln -s .. %s/pool/up; ln -s %s/secret %s/pool/s"):format(
      dir, dir, dir, dir))
   local _, addr = serve { "--dir", dir .. "/pool" }
   for _, name in ipairs { "../secret", "a/../../secret", "up/secret", "s", "/etc/passwd",
                           "./x", "a//b" } do
      local status, _, err = cp { addr .. "/" .. name, dir .. "/got" }
      test.eq(status, 1, name)
      assert(err:find "folder" or err:find "no file", err)
      test.eq(fs.open(dir .. "/got"), nil)
      status = name ~= "s" and cp { dir .. "/new", addr .. "/" .. name .. ".new" } or 1
      test.eq(status, 1, name)
   end
   test.eq(fs.open(dir .. "/secret.new"), nil)
   test.eq(fs.open(dir .. "/up.new"), nil)
end

function tests.a_node_without_a_folder_takes_no_files()
   local dir = test.tmpdir()
   write_file(dir .. "/a", "a")
   local _, addr = serve { "--file", dir .. "/a" }
   local status, _, err = cp { dir .. "/a", addr .. "/b" }
   test.eq(status, 1)
   assert(err:find "--dir", 1, true)
   status, _, err = cp { addr .. "/b", dir .. "/c" }
   test.eq(status, 1)
   assert(err:find("no file 'b' there; it has a", 1, true), err)
end

function tests.usage_is_checked()
   test.eq(cp { "one" }, 2)
   test.eq(cp { "a", "b", "c" }, 2)
   test.eq(cp { "--nonsense", "a", "b" }, 2)
   local status, _, err = cp { "/no/such/file", "/tmp" }
   test.eq(status, 1)
   assert(err:find "No such file", err)
   status, _, err = cp { "127.0.0.1:1/x", "/tmp/none" }
   test.eq(status, 1)
   assert(err:find("127.0.0.1:1", 1, true), err)
end

function tests.serve_says_what_is_wrong()
   local out, status, err = proc.run { proc.exe(), "serve", "--file", "/no/such",
                                       stderr = "pipe" }
   test.eq({ out, status }, { "", 1 })
   assert(err:find "/no/such", err)
   _, status, err = proc.run { proc.exe(), "serve", "--allow-repl", stderr = "pipe",
                               env = { MOONCAKE_KEY_FILE = false } }
   test.eq(status, 1)
   assert(err:find "key", err)
   _, status = proc.run { proc.exe(), "serve", "--state", "/tmp/x", stderr = "pipe" }
   test.eq(status, 1)
end

function tests.a_served_file_is_not_hidden_by_a_new_one()
   local dir = test.tmpdir()
   write_file(dir .. "/big", "served")
   write_file(dir .. "/new", "other")
   os.execute("mkdir " .. dir .. "/pool")
   local _, addr = serve { "--file", dir .. "/big", "--dir", dir .. "/pool" }
   local status, _, err = cp { dir .. "/new", addr .. "/big" }
   test.eq(status, 1)
   assert(err:find("big is a served file", 1, true), err)
   test.eq(fs.open(dir .. "/pool/big.part"), nil)
   succeeds { dir .. "/new", addr .. "/big2" }
   succeeds { addr .. "/big", dir .. "/back" }
   test.eq(read_file(dir .. "/back"), "served")
end

function tests.the_environment_turns_tls_on()
   local dir = test.tmpdir()
   local made = os.execute(("openssl req -x509 -newkey ec -pkeyopt " ..
      "ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -keyout %s/key " ..
      "-out %s/crt 2> /dev/null"):format(dir, dir))
   if made ~= 0 then test.skip "no openssl command" end
   write_file(dir .. "/a", bytes(100000))
   local tls = { MOONCAKE_TLS_CERT = dir .. "/crt", MOONCAKE_TLS_KEY = dir .. "/key" }
   local node = test.spawn { "mooncake", "serve", "--quiet", "--memory", "1M", "--file",
                             dir .. "/a", env = tls }
   local addr = assert((node:read_line(10000) or ""):match "^ready (%S+)$")
   local function with(env, ...)
      local argv = { proc.exe(), stderr = "stdout", env = env }
      for _, word in ipairs { ... } do argv[#argv + 1] = word end
      local out, status = proc.run(argv)
      return status, out
   end
   local status, out = with(tls, "cp", addr .. "/a", dir .. "/b", "--verify")
   test.eq(status, 0, out)
   test.eq(read_file(dir .. "/b") == read_file(dir .. "/a"), true)
   status, out = with(tls, "bench", addr, "--span", "1M", "--block", "4k", "--batch", "1",
                      "--duration", "0.05")
   test.eq(status, 0, out)
   write_file(dir .. "/s.lua", "assert(assert(mooncake.open()):segment(arg[1]))")
   status, out = with(tls, "run", dir .. "/s.lua", addr)
   test.eq(status, 0, out)
   status, out = with(nil, "cp", addr .. "/a", dir .. "/c")
   test.eq(status, 1, out)
end

-- ---- broken links and partial files -------------------------------------

local SIZE = 40 * 2 ^ 20

-- A node that is killed in the middle of the copy, and started again at its port.
local function through_a_restart(make_args, server_args, check)
   local dir = test.tmpdir()
   write_file(dir .. "/a", bytes(SIZE))
   os.execute("mkdir " .. dir .. "/pool")
   local args = server_args(dir)
   local p, addr = serve(args)
   local argv = { proc.exe(), "cp", "--rate", "40M", "--json", stdout = "pipe",
                  stderr = dir .. "/err" }
   for _, a in ipairs(make_args(dir, addr)) do argv[#argv + 1] = a end
   local c = test.spawn(argv)
   proc.sleep_ms(400)
   p:kill "KILL"
   p:wait(2000)
   proc.sleep_ms(300)
   args[#args + 1], args[#args + 2] = "--listen", addr
   serve(args)
   local status = c:wait(20000)
   test.eq(status, 0, read_file(dir .. "/err"))
   local r = require("mooncake.json").decode(c:read_all(1000))
   assert(r.retries > 0, "the link did not break")
   check(dir)
   test.eq(fs.open(dir .. "/b.part"), nil)
end

function tests.reading_goes_on_when_the_node_is_back()
   through_a_restart(function(dir, addr)
      return { addr .. "/a", dir .. "/b" }
   end, function(dir) return { "--file", dir .. "/a" } end, function(dir)
      test.eq(read_file(dir .. "/b") == read_file(dir .. "/a"), true)
   end)
end

function tests.writing_goes_on_when_the_node_is_back()
   through_a_restart(function(dir, addr)
      return { dir .. "/a", addr .. "/b", "--verify" }
   end, function(dir) return { "--dir", dir .. "/pool" } end, function(dir)
      test.eq(read_file(dir .. "/pool/b") == read_file(dir .. "/a"), true)
   end)
end

-- Lines of what was said.
local function said(text)
   return select(2, text:gsub("\n", ""))
end

function tests.what_cannot_heal_ends_at_once()
   local dir = test.tmpdir()
   write_file(dir .. "/a", bytes(100000))
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   test.defer(function() e:close() end)
   local start = proc.now()
   local status, _, err = cp { dir .. "/a", e:addr() .. "#0x1000" }
   test.eq(status, 1)
   assert(err:find "in no buffer", err)
   status, _, err = cp { e:addr() .. "#0x1000+4096", dir .. "/b" }
   test.eq(status, 1)
   assert(err:find "in no buffer", err)
   test.eq(said(err), 1, err)
   -- Part of it is there, the rest is not.
   local b = assert(e:alloc(2 ^ 21))
   status, _, err = cp { ("%s#%d+%d"):format(e:addr(), b.addr, 2 ^ 40), dir .. "/b" }
   test.eq(status, 1)
   assert(said(err) <= 2, err)
   b = assert(e:alloc(4096, { access = "r" }))
   status, _, err = cp { dir .. "/a", ("%s#%d"):format(e:addr(), b.addr) }
   test.eq(status, 1)
   test.eq(said(err), 1, err)
   assert(proc.now() - start < 10, "it kept trying")
end

function tests.an_error_that_stays_is_said_once()
   local dir = test.tmpdir()
   write_file(dir .. "/a", bytes(SIZE))
   local p, addr = serve { "--file", dir .. "/a" }
   local c = test.spawn { proc.exe(), "cp", "--rate", "40M", "--retry", "2",
                          stderr = dir .. "/err", addr .. "/a", dir .. "/b" }
   proc.sleep_ms(400)
   p:kill "KILL"
   p:wait(2000)
   test.eq(c:wait(10000), 4)
   local err = read_file(dir .. "/err")
   assert(select(2, err:gsub("trying again", "")) <= 2, err)
end

-- An end that fails its first so many fills, and then works.
local function failing(times, errno)
   local s = { kind = "range", fills = {}, reopened = 0 }
   function s.open() return 100 end
   function s.fill()
      s.fills[#s.fills + 1] = mooncake.now()
      if #s.fills <= times then return nil, "no luck", errno end
      return true
   end
   function s.reopen()
      s.reopened = s.reopened + 1
      return true
   end
   s.drain, s.mark, s.rewind, s.commit = s.reopen, s.open, s.open, s.open
   s.close = s.open
   return s
end

function tests.tries_come_less_and_less_often()
   local e = assert(mooncake.open { listen = "none" })
   test.defer(function() e:close() end)
   local source, dest, notes = failing(4, 110), failing(0), {}
   function dest.open() return 0 end
   local c = copy.new { source = source, dest = dest, engine = e, retry = 10,
      stopped = function() return false end, on_progress = function() end,
      on_note = function(text) notes[#notes + 1] = text end }
   assert(c:run())
   test.eq(notes, { "no luck; trying again" })
   test.eq(c.retries, 4)
   local f = source.fills
   for i, least in ipairs { 0.1, 0.2, 0.4, 0.8 } do
      local waited = f[i + 1] - f[i]
      assert(waited >= least and waited < least + 0.5, waited)
   end
end

function tests.a_link_that_stays_broken_is_status_4()
   local dir = test.tmpdir()
   local text = bytes(SIZE)
   write_file(dir .. "/a", text)
   local p, addr = serve { "--file", dir .. "/a" }
   local c = test.spawn { proc.exe(), "cp", "--rate", "40M", "--retry", "1",
                          stderr = dir .. "/err", addr .. "/a", dir .. "/b" }
   proc.sleep_ms(500)
   p:kill "KILL"
   p:wait(2000)
   test.eq(c:wait(10000), 4)
   assert(read_file(dir .. "/err"):find "--resume goes on")
   test.eq(fs.open(dir .. "/b"), nil)
   local part = read_file(dir .. "/b.part")
   assert(#part > 0 and #part < SIZE)
   test.eq(part == text:sub(1, #part), true)
   _, addr = serve { "--file", dir .. "/a" }
   local out = succeeds { addr .. "/a", dir .. "/b", "--resume", "--verify" }
   assert(out:find "resumed at", out)
   test.eq(read_file(dir .. "/b") == text, true)
end

function tests.an_interrupted_copy_to_a_node_is_resumed()
   local dir = test.tmpdir()
   local text = bytes(SIZE)
   write_file(dir .. "/a", text)
   os.execute("mkdir " .. dir .. "/pool")
   local _, addr = serve { "--dir", dir .. "/pool" }
   local c = test.spawn { proc.exe(), "cp", "--rate", "40M", dir .. "/a", addr .. "/b",
                          stderr = dir .. "/err" }
   proc.sleep_ms(500)
   c:kill "INT"
   test.eq(c:wait(5000), 130)
   test.eq(fs.open(dir .. "/pool/b"), nil)
   assert(fs.open(dir .. "/pool/b.part")):close()
   local out = succeeds { dir .. "/a", addr .. "/b", "--resume", "--verify" }
   assert(out:find "resumed at", out)
   test.eq(read_file(dir .. "/pool/b") == text, true)
end

function tests.a_part_of_something_else_is_not_trusted()
   local dir = test.tmpdir()
   local text = bytes(100000, 1)
   write_file(dir .. "/a", text)
   write_file(dir .. "/b.part", bytes(50000, 2))
   local _, addr = serve { "--file", dir .. "/a" }
   local status, _, err = cp { addr .. "/a", dir .. "/b", "--resume" }
   test.eq(status, 0)
   assert(err:find "differs", err)
   test.eq(read_file(dir .. "/b") == text, true)
   write_file(dir .. "/c.part", bytes(200000, 1))
   succeeds { addr .. "/a", dir .. "/c", "--resume" }
   test.eq(read_file(dir .. "/c") == text, true)
end

function tests.a_node_that_hangs_is_noticed()
   local dir = test.tmpdir()
   write_file(dir .. "/a", bytes(SIZE))
   local p, addr = serve { "--file", dir .. "/a" }
   local c = test.spawn { proc.exe(), "cp", "--rate", "40M", addr .. "/a", dir .. "/b",
                          "--transport", "tcp", "--json", stderr = dir .. "/err" }
   proc.sleep_ms(400)
   p:kill "STOP"
   proc.sleep_ms(2500)
   p:kill "CONT"
   test.eq(c:wait(20000), 0, read_file(dir .. "/err"))
   assert(require("mooncake.json").decode(c:read_all(1000)).retries > 0)
   test.eq(read_file(dir .. "/b") == read_file(dir .. "/a"), true)
end

-- ---- the node itself ----------------------------------------------------

function tests.handles_of_the_dead_are_taken_over()
   local dir = test.tmpdir()
   local text = bytes(SIZE)
   write_file(dir .. "/a", text)
   os.execute("mkdir " .. dir .. "/pool")
   local _, addr = serve { "--dir", dir .. "/pool" }
   local c = test.spawn { proc.exe(), "cp", "--rate", "20M", dir .. "/a", addr .. "/b" }
   proc.sleep_ms(400)
   local status, _, err = cp { dir .. "/a", addr .. "/b" }
   test.eq(status, 1)
   assert(err:find "written by someone else", err)
   c:kill "KILL"
   c:wait(2000)
   proc.sleep_ms(5100)
   succeeds { dir .. "/a", addr .. "/b", "--verify" }
   test.eq(read_file(dir .. "/pool/b") == text, true)
end

function tests.an_idle_node_uses_no_cpu()
   local measure = require "mooncake.measure"
   local dir = test.tmpdir()
   write_file(dir .. "/a", "a")
   local p, addr = serve { "--file", dir .. "/a" }
   succeeds { addr .. "/a", dir .. "/b" }
   proc.sleep_ms(300)
   local before = measure.cpu_ns(p.pid)
   proc.sleep_ms(700)
   local used = measure.cpu_ns(p.pid) - before
   assert(used < 2e6, ("%.1f ms of CPU in 0.7 s"):format(used / 1e6))
end

function tests.a_question_that_makes_no_sense_is_answered()
   local dir = test.tmpdir()
   write_file(dir .. "/a", "a")
   local p, addr = serve { "--file", dir .. "/a", "--dir", dir }
   local desk = require "mooncake.desk"
   local e = assert(mooncake.open { listen = "none" })
   test.defer(function() e:close() end)
   local s = assert(e:segment(addr))
   local d = assert(desk.find(s))
   local function refused(op, args, pattern)
      local answer, why = d:ask(op, args)
      test.eq(answer, nil)
      assert(tostring(why):find(pattern), why)
   end
   refused("nonsense", {}, "does not answer 'nonsense'")
   refused("open", {}, "no name")
   refused("open", { name = "x", mode = "w" }, "no length")
   refused("open", { name = "x", mode = "w", len = -1 }, "no length")
   refused("open", { name = "x", mode = "w", len = 2 ^ 60 }, "no length")
   refused("open", { name = {}, mode = "w" }, "no name")
   refused("sum", { handle = 77, off = 0, len = 1 }, "no such handle")
   refused("sum", { off = 0 }, "no such handle")
   refused("mark", { handle = "x" }, "no such handle")
   refused("sum_range", { addr = 4096, len = 10 }, "not inside")
   refused("sum_range", {}, "not inside")
   local a = assert(d:ask("open", { name = "a" }))
   refused("sum", { handle = a.handle, off = 0, len = 2 }, "outside")
   refused("sum", { handle = a.handle, off = -1, len = 1 }, "outside")
   refused("commit", { handle = a.handle }, "not opened to write")
   test.eq(assert(d:ask("list", {})).files, { { name = "a", len = 1 } })
   assert(s:notify("mooncake.desk", "garbage"))
   assert(s:notify("mooncake.desk", "0123456789abcdef {"))
   assert(s:notify "something else")
   assert(d:ask("close", { handle = a.handle }))
   test.eq(assert(d:ask("cpu")).pid, p.pid)
end

function tests.a_registry_is_part_of_the_node()
   local dir = test.tmpdir()
   local p = test.spawn { "mooncake", "serve", "--quiet", "--registry", "127.0.0.1:0",
                          "--state", dir .. "/state", "--name", "node-7", "--memory",
                          "64K" }
   local addr = (p:read_line(10000) or ""):match "^registry (%S+)"
   if not addr then test.skip "no registry server" end
   assert(p:read_line(10000):match "^ready")
   local e = assert(mooncake.open { registry = "http://" .. addr .. "/metadata" })
   test.defer(function() e:close() end)
   local s = assert(e:segment "node-7")
   local found
   for _, b in ipairs(assert(s:buffers())) do
      found = found or b.len == 65536 and b.access == "rw"
   end
   test.eq(found, true)
   p:kill "INT"
   test.eq(p:wait(5000), 0)
end

return tests
