-- facade_test.lua - the library as scripts see it: engines, buffers, segments, futures,
-- notifications, timers; what is refused, and how.

local ffi = require "ffi"
local mooncake = require "mooncake"

local EINVAL, EAGAIN, ENOENT, EACCES = 22, 11, 2, 13

local function pair(opts)
   local a = assert(mooncake.open(opts))
   local b = assert(mooncake.open(opts))
   test.defer(function()
      a:close()
      b:close()
   end)
   return a, b, assert(b:segment(a:addr(), 3000))
end

local tests = {}

-- ---- engines ------------------------------------------------------------

function tests.options_are_checked()
   test.raises("unknown option 'lisen'", mooncake.open, { lisen = "x" })
   test.raises("option 'streams' is a number", mooncake.open, { streams = "4" })
   local e, why, errno = mooncake.open { listen = "not an address" }
   test.eq(e, nil)
   test.eq(type(why), "string")
   test.eq(errno, EINVAL)
end

function tests.an_engine_says_who_it_is()
   local e = assert(mooncake.open { listen = "127.0.0.1:0",
                                    transports = { "tcp", "shm" } })
   test.eq(e:addr():match "^127%.0%.0%.1:%d+$" ~= nil, true)
   test.eq(e:name(), e:addr())
   test.eq(e:epoch() ~= 0, true)
   test.eq(e:fd() > 2, true)
   test.eq(type(e:stats().bytes_read), "number")
   test.eq(e:rails(), {})
   test.eq(tostring(e), "engine " .. e:name())
   e:close()
   e:close()
   test.raises("the engine is closed", e.addr, e)
end

function tests.a_closed_engine_refuses_its_children()
   local a, b, s = pair()
   local mem = assert(a:alloc(4096))
   local mine = assert(b:alloc(4096))
   b:close()
   test.raises("closed", s.write, s, mine, mem.addr, 1)
   test.raises("closed", s.buffers, s)
   test.raises("closed", mine.free, mine)
end

function tests.collected_engines_do_not_crash()
   for _ = 1, 3 do
      local a = assert(mooncake.open())
      local mem = assert(a:alloc(4096))
      local b = assert(mooncake.open())
      local s = assert(b:segment(a:addr()))
      local mine = assert(b:alloc(4096))
      for _ = 1, 10 do
         assert(b:submit { op = "write", segment = s, buf = mine, remote = mem.addr })
      end
      a, b, s, mem, mine = nil, nil, nil, nil, nil
      collectgarbage()
      collectgarbage()
   end
end

-- ---- buffers ------------------------------------------------------------

