-- strict.lua - a global that was never set is an error, not a nil; and only scripts,
-- in their own environment, may make new ones.

local strict = {}

local function refuse_read(_, name)
   error(("no global '%s'"):format(tostring(name)), 2)
end

local function refuse_write(_, name)
   error(("global '%s' set by library code: use a local"):format(tostring(name)), 2)
end

-- Make the globals of this Lua state strict.
function strict.on()
   setmetatable(_G, { __index = refuse_read, __newindex = refuse_write })
end

-- An environment for a script: it may make globals of its own, sees those of Lua, and
-- what is in extra; a name that no one set reads as nil, as scripts expect.
function strict.env(extra)
   local env = {}
   for k, v in pairs(extra or {}) do env[k] = v end
   env._G = env
   return setmetatable(env, { __index = function(_, k) return rawget(_G, k) end })
end

return strict
