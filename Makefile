# Makefile of mooncake - `make help` lists the targets.
VERSION = 0.1.0
ABI = 0
VARIANT ?= release
PREFIX ?= /usr/local
FUZZ_TIME ?= 60
CC ?= gcc
B := build$(if $(filter release,$(VARIANT)),,-$(VARIANT))
Q := $(if $(V),,@)
say = $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,@echo "  $(1)	$(2)")

FLAGS_release = -O2 -g
FLAGS_debug = -O0 -g3
FLAGS_asan = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined \
	-fno-sanitize-recover=undefined
FLAGS_tsan = -O1 -g -fno-omit-frame-pointer -fsanitize=thread
# Instrumented code makes gcc see what is not there.
WARN = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wvla $(if $(filter asan \
	tsan,$(VARIANT)),-Wno-maybe-uninitialized -Wno-format-truncation)
PKG := luajit json-c libevent openssl libedit
CPPFLAGS_ALL := -I. -D_GNU_SOURCE $(filter-out -D_GNU_SOURCE,$(shell \
	pkg-config --cflags $(PKG) 2>/dev/null)) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(WARN) -fPIC -fvisibility=hidden -pthread \
	$(FLAGS_$(VARIANT)) $(CFLAGS)
# What sources of the core stand on, what else the library does, the command.
CORE_LIBS := -ljson-c -lnuma -lssl -lcrypto -lpthread -ldl
LIB_LIBS := -levent -levent_pthreads $(CORE_LIBS) -lm
CMD_LIBS := $(or $(shell pkg-config --libs luajit 2>/dev/null),-lluajit-5.1) \
	-ledit $(LIB_LIBS)
LINK = $(CC) $(CFLAGS_ALL) $(LDFLAGS)

