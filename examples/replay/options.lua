-- options.lua - the command line of replay.lua, and the sizes that follow from it.

local util = require "mooncake.util"

local options = {}

local usage = [[
Usage: mooncake run examples/replay.lua [OPTION...] TRACE
Replay a Mooncake-format trace ("-": standard input; see traces/README.md): move the
KV cache of its requests from prefill processes to decode processes, and verify it.

  --prefill N        prefill nodes (default 1)
  --decode N         decode nodes (default 1)
  --speed X          run the trace's clock X times as fast; 0 or max (default): do not
                     wait for it
  --limit N          only the first N requests
  --model NAME       whose KV cache: --model help lists them (default llama3-70b)
  --scale X          size of the cache relative to that model's, as 0.001 or 1/1280
                     (default: what makes all blocks of the trace about 4 GiB)
  --pool SIZE        bytes of each node's pool (default: 256M, less on small machines)
  --transport LIST   allowed transports, as "tcp" or "shm,tcp" (default: all)
  --listen HOST      address that the nodes listen on (default 127.0.0.1)
  --pull             decode nodes read, instead of prefill nodes writing
  --window N         requests under way at a time (default: 4 for each decode node,
                     with --speed 256)
  --seed N           of the content of blocks (default 1)
  --no-verify        neither fill nor check the blocks
  --json             one JSON object instead of the table
  --quiet            no progress

Exit status: 0 if the whole trace was replayed and every block was right, 1 if not,
2 for a wrong command line or a trace that cannot be read, 130 if interrupted.
]]

-- Bytes of KV cache per token: key and value (2) of every layer, for each KV head its
-- dimension, in bf16 (2 bytes). Multi-head latent attention keeps one compressed vector
-- and one rotary key per layer instead. The numbers are of the models' published
-- config.json: num_hidden_layers, num_key_value_heads, head_dim; kv_lora_rank,
-- qk_rope_head_dim.
local models = {
   ["llama2-70b"] = { 2 * 80 * 8 * 128 * 2, "2 * 80 layers * 8 KV heads * 128 * 2 B" },
   ["llama3-8b"] = { 2 * 32 * 8 * 128 * 2, "2 * 32 layers * 8 KV heads * 128 * 2 B" },
   ["llama3-70b"] = { 2 * 80 * 8 * 128 * 2, "2 * 80 layers * 8 KV heads * 128 * 2 B" },
   ["qwen2.5-72b"] = { 2 * 80 * 8 * 128 * 2, "2 * 80 layers * 8 KV heads * 128 * 2 B" },
   ["qwen3-235b"] = { 2 * 94 * 4 * 128 * 2, "2 * 94 layers * 4 KV heads * 128 * 2 B" },
   ["deepseek-v3"] = { 61 * (512 + 64) * 2, "61 layers * (512 + 64) * 2 B (MLA)" },
}

local function parse(args)
   local opt = { prefill = 1, decode = 1, speed = 0, model = "llama3-70b", seed = 1,
      listen = "127.0.0.1", verify = true }
   local numbers = { prefill = true, decode = true, limit = true, window = true,
      seed = true }
   local words = { speed = true, model = true, scale = true, pool = true,
      transport = true, listen = true }
   local flags = { pull = true, json = true, quiet = true, verify = true }
   local function bad(fmt, ...)
      io.stderr:write("replay: ", fmt:format(...), "\n")
      os.exit(2, true)
   end
   local i = 1
   while args[i] do
      local word = args[i]
      local name, value = word:match "^%-%-([%a-]+)=?(.*)$"
      local off = name and name:match "^no%-(verify)$"
      if not name or word == "--" then
         if opt.path then bad("one trace at a time: '%s'", word) end
         opt.path = word
      elseif name == "help" then
         io.write(usage)
         os.exit(0)
      elseif off or flags[name] then
         opt[off or name] = not off
      elseif numbers[name] or words[name] then
         if not word:find("=", 1, true) then
            i = i + 1
            value = args[i] or bad("--%s needs a value", name)
         end
         opt[name] = words[name] and value or tonumber(value)
         local n = opt[name]
         if numbers[name] and not (n and n >= 1 and n % 1 == 0) then
            bad("--%s: '%s' is not a whole number from 1 on", name, value)
         end
      else
         bad("unknown option '%s'; --help lists them", word)
      end
      i = i + 1
   end
   return opt, bad
