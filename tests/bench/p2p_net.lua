-- p2p_net.lua - hosts made of network namespaces, each with one link of a given rate to a
-- bridge, for p2p.lua. The rate holds in both directions, by tbf at both ends of a link.
-- As root; by nsenter, as `ip netns exec` fails where / is no mount point.

local proc = require "mooncake.proc"

local Net = {}
Net.__index = Net

local net = {}

local RUN = "/var/run/netns/"

local function sh(fmt, ...)
   local text = fmt:format(...)
   local _, status, err = proc.run { "sh", "-c", text .. " 2>&1", stderr = "pipe" }
   if status ~= 0 then return nil, text .. ": " .. (err or "failed") end
   return true
end

local function all(lines)
   for _, line in ipairs(lines) do
      local ok, why = sh("%s", line)
      if not ok then return nil, why end
   end
   return true
end

-- nil, and why not, where there can be none.
function net.missing()
   for _, need in ipairs { "test $(id -u) = 0", "command -v ip", "command -v tc",
                           "command -v nsenter" } do
      if not sh("%s", need) then
         return "this needs root, iproute2 and nsenter: " .. need
      end
   end
end

local function shape(ns, dev, mbit)
   return ("nsenter --net=%s%s tc qdisc add dev %s root tbf rate %dmbit burst 128kb " ..
           "latency 40ms"):format(RUN, ns, dev, mbit)
end

local function host(self, i)
   local ns, hub, near, far = self:ns(i), self:ns "h", "mcn" .. i, "mch" .. i
   return all {
      "ip netns add " .. ns,
      ("ip link add %s netns %s type veth peer name %s netns %s"):format(near, ns, far,
                                                                          hub),
      ("nsenter --net=%s%s ip link set %s master br0 up"):format(RUN, hub, far),
      ("nsenter --net=%s%s ip addr add %s/24 dev %s"):format(RUN, ns, self:addr(i), near),
      ("nsenter --net=%s%s ip link set %s up"):format(RUN, ns, near),
      ("nsenter --net=%s%s ip link set lo up"):format(RUN, ns),
      shape(ns, near, self.mbit[i] or self.rate),
      shape(hub, far, self.mbit[i] or self.rate),
   }
end

-- n hosts, 1 to n, with links of rate Mbit/s, or of rates[i]; and one without a limit,
-- "h".
function net.open(n, rate, rates)
   local self = setmetatable({ n = n, rate = rate, mbit = rates or {},
                               id = "mcp" .. proc.pid() }, Net)
   local ok, why = all {
      "ip netns add " .. self:ns "h",
      ("nsenter --net=%s%s ip link add br0 type bridge"):format(RUN, self:ns "h"),
      ("nsenter --net=%s%s ip addr add %s/24 dev br0"):format(RUN, self:ns "h",
                                                              self:addr "h"),
      ("nsenter --net=%s%s ip link set br0 up"):format(RUN, self:ns "h"),
      ("nsenter --net=%s%s ip link set lo up"):format(RUN, self:ns "h"),
   }
   for i = 1, n do
      if ok then ok, why = host(self, i) end
   end
   if ok then return self end
   self:close()
   return nil, why
end

function Net:ns(i) return self.id .. "-" .. i end

function Net:addr(i) return "10.99.0." .. (i == "h" and 1 or 10 + i) end

-- The words of a command, in host i.
function Net:within(i, words)
   local argv = { "nsenter", "--net=" .. RUN .. self:ns(i) }
   for k, v in pairs(words) do
      if type(k) ~= "number" then argv[k] = v end
   end
   for _, w in ipairs(words) do argv[#argv + 1] = w end
   return argv
end

function Net:close()
   for i = 1, self.n do sh("ip netns del %s", self:ns(i)) end
   sh("ip netns del %s", self:ns "h")
end

return net