SRC := $(sort $(filter-out src/compat/%,$(shell find src -name '*.c')))
LUA := $(sort $(shell find lua -name '*.lua' -o -name '*.txt'))
# Only in the command, for what they need; not in the single-file edition.
CMD_SRC = src/main.c src/base/line.c
SERVER_SRC = $(wildcard src/registry/*server*.c src/registry/registryd*.c)
DIST_SRC := $(filter src/base/% src/topology/% src/transport/% src/v1/% \
	src/engine/% src/registry/% src/p2p/%,$(filter-out $(CMD_SRC) \
	$(SERVER_SRC),$(SRC)))
LIB_OBJ := $(patsubst %.c,$(B)/%.o,$(filter-out $(CMD_SRC),$(SRC))) $(B)/header.o
CMD_OBJ := $(CMD_SRC:%.c=$(B)/%.o) $(B)/embed.o
UNIT_LIB := $(filter-out %_test.c,$(wildcard tests/unit/*.c))
UNIT := $(patsubst %.c,$(B)/%,$(wildcard tests/unit/*_test.c))
PROGS := $(patsubst %.c,$(B)/%,$(wildcard tests/bench/*.c))
FUZZ := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*_fuzz.c))
STUB = $(B)/tests/bench/stub/libibverbs.so.1
SO = libmooncake.so.$(ABI)
SERVER_OBJ = $(SERVER_SRC:%.c=$(B)/%.o)
TE_SO = libtransfer_engine.so
TE_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard src/compat/*.c))

all: $(B)/mooncake	## the command (default); VARIANT=debug, asan or tsan too
lib: $(B)/libmooncake.a $(B)/$(SO) $(B)/$(TE_SO)	## libraries, static and shared
dist: dist/mooncake.h	## the single-file edition, dist/mooncake.h
wheel: $(B)/wheel/files	## the Python package, build/wheel/*.whl
tests: $(UNIT) $(PROGS) $(STUB)	## the C test programs, not run
replay: $(FUZZ:%=$(B)/tests/fuzz/%)	## fuzz targets that replay a corpus

$(B)/mooncake: $(CMD_OBJ) $(LIB_OBJ)
	$(call say,LINK,$@)
	$(Q)$(LINK) -o $@.new $^ -Wl,-E,--as-needed $(CMD_LIBS) && mv $@.new $@
$(B)/libmooncake.a: $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/$(SO): $(LIB_OBJ)
	$(call say,LINK,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(SO),--as-needed -o $@ $^ \
		$(LIB_LIBS)
$(B)/$(TE_SO): $(TE_OBJ) $(B)/$(SO)
	$(call say,LINK,$@)
	$(Q)$(LINK) -shared -Wl,-soname,$(TE_SO),-rpath,'$$ORIGIN' -o $@ $^ \
		-ljson-c
# In a wheel, library and program bring all but libc along; the library has no
# registry server, whose libevent is not made for that.
WHEEL_LIBS = $(addprefix -Wl$(comma),--exclude-libs$(comma)ALL -Bsymbolic) \
	-Wl,--start-group $(patsubst -l%,-l:lib%.a,$(filter-out $(LIBC),$(1))) \
	-Wl,--end-group $(LIBC)
LIBC = -lpthread -ldl -lm
comma = ,
$(B)/wheel/$(TE_SO): $(TE_OBJ) $(filter-out $(SERVER_OBJ),$(LIB_OBJ))
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(LINK) -shared -s -Wl,-soname,$(TE_SO) -o $@ $^ \
		$(call WHEEL_LIBS,$(CORE_LIBS))
$(B)/wheel/mooncake: $(CMD_OBJ) $(LIB_OBJ)
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D) && $(LINK) -s -no-pie -Wl,-E -o $@ $^ \
		$(call WHEEL_LIBS,-lluajit-5.1 $(LIB_LIBS))
$(B)/wheel/files: $(B)/wheel/$(TE_SO) $(B)/wheel/mooncake scripts/wheel.py \
		$(wildcard src/compat/python/mooncake/*)
	$(call say,WHEEL,$(@D))
	$(Q)rm -f $(@D)/*.whl && scripts/wheel.py $(@D) $(VERSION) \
		$(B)/wheel/$(TE_SO) $(B)/wheel/mooncake > $@.new && mv $@.new $@
$(B)/%.o: %.c Makefile
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(B)/%.o: $(B)/%.c
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
$(B)/header.c: mooncake.h scripts/embed.sh
	$(Q)mkdir -p $(@D) && scripts/embed.sh header $< > $@.new && mv $@.new $@
$(B)/embed.c: $(LUA) lua scripts/embed.sh
	$(Q)mkdir -p $(@D) && scripts/embed.sh lua $(LUA) > $@.new && mv $@.new $@
$(B)/tests/%: tests/%.c $(UNIT_LIB) $(B)/libmooncake.a Makefile
	$(call say,TEST,$@)
	$(Q)mkdir -p $(@D) && $(LINK) $(CPPFLAGS_ALL) -MMD -MP -MF $@.d -o $@ $< \
		$(if $(findstring unit,$@),$(UNIT_LIB)) $(B)/libmooncake.a \
		-lcmocka $(LIB_LIBS) -lm
$(STUB): tests/bench/stub/ibverbs.c
	$(call say,TEST,$@)
	$(Q)mkdir -p $(@D) && $(LINK) -fvisibility=default -shared -o $@ $<
$(B)/tests/fuzz/%: tests/fuzz/%.c tests/fuzz/replay.h $(B)/libmooncake.a
	$(call say,TEST,$@)
	$(Q)mkdir -p $(@D) && $(LINK) $(CPPFLAGS_ALL) -DFUZZ_REPLAY \
		-include tests/fuzz/replay.h -o $@ $< $(B)/libmooncake.a $(LIB_LIBS)
build-fuzz/%: tests/fuzz/%.c $(SRC) build/header.c
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D) && clang $(CPPFLAGS_ALL) -std=gnu11 -O1 -g -w \
		-fsanitize=fuzzer,address,undefined -o $@ $< build/header.c \
		$(filter-out src/main.c,$(SRC)) $(LIB_LIBS)
dist/mooncake.h: mooncake.h $(DIST_SRC) $(wildcard src/*/*.h) build/header.c \
		scripts/amalgamate.sh Makefile
	$(call say,DIST,$@)
	$(Q)mkdir -p $(@D) && MC_DIST_LIBS="$(CORE_LIBS)" scripts/amalgamate.sh \
		$< $(DIST_SRC) build/header.c > $@.new && mv $@.new $@

install: all lib	## PREFIX=/usr/local, DESTDIR=
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include lib/pkgconfig \
		share/man/man1 share/lua/5.1)
	install $(B)/mooncake $(DESTDIR)$(PREFIX)/bin/
	install -m 644 mooncake.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(B)/libmooncake.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 $(B)/$(SO) $(DESTDIR)$(PREFIX)/lib/$(SO).$(VERSION)
	ln -sf $(SO).$(VERSION) $(DESTDIR)$(PREFIX)/lib/$(SO)
	ln -sf $(SO) $(DESTDIR)$(PREFIX)/lib/libmooncake.so
	install -m 644 $(B)/$(TE_SO) $(DESTDIR)$(PREFIX)/lib/
	install -m 644 src/compat/transfer_engine_c.h $(DESTDIR)$(PREFIX)/include/
	sed -e 's,@PREFIX@,$(PREFIX),' -e 's,@VERSION@,$(VERSION),' \
		-e 's,@LIBS@,$(LIB_LIBS),' scripts/mooncake.pc.in \
		> $(DESTDIR)$(PREFIX)/lib/pkgconfig/mooncake.pc
	sed 's,@VERSION@,$(VERSION),' scripts/mooncake.1 \
		> $(DESTDIR)$(PREFIX)/share/man/man1/mooncake.1
	cp -R lua/mooncake $(DESTDIR)$(PREFIX)/share/lua/5.1/

