-- header_test.lua - the header's text and the program agree: every function that it
-- declares is there, and nothing in it is hard to use from Lua.

local ffi = require "ffi"
local C = require "mooncake.ffi"

local text = ffi.string(C.mc_header):gsub("/%*.-%*/", " ")

local function functions()
   local names = {}
   for name in text:gmatch "[%s*](mc_[%w_]+)%s*%(" do names[#names + 1] = name end
   return names
end

local t = {}

function t.every_function_resolves()
   local missing = {}
   for _, name in ipairs(functions()) do
      if not pcall(function() return C[name] end) then missing[#missing + 1] = name end
   end
   test.eq(missing, {})
   assert(#functions() > 50, "the pattern no longer finds the functions")
end

function t.no_field_is_a_keyword_of_lua()
   local keywords = "and break do else elseif end false for function goto if in local " ..
                    "nil not or repeat return then true until while"
   local found = {}
   for body in text:gmatch "struct%s+mc_[%w_]+%s*(%b{})" do
      for name in body:gmatch "([%a_][%w_]*)%s*[%[;,]" do
         if (" " .. keywords .. " "):find(" " .. name .. " ", 1, true) then
            found[#found + 1] = name
         end
      end
   end
   test.eq(found, {})
end

function t.no_function_takes_a_function()
   test.eq(text:match "%(%s*%*[%w_]*%s*%)%s*%(", nil)
end

return t
