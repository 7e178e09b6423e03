-- json_test.lua - JSON as commands print it and read it.

local ffi = require "ffi"
local json = require "mooncake.json"

local t = {}

function t.keys_have_an_order()
   test.eq(json.encode { b = 1, a = { d = true, c = "x" } },
           '{"a":{"c":"x","d":true},"b":1}')
end

function t.numbers_keep_their_value()
   for text, n in pairs { ["0"] = 0, ["-1"] = -1, ["0.1"] = 0.1, ["1500"] = 1.5e3,
                          ["9007199254740992"] = 2 ^ 53, ["1e+300"] = 1e300,
                          ["0.30000000000000004"] = 0.1 + 0.2 } do
      test.eq(json.encode(n), text)
      test.eq(json.decode(text), n)
   end
end

function t.what_is_no_number_is_null()
   test.eq(json.encode { 0 / 0, 1 / 0, -1 / 0, json.null }, "[null,null,null,null]")
end

function t.integers_of_64_bits_are_exact()
   test.eq(json.encode(18446744073709551615ULL), "18446744073709551615")
   test.eq(json.encode(-9223372036854775807LL), "-9223372036854775807")
   test.eq(json.encode(ffi.new("uint32_t[1]", 7)[0]), "7")
end

function t.an_array_may_be_empty()
   test.eq(json.encode { a = json.array {}, o = {} }, '{"a":[],"o":{}}')
   test.eq(json.encode(json.decode '{"a":[],"o":{}}'), '{"a":[],"o":{}}')
end

function t.strings_come_back()
   local s = "\0\1\n\t\"\\/\127 é € 😀"
   test.eq(json.decode(json.encode(s)), s)
   test.eq(json.encode "\n\1", '"\\n\\u0001"')
   test.eq(json.decode [["\u00e9\u20ac\ud83d\ude00\/"]], "é€😀/")
end

function t.pretty_is_the_same_value()
   local v = { list = { 1, 2, { x = json.null } }, s = "t" }
   test.eq(json.decode(json.encode(v, true)), json.decode(json.encode(v)))
   test.eq(json.encode({ a = { 1 } }, true), '{\n  "a": [\n    1\n  ]\n}')
end

function t.errors_say_where()
   local cases = {
      ["{"] = "object without end", ["[1,]"] = "a value expected", ["tru"] = "a value",
      ['"a'] = "string without end", ['{"a" 1}'] = "':' expected", ["01"] = "a value",
      ["[1] 2"] = "byte 5: more text", ["\n\n[1 2]"] = "line 3", ['"\\q"'] = "escape",
      ["{1:2}"] = "a name in quotes", ['"\\u12"'] = "four hex digits", [""] = "a value",
      ["1."] = "a value", ['"\1"'] = "control character",
   }
   for text, want in pairs(cases) do
      local v, why = json.decode(text)
      test.eq(v, nil, text)
      assert(why:find(want, 1, true), text .. ": " .. why)
   end
end

function t.depth_has_a_bound()
   assert(json.decode(("["):rep(150) .. ("]"):rep(150)))
   local _, why = json.decode(("["):rep(100000))
   assert(why:find "nested too deep")
end

function t.what_has_no_json_is_an_error()
   test.raises("cannot encode a function", json.encode, { print })
end

return t