demo:	## install what is missing, build, replay the small trace
	@scripts/deps.sh build
	@$(MAKE) --no-print-directory all
	$(B)/mooncake run examples/replay.lua traces/small.jsonl
check:	## all tests in all variants, as the gate runs them
	@scripts/deps.sh test
	@scripts/test.sh check
test:	## the tests once, in VARIANT
	@scripts/test.sh $(VARIANT)
check-vm: all tests	## RDMA, in a virtual machine, alone (VARIANT=tsan)
	@scripts/deps.sh vm
	@tests/vm/run.sh $(B)
vllm: wheel	## an unmodified vLLM with our package, in build/vllm (5 GB)
	@scripts/deps.sh vllm && scripts/vllm.sh
check-vllm: vllm	## prefill and decode of that vLLM, in two servers
	@build/vllm/venv/bin/python tests/vllm/test.py
bench-vm: all lib	## RDMA there, against others' (emulated: only ratios count)
	@scripts/deps.sh vm
	@scripts/deps.sh peers
	@bad=0; for b in bench bench_public; do scripts/vm --nics 4 --timeout 1800 -- \
		$(B)/mooncake run tests/vm/$$b.lua $(ARGS) || bad=1; done; exit $$bad
bench: all tests	## measure against plain sockets, memcpy and others
	@scripts/deps.sh bench
	@bad=0; for b in bench sim policies index; do \
		$(B)/mooncake run tests/bench/$$b.lua || bad=1; done; exit $$bad
bench-instructions: all $(STUB)	## what a block costs over rdma (callgrind)
	@scripts/deps.sh bench
	@$(B)/mooncake run tests/bench/instructions.lua $(dir $(STUB)) $(ARGS)
bench-p2p: all	## the P2P store over links of a given rate (ARGS='--receivers 8')
	@scripts/deps.sh bench
	$(B)/mooncake run tests/bench/p2p.lua $(ARGS)
bench-peers: all lib	## measure transfers, simulator and index against others'
	@scripts/deps.sh peers
	@bad=0; for b in engine sim; do \
		$(B)/mooncake run tests/bench/peers_$$b.lua || bad=1; done; exit $$bad
paper: all	## the simulator against the papers' figures (TRACE=FILE)
	@$(B)/mooncake run scripts/paper.lua
soak:	## 10,000 rounds of fault injection
	@$(MAKE) --no-print-directory $(B)/tests/unit/fault_test
	MC_FAULT_ROUNDS=$(or $(MC_FAULT_ROUNDS),10000) $(B)/tests/unit/fault_test
# What is found stays in build-fuzz; who keeps an input gives it a name.
fuzz: $(FUZZ:%=build-fuzz/%)	## each target for FUZZ_TIME=60 seconds
	@for f in $(FUZZ:%_fuzz=%); do echo "  FUZZ	$$f"; \
		mkdir -p build-fuzz/corpus/$$f tests/corpus/$$f; \
		build-fuzz/$${f}_fuzz -max_total_time=$(FUZZ_TIME) -print_final_stats=1 \
		-artifact_prefix=build-fuzz/$$f- build-fuzz/corpus/$$f \
		tests/corpus/$$f || exit 1; done
flags:
	@echo $(CPPFLAGS_ALL)
clean:	## remove what was built
	rm -rf build build-debug build-asan build-tsan build-fuzz dist
help:	## this list
	@sed -n 's/^\([a-z-]*\):.*	## /  \1	/p' Makefile | expand -t 15

.PHONY: all lib dist wheel tests replay install demo check check-vm bench-vm vllm check-vllm test bench bench-instructions bench-p2p bench-peers paper soak fuzz flags clean help
.SECONDARY:
.DELETE_ON_ERROR:
-include $(LIB_OBJ:.o=.d) $(CMD_OBJ:.o=.d) $(TE_OBJ:.o=.d) $(UNIT:=.d) $(PROGS:=.d)