end

local function parse_scale(text)
   local a, b = text:match "^([%d.]+)/([%d.]+)$"
   local x = a and tonumber(a) / tonumber(b) or tonumber(text)
   return x and x > 0 and x < math.huge and x or nil
end

-- As it stands before a port: IPv6 in brackets. Nil with a port or without a name.
local function host(text)
   local _, colons = text:gsub(":", "")
   if text:match "^%[[^%]]+%]$" or text ~= "" and colons == 0 then return text end
   return colons > 1 and not text:find "[%[%]]" and "[" .. text .. "]" or nil
end

local function list_models()
   local names, rows = {}, {}
   for name in pairs(models) do names[#names + 1] = name end
   table.sort(names)
   for i, name in ipairs(names) do
      rows[i] = { name, util.commas(models[name][1]) .. " B/token", models[name][2] }
   end
   print(util.table(nil, rows, "lrl"))
   os.exit(0)
end

-- The options that the arguments give; a wrong one ends the program with status 2.
function options.read(args)
   local opt, bad = parse(args)
   if opt.model == "help" then list_models() end
   if not models[opt.model] then
      bad("no model '%s'; --model help lists them", opt.model)
   end
   if not opt.path then bad "which trace? --help says more" end
   if opt.speed == "max" then opt.speed = 0 end
   local speed = tonumber(opt.speed)
   if not speed or speed < 0 then bad("--speed: '%s' is no factor", opt.speed) end
   opt.speed = speed
   if opt.scale then
      opt.scale = parse_scale(opt.scale) or bad("--scale: '%s' is no factor", opt.scale)
   end
   if opt.pool then
      opt.pool = util.parse_bytes(opt.pool) or bad("--pool: '%s' is no size", opt.pool)
   end
   opt.listen = host(opt.listen) or bad("--listen: '%s' is no host", opt.listen)
   opt.window = opt.window or (opt.speed == 0 and 4 or 256) * opt.decode
   return opt, bad
end

-- ---- sizes --------------------------------------------------------------

-- What the trace holds, up to the limit; nil for a trace that can be read only once. One
-- that cannot be read ends the program.
function options.scan(reader, opt, bad)
   if opt.path == "-" then return nil end
   local s = { requests = 0, blocks = 0, max_blocks = 0 }
   while s.requests ~= opt.limit do
      local req, why = reader:next()
      if why then bad("%s", why) end
      if not req then break end
      s.requests, s.blocks = s.requests + 1, s.blocks + req.n_blocks
      s.max_blocks = math.max(s.max_blocks, req.n_blocks)
      s.block_tokens = req.block_tokens
   end
   if s.requests == 0 then bad("no requests in %s", opt.path) end
   local ok, why = reader:rewind()
   if not ok then bad("%s", why) end
   return s
end

local function available_memory()
   local f = io.open "/proc/meminfo"
   local kib = f and f:read "*a":match "MemAvailable:%s*(%d+)"
   if f then f:close() end
   return kib and tonumber(kib) * 1024 or 2 ^ 30
end

-- Bytes of a block: of the model, scaled. Left to us, the blocks of all requests are
-- about 4 GiB, and a pool holds four of the longest requests.
function options.choose_sizes(opt, found, bad)
   local nodes = opt.prefill + opt.decode
   opt.pool = opt.pool or math.min(2 ^ 28, math.floor(available_memory() / 4 / nodes))
   local tokens = found and found.block_tokens or 512
   local full = models[opt.model][1] * tokens
   if opt.scale then
      opt.block = math.ceil(full * opt.scale / 64) * 64
   else
      local aim = math.min(2 ^ 32 / math.max(1, found and found.blocks or 2 ^ 18),
         opt.pool / 4 / math.max(1, found and found.max_blocks or 256), full)
      opt.block = math.max(64, 2 ^ math.floor(math.log(aim) / math.log(2)))
   end
   opt.scale, opt.full = opt.block / full, full
   if opt.pool < opt.block then
      bad("a pool of %s cannot hold a block of %s: give a larger --pool or a smaller "
         .. "--scale", util.bytes(opt.pool), util.bytes(opt.block))
   end
end

return options
