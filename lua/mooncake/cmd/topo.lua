-- topo.lua - `mooncake topo`: the devices of a machine, how far they are from each
-- other, and which network devices memory of each GPU and NUMA node uses first.

local ffi = require "ffi"
local environment = require "mooncake.environment"
local json = require "mooncake.json"
local matrix = require "mooncake.matrix"
local mooncake = require "mooncake"
local util = require "mooncake.util"

ffi.cdef [[
char *mcl_realpath(const char *path, char *resolved) __asm__("realpath");
]]

local WORD = { [0] = "dev", "switch", "root", "node", "far" }
local LONG = {
   [0] = "same device, or ports of one card",
   "same PCI switch or bridge",
   "same PCI root complex",
   "same NUMA node",
   "another NUMA node, or not known",
}

-- ---- reading ---------------------------------------------------------------

-- What is not known is absent.
local function known(d)
   if d.pci == "" then d.pci = nil end
   if d.addr == "" then d.addr = nil end
   if d.numa < 0 then d.numa = nil end
   if d.bw == 0 then d.bw = nil end
   if d.up < 0 then d.up = nil else d.up = d.up == 1 end
   return d
end

local function read(root)
   local list = util.check(mooncake.topology(root ~= "" and root or nil))
   local topo = { root = root ~= "" and root or "/", distance = json.array(list.distance),
                  devices = json.array {}, matrix = list.matrix }
   for i, d in ipairs(list) do topo.devices[i] = known(d) end
   return topo
end

local function sys_line(topo, ...)
   local f = io.open(topo.root .. "/sys/" .. table.concat({ ... }, "/"))
   local line = f and f:read "*l"
   if f then f:close() end
   -- A file that tar took from /sys is filled up with zeros.
   return line and line:match "^%s*(.-)%s*%z*$"
end

-- ---- the drawing -----------------------------------------------------------

