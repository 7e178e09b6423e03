-- bench.lua - `mooncake bench`: how fast it is here, and what is in the way.

local bench = require "mooncake.bench"
local environment = require "mooncake.environment"
local json = require "mooncake.json"
local node = require "mooncake.node"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local INTERRUPTED = 130
local BAR = 40                                  -- columns of the longest
local EINVAL = 22
local MOST, MOST_SECONDS = 2 ^ 20, 1e6

-- Of the command line, before anything is started.
local function wrong(fmt, ...)
   error({ user = fmt:format(...), status = 2 }, 0)
end

-- ---- the target ------------------------------------------------------------

local function target(opt)
   if os.getenv "MOONCAKE_BENCH_CHILD" then proc.die_with_parent() end
   local stopped, fd = proc.on_sigint()
   local n = util.check(node.open {
      engine = { listen = opt.listen, advertise = opt.advertise, name = opt.name,
                 registry = opt.join, transports = opt.transport, key_file = opt.key,
                 devices = opt.device, spin_us = opt.spin },
      memory = opt.span, foreign = opt.memory == "foreign",
   })
   n.memory:fill(2)
   print("ready " .. n.engine:addr())
   io.stdout:flush()
   n:serve(stopped, { fd })
   n:close()
   return 0
end

-- ---- output ----------------------------------------------------------------

local COLUMNS = {
   { "via", 5, "l" }, { "op", 5, "l" }, { "block", 8 }, { "batch", 5 }, { "threads", 7 },
   { "GB/s", 6 }, { "p50", 8 }, { "p99", 8 }, { "p999", 8 }, { "CPU s/GB", 8 },
   { "limit", 6 }, { "ratio", 5 }, { "limited by", 10, "l" },
}

