-- repl.lua - `mooncake repl`: Lua, line by line, here or on a running node.

local ffi = require "ffi"
local C = require "mooncake.ffi"
local environment = require "mooncake.environment"
local eval = require "mooncake.eval"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

-- As src/base/line.h says; the library has no terminal of its own.
if not pcall(function() return C.mc_line_read end) then
   ffi.cdef [[
const char *mc_line_read(const char *prompt);
bool mc_line_interrupted(void);
int mc_line_words(const char *words);
int mc_line_history(const char *path);
void mc_line_remember(const char *line);
]]
end

local PROMPT, MORE = "mooncake> ", "      ..> "

-- ---- input -----------------------------------------------------------------

local function history_path()
   local named = os.getenv "MOONCAKE_HISTORY"
   if named then return named ~= "" and named or nil end
   local home = os.getenv "HOME"
   return home and home .. "/.mooncake_history"
end

local terminal = {}

function terminal.open()
   local path = history_path()
   if path and C.mc_line_history(path) < 0 then
      io.stderr:write("mooncake repl: ", ffi.string(C.mc_errmsg()), "\n")
   end
   -- At the prompt and while something runs it has its meaning; between, none.
   proc.ignore_sigint()
   return terminal
end

function terminal.read(more, words)
   C.mc_line_words(table.concat(words(), "\n"))
   local line = C.mc_line_read(more and MORE or PROMPT)
   return line ~= nil and ffi.string(line) or nil, C.mc_line_interrupted()
end

function terminal.remember(text) C.mc_line_remember((text:gsub("\n", " "))) end

-- Lines from a file or pipe: no prompt, no history.
local plain = { remember = function() end }
function plain.read() return io.read "*l" end

-- A whole chunk, however many lines it takes; nil at the end. An empty line ends one
-- that is wrong but could go on; Ctrl-C drops it.
local function read_chunk(input, words)
   local text, dropped = input.read(false, words)
   if not text then return dropped and "" or nil end
   while true do
      local _, _, more = eval.compile(text)
      if not more then return text end
      local line
      line, dropped = input.read(true, words)
      if not line then return dropped and "" or text end
      text = text .. "\n" .. line
      if line == "" then return text end
   end
end

-- ---- where it is evaluated -------------------------------------------------

-- In a terminal, Ctrl-C ends a text; a script ends as a whole.
local function here(tty)
   local session = eval.session()
   session.limit = tty and 0 or nil
   return {
      run = function(text) return session:run(text, print) end,
      words = function() return session:words() end,
   }
end

local function there(name, opt, tty)
   local mooncake = require "mooncake"
   local e = util.check(mooncake.open {
      listen = "none", registry = opt.join, key_file = opt.key,
   })
   local s = util.check(e:segment(name, opt.timeout * 1000))
   local words = util.check(s:eval("return __words()", opt.timeout * 1000))
   local list = {}
   for word in words:gmatch "[^\n]+" do list[#list + 1] = word end
   return {
      run = function(text)
         local function ask() return s:eval(text, opt.timeout * 1000) end
         local ok, reply, why = eval.resume(coroutine.create(ask), ask, tty and 0 or nil)
         if not ok then return false, reply end
         if not reply then return false, why end
         return true, reply ~= "" and reply or nil
      end,
      words = function() return list end,
      close = function() e:close() end,
   }
end

-- "= x" prints x, as in plain Lua.
local function expanded(text) return (text:gsub("^%s*=", "return ", 1)) end

local function loop(place, input, tty)
   local failures = 0
   while true do
      local text = read_chunk(input, place.words)
      if not text or text == "exit" or text == "quit" then break end
      if text:find "%S" then
         input.remember(text)
         local ok, result = place.run(expanded(text))
         if ok and result then print(result) end
         if not ok then
            failures = failures + 1
            io.stdout:flush()
            io.stderr:write(tostring(result), "\n")
         end
      end
   end
   return not tty and failures > 0 and 1 or 0
end

local function run(opt)
   local tty = util.is_tty(io.stdin)
   if opt.join and not opt.node then
      error({ user = "--join is for the name of a --node", status = 2 }, 0)
   end
   local place = opt.node and there(opt.node, opt, tty) or here(tty)
   if tty then
      print(("mooncake %s%s; `help` says what there is, Ctrl-D ends"):format(
         require("mooncake").version(), opt.node and " on " .. opt.node or ""))
   end
   local status = loop(place, tty and terminal.open() or plain, tty)
   if tty then print "" end
   if place.close then place.close() end
   return status
end

return {
   usage = "repl [OPTIONS]",
   summary = "Lua, line by line, here or on a running node",
   help = [[
Evaluates what you type, with the library as `mooncake`; an expression prints its
value. Tab completes; lines are kept in ~/.mooncake_history (or $MOONCAKE_HISTORY; an
empty one: nowhere). Without a terminal it reads chunks from standard input and prints
results only; the exit status is then 1 if any failed.

   peers() rails() buffers() counters()   what the engines of the process do
   probe("host:port")                     measure the round trip to a peer
   trace(true)                            show what each line moves, and debug logs

Ctrl-C drops the line that is being typed, and ends what runs; a second one while it has
not ended is the end of the program. So that it can be ended, what you type is not
compiled, unlike the files and modules it calls.

With --node everything happens in that node, which must have been started with
`mooncake serve --allow-repl` and with the same cluster key. With --join it may also be
named as in that registry.]] .. environment,
   options = {
      node = { nil, "evaluate on a running node", "HOST:PORT" },
      join = { nil, "the registry that knows the node's name", "URL" },
      key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
      timeout = { 10, "seconds to wait for an answer of the node", "SECONDS" },
   },
   run = run,
}