-- The PCI path to a device: { "pci0000:17", "0000:17:01.0", ..., its function }.
local function chain(topo, d)
   local buf = ffi.new "char[4096]"
   local link = topo.root .. "/sys/bus/pci/devices/" .. d.pci
   local parts = {}
   if ffi.C.mcl_realpath(link, buf) ~= nil then
      for part in ffi.string(buf):gmatch "[^/]+" do
         if part:match "^pci%x+:%x%x$" or part:match "^%x+:%x%x:%x%x%.%x$" then
            parts[#parts + 1] = part
         end
      end
   end
   return #parts > 0 and parts or { d.pci }
end

local function branch(parent, key, text)
   parent.by_key = parent.by_key or {}
   local b = parent.by_key[key]
   if not b then
      b = { text = text or key, key = key }
      parent.by_key[key] = b
      parent[#parent + 1] = b
   end
   return b
end

local function by_address(a, b)
   if a.key ~= b.key then return a.key < b.key end
   return (a.device and a.device.name or "") < (b.device and b.device.name or "")
end

-- A bridge with one device behind it says nothing: show the device in its place.
local function collapse(b)
   local items, slots, count = {}, {}, 0
   for _, child in ipairs(b) do
      for _, item in ipairs(child.device and { child } or collapse(child)) do
         items[#items + 1] = item
         local slot = item.key:gsub("%.%x$", "")
         if not slots[slot] then
            slots[slot] = true
            count = count + 1
         end
      end
   end
   if count <= 1 and not b.keep then return items end
   table.sort(items, by_address)
   for i = 1, math.max(#b, #items) do b[i] = items[i] end
   return { b }
end

local function rate(d)
   if not d.bw then return "" end
   if d.kind == "net" or d.kind == "rdma" then
      return ("%g Gb/s"):format(d.bw * 8 / 1e9)
   end
   return ("%.1f GB/s"):format(d.bw / 1e9)
end

local VENDOR = { ["0x10de"] = "NVIDIA", ["0x1002"] = "AMD" }

local function detail(topo, d)
   if d.kind == "net" then return d.addr end
   if d.kind == "rdma" then
      return sys_line(topo, "class/infiniband", d.name, "ports/1/link_layer")
   end
   if d.kind == "nvme" then return sys_line(topo, "class/nvme", d.name, "model") end
   local vendor = sys_line(topo, "bus/pci/devices", d.pci, "vendor")
   return VENDOR[vendor] or vendor
end

local function state(d)
   if d.up == nil then return "" end
   return d.up and "up" or "down"
end

local function numa_text(topo, node)
   local dir = "devices/system/node/node" .. node
   local cpus = sys_line(topo, dir, "cpulist")
   local kb = sys_line(topo, dir, "meminfo")
   kb = kb and tonumber(kb:match "MemTotal:%s*(%d+)")
   local more = {}
   if cpus and cpus ~= "" then more[#more + 1] = "CPUs " .. cpus end
   if kb then more[#more + 1] = ("%.1f GiB"):format(kb / 2 ^ 20) end
   local text = "NUMA node " .. node .. "  cpu:" .. node
   return #more > 0 and text .. "  (" .. table.concat(more, ", ") .. ")" or text
end

local function bridge_text(part, depth)
   if part:match "^pci" then return "root " .. part end
   return (depth > 2 and "switch " or "bridge ") .. part
end

local function place(topo, tree, d)
   local b = d.numa and branch(tree, d.numa, numa_text(topo, d.numa)) or
             branch(tree, "none", d.pci and "NUMA node not known" or "")
   b.keep = true
   local key = d.name
   if d.pci then
      local parts = chain(topo, d)
      for i = 1, #parts - 1 do
         b = branch(b, parts[i], bridge_text(parts[i], i))
         b.keep = i == 1
      end
      key = parts[#parts]
   end
   b[#b + 1] = { device = d, key = key }
end

-- NUMA nodes first, even those without devices; software devices have no place.
local function tree_of(topo)
   local tree, placeless = {}, {}
   for _, d in ipairs(topo.devices) do
      if d.kind == "cpu" then
         branch(tree, d.numa, numa_text(topo, d.numa)).keep = true
      elseif d.pci or d.numa then
         place(topo, tree, d)
      else
         placeless[#placeless + 1] = d
      end
   end
   for _, node in ipairs(tree) do collapse(node) end
   if #placeless > 0 then
      local b = branch(tree, "software", "without hardware")
      for _, d in ipairs(placeless) do b[#b + 1] = { device = d, key = d.name } end
   end
   return tree
end

local function widths(topo)
   local w = { name = 0, pci = 0, rate = 0 }
   for _, d in ipairs(topo.devices) do
      w.name = math.max(w.name, #d.name)
      w.pci = math.max(w.pci, #(d.pci or ""))
      w.rate = math.max(w.rate, #rate(d))
   end
   return w
end

local function leaf_text(topo, d, w)
   local columns = "%%-%ds  %%-4s  %%-%ds  %%%ds  %%-4s  %%s"
   local text = columns:format(w.name, w.pci, w.rate)
                       :format(d.name, d.kind, d.pci or "", rate(d), state(d),
                               detail(topo, d) or "")
   return (text:gsub("%s+$", ""))
end

local function draw(topo, b, w, indent, out)
   for i, item in ipairs(b) do
      local last = i == #b
      local text = item.device and leaf_text(topo, item.device, w) or item.text
      out[#out + 1] = indent .. (last and "└─ " or "├─ ") .. text
      draw(topo, item, w, indent .. (last and "   " or "│  "), out)
   end
end

-- ---- distances -------------------------------------------------------------

local function shown(topo, all)
   local list, hidden = {}, 0
   for i, d in ipairs(topo.devices) do
      if all or d.pci or d.numa then list[#list + 1] = i else hidden = hidden + 1 end
   end
   return list, hidden
end

local function distances(topo, list, out)
   local width = 6
   for _, i in ipairs(list) do width = math.max(width, #topo.devices[i].name) end
   local cell = "%-" .. width .. "s"
   local row = { cell:format "" }
   for _, i in ipairs(list) do row[#row + 1] = cell:format(topo.devices[i].name) end
   out[#out + 1] = (table.concat(row, "  "):gsub("%s+$", ""))
   for _, i in ipairs(list) do
      row = { cell:format(topo.devices[i].name) }
      for _, j in ipairs(list) do
         row[#row + 1] = cell:format(i == j and "x" or WORD[topo.distance[i][j]])
      end
      out[#out + 1] = (table.concat(row, "  "):gsub("%s+$", ""))
   end
end

local function legend(out)
   out[#out + 1] = ""
   out[#out + 1] = "x       itself"
   for i = 0, #WORD do out[#out + 1] = ("%-6s  %s"):format(WORD[i], LONG[i]) end
end

-- ---- the command -----------------------------------------------------------

local function print_text(topo, opt)
   local out = { topo.root == "/" and "this machine" or topo.root }
   draw(topo, tree_of(topo), widths(topo), "", out)
   local list, hidden = shown(topo, opt.all)
   if #list > 0 then
      out[#out + 1] = "\ndistances"
      distances(topo, list, out)
      legend(out)
   end
   if hidden > 0 then
      out[#out + 1] = ("\n%d without hardware not in the table, see --all"):format(hidden)
   end
   if next(topo.matrix) then
      out[#out + 1] = "\nnetwork devices by where the memory is"
      out[#out + 1] = matrix.lines(topo.matrix)
   end
   print(table.concat(out, "\n"))
end

-- What a running engine told us when its segment was opened.
local function node(opt)
   local e = util.check(mooncake.open {
      listen = "none", registry = opt.join, key_file = opt.key,
   })
   local s = util.check(e:segment(opt.node, opt.timeout * 1000))
   local m = util.check(s:topology())
   if opt.json then
      print(json.encode { node = opt.node, matrix = m })
   elseif next(m) then
      print(matrix.lines(m))
   else
      print(opt.node .. " has no devices to choose from")
   end
   e:close()
   return 0
end

local function run(opt)
   if opt.node then return node(opt) end
   if opt.join then
      error({ user = "--join is for the name of a --node", status = 2 }, 0)
   end
   local topo = read(opt.root)
   if opt.json then
      print(json.encode(topo))
   else
      print_text(topo, opt)
   end
   return 0
end

return {
   usage = "topo [OPTIONS]",
   summary = "devices of this machine and their distances",
   help = [[
Shows what the engine knows of the machine: NUMA nodes, network interfaces, RDMA
devices, GPUs and NVMe drives, where each sits in the PCI tree, and how far each is
from the others. Bytes that go between near devices stay off the links between
sockets; the last part names the network devices that memory of each NUMA node (cpu:0)
and GPU (cuda:0) uses first, and those it uses when these are busy or down. An engine can
be told otherwise: by mooncake.open { topology = ... }, or by the file that
MC_CUSTOM_TOPO_JSON names, which has the form of the "matrix" that --json prints.

--node shows what a running engine uses, and peers know of it.

--root reads another machine's /sys from a copy below DIR, made for instance by
`tar -C / -c sys/class sys/bus/pci/devices sys/devices | tar -C DIR -x`.]] .. environment,
   options = {
      json = { false, "print one JSON object" },
      root = { "", "read DIR/sys in place of /sys", "DIR" },
      node = { nil, "the last part alone, of a running engine", "HOST:PORT" },
      join = { nil, "the registry that knows the node's name", "URL" },
      key = { nil, "file of the cluster key; default $MOONCAKE_KEY_FILE", "FILE" },
      timeout = { 10, "seconds to wait for an answer of the node", "SECONDS" },
      all = { false, "in the table also what has no hardware" },
   },
   run = run,
}