function tests.a_buffer_is_memory()
   local a = pair()
   local b = assert(a:alloc(10000, { access = "rw", huge = true, populate = true }))
   test.eq(b.len, 10000)
   test.eq(b.addr, tonumber(ffi.cast("uintptr_t", b.ptr)))
   b:set(5, "hello")
   test.eq(b:string(5, 5), "hello")
   test.eq(b:set("abc"):string(0, 3), "abc")
   b:fill(7, 100, 1000)
   local sum = b:hash(100, 1000)
   test.eq(sum == mooncake.hash(b:string(100, 1000)), true)
   test.eq(sum ~= b:hash(100, 999), true)
   b:fill(8, 100, 1000)
   test.eq(sum ~= b:hash(100, 1000), true)
   test.eq(#mooncake.hex(sum), 16)
   local list = a:buffers()
   test.eq(#list, 1)
   test.eq({ list[1].addr, list[1].len, list[1].access }, { b.addr, 10000, "rw" })
   test.eq(b:free(), true)
   test.eq(b:free(), true)
   test.eq(a:buffers(), {})
   test.raises("has been freed", b.string, b)
end

function tests.offsets_outside_of_a_buffer_are_errors()
   local a = pair()
   local b = assert(a:alloc(100))
   test.raises("101 bytes at 0", b.string, b, 0, 101)
   test.raises("%-1", b.string, b, -1, 1)
   test.raises("not inside", b.set, b, 98, "abc")
   test.raises("not inside", b.fill, b, 1, 101)
   test.raises("length in bytes", a.alloc, a, 0)
   test.raises("length in bytes", a.alloc, a, 1.5)
   test.raises("unknown option 'acess'", a.alloc, a, 1, { acess = "r" })
   test.raises("access is", a.alloc, a, 1, { access = "x" })
end

function tests.strings_and_pointers_can_be_registered()
   local a, b, s = pair()
   local text = ("a string that is served "):rep(100)
   local r = assert(a:register(text))
   test.eq(s:read_string(r.addr, #text), text)
   local ok, _, errno = s:write("x", r.addr)
   test.eq(ok, nil)
   test.eq(errno, EACCES)
   test.raises("cannot be written", a.register, a, text, nil, { access = "rw" })
   local raw = ffi.new("uint8_t[?]", 5000)
   local m = assert(a:register(raw, 5000, { access = "rw", location = "cpu:0" }))
   assert(s:write("into foreign memory", m.addr))
   test.eq(ffi.string(raw, 19), "into foreign memory")
   local again, why = a:register(raw, 100)
   test.eq(again, nil)
   test.eq(type(why), "string")
   assert(m:free())
   assert(r:unregister())
   test.eq(b:buffers()[1].access, "local")
end

-- ---- segments -----------------------------------------------------------

function tests.a_segment_lists_its_buffers()
   local a, b, s = pair()
   local x = assert(a:alloc(4096, { access = "r" }))
   assert(a:alloc(8192, { access = "local" }))
   local found = {}
   for _, i in ipairs(assert(s:buffers())) do found[i.addr] = i end
   test.eq(found[x.addr].len, 4096)
   test.eq(found[x.addr].access, "r")
   local y = assert(a:alloc(4096))
   found = {}
   for _, i in ipairs(assert(s:buffers())) do found[i.addr] = i end
   test.eq(found[y.addr].access, "rw")
   test.eq(s.name, a:addr())
   test.eq(b:segment(a:addr()) == s, true)
   test.eq(s:stat().addr, a:addr())
   test.eq(b:segments()[1] == s, true)
   assert(s:probe() > 0)
   assert(s:close())
   test.eq(b:segments(), {})
end

function tests.many_buffers_are_listed()
   local a, _, s = pair()
   local memory = ffi.new("uint8_t[?]", 3000 * 16)
   for i = 0, 2999 do assert(a:register(memory + i * 16, 8)) end
   local list = assert(s:buffers())
   test.eq(#list, 3000)
   for i = 2, 3000 do assert(list[i].addr == list[i - 1].addr + 16) end
end

function tests.a_peer_that_is_not_there_is_said_in_time()
   local _, b = pair()
   local start = mooncake.now()
   local s, why, errno = b:segment("127.0.0.1:1", 2000)
   test.eq(s, nil)
   assert(why:find("127.0.0.1:1", 1, true), why)
   assert(errno > 0)
   assert(mooncake.now() - start < 1)
end

-- ---- transfers ----------------------------------------------------------

local function moves_all_ways(transports)
   local a, b, s = pair { transports = transports }
   local far = assert(a:alloc(3 * 2 ^ 20, { access = "rw" }))
   local near = assert(b:alloc(3 * 2 ^ 20, { access = "local" }))
   for _, n in ipairs { 1, 4095, 4097, 3 * 2 ^ 20 } do
      near:fill(n)
      test.eq(s:write(near, far.addr, n), n)
      test.eq(far:hash(0, n) == near:hash(0, n), true)
      far:fill(n + 1)
      test.eq(s:read(near.ptr, far.addr, n), n)
      test.eq(far:hash(0, n) == near:hash(0, n), true)
   end
   test.eq(s:write(near.addr, far.addr, 0), 0)
   test.eq(s:write(near, far), near.len)
   local text = ("x"):rep(2 ^ 21 + 17)
   test.eq(s:write(text, far.addr), #text)
   test.eq(s:read_string(far.addr, #text) == text, true)
   test.eq(s:write("abcdef", far.addr, 3), 3)
end

function tests.bytes_move_over_tcp() moves_all_ways "tcp" end
function tests.bytes_move_over_shm() moves_all_ways "shm" end

function tests.bytes_move_inside_an_engine()
   local a = pair()
   local s = assert(a:segment(a:addr()))
   local mem = assert(a:alloc(4096))
   assert(s:write("to myself", mem.addr))
   test.eq(mem:string(0, 9), "to myself")
end

function tests.lists_of_requests_gather_and_scatter()
   local a, b, s = pair()
   local far, near = assert(a:alloc(4096)), assert(b:alloc(4096))
   near:set(0, "0123456789")
   local r = assert(b:transfer {
      { op = "write", segment = s, buf = near, remote = far.addr, len = 3 },
      { op = "write", segment = s.id, buf = near.ptr + 5, len = 2,
        remote = { addr = far.addr + 5 } },
      { op = "write", segment = s,
        local_ranges = { { near.addr + 1, 2 }, { addr = near, len = 3 } },
        remote_ranges = { { addr = far.addr + 100, len = 1 }, { far.addr + 200, 4 } } },
   })
   test.eq(r.state, "completed")
   test.eq(r.bytes, 10)
   test.eq(far:string(0, 8), "012\0\0" .. "56\0")
   test.eq(far:string(100, 2), "1\0")
   test.eq(far:string(200, 5), "2012\0")
   test.eq(assert(b:transfer { op = "read", segment = s, buf = near, remote = far.addr,
                               len = 3 }).bytes, 3)
end

function tests.prepared_arrays_are_submitted_as_they_are()
   local a, b, s = pair()
   local far, near = assert(a:alloc(4096)), assert(b:alloc(4096))
   local reqs = mooncake.reqs(16)
   for i = 0, 15 do
      reqs[i].op, reqs[i].segment, reqs[i].len = "MC_WRITE", s.id, 4
      reqs[i].buf, reqs[i].remote = near.ptr + 4 * i, far.addr + 8 * i
   end
   near:fill(1)
   test.eq(assert(b:transfer(reqs)).bytes, 64)
   test.eq(far:string(120, 4), near:string(60, 4))
   far:fill(2)
   test.eq(assert(b:transfer(reqs, { first = 2, n = 3 })).bytes, 12)
   test.eq(far:string(16, 4), near:string(8, 4))
   test.eq(far:string(40, 4) ~= near:string(20, 4), true)
   test.raises("requests 15 to 16 of 16", b.transfer, b, reqs, { first = 15, n = 2 })
end

function tests.mistakes_in_requests_are_errors()
   local _, b, s = pair()
   local near = assert(b:alloc(64))
   local function refused(pattern, req, opts)
      test.raises(pattern, b.transfer, b, { req }, opts)
      test.raises(pattern, b.submit, b, { req }, opts)
   end
   refused("op is", { op = "copy", segment = s, buf = near, remote = 1 })
   refused("no segment", { op = "read", buf = near, remote = 1 })
   refused("remote address", { op = "read", segment = s, buf = near })
   refused("local address", { op = "read", segment = s, buf = true, remote = 1 })
   refused("unknown field 'lenght'", { op = "read", segment = s, buf = near, remote = 1,
                                       lenght = 1 })
   refused("unknown field 'timeout'",
           { op = "read", segment = s, buf = near, remote = 1 }, { timeout = 1 })
   test.raises("how many bytes", s.write, s, near.addr, 1)
end

function tests.what_the_world_refuses_is_said()
   local a, b, s = pair()
   local far, near = assert(a:alloc(64)), assert(b:alloc(128))
   local ok, why, errno, result = b:transfer { op = "write", segment = s, buf = near,
                                               remote = far.addr, len = 65 }
   test.eq(ok, nil)
   assert(#why > 10, why)
   assert(errno > 0)
   test.eq(result == nil or result.bytes == 0, true)
   ok, why = s:write(near, far.addr, 65)
   test.eq(ok, nil)
   assert(#why > 10, why)
   ok, why, errno = s:read(ffi.new "char[8]", far.addr, 8)
   test.eq(ok, nil)
   assert(why and errno > 0)
end

-- ---- futures ------------------------------------------------------------

local function requests(n, s, near, far)
   local reqs = mooncake.reqs(n)
   for i = 0, n - 1 do
      reqs[i].op, reqs[i].segment, reqs[i].len = "MC_WRITE", s.id, 64
      reqs[i].buf, reqs[i].remote = near.ptr + 64 * i, far.addr + 64 * i
   end
   return reqs
end

function tests.futures_are_waited_for()
   local a, b, s = pair { transports = "tcp" }
   local far, near = assert(a:alloc(65536)), assert(b:alloc(65536))
   near:fill(3)
   local f = assert(b:submit(requests(1024, s, near, far)))
   local r = assert(f:wait(3000))
   test.eq(r.bytes, 65536)
   test.eq(r.done, 1024)
   test.eq(f:poll(), "completed")
   test.eq(f:wait() == r, true)
   test.eq(f:cancel(), true)
   test.eq(near:hash() == far:hash(), true)
end

function tests.several_futures_are_waited_for_together()
   local a, b, s = pair { transports = "tcp" }
   local far, near = assert(a:alloc(65536)), assert(b:alloc(65536))
   local list = {}
   for i = 1, 20 do list[i] = assert(b:submit(requests(i, s, near, far))) end
   local left = { unpack(list) }
   while #left > 0 do
      local i, f = assert(mooncake.wait_any(left, 3000))
      test.eq(f:poll(), "completed")
      test.eq(left[i] == f, true)
      table.remove(left, i)
   end
   local results = assert(mooncake.wait_all(list, 3000))
   test.eq(#results, 20)
   for i = 1, 20 do test.eq(results[i].bytes, i * 64) end
   test.eq(#b:completed() <= 20, true)
end

function tests.a_batch_that_fails_says_which()
   local a, b, s = pair { transports = "tcp" }
   local far, near = assert(a:alloc(64)), assert(b:alloc(256))
   local f = b:submit { op = "write", segment = s, buf = near, remote = far.addr,
                        len = 64 }
   local good = assert(f:wait(3000))
   test.eq(good.state, "completed")
   local ro = assert(a:alloc(64, { access = "r" }))
   local bad, why, errno = b:submit {
      { op = "write", segment = s, buf = near, remote = far.addr, len = 64 },
      { op = "write", segment = s, buf = near, remote = ro.addr, len = 64 },
   }
   if bad then
      local ok
      ok, why, errno = mooncake.wait_all({ f, bad }, 3000)
      test.eq(ok, nil)
      test.eq(bad:poll(), "failed")
      test.eq(bad.result.requests[2].state, "failed")
   end
   assert(#why > 10 and errno > 0)
end

function tests.a_dropped_future_is_reaped()
   local a, b, s = pair { transports = "tcp" }
   local far, near = assert(a:alloc(65536)), assert(b:alloc(65536))
   for _ = 1, 100 do assert(b:submit(requests(8, s, near, far))) end
   collectgarbage()
   collectgarbage()
   assert(b:transfer(requests(8, s, near, far)))
   assert(near:free())
end

function tests.time_that_is_over_is_eagain()
   local a, b, s = pair { transports = "tcp" }
   local far, near = assert(a:alloc(64 * 2 ^ 20)), assert(b:alloc(64 * 2 ^ 20))
   local f = assert(b:submit({ op = "write", segment = s, buf = near, remote = far.addr },
                             { timeout_ms = 3000 }))
   local r, _, errno = f:wait(0)
   assert(r or errno == EAGAIN)
   assert(mooncake.wait_any({ f }, 5000))
end

-- ---- notifications ------------------------------------------------------

function tests.notifications_arrive_in_order()
   local a, b, s = pair()
   test.eq(a:next_notify(), nil)
   for i = 1, 10 do assert(b:notify(s, "n" .. i, ("m"):rep(i))) end
   for i = 1, 10 do
      local n = assert(a:next_notify(1000))
      test.eq(n, { from = b:name(), name = "n" .. i, msg = ("m"):rep(i) })
   end
   local start = mooncake.now()
   test.eq(a:next_notify(50), nil)
   test.near(mooncake.now() - start, 0.05, 0.04)
end

function tests.a_batch_announces_itself_after_its_bytes()
   local a, b, s = pair()
   local far = assert(a:alloc(2 ^ 20))
   local near = assert(b:alloc(2 ^ 20))
   near:fill(9)
   assert(b:transfer({ op = "write", segment = s, buf = near, remote = far.addr },
                     { notify = { segment = s, name = "there", msg = "\0binary\0" } }))
   local n = assert(a:next_notify(1000))
   test.eq({ n.name, n.msg }, { "there", "\0binary\0" })
   test.eq(far:hash() == near:hash(), true)
   assert(s:notify "empty")
   test.eq(a:next_notify(1000).msg, "")
end

-- ---- timers, processes, and the rest ------------------------------------

function tests.timers_run_while_one_sleeps()
   local ran = {}
   mooncake.timer(20, function() ran[#ran + 1] = "20" end)
   mooncake.timer(5, function() ran[#ran + 1] = "5" end)
   local never = mooncake.timer(10, function() ran[#ran + 1] = "never" end)
   never:cancel()
   local n = 0
   local t = mooncake.timer.every(4, function(self)
      n = n + 1
      if n == 3 then self:cancel() end
   end)
   mooncake.sleep(40)
   test.eq(ran, { "5", "20" })
   test.eq(n, 3)
   t:cancel()
   local done
   mooncake.timer(5, function() done = true end)
   mooncake.loop(function() return done end)
   test.eq(done, true)
   mooncake.loop()
   test.raises("a function", mooncake.timer, 1)
end

function tests.a_process_is_started()
   local p = assert(mooncake.spawn { "sh", "-c", "echo hello; exit 3", stdout = "pipe" })
   test.eq(p:read_line(2000), "hello")
   test.eq(p:wait(2000), 3)
   local none, why = mooncake.spawn { "/no/such/program" }
   test.eq(none, nil)
   assert(why:find "/no/such/program")
end

function tests.the_machine_has_a_topology()
   local t = assert(mooncake.topology())
   assert(#t > 0)
   for i = 1, #t do test.eq(t.distance[i][i], 0) end
   assert(t.matrix)
end

function tests.a_script_says_which_devices_memory_uses()
   local told = { ["cpu:0"] = { { "eth1" }, {} }, ["cpu:1"] = { { "eth0" }, { "eth1" } } }
   local a = assert(mooncake.open { topology = told })
   local b = assert(mooncake.open { transports = "tcp" })
   local s = assert(b:segment(a:addr()))
   for _, m in ipairs { assert(a:topology()), assert(s:topology()) } do
      test.eq(#m["cpu:0"][2], 0)
      test.eq(m["cpu:1"][1][1], "eth0")
      test.eq(m["cpu:1"][2][1], "eth1")
   end
   test.eq(next(assert(b:topology())), nil)
   local none, why = mooncake.open { topology = { ["cpu:0"] = "eth1" } }
   test.eq(none, nil)
   assert(why:find("two lists", 1, true), why)
end

function tests.registry_servers_keep_values()
   local d, why, errno = mooncake.registry_server "127.0.0.1:0"
   if not d then test.skip(("no registry server: %s (%d)"):format(why, errno)) end
   test.defer(function() d:close() end)
   local r = assert(mooncake.registry("http://" .. d:addr() .. "/metadata"))
   local v
   v, why, errno = r:get "missing"
   test.eq(v, nil)
   test.eq(errno, ENOENT)
   assert(r:put("a/1", ("x"):rep(10000)))
   local value, version = r:get "a/1"
   test.eq(value, ("x"):rep(10000))
   assert(r:cas("a/1", "y", version))
   v, why, errno = r:cas("a/1", "z", version)
   test.eq(v, nil)
   test.eq(errno, EAGAIN)
   test.eq(r:get "a/1", "y")
   assert(r:cas("a/2", "new", 0))
   test.eq(r:list "a/", { "a/1", "a/2" })
   test.eq(r:list "b/", {})
   assert(r:del "a/1")
   test.eq(r:list "a/", { "a/2" })
   r:close()
   test.raises("closed", r.get, r, "a/2")
   test.eq(mooncake.registry "peer", nil)
end

function tests.a_segment_is_found_by_name()
   local d = mooncake.registry_server "127.0.0.1:0"
   if not d then test.skip "no registry server" end
   test.defer(function() d:close() end)
   local url = "http://" .. d:addr() .. "/metadata"
   local a = assert(mooncake.open { name = "decode-0", registry = url })
   local b = assert(mooncake.open { name = "prefill-0", registry = url })
   local mem = assert(a:alloc(64))
   assert(assert(b:segment "decode-0"):write("by name", mem.addr))
   test.eq(mem:string(0, 7), "by name")
   test.eq(b:segment "decode-1", nil)
   a:close()
   b:close()
end

return tests
