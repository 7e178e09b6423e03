-- json.lua - JSON for `--json` output and small files: keys in a stable order, whole
-- numbers without a fraction up to 2^53, 64-bit cdata exactly. Not for big traces.

local ffi = require "ffi"

local json = {}

-- What null reads as, and writes as: nil would leave no trace in a table.
json.null = setmetatable({}, { __tostring = function() return "null" end })

local array_mark = {}

-- Mark a table as an array, so that it is [] and not {} while empty.
function json.array(t)
   return setmetatable(t or {}, array_mark)
end

-- ---- encode ----------------------------------------------------------------

local ESCAPE = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f",
                 ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(c)
   return ESCAPE[c] or ("\\u%04x"):format(c:byte())
end

local function quote(s)
   return '"' .. s:gsub('[%z\1-\31"\\\127]', escape) .. '"'
end

local function number(n)
   if n ~= n or n == math.huge or n == -math.huge then return "null" end
   if n % 1 == 0 and math.abs(n) <= 2 ^ 53 then return ("%.0f"):format(n) end
   for digits = 15, 17 do
      local s = ("%." .. digits .. "g"):format(n)
      if tonumber(s) == n then return s end
   end
end

local function integer(v)
   if ffi.istype("int64_t", v) or ffi.istype("uint64_t", v) then
      return (tostring(v):gsub("U?LL$", ""))
   end
   local n = tonumber(v)
   return n and number(n) or error("json: cannot encode " .. tostring(v), 0)
end

local function is_array(t)
   if getmetatable(t) == array_mark then return true end
   local n = #t
   if n == 0 then return false end
   for k in pairs(t) do
      if type(k) ~= "number" or k < 1 or k > n or k % 1 ~= 0 then return false end
   end
   return true
end

local function by_text(a, b)
   return tostring(a) < tostring(b)
end

local encode

