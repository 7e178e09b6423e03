-- replay_test.lua - the main job: whole traces between processes, and what goes wrong.

package.path = "examples/?.lua;" .. package.path

local ffi = require "ffi"
local C = require "mooncake.ffi"
local json = require "mooncake.json"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local wire = require "replay.wire"
local util = require "mooncake.util"

local SMALL = "traces/small.jsonl"
local PUBLIC = "../shared/traces/conversation_trace.jsonl"

local function spawn(args)
   local argv = { "mooncake", "run", "examples/replay.lua", "--json", "--quiet",
      stdout = "pipe", stderr = "pipe" }
   for _, word in ipairs(args) do argv[#argv + 1] = word end
   return test.spawn(argv)
end

-- The result of a run and its status; what went to stderr if there was no result.
local function finish(p, ms)
   local text = p.out:all(ms or 60000) or error("no end", 2)
   local why = p.err:all(1000)
   local status = p:wait(5000)
   if text == "" then return nil, status, why end
   return assert(json.decode(text)), status, why
end

local function replay(args, ms) return finish(spawn(args), ms) end

-- All is right: every block of every request was verified.
local function whole(r, status, requests, blocks)
   test.eq(r.errors, json.array(), "errors")
   test.eq(status, 0, "status")
   test.eq(r.requests, requests, "requests")
   test.eq(r.blocks_bad, 0, "blocks_bad")
   test.eq(r.blocks_verified, blocks, "blocks_verified")
   test.eq(r.blocks_moved + r.blocks_reused, blocks, "moved and reused")
   test.eq(r.bytes, r.blocks_moved * r.block_bytes, "bytes")
   assert(r.kv_ready_ms.p50 > 0 and r.kv_ready_ms.p99 >= r.kv_ready_ms.p50)
end

local function children(pid)
   local f = io.open(("/proc/%d/task/%d/children"):format(pid, pid))
   local text, list = f and f:read "*a" or "", {}
   for child in text:gmatch "%d+" do list[#list + 1] = tonumber(child) end
   if f then f:close() end
   return list
end

local function until_true(ms, what, fn)
   local stop = proc.now() + ms / 1000
   while not fn() do
      if proc.now() > stop then error("not within " .. ms .. " ms: " .. what, 2) end
      proc.sleep_ms(10)
   end
end

local function has_gone(pid)
   local f = io.open(("/proc/%d/stat"):format(pid))
   local state = f and f:read "*a":match "%) (%a)"
   if f then f:close() end
   return not state or state == "Z"
end

-- A replay in the trace's own time, with its two nodes at work.
local function running()
   local p = spawn { SMALL, "--speed", "1", "--scale", "1/20480", "--pool", "4M" }
   local nodes
   until_true(5000, "two nodes", function()
      nodes = children(p.pid)
      return #nodes == 2
   end)
   proc.sleep_ms(500)
   return p, nodes
end

local function temp(text)
   local path = test.tmpdir() .. "/trace.jsonl"
   assert(util.write_file(path, text))
   return path
end

local function line(at, ids, tokens)
   return ('{"timestamp": %d, "input_length": %d, "output_length": 1, "hash_ids": '
      .. '[%s]}\n'):format(at, tokens, table.concat(ids, ", "))
end

local tests = {}

function tests.the_small_trace_arrives_whole()
   local r, status = replay { SMALL }
   whole(r, status, 1000, 25088)
   assert(r.blocks_reused > 0.2 * 25088, "reused: " .. r.blocks_reused)
   assert(#r.rails >= 1 and r.rails[1].bytes == r.bytes, "rails")
end

function tests.over_tcp_by_pulling()
   local r, status = replay { SMALL, "--limit", "150", "--pull", "--transport", "tcp" }
   whole(r, status, 150, r.blocks_moved + r.blocks_reused)
   test.eq(r.direction, "pull")
   test.eq(#r.rails, 1)
   test.eq(r.rails[1].transport, "tcp")
end

function tests.between_several_nodes()
   local r, status = replay { SMALL, "--limit", "300", "--prefill", "2", "--decode=3" }
   whole(r, status, 300, r.blocks_moved + r.blocks_reused)
   assert(r.blocks_reused > 0)
end

function tests.pools_of_little_more_than_one_request_suffice()
   for _, way in ipairs { "--no-verify", "--verify", "--pull" } do
      local r, status = replay { SMALL, "--limit", "200", way, "--scale", "1/40960",
         "--pool", "1100K", "--window", "16" }
      test.eq(r.pool_bytes / r.block_bytes, 275)
      test.eq(r.errors, json.array(), way)
      test.eq(status, 0)
      test.eq(r.requests, 200)
      if way ~= "--no-verify" then whole(r, status, 200, r.blocks_verified) end
   end
end

function tests.a_request_larger_than_the_pool_fails_and_the_others_do_not()
   local path = temp(line(0, { 1, 2 }, 1024) .. line(0, { 3, 4, 5, 6, 7 }, 2560)
      .. line(5, { 1, 2, 8 }, 1536))
   local r, status = replay { path, "--scale", "1/40960", "--pool", "16K" }
   test.eq(status, 1)
   test.eq(r.failed, 1)
   test.eq(r.requests, 3)
   test.eq(r.blocks_verified, 5)
   local why = r.errors[1].error
   assert(why:find "5 blocks, and the pool has 4.*%-%-pool", why)
end

function tests.ids_of_64_bits_and_twice_in_a_request()
   local path = temp(line(0, { "18446744073709551615", "9007199254740993" }, 1024)
      .. line(0, { "9007199254740992", "9007199254740993", "-1", "-1" }, 2048))
   local r, status = replay { path }
   whole(r, status, 2, 6)
   test.eq(r.blocks_moved, 3)
end

function tests.follows_the_clock_of_the_trace()
   local path = temp(line(0, { 1 }, 512) .. line(4000, { 2 }, 512)
      .. line(8000, { 3 }, 512))
   local r, status = replay { path, "--speed", "10" }
   whole(r, status, 3, 3)
   assert(r.seconds >= 0.8 and r.seconds < 2, "seconds: " .. r.seconds)
end

function tests.reads_a_stream()
   local p = test.spawn { "sh", "-c", "head -100 " .. SMALL .. " | " .. proc.exe()
      .. " run examples/replay.lua --json --quiet -", stderr = "pipe" }
   local r, status = finish(p)
   whole(r, status, 100, r.blocks_verified)
   test.eq(r.requests_of, json.null)
end

local function run_of(script)
   return test.spawn { "sh", "-c", (script:gsub("REPLAY", proc.exe()
      .. " run examples/replay.lua --quiet")), stderr = "pipe" }
end

-- One line is said, no table is printed.
local function refused(script, want)
   local p = run_of(script)
   local out, why = p.out:all(10000), p.err:all(1000)
   test.eq({ out, p:wait(5000) }, { "", 2 }, why)
   assert(why:find(want), why)
   test.eq(select(2, why:gsub("\n", "")), 1, why)
end

function tests.a_trace_that_cannot_be_read_is_said_in_one_line()
   local good = line(0, { 1 }, 512)
   refused("REPLAY " .. temp(good .. "{}\n"), "^replay: .*trace.jsonl:2:%d+: ")
   refused("REPLAY --json " .. temp(good .. "{}\n"), "trace.jsonl:2:%d+: ")
   refused("REPLAY " .. temp "time,tokens\n1,2\n", "trace.jsonl:1:%d+: ")
   refused("REPLAY " .. temp "# A title\n\nText.\n", "trace.jsonl:1:%d+: ")
   refused("REPLAY " .. temp "", "^replay: no requests in .*trace.jsonl\n")
   refused("REPLAY README.md", "README.md:1:%d+: ")
   refused("echo x | REPLAY -", ":1:%d+: ")
   refused("REPLAY - < /dev/null", "no requests in standard input")
   refused("cat " .. SMALL .. " | REPLAY /dev/stdin", "cannot go back in /dev/stdin")
   local r, status = replay { temp(good .. "{}\n"), "--limit", "1" }
   whole(r, status, 1, 1)
end

function tests.a_bad_line_of_a_stream_ends_it_after_what_came_before()
   local p = run_of("(head -20 " .. SMALL .. "; echo '{}') | REPLAY --json -")
   local r, status = finish(p)
   test.eq(status, 2)
   test.eq(r.requests, 20)
   test.eq(r.blocks_bad, 0)
   test.eq(#r.errors, 1)
   assert(r.errors[1].error:find ":21:%d+:", r.errors[1].error)
end

function tests.options_of_the_engine_are_checked_once()
   refused("REPLAY --transport foo " .. SMALL, "^replay: no transport is called 'foo'")
   refused("REPLAY --listen 127.0.0.1:80 " .. SMALL, "is no host")
   refused("REPLAY --listen '' " .. SMALL, "is no host")
   refused("REPLAY --listen ::1: " .. SMALL, "^replay: ")
   refused("REPLAY --pool 1K --scale 1 " .. SMALL, "cannot hold a block")
end

function tests.ipv6_needs_no_brackets()
   local f = io.open "/proc/net/if_inet6"
   local any = f and f:read "*a":find "00000000000000000000000000000001"
   if f then f:close() end
   if not any then test.skip "no IPv6 here" end
   for _, host in ipairs { "::1", "[::1]" } do
      local r, status = replay { SMALL, "--limit", "20", "--listen", host }
      whole(r, status, 20, r.blocks_verified)
   end
end

function tests.a_node_that_cannot_start_is_named()
   local p = run_of("REPLAY --pool 1000T --scale 1024 " .. SMALL)
   local out, why = p.out:all(20000), p.err:all(1000)
   test.eq({ out, p:wait(5000) }, { "", 1 }, why)
   assert(why:find "^replay: prefill 0 did not start: mapping ", why)
   assert(not why:find "traceback", why)
end

function tests.a_wrong_command_line_ends_with_2()
   for _, case in ipairs { { "which trace" }, { "no model 'x'", SMALL, "--model", "x" },
      { "%-%-decode", SMALL, "--decode", "0" }, { "unknown option '%-%-fast'", "--fast" },
      { "/nowhere", "/nowhere" }, { "no factor", SMALL, "--scale", "big" },
      { "needs a value", SMALL, "--pool" } } do
      local want = table.remove(case, 1)
      local r, status, why = replay(case)
      test.eq(r, nil)
      test.eq(status, 2, want)
      assert(why:find(want), why)
   end
end

function tests.an_interrupt_reports_and_ends_the_nodes()
   local p, nodes = running()
   p:kill "INT"
   local start = proc.now()
   local r, status = finish(p, 5000)
   assert(proc.now() - start < 3, "slow")
   test.eq(status, 130)
   test.eq(r.interrupted, true)
   test.eq(r.errors, json.array())
   assert(r.requests > 0 and r.requests < 1000, r.requests)
   assert(r.blocks_verified > 0)
   for _, pid in ipairs(nodes) do assert(has_gone(pid), "a node is left") end
end

function tests.a_killed_node_is_named()
   for i, name in ipairs { "prefill 0", "decode 0" } do
      local p, nodes = running()
      os.execute("kill -9 " .. nodes[i])
      local r, status = finish(p, 5000)
      test.eq(status, 1)
      assert(json.encode(r.errors):find(name, 1, true), json.encode(r.errors))
      for _, pid in ipairs(nodes) do assert(has_gone(pid), "a node is left") end
   end
end

function tests.a_frozen_node_ends_the_replay_in_seconds()
   for i = 1, 2 do
      local p, nodes = running()
      os.execute("kill -STOP " .. nodes[i])
      local r, status = finish(p, 20000)
      test.eq(status, 1)
      assert(json.encode(r.errors):find "no answer in time", json.encode(r.errors))
      for _, pid in ipairs(nodes) do assert(has_gone(pid), "a node is left") end
   end
end

function tests.no_node_outlives_a_killed_replay()
   local p, nodes = running()
   p:kill "KILL"
   for _, pid in ipairs(nodes) do
      until_true(3000, "the end of a node", function() return has_gone(pid) end)
   end
end

-- ---- the check itself: a decode node whose prefill node is this test ----

local function next_note(e, name)
   local note = e:next_notify(3000) or error("no " .. name, 2)
   test.eq(note.name, name)
   return note.msg
end

function tests.a_wrong_byte_is_seen()
   local len, seed = 4096, 5
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   test.defer(function() e:close() end)
   local p = test.spawn { "mooncake", "run", "examples/replay/node.lua", json.encode {
      role = "decode", index = 0, master = e:addr(), block = len, pool = 16 * len,
      seed = seed, verify = true, pull = false, listen = "127.0.0.1" }, stdin = "pipe" }
   local addr = assert(p:read_line(5000)):match "^ready (.*)$"
   local node = assert(e:segment(addr))
   local block = assert(e:alloc(len))
   local ids = ffi.new("uint64_t[1]", 42)
   assert(e:notify(node, "peers", json.encode { e:addr() }))
   for _, wrong in ipairs { 0, 1 } do
      ids[0] = 42 + wrong
      assert(e:notify(node, "request", wire.pack(wrong, C.mc_now_ns(), 0, 1, ids, 8)))
      local head, want = wire.unpack(next_note(e, "want"), "struct replay_block *")
      test.eq(head.n, 1)
      test.eq(want[0].id, ids[0])
      C.mc_fill(block.ptr, len, ids[0] * 0x9e3779b97f4a7c15ULL + seed)
      block.ptr[len - 1] = bit.bxor(block.ptr[len - 1], wrong)
      assert(node:write(block, tonumber(want[0].to), len))
      assert(e:notify(node, "ready", wire.pack(head.req, head.sent_ns, 0, 1)))
      local msg = next_note(e, "done")
      local done = ffi.cast("const struct replay_done *", ffi.cast("const char *", msg))
      test.eq({ done.moved, done.verified, done.bad }, { 1, 1, wrong })
   end
   p:close_stdin()
   test.eq(p:wait(3000), 0, "status when its parent has gone")
end

-- ---- the public trace ---------------------------------------------------

local function peak_kib(pid)
   local f = io.open(("/proc/%d/status"):format(pid))
   local kib = f and f:read "*a":match "VmHWM:%s*(%d+)"
   if f then f:close() end
   return tonumber(kib) or 0
end

function tests.the_public_trace_arrives_whole_in_bounded_memory()
   local f = io.open(PUBLIC)
   if not f then test.skip("no " .. PUBLIC) end
   f:close()
   local p = spawn { PUBLIC, "--pool", "64M", "--prefill", "1", "--decode", "2" }
   local master, nodes = 0, 0
   until_true(120000, "the end", function()
      master = math.max(master, peak_kib(p.pid))
      for _, pid in ipairs(children(p.pid)) do nodes = math.max(nodes, peak_kib(pid)) end
      return p.out:fill(10) == true
   end)
   local r, status = finish(p)
   whole(r, status, 12031, 288500)
   assert(master < 64 * 1024, ("the replay itself: %d KiB"):format(master))
   -- Its own pool, and the mapped part of the pools at the other end.
   assert(nodes < (3 * 64 + 64) * 1024, ("a node: %d KiB"):format(nodes))
end

return tests
