-- eval.lua - evaluates what is typed: an environment with the library and its helpers,
-- expressions first, results as text. Used by the REPL here, and by a node for the REPL
-- of someone else.

local engines = require "mooncake.engines"
local strict = require "mooncake.strict"
local util = require "mooncake.util"

local eval = {}

local Session = {}
Session.__index = Session

-- ---- values as text --------------------------------------------------------

local function key_text(k)
   if type(k) == "string" and k:match "^[%a_][%w_]*$" then return k end
   return "[" .. (type(k) == "string" and ("%q"):format(k) or tostring(k)) .. "]"
end

local function order(a, b)
   if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then
      return a < b
   end
   return type(a) < type(b)
end

local show

local function show_table(t, depth, seen)
   if seen[t] then return "{ ... }" end
   seen[t] = true
   local parts, keys, n = {}, {}, #t
   for i = 1, n do parts[i] = show(t[i], depth + 1, seen) end
   for k in pairs(t) do
      if type(k) ~= "number" or k < 1 or k > n or k % 1 ~= 0 then keys[#keys + 1] = k end
   end
   table.sort(keys, order)
   for _, k in ipairs(keys) do
      parts[#parts + 1] = key_text(k) .. " = " .. show(t[k], depth + 1, seen)
   end
   seen[t] = nil
   if #parts == 0 then return "{}" end
   local line = "{ " .. table.concat(parts, ", ") .. " }"
   if #line + depth * 2 <= 88 and not line:find "\n" then return line end
   local pad = ("  "):rep(depth + 1)
   return "{\n" .. pad .. table.concat(parts, ",\n" .. pad) .. "\n" ..
          ("  "):rep(depth) .. "}"
end

function show(v, depth, seen)
   if type(v) == "string" then return depth == 0 and v or ("%q"):format(v) end
   -- Addresses have more digits than tostring() gives.
   if type(v) == "number" and v % 1 == 0 and math.abs(v) < 2 ^ 53 then
      return ("%.0f"):format(v)
   end
   if type(v) ~= "table" or getmetatable(v) and getmetatable(v).__tostring then
      return tostring(v)
   end
   if getmetatable(v) and depth > 0 or depth > 4 then return tostring(v) end
   return show_table(v, depth, seen)
end

-- A value as a person reads it: strings bare, tables by content.
function eval.show(v) return show(v, 0, {}) end

-- ---- sessions --------------------------------------------------------------

local HELP = [[
Lua, with the library as `mooncake`. An expression prints its value.
  peers()     the engines whose memory is open here    rails()      the rails to them
  buffers()   registered memory, by engine             counters()   since the start
  probe(peer) measure the round trip to "host:port"    engines()    those of this process
  trace(true) after each line: what the counters moved by, and how long it took]]

local function trace(self, on)
   self.tracing = on ~= false
   util.setenv("MC_LOG", self.tracing and "debug" or nil)
   return self.tracing and "tracing" or "not tracing"
end

-- A session: session.env is its globals; extra are more of them.
function eval.session(extra)
   local self = setmetatable({ tracing = false }, Session)
   self.env = strict.env {
      mooncake = require "mooncake", peers = engines.peers, rails = engines.rails,
      buffers = engines.buffers, segments = engines.segments, counters = engines.counters,
      probe = engines.probe, engines = engines.list, help = HELP,
      trace = function(on) return trace(self, on) end,
   }
   for k, v in pairs(extra or {}) do self.env[k] = v end
   return self
end

-- The chunk of a text: an expression if it is one; nil and why not, and true if it only
-- lacks its end.
function eval.compile(text)
   local chunk = loadstring("return " .. text, "=input")
   if chunk then return chunk end
   local why
   chunk, why = loadstring(text, "=input")
   if chunk then return chunk end
   return nil, why, why:find("near '<eof>'", 1, true) ~= nil
end

local function traceback(co, e)
   if type(e) == "table" and e.user then return tostring(e.user) end
   if type(e) ~= "string" then e = eval.show(e) end
   -- LuaJIT's own name for a function of Lua's library says nothing.
   return (debug.traceback(co, e):gsub("%[builtin#%d+%]: at 0x%x+", "[C]: in Lua itself"))
end

local function pack(...) return { n = select("#", ...), ... } end

local function results(list)
   if list.n == 0 then return nil end
   local parts = {}
   for i = 1, list.n do parts[i] = eval.show(list[i]) end
   return table.concat(parts, "  ")
end

-- In the command; a library in plain luajit has nothing that ends a text.
local bounded = package.loaded["mooncake.bounded"]

-- coroutine.resume(co) of a chunk, with a limit as of a session. Compiled code does not
-- see that it should end: where there is a time, nothing is compiled meanwhile; else
-- what was typed is not, and what it calls is.
function eval.resume(co, chunk, limit)
   if not limit or not bounded then return coroutine.resume(co) end
   jit.off(chunk, true)
   if limit == 0 then return bounded.resume(co, 0) end
   local compiling = jit.status()
   jit.off()
   jit.flush()
   local list = pack(bounded.resume(co, limit))
   if compiling then jit.on() end
   return unpack(list, 1, list.n)
end

-- Run a text. True and what it returned as text (nil: nothing), or false and the error
-- with its traceback; print() inside goes to out(line). It ends after self.limit seconds
-- or by a signal; a limit of 0 is Ctrl-C alone, nil none.
function Session:run(text, out)
   local chunk, why = eval.compile(text)
   if not chunk then return false, why end
   self.env.print = function(...)
      local parts = {}
      for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
      out(table.concat(parts, "\t"))
   end
   setfenv(chunk, self.env)
   local before, start = self.tracing and engines.totals(), require("mooncake").now()
   -- On a stack of its own: a traceback then shows what was typed and no more.
   local co = coroutine.create(chunk)
   local list = pack(eval.resume(co, chunk, self.limit))
   if before and self.tracing then
      out(("-- %.3f ms  %s"):format((require("mooncake").now() - start) * 1000,
                                    engines.changes(before)))
   end
   if not list[1] then return false, traceback(co, list[2]) end
   return true, results(pack(unpack(list, 2, list.n)))
end

-- ---- completion ------------------------------------------------------------

local function members(list, prefix, t, sep)
   for k, v in pairs(t) do
      if type(k) == "string" and k:match "^%a[%w_]*$" then
         list[#list + 1] = prefix .. sep .. k .. (type(v) == "function" and "(" or "")
      end
   end
end

local KEYWORDS = { "break", "else", "elseif", "end", "false", "for", "function", "if",
                   "in", "local", "nil", "not", "repeat", "return", "then", "true",
                   "until", "while", "and", "or", "do" }

-- All words one could mean, sorted: globals, what is in global tables, and methods.
function Session:words()
   local list = { unpack(KEYWORDS) }
   for _, scope in ipairs { self.env, _G } do
      for k, v in pairs(scope) do
         if type(k) == "string" and k ~= "_G" then
            list[#list + 1] = k
            local class = type(v) == "table" and getmetatable(v)
            if type(v) == "table" then members(list, k, v, ".") end
            if class and type(rawget(class, "__index")) == "table" then
               members(list, k, class.__index, ":")
            end
         end
      end
   end
   table.sort(list)
   return list
end

return eval