local function encode_array(t, out, pad)
   local inner = pad and pad .. "  "
   out[#out + 1] = "["
   for i = 1, #t do
      if i > 1 then out[#out + 1] = "," end
      if inner then out[#out + 1] = "\n" .. inner end
      encode(t[i], out, inner)
   end
   if inner and #t > 0 then out[#out + 1] = "\n" .. pad end
   out[#out + 1] = "]"
end

local function encode_object(t, out, pad)
   local keys, inner = {}, pad and pad .. "  "
   for k in pairs(t) do keys[#keys + 1] = k end
   table.sort(keys, by_text)
   out[#out + 1] = "{"
   for i, k in ipairs(keys) do
      if i > 1 then out[#out + 1] = "," end
      if inner then out[#out + 1] = "\n" .. inner end
      out[#out + 1] = quote(tostring(k)) .. (inner and ": " or ":")
      encode(t[k], out, inner)
   end
   if inner and #keys > 0 then out[#out + 1] = "\n" .. pad end
   out[#out + 1] = "}"
end

function encode(v, out, pad)
   local kind = type(v)
   if v == nil or v == json.null then
      out[#out + 1] = "null"
   elseif kind == "table" then
      (is_array(v) and encode_array or encode_object)(v, out, pad)
   elseif kind == "string" then
      out[#out + 1] = quote(v)
   elseif kind == "number" then
      out[#out + 1] = number(v)
   elseif kind == "boolean" then
      out[#out + 1] = tostring(v)
   elseif kind == "cdata" then
      out[#out + 1] = integer(v)
   else
      error("json: cannot encode a " .. kind, 0)
   end
end

-- The text of a value, on one line; with pretty, indented.
function json.encode(v, pretty)
   local out = {}
   encode(v, out, pretty and "" or nil)
   return table.concat(out)
end

-- ---- decode ----------------------------------------------------------------

local DEPTH = 200
local UNESCAPE = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
                   ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }
local WORDS = { ["true"] = true, ["false"] = false, ["null"] = json.null }

local function fail(s, at, what)
   local _, line = s:sub(1, at - 1):gsub("\n", "")
   error({ json = ("json: line %d, byte %d: %s"):format(line + 1, at, what) }, 0)
end

local function utf8(n)
   local char, floor = string.char, math.floor
   if n < 0x80 then return char(n) end
   local tail = char(0x80 + n % 64)
   n = floor(n / 64)
   if n < 0x20 then return char(0xc0 + n) .. tail end
   tail = char(0x80 + n % 64) .. tail
   n = floor(n / 64)
   if n < 0x10 then return char(0xe0 + n) .. tail end
   return char(0xf0 + floor(n / 64), 0x80 + n % 64) .. tail
end

local function unicode(s, at)
   local hex = s:match("^%x%x%x%x", at) or fail(s, at, "\\u needs four hex digits")
   local n, low = tonumber(hex, 16), s:match("^\\u([dD][c-fC-F]%x%x)", at + 4)
   if n >= 0xd800 and n < 0xdc00 and low then
      n = 0x10000 + (n - 0xd800) * 1024 + tonumber(low, 16) - 0xdc00
      return utf8(n), at + 10
   end
   return utf8(n), at + 4
end

local function string_at(s, at)
   local out, from = {}, at + 1
   while true do
      local stop = s:find('["\\%c]', from) or fail(s, at, "string without end")
      out[#out + 1] = s:sub(from, stop - 1)
      local c = s:sub(stop, stop)
      if c == '"' then return table.concat(out), stop + 1 end
      if c ~= "\\" then fail(s, stop, "control character in a string") end
      c = s:sub(stop + 1, stop + 1)
      if c == "u" then
         out[#out + 1], from = unicode(s, stop + 2)
      else
         out[#out + 1] = UNESCAPE[c] or fail(s, stop, "unknown escape")
         from = stop + 2
      end
   end
end

local value_at

local function array_at(s, at, depth)
   local t, v = json.array {}, nil
   at = s:find("%S", at + 1) or fail(s, at, "array without end")
   if s:sub(at, at) == "]" then return t, at + 1 end
   while true do
      v, at = value_at(s, at, depth)
      t[#t + 1] = v
      at = s:find("%S", at) or fail(s, #s, "array without end")
      local c = s:sub(at, at)
      if c == "]" then return t, at + 1 end
      if c ~= "," then fail(s, at, "',' or ']' expected") end
      at = at + 1
   end
end

local function object_at(s, at, depth)
   local t, k = {}, nil
   at = s:find("%S", at + 1) or fail(s, at, "object without end")
   if s:sub(at, at) == "}" then return t, at + 1 end
   while true do
      at = s:match('^%s*()"', at) or fail(s, at, "a name in quotes expected")
      k, at = string_at(s, at)
      at = s:match("^%s*:()", at) or fail(s, at, "':' expected")
      t[k], at = value_at(s, at, depth)
      at = s:find("%S", at) or fail(s, #s, "object without end")
      local c = s:sub(at, at)
      if c == "}" then return t, at + 1 end
      if c ~= "," then fail(s, at, "',' or '}' expected") end
      at = at + 1
   end
end

local function number_at(s, at)
   local text = s:match("^-?%d+%.?%d*[eE]?[+-]?%d*", at)
   local n = text and not text:match "^-?0%d" and not text:match "%.$" and
             not text:match "%.[eE]" and tonumber(text)
   if not n then fail(s, at, "a value expected") end
   return n, at + #text
end

function value_at(s, at, depth)
   at = s:find("%S", at) or fail(s, #s, "a value expected")
   if depth > DEPTH then fail(s, at, "nested too deep") end
   local c = s:sub(at, at)
   if c == "{" then return object_at(s, at, depth + 1) end
   if c == "[" then return array_at(s, at, depth + 1) end
   if c == '"' then return string_at(s, at) end
   local word = s:match("^%a+", at)
   if word and WORDS[word] ~= nil then return WORDS[word], at + #word end
   return number_at(s, at)
end

local function decode(s)
   local v, at = value_at(s, 1, 0)
   at = s:find("%S", at)
   if at then fail(s, at, "more text after the value") end
   return v
end

-- The value of a text, or nil and what is wrong where.
function json.decode(s)
   local ok, v = pcall(decode, s)
   if ok then return v end
   if type(v) == "table" and v.json then return nil, v.json end
   error(v, 0)
end

return json
