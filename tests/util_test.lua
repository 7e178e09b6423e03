-- util_test.lua - units, tables and what command lines mean.

local cli = require "mooncake.cli"
local util = require "mooncake.util"

local t = {}

function t.sizes_have_units()
   test.eq(util.bytes(0), "0 B")
   test.eq(util.bytes(1024), "1 KiB")
   test.eq(util.bytes(1.5 * 2 ^ 30), "1.5 GiB")
   test.eq(util.bytes(3ULL * 2 ^ 20), "3 MiB")
   test.eq(util.parse_bytes "64K", 65536)
   test.eq(util.parse_bytes "1.5 GiB", 1.5 * 2 ^ 30)
   test.eq(util.parse_bytes "12", 12)
   test.eq(util.parse_bytes "12X", nil)
end

function t.rates_and_times_have_three_digits()
   test.eq(util.rate(999), "999 B/s")
   test.eq(util.rate(3.214e9), "3.21 GB/s")
   test.eq(util.rate(32.14e9), "32.1 GB/s")
   test.eq(util.rate(999.9e6), "1.00 GB/s")
   test.eq(util.duration(0), "0.00 s")
   test.eq(util.duration(8.5e-7), "850 ns")
   test.eq(util.duration(1.234e-5), "12.3 us")
   test.eq(util.duration(59.9), "59.9 s")
   test.eq(util.duration(59.99), "1m 00s")
   test.eq(util.duration(7500), "2h 05m")
   test.eq(util.commas(1234567), "1,234,567")
   test.eq(util.commas(-100), "-100")
end

function t.numbers_stand_right_words_left()
   test.eq(util.table({ "name", "GB/s" }, { { "a", 1.25 }, { "bé" }, { "c", 100 } }),
           "name  GB/s\na     1.25\nbé\nc      100")
   test.eq(util.table(nil, { { 1, "x" }, { 22, "y" } }, "lr"), "1   x\n22  y")
end

local CMD = {
   usage = "x [OPTIONS] A [B]",
   options = {
      flag = { false, "a flag", short = "f" },
      on = { true, "on already" },
      size = { 4096, "bytes", "SIZE" },
      name = { nil, "a name", "NAME" },
      ["time-ms"] = { 5, "a time", "N" },
      peer = { nil, "a peer", "PEER", list = true },
   },
}

local function parse(...)
   return cli.parse(CMD, { ... }, 1)
end

function t.options_have_defaults()
   local opt, args = parse()
   test.eq(opt, { flag = false, on = true, size = 4096, time_ms = 5, peer = {} })
   test.eq(args, {})
end

function t.options_and_words_mix()
   local opt, args = parse("a", "--size", "64K", "-f", "b", "--no-on", "--name=x=y",
                           "--time-ms=7", "--peer", "p", "--peer=q", "-", "--", "--flag")
   test.eq(opt, { flag = true, on = false, size = 65536, name = "x=y", time_ms = 7,
                  peer = { "p", "q" } })
   test.eq(args, { "a", "b", "-", "--flag" })
end

function t.options_of_a_script_are_its_own()
   local cmd = { usage = "run [OPTIONS] SCRIPT [ARG...]", options = CMD.options }
   local opt, args = cli.parse(cmd, { "--flag", "s.lua", "--flag", "--", "-x" }, 1)
   test.eq(opt.flag, true)
   test.eq(args, { "s.lua", "--flag", "--", "-x" })
end

function t.wrong_options_are_refused()
   test.raises("unknown option '%-%-none'", parse, "--none")
   test.raises("unknown option '%-%-no%-size'", parse, "--no-size")
   test.raises("needs a value", parse, "--name")
   test.raises("takes a number, not 'big'", parse, "--size=big")
   test.raises("takes no value", parse, "--flag=1")
end

function t.help_comes_from_the_table()
   local text = cli.help(CMD)
   assert(text:find("usage: mooncake x [OPTIONS] A [B]", 1, true))
   assert(text:find("  -f, --flag   a flag\n", 1, true), text)
   assert(text:find("  --size SIZE  bytes (4096)\n", 1, true), text)
   assert(text:find("on already (on; --no-on)", 1, true), text)
end

function t.a_user_error_is_a_table()
   local ok, e = pcall(util.check, nil, "no such file")
   test.eq(ok, false)
   test.eq(e, { user = "no such file" })
   test.eq({ util.check(1, 2, 3) }, { 1, 2, 3 })
end

function t.files_are_read_and_written_whole()
   local path = test.tmpdir() .. "/file"
   test.eq(util.write_file(path, "a\0b\n"), true)
   test.eq(util.read_file(path), "a\0b\n")
   local text, why = util.read_file(path .. "/none")
   test.eq(text, nil)
   assert(why:find(path, 1, true), why)
   local ok
   ok, why = util.write_file("/dev/full", "x")
   test.eq(ok, nil)
   assert(why:find("/dev/full: ", 1, true), why)
   text, why = util.read_file "/"
   test.eq(text, nil)
   assert(why:find("directory", 1, true), why)
end

return t
