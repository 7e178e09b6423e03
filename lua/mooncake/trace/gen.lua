-- gen.lua - `mooncake trace gen`: makes traces, and shows what is measured of one to make
-- others like it.

local like = require "mooncake.tracegen_like"
local trace = require "mooncake.trace"
local tracegen = require "mooncake.tracegen"
local util = require "mooncake.util"

-- A word that cannot be meant is wrong use; a file that cannot be read is not.
local function check(ok, why, errno)
   return ok or error({ user = why, status = errno and 1 or 2 }, 0)
end

local function write(file, requests)
   for req in requests do util.check(file:write(tracegen.line(req), "\n")) end
   util.check(file:flush())
end

local function run(opt)
   if opt.measure then
      io.write(like.text(check(like.measure(check(trace.open(opt.measure))))))
      return 0
   end
   local words = {}
   for _, def in ipairs(tracegen.parameters) do words[def[1]] = opt[def[1]] end
   local requests = check(tracegen.requests(words))
   if not opt.out then
      -- The command's own io.write() knows what to do when the reader has gone.
      write({ write = function(_, ...) return io.write(...) end,
              flush = function() return io.stdout:flush() end }, requests)
      return 0
   end
   local file = util.check(io.open(opt.out, "w"))
   write(file, requests)
   file:close()
   return 0
end

local options = {
   out = { nil, "write there, not to standard output", "FILE", short = "o" },
   measure = { nil, "only print what --like would measure of it", "TRACE" },
}

for _, def in ipairs(tracegen.parameters) do
   local name, default, _, word, doc = unpack(def, 1, 5)
   if default then doc = ("%s (%s)"):format(doc, default) end
   options[name] = { nil, doc, word }
end

return {
   usage = "trace gen [OPTIONS]",
   summary = "make a trace from parameters, or like another one",
   help = [[
Writes a trace in the Mooncake format. The same options give the same trace.

LENGTH is MEAN (always that), MEAN:CV (log-normal with that coefficient of variation),
MEAN:exp (exponential) or MEAN:uniform (from 0 to twice the mean). Requests come as a
Poisson process; with batch:SECONDS those of such a period come together at its end.

The first part of each prompt, --prefix-ratio of its tokens, is the beginning of one of
--prefixes shared prefixes, as far as it makes whole blocks. With --turns a request may be
the next turn of a session: all that was said so far, and a --message.

--like measures a trace (lengths, arrivals, sessions and what they share) and makes one
with the same statistics; only --requests, --seed and --think go with it.

Presets, which other options change:
]] .. tracegen.preset_names:gsub(", simulated", ",\nsimulated", 1) .. ".",
   options = options,
   run = run,
}