local function row(cells, opt)
   local out = {}
   for i, c in ipairs(COLUMNS) do
      local limits = i == 11 or i == 12
      if not limits or opt.limits then
         local text = tostring(cells[i] or "-")
         local pad = (" "):rep(c[2] - #text)
         out[#out + 1] = c[3] and text .. pad or pad .. text
      end
   end
   print((table.concat(out, "  "):gsub("%s+$", "")))
   io.stdout:flush()
end

-- Once, above the first row.
local function head(opt)
   if opt.json or opt.headed then return end
   opt.headed = true
   local names = {}
   for i, c in ipairs(COLUMNS) do names[i] = c[1] end
   row(names, opt)
end

local function us(n) return util.duration(n / 1e6) end

-- How the bytes were shared, where there was more than one way for them.
local function print_rails(f)
   local all, most, wide = 0, 0, 0
   for _, r in ipairs(f.rails) do
      all, most = all + r.bytes, math.max(most, r.bytes)
      wide = math.max(wide, #r.rail)
   end
   for _, r in ipairs(#f.rails > 1 and f.rails or {}) do
      print(("  %s%s  %s %3.0f %%"):format(
               r.rail, (" "):rep(wide - #r.rail),
               ("█"):rep(math.max(1, math.floor(BAR * r.bytes / most + 0.5))),
               100 * r.bytes / all))
   end
   io.stdout:flush()
end

local function print_row(f, p, limit, why, opt)
   head(opt)
   row({
      f.transport ~= "" and f.transport or "-", p.op, util.bytes(p.block), p.batch,
      p.threads, ("%.2f"):format(f.gb_per_s), us(f.p50_us), us(f.p99_us), us(f.p999_us),
      ("%.3f%s"):format(f.cpu_s_per_gb, f.target_share and "" or "*"),
      limit and ("%.2f"):format(limit.gb_per_s),
      limit and ("%.2f"):format(f.gb_per_s / limit.gb_per_s), why,
   }, opt)
   print_rails(f)
end

local function print_json(f, p, limit, why)
   print(json.encode {
      transport = f.transport, op = p.op, block = p.block, batch = p.batch,
      threads = p.threads, random = p.random, gb_per_s = f.gb_per_s, p50_us = f.p50_us,
      p99_us = f.p99_us, p999_us = f.p999_us, cpu_s_per_gb = f.cpu_s_per_gb,
      cpu_of_target = f.target_share ~= nil, errors = f.errors, batches = f.batches,
      rails = json.array(f.rails), limited_by = why,
      limit_gb_per_s = limit and limit.gb_per_s,
      limit_p50_us = limit and limit.p50_us,
      ratio = limit and f.gb_per_s / limit.gb_per_s,
   })
   io.stdout:flush()
end

-- ---- the sweep -------------------------------------------------------------

local function numbers(opt, name)
   return bench.sizes(opt[name], util.parse_bytes) or
          wrong("--%s takes a size or a list of them, not '%s'", name, opt[name])
end

local function words(text, allowed, name)
   local list = {}
   for word in text:gmatch "[^,]+" do
      if not allowed[word] then wrong("--%s: no '%s'", name, word) end
      list[#list + 1] = word
   end
   if #list == 0 then wrong("--%s needs a value", name) end
   return list
end

local function check_point(opt, p)
   if p.block > opt.span then
      wrong("--block: %s is larger than the span of %s", util.bytes(p.block),
            util.bytes(opt.span))
   end
   if p.batch * p.threads > MOST then
      wrong("--batch: %d blocks of %d threads are more than %d", p.batch, p.threads, MOST)
   end
   if p.threads > 1024 then wrong("--threads: %d are more than 1024", p.threads) end
   return p
end

local function points(opt)
   local list = {}
   for _, op in ipairs(words(opt.op, { read = true, write = true }, "op")) do
      for _, block in ipairs(numbers(opt, "block")) do
         for _, batch in ipairs(numbers(opt, "batch")) do
            for _, threads in ipairs(numbers(opt, "threads")) do
               list[#list + 1] = check_point(opt, {
                  op = op, block = block, batch = batch, threads = threads,
                  random = opt.random, ms = opt.duration * 1000,
               })
            end
         end
      end
   end
   return list
end

-- Limits are of this machine: they say nothing of a target elsewhere over tcp.
local function limit_of(s, f, p, opt)
   if not opt.limits then return nil end
   local kind = s:limit_kind(f.transport)
   if not kind or not s.child and f.transport == "tcp" then return nil end
   return util.check(s:limit(kind, p)), kind
end

local function measure_all(s, opt, list)
   local errors = 0
   for _, p in ipairs(list) do
      local f = util.check(s:run(p))
      if opt.stopped() then break end
      local limit, kind = limit_of(s, f, p, opt)
      if opt.stopped() then break end
      local why = bench.verdict(f, p, limit, kind)
      errors = errors + f.errors
      local show = opt.json and print_json or print_row
      show(f, p, limit, why, opt)
   end
   return errors
end

local function one_transport(opt, list, transport, where)
   local s, why, errno = bench.open {
      node = where, join = opt.join, transport = transport, memory = opt.memory,
      span = opt.span, key = opt.key, spin = opt.spin, device = opt.device,
      stopped = opt.stopped,
   }
   if not s then
      if opt.stopped() then return 0 end
      error({ user = why, status = errno == EINVAL and 2 or 1 }, 0)
   end
   local ok, errors = pcall(measure_all, s, opt, list)
   s:close()
   if not ok then error(errors, 0) end
   return errors
end

local function check_options(opt, args)
   if opt.memory ~= "alloc" and opt.memory ~= "foreign" then
      wrong "--memory is alloc or foreign"
   end
   if not (opt.span >= 1 and opt.span % 1 == 0) then
      wrong("--span takes a size, not '%s'", opt.span)
   end
   if not (opt.spin >= 0 and opt.spin < 2 ^ 31) then
      wrong("--spin takes microseconds, not '%s'", opt.spin)
   end
   if (opt.target and 1 or 0) + (opt.self and 1 or 0) + #args > 1 then
      wrong "--target, --self and NODE exclude each other"
   end
   if opt.name and not (opt.target and opt.join) then
      wrong "--name is of a --target, in a registry to --join"
   end
   if opt.target then return end
   if not opt.self and not args[1] then
      wrong "a target is needed: HOST:PORT of a `mooncake bench --target`, or --self"
   end
   if not (opt.duration >= 0.001 and opt.duration <= MOST_SECONDS) then
      wrong("--duration takes seconds from 0.001 to %d, not '%s'", MOST_SECONDS,
            opt.duration)
   end
end

local function run(opt, args)
   check_options(opt, args)
   if opt.gid_index then util.setenv("MC_GID_INDEX", opt.gid_index) end
   if opt.target then return target(opt) end
   local list, errors = points(opt), 0
   opt.stopped = proc.on_sigint()
   local transports = {}
   for word in (opt.transport or ""):gmatch "[^,]+" do
      transports[#transports + 1] = word
   end
   for i = 1, math.max(1, #transports) do
      errors = errors + one_transport(opt, list, transports[i], args[1])
      if opt.stopped() then
         io.stderr:write "mooncake bench: interrupted\n"
         return INTERRUPTED
      end
   end
   return errors > 0 and 1 or 0
end

return {
   usage = "bench [OPTIONS] [NODE]",
   summary = "how fast it is, and what limits it",
   help = [[
Moves batches of blocks between this process and a target - a `mooncake bench --target`
or `mooncake serve --memory` elsewhere, by HOST:PORT or with --join by name, or with
--self a process that it starts - and prints for each point the rate, the latency of a
batch, and the CPU time both ends spent per GB (*: of this end only). Lists as 4k,64k,1m
make a sweep.

Blocks are scattered over the span at both ends. Every batch takes the same places,
so small ones stay in the CPU's caches; with --random every batch takes others.

--limits also measures what the machine can do at each point, in the same pattern:
one thread's memcpy into a shared mapping (shm), one process_vm_writev (shm with
--memory foreign), or one plain socket with one vectored write, received in place, and a
byte back (tcp).

Exit status: 0 measured, 1 requests failed or there is no target, 2 wrong usage, 130
interrupted, after the points that were measured.]] .. environment,
   options = {
      self = { false, "start a target on this machine" },
      target = { false, "be the target, until Ctrl-C" },
      transport = { nil, "tcp, shm; a list: each by itself; default: what is fastest",
                    "LIST" },
      device = { nil, "devices for rdma, interfaces for tcp: as mlx5_0,mlx5_1", "LIST" },
      ["gid-index"] = { nil, "the GID of rdma devices; default: the best, or " ..
                        "$MC_GID_INDEX", "N", number = true },
      op = { "write", "write, read, or both as a list", "LIST" },
      block = { "4k,64k,1m", "bytes of a block", "LIST" },
      batch = { "1,16,128", "blocks of a batch", "LIST" },
      threads = { "1", "submitting threads", "LIST" },
      duration = { 1, "seconds for each point", "SECONDS" },
      random = { false, "every batch at other places" },
      memory = { "alloc", "alloc: the engine's; foreign: the process's own", "KIND" },
      span = { 2 ^ 30, "memory at each end", "BYTES" },
      limits = { false, "measure the machine's limit beside each point" },
      json = { false, "print one JSON object per point" },
      join = { nil, "the registry that knows the target's name, or shall", "URL" },
      name = { nil, "of the target: its name in the registry", "NAME" },
      listen = { "127.0.0.1:0", "of the target: where to be reached", "HOST:PORT" },
      advertise = { nil, "of the target: the address to tell others", "HOST[:PORT]" },
      spin = { 0, "poll so long before sleeping", "MICROSECONDS" },
      key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
   },
   run = run,
}
