-- instructions.lua - what each 4 KiB block of a batch of 128 costs over rdma, in
-- instructions: `make bench-instructions`. Callgrind counts them, on the libibverbs of
-- tests/bench/stub, whose device has done at once what it is asked. Counted are our own:
-- those in the stub, and the copying, are the device's.
--
--   mooncake run tests/bench/instructions.lua STUB-FOLDER [--json]
--
-- The bar is on posting and polling, as the transport does them; the whole of
-- mc_transfer() is shown beside it. The exit status is 1 if the bar is missed.

local json = require "mooncake.json"
local kit = require "mooncake.benchkit"
local proc = require "mooncake.proc"

local BLOCK, BATCH, FEW, MANY = 4096, 128, 20, 220
local LEAST_TRUE = 10                      -- fewer were not counted at all
local PARTS = {
   { name = "post", within = { "mc_rdma_post" } },
   { name = "poll", within = { "mc_rdma_poll" } },
   { name = "post and poll", within = { "mc_rdma_post", "mc_rdma_poll" }, bar = 250 },
   { name = "mc_transfer", within = { "mc_transfer" } },
}

-- ---- what is counted -------------------------------------------------------

local function batches(n)
   local far = assert(mooncake.open { transports = "rdma" })
   local near = assert(mooncake.open { transports = "rdma" })
   local pool, mine = assert(far:alloc(BATCH * BLOCK)), assert(near:alloc(BATCH * BLOCK))
   local s = assert(near:segment(far:addr(), 60000))
   local q = mooncake.reqs(BATCH)
   for i = 0, BATCH - 1 do
      q[i].op, q[i].segment, q[i].len = "MC_WRITE", s.id, BLOCK
      q[i].buf, q[i].remote = mine.ptr + i * BLOCK, pool.addr + i * 7 % BATCH * BLOCK
   end
   for _ = 1, n do assert(near:transfer(q, { timeout_ms = 60000 })) end
   near:close()
   far:close()
end

-- ---- counting --------------------------------------------------------------

-- Instructions within these functions while @n batches run, without the device's.
local function count(stub, within, n)
   local out = os.tmpname()
   local args = { "valgrind", "-q", "--tool=callgrind", "--callgrind-out-file=" .. out,
                  stderr = "pipe", env = { LD_LIBRARY_PATH = stub, MC_LOG = "error" } }
   for _, f in ipairs(within) do args[#args + 1] = "--toggle-collect=" .. f end
   for _, a in ipairs { proc.exe(), "run", arg[0], "batches", tostring(n) } do
      args[#args + 1] = a
   end
   local _, status, why = proc.run(args)
   if status ~= 0 then error(("under valgrind, status %d: %s"):format(status, why)) end
   local sum = 0
   local text = proc.run { "callgrind_annotate", "--auto=no", "--threshold=100", out }
   for n_text, where in text:gmatch "\n%s*([%d,]+) %([^)\n]*%)%s+(%S[^\n]*)" do
      if not where:find "libibverbs" and not where:find "libc.so" and
         not where:find "PROGRAM TOTALS" then
         sum = sum + tonumber((n_text:gsub(",", "")))
      end
   end
   os.remove(out)
   return sum
end

local function per_block(stub, within)
   return (count(stub, within, MANY) - count(stub, within, FEW)) / (MANY - FEW) / BATCH
end

-- ---- the table ---------------------------------------------------------------

local function main(stub, as_json)
   local missed = false
   kit.print_machine(as_json, "callgrind, instructions of ours for a block of 4 KiB")
   for _, part in ipairs(PARTS) do
      local n = per_block(stub, part.within)
      local ok = not part.bar or n >= LEAST_TRUE and n <= part.bar
      missed = missed or not ok
      if as_json then
         print(json.encode { what = part.name, instructions = n, bar = part.bar,
                             ok = ok })
      else
         print(("%-16s %6.0f  %s"):format(part.name, n, not part.bar and "" or
            ("<= %d  %s"):format(part.bar, ok and "ok" or "MISSED")))
      end
   end
   return missed and 1 or 0
end

if arg[1] == "batches" then
   batches(tonumber(arg[2]))
else
   os.exit(main(assert(arg[1], "which folder has the stub?"), arg[2] == "--json"))
end
