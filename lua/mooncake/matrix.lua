-- matrix.lua - which network devices memory at a location uses first: a table
-- { ["cpu:0"] = { { "mlx5_0" }, { "mlx5_1" } } } of first choices and the others.

local json = require "mooncake.json"
local util = require "mooncake.util"
local whole = require "mooncake.whole"

local matrix = {}

-- What ask(out, size) writes; see mc_topology_matrix().
function matrix.read(ask)
   local text, why, errno = whole(ask)
   if not text then return nil, why, errno end
   return json.decode(text)
end

-- For the option `topology`: text is JSON or the name of a file.
function matrix.text(m)
   if type(m) ~= "table" then return m end
   local out = {}
   for location, lists in pairs(m) do
      if type(lists) ~= "table" then return json.encode(m) end
      out[location] = json.array {}
      for i, list in ipairs(lists) do
         out[location][i] = type(list) == "table" and json.array(list) or list
      end
   end
   return json.encode(out)
end

-- cpu:2 before cpu:10.
local function before(a, b)
   local function digits(s) return ("%04d"):format(s) end
   return a:gsub("%d+", digits) < b:gsub("%d+", digits)
end

-- For people, by location.
function matrix.lines(m)
   local names, rows = {}, {}
   for location in pairs(m) do names[#names + 1] = location end
   table.sort(names, before)
   for i, location in ipairs(names) do
      local first, others = unpack(m[location])
      rows[i] = { location, #first > 0 and table.concat(first, " ") or "none",
                  table.concat(others, " ") }
   end
   return util.table({ "memory at", "first", "then" }, rows)
end

return matrix
