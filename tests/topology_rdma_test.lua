-- Bytes leave by the RDMA device that is near the memory here, and arrive at the one that
-- is near the memory there. Takes four devices on one network, two for each end; those of
-- scripts/vm will do:
--
--   scripts/vm --nics 4 -- build/mooncake test tests/topology_rdma_test.lua

local ffi = require "ffi"
local C = require "mooncake.ffi"
local mooncake = require "mooncake"
local test = require "mooncake.test"

local LEN, ROUNDS = 64 * 1024, 40
-- A device that answered late once is passed over for a while, and a path that could not
-- be made is not tried again for 5 s: an emulated CPU does that to them now and then.
local SOON = 15

local function devices()
   local info = ffi.new "struct mc_rdma_info[16]"
   local n, list = C.mc_rdma_list(info, 16), {}
   for i = 0, n - 1 do
      if info[i].up == 1 then list[#list + 1] = ffi.string(info[i].name) end
   end
   if #list < 4 then test.skip "no four RDMA devices that are up" end
   return list
end

-- Two nodes, each with one of the devices.
local function split(a, b)
   return { ["cpu:0"] = { { a }, { b } }, ["cpu:1"] = { { b }, { a } } }
end

-- Packets that a device has sent or received so far.
local function packets(dev, what)
   local path = "/sys/class/infiniband/%s/ports/1/hw_counters/%s"
   local f = io.open(path:format(dev, what))
   if not f then test.skip(dev .. " does not count packets") end
   local n = f:read "*n"
   f:close()
   return n
end

local function counts(list)
   return { packets(list[1], "sent_pkts"), packets(list[2], "sent_pkts"),
            packets(list[3], "rcvd_pkts"), packets(list[4], "rcvd_pkts") }
end

local function memory(engine, node, access)
   local raw = ffi.new("uint8_t[?]", LEN)
   test.defer(function() return raw end)
   return assert(engine:register(ffi.cast("uint8_t *", raw), LEN,
                                 { location = "cpu:" .. node, access = access }))
end

local function ends(list, near_devices)
   local far = assert(mooncake.open {
      transports = "rdma", devices = { list[3], list[4] }, streams = 1,
      topology = split(list[3], list[4]),
   })
   local near = assert(mooncake.open {
      transports = "rdma", devices = near_devices, streams = 1, listen = "none",
      topology = split(list[1], list[2]),
   })
   test.defer(function() near:close() far:close() end)
   return near, far
end

-- Which packets grew while bytes went from one memory to the other.
local function grown(list, s, from, to)
   local was = counts(list)
   for _ = 1, ROUNDS do assert(s:write(from, to.addr, LEN)) end
   local now = counts(list)
   for i = 1, 4 do now[i] = now[i] - was[i] end
   return now
end

-- Before long nearly all goes by the devices that @wanted names, { much, little } each.
local function expect_soon(list, s, from, to, wanted, what)
   local deadline, n, all = mooncake.now() + SOON
   repeat
      n, all = grown(list, s, from, to), true
      for _, w in ipairs(wanted) do all = all and n[w[1]] > 9 * n[w[2]] end
      if all then return end
      mooncake.sleep(20)
   until mooncake.now() > deadline
   error(("%s: %s"):format(what, table.concat(n, ", ")), 2)
end

local tests = {}

function tests.both_ends_use_the_device_near_their_memory()
   local list = devices()
   local near, far = ends(list, { list[1], list[2] })
   local here, there = {}, {}
   for node = 0, 1 do
      here[node], there[node] = memory(near, node, "local"), memory(far, node, "rw")
   end
   local s = assert(near:segment(far:addr(), 10000))
   test.eq(assert(s:topology())["cpu:1"][1][1], list[4])
   for from = 0, 1 do
      for to = 0, 1 do
         expect_soon(list, s, here[from], there[to],
                     { { 1 + from, 2 - from }, { 3 + to, 4 - to } },
                     ("cpu:%d to cpu:%d"):format(from, to))
      end
   end
end

-- One device here, which is the second choice: each place there gets a path of its own.
function tests.one_device_reaches_both()
   local list = devices()
   local near, far = ends(list, list[1])
   local here = memory(near, 1, "local")
   local s = assert(near:segment(far:addr(), 10000))
   for _, node in ipairs { 1, 0, 1 } do
      expect_soon(list, s, here, memory(far, node, "rw"), { { 3 + node, 4 - node } },
                  "to cpu:" .. node)
   end
   test.eq(near:stats().connections, 2)
end

-- A device that the peer has not: what answers is as good as any.
function tests.a_wish_that_cannot_be_granted_does_no_harm()
   local list = devices()
   local far = assert(mooncake.open {
      transports = "rdma", devices = list[3], streams = 1,
      topology = { ["cpu:0"] = { { "absent_0" }, { list[3] } } },
   })
   local near = assert(mooncake.open {
      transports = "rdma", devices = list[1], streams = 1, listen = "none",
   })
   test.defer(function() near:close() far:close() end)
   local s = assert(near:segment(far:addr(), 10000))
   local n = grown(list, s, memory(near, 0, "local"), memory(far, 0, "rw"))
   assert(n[3] > ROUNDS)
   assert(near:stats().connections <= 2)
end

return tests
