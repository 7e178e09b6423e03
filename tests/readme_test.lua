-- readme_test.lua - what README.md and the help topics show is so: their commands run,
-- print what is shown, and the files they quote are the files under examples/.
--
-- A section of the README is one shell in an empty folder that has examples/, traces/ and
-- dist/ of the checkout. In a ```console block, "$ " begins a command, "> " goes on with
-- it, and the rest is its output, stderr included. Numbers, with their units, may differ,
-- and so may the width of columns; "..." is any number of lines. A command that ends
-- in " &" is left running once it has said "ready". Lines after "mooncake> " are typed
-- into the REPL. Of a block after the comment "varies" only the status is looked at.

local ffi = require "ffi"
local embedded = require "mooncake.embedded"
local mooncake = require "mooncake"
local proc = require "mooncake.proc"
local util = require "mooncake.util"

local ROOT = proc.run { "sh", "-c", 'cd "$1/.." && pwd', "sh", test.dir }:gsub("\n$", "")
local SECONDS = 120

local tests = {}

local function read_file(path)
   return assert(util.read_file(path))
end

-- ---- reading ------------------------------------------------------------

-- Fenced blocks by section: { { title =, { lang =, varies =, line =, [i] = text } } }.
local function read_markdown(path)
   local sections, block, comment, n = {}, nil, nil, 0
   for line in (read_file(path) .. "\n"):gmatch "([^\n]*)\n" do
      n = n + 1
      local section = sections[#sections]
      if block then
         if line == "```" then
            block = nil
         else
            block[#block + 1] = line
         end
      elseif line:match "^```" then
         block = { lang = line:sub(4), varies = comment == "varies", line = n }
         section[#section + 1] = block
      elseif line:match "^##? " then
         sections[#sections + 1] = { title = line:match "^#+ (.*)$" }
      end
      if line ~= "" then comment = line:match "^<!%-%- (.-) %-%->$" end
   end
   return sections
end

-- The commands of a block: { text =, typed = {lines}, want = {lines} }.
local function read_steps(block, steps)
   local step
   for i, line in ipairs(block) do
      local command, more = line:match "^%$ (.*)$", line:match "^> ?(.*)$"
      local typed = line:match "^mooncake> (.*)$"
      if command then
         step = { text = command, typed = {}, want = {}, line = block.line + i,
                  varies = block.varies }
         steps[#steps + 1] = step
      elseif more and #step.want == 0 then
         step.text = step.text .. "\n" .. more
      elseif typed then
         step.typed[#step.typed + 1] = typed
      elseif not line:match "^mooncake %S+ on " then
         step.want[#step.want + 1] = line
      end
   end
end

-- ---- comparing ----------------------------------------------------------

-- A line without what differs from run to run.
local function normal(line)
   line = line:gsub("^(%l+ +%l+ .*%d)  %S.*$", function(row)
      -- What limits a point of the benchmark is up to the machine.
      return row:match "%d [KM]?i?B" and row or nil
   end)
   line = line:gsub("0x%x+", "#"):gsub("%d[%d,.]*", "#")
   line = line:gsub("# [KMGT]?i?B%f[%W]", "# B"):gsub("# [kMG]B/s", "# B/s")
   line = line:gsub("# [num]?s%f[%W]", "# s")
   return (line:gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function matches(want, got, i, j)
   i, j = i or 1, j or 1
   if i > #want then return j > #got end
   if want[i] == "..." then
      for k = j, #got + 1 do
         if matches(want, got, i + 1, k) then return true end
      end
      return false
   end
   return got[j] and normal(want[i]) == normal(got[j])
      and matches(want, got, i + 1, j + 1)
end

-- ---- running ------------------------------------------------------------

local function free_port()
   local e = assert(mooncake.open { listen = "127.0.0.1:0" })
   local port = e:addr():match "%d+$"
   e:close()
   return port
end

-- `make demo` is its last line, by the program under test; dist/ is there already.
local function make_function()
   local makefile = read_file(ROOT .. "/Makefile")
   local demo = makefile:match "\ndemo:.-\n\t%$%(B%)/(mooncake run [^\n]*)\n"
   return ("make() {\n case $1 in\n demo) %s ;;\n dist) ;;\n *) return 1 ;;\n esac\n}")
      :format(assert(demo, "no demo in the Makefile"))
end

local function command(step, i)
   local text = step.text
   if #step.typed > 0 then
      return text .. " <<'typed'\n" .. table.concat(step.typed, "\n") .. "\ntyped"
   end
   local job = text:match "^(.*) &$"
   if not job then return text end
   local out = "../out." .. i
   return (": > %s\n%s > %s 2>&1 &\nn=0\nuntil grep -q ^ready %s || [ $n = 400 ]; do\n" ..
           "sleep 0.05; n=$((n + 1))\ndone\ncat %s"):format(out, job, out, out, out)
end

local function script(steps, mark)
   local out, ports = { make_function() }, {}
   for i, step in ipairs(steps) do
      out[#out + 1] = command(step, i)
      out[#out + 1] = ("echo '%s' %d $?"):format(mark, i)
   end
   return (table.concat(out, "\n"):gsub("127%.0%.0%.1:(%d+)", function(port)
      if port == "0" then return nil end
      ports[port] = ports[port] or free_port()
      return "127.0.0.1:" .. ports[port]
   end)) .. "\n"
end

local function prepare(text)
   local dir = test.tmpdir()
   local f = assert(io.open(dir .. "/script", "w"))
   f:write(text)
   f:close()
   assert(os.execute(("cd %s && mkdir work && cd work && ln -s '%s'/examples " ..
      "'%s'/traces '%s'/dist ."):format(dir, ROOT, ROOT, ROOT)) == 0)
   return dir
end

local function run_shell(dir)
   local p = test.spawn {
      "sh", "-c", "cd " .. dir .. "/work && . ../script", stdin = "null",
      stdout = dir .. "/output", stderr = "stdout", group = true,
      env = { PATH = proc.exe():match "^(.*)/" .. ":" .. os.getenv "PATH", HOME = dir,
              LC_ALL = "C.UTF-8", MOONCAKE_KEY_FILE = false, MC_LOG = false },
   }
   local status = p:wait(SECONDS * 1000)
   proc.kill_group(p.pid)
   return status, read_file(dir .. "/output")
end

local function distribute(steps, output, mark)
   local i, got = 1, {}
   for line in output:gmatch "([^\n]*)\n" do
      local before, index, status = line:match("^(.*)" .. mark .. " (%d+) (%d+)$")
      if index then
         if before ~= "" then got[#got + 1] = before end
         steps[i].got, steps[i].status = got, tonumber(status)
         i, got = tonumber(index) + 1, {}
      else
         got[#got + 1] = line
      end
   end
   return got
end

local function complain(step, rest)
   local got = step.got or rest
   error(("README.md:%d: $ %s\n--- shown\n%s\n--- status %s, got\n%s"):format(step.line,
      step.text, table.concat(step.want, "\n"), step.status or "unknown (no end)",
      table.concat(got, "\n")), 0)
end

local function judge(steps, rest)
   for _, step in ipairs(steps) do
      local fails = (step.want[#step.want] or ""):match "^mooncake %l+: "
      if not step.got or (step.status == 0) == (fails ~= nil) or
         not step.varies and not matches(step.want, step.got) then
         complain(step, rest)
      end
   end
end

local function run_section(section)
   local steps = {}
   for _, block in ipairs(section) do
      if block.lang == "console" then read_steps(block, steps) end
   end
   local mark = ("mark_%d"):format(proc.pid())
   local dir = prepare(script(steps, mark))
   local _, output = run_shell(dir)
   judge(steps, distribute(steps, output, mark))
end

-- ---- the README ---------------------------------------------------------

local readme = read_markdown(ROOT .. "/README.md")

for i, section in ipairs(readme) do
   local shell, compiles = false, false
   for _, block in ipairs(section) do
      shell = shell or block.lang == "console"
      compiles = compiles or table.concat(block, "\n"):find "%$ cc "
   end
   -- The compiler does the same whatever variant of the program this is.
   if shell and not (compiles and not proc.exe():match "/build/mooncake$") then
      local name = ("section_%02d_%s"):format(i, section.title:lower():gsub("%W+", "_"))
      tests[name] = function() run_section(section) end
   end
end

-- A block that begins with the name of an example is that example.
function tests.quoted_files_are_the_examples()
   local quoted = 0
   for _, section in ipairs(readme) do
      for _, block in ipairs(section) do
         local name = (block[1] or ""):match "^%-%- (%S+%.lua) %- " or
                      (block[1] or ""):match "^/%* (%S+%.c) %- "
         if name then
            test.eq(table.concat(block, "\n") .. "\n",
                    read_file(ROOT .. "/examples/" .. name), name)
            quoted = quoted + 1
         end
      end
   end
   assert(quoted >= 2, "examples are quoted")
end

function tests.links_lead_to_files()
   for link in read_file(ROOT .. "/README.md"):gmatch "%]%(([^)#]+)%)" do
      if not link:match "^https?:" then
         local f = io.open(ROOT .. "/" .. link)
         assert(f, link .. " is not there")
         f:close()
      end
   end
end

-- ---- the examples -------------------------------------------------------

local function mooncake_run(...)
   local text, status = proc.run { proc.exe(), "run", ... }
   return status, text
end

function tests.pair_runs_from_anywhere()
   local status, text = mooncake_run(ROOT .. "/examples/pair.lua")
   test.eq(status, 0)
   test.eq(text, "wrote\t20\nreceived: KV cache of a prompt\n")
end

function tests.fan_out_reaches_every_node()
   local status, text = mooncake_run(ROOT .. "/examples/fan_out.lua", "3", "10")
   test.eq(status, 0)
   test.eq(text, "node 1: 262144 bytes, equal\nnode 2: 196608 bytes, equal\n" ..
                 "node 3: 196608 bytes, equal\n")
end

-- Each file directly under examples/ is named by some test, or run by the README.
function tests.every_example_is_tested()
   local sources = read_file(ROOT .. "/README.md")
   local list = proc.run { "sh", "-c", 'ls "$1"/tests/*_test.lua "$1"/tests/*.t', "sh",
      ROOT }
   for path in list:gmatch "[^\n]+" do sources = sources .. read_file(path) end
   for name in proc.run({ "ls", ROOT .. "/examples" }):gmatch "[^\n]+" do
      local stem = name:match "^(.*)%.%w+$"
      if stem then
         assert(sources:find("examples/" .. name, 1, true) or
                sources:find('"' .. stem .. '"', 1, true), name .. " is run by no test")
      end
   end
end

-- ---- the help topics ----------------------------------------------------

-- The indented paragraphs that begin with "local ", as one script, and what it prints
-- according to the remarks "--> text".
local function snippets(text)
   local code, want = {}, {}
   for paragraph in (text .. "\n"):gmatch "(.-)\n\n+" do
      if paragraph:match "^  local " then
         code[#code + 1] = paragraph
         for shown in paragraph:gmatch "%-%-> ([^\n]*)" do want[#want + 1] = shown end
      end
   end
   return table.concat(code, "\n"), want
end

local function run_snippets(topic)
   local code, want = snippets(embedded.text("mooncake.help." .. topic))
   assert(#want > 0, "nothing is shown")
   local got = {}
   local chunk = assert(loadstring(code, "=" .. topic))
   setfenv(chunk, setmetatable({ mooncake = mooncake, print = function(...)
      local parts = { ... }
      for i = 1, select("#", ...) do parts[i] = tostring(parts[i]) end
      got[#got + 1] = table.concat(parts, "\t")
   end }, { __index = _G }))
   chunk()
   test.eq(got, want)
end

function tests.the_lua_manual_runs() run_snippets "lua" end
function tests.the_fault_manual_runs() run_snippets "fault" end

-- Nothing public is left out of the manual, and nothing in it is made up.
function tests.the_lua_manual_is_complete()
   local text = embedded.text "mooncake.help.lua"
   local e = assert(mooncake.open())
   local buffer = assert(e:alloc(4096))
   local segment = assert(e:segment(e:addr()))
   local future = assert(e:submit { { op = "read", segment = segment, buf = buffer,
                                      remote = buffer.addr, len = 0 } })
   local classes = { e = getmetatable(e), buffer = getmetatable(buffer),
                     s = getmetatable(segment), f = getmetatable(future) }
   local inside = { handle = true, why = true, staging = true }
   for word, class in pairs(classes) do
      for name, f in pairs(class) do
         if type(f) == "function" and not name:match "^__" and not inside[name] then
            assert(text:find(("%s:%s("):format(word, name), 1, true),
                   ("%s:%s() is not in it"):format(word, name))
         end
      end
      for name in text:gmatch("%f[%w]" .. word .. ":([%w_]+)%(") do
         assert(class[name], ("%s:%s() is made up"):format(word, name))
      end
   end
   for name in pairs(mooncake) do
      local full = "mooncake." .. name
      assert(text:find(full, 1, true), full .. " is not in it")
   end
   for name in text:gmatch "%f[%w]mooncake%.([%w_]+)%(" do
      assert(mooncake[name], "mooncake." .. name .. " is made up")
   end
   assert(future:wait())
   e:close()
end

function tests.every_option_of_an_engine_is_in_the_manual()
   local text = embedded.text "mooncake.help.lua"
   local fields = ffi.string(require("mooncake.ffi").mc_header)
      :match "struct mc_options (%b{})":gsub("/%*.-%*/", "")
   for name in fields:gmatch "([%w_]+);" do
      assert(text:find(name, 1, true), name .. " is not in it")
   end
end

function tests.every_fault_is_in_the_manual_and_taken()
   local listed = 0
   for name in embedded.text("mooncake.help.fault"):gmatch "\n  (%l+)  +%l" do
      local e, why = mooncake.open { fault = name .. "=0" }
      assert(e, why):close()
      listed = listed + 1
   end
   test.eq(listed, 9)
   local e, why = mooncake.open { fault = "quake=1" }
   test.eq(e, nil)
   test.eq(why, "no fault is called 'quake'")
end

return tests
