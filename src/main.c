/*
 * main.c - the command: a Lua state, the embedded lua/ tree, and argv.
 *
 * What the command does is in lua/mooncake/cli.lua, whose main() returns the
 * exit status. MOONCAKE_LUA=dir puts the files of a checkout's lua/ before
 * the embedded copy: edit, run, no build. What someone typed runs where
 * signals can end it.
 */
#include <mooncake.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

/* Module name, chunk name and text of each file, made by scripts/embed.sh. */
extern const char *const mc_embedded[][3];

static const char *const *main_embedded(const char *name)
{
	for (int i = 0; mc_embedded[i][0]; i++)
		if (!strcmp(mc_embedded[i][0], name))
			return mc_embedded[i];
	return NULL;
}

/* Push the path of module @name below MOONCAKE_LUA, if it has one there. */
static int main_overlay(lua_State *L, const char *name)
{
	static const char *const forms[] = { "%s/%s.lua", "%s/%s/init.lua" };
	const char *dir = getenv("MOONCAKE_LUA");

	if (!dir || !dir[0])
		return 0;
	name = luaL_gsub(L, name, ".", "/");
	for (int i = 0; i < 2; i++) {
		lua_pushfstring(L, forms[i], dir, name);
		if (!access(lua_tostring(L, -1), R_OK))
			return 1;
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return 0;
}

/* An entry of package.loaders. */
static int main_loader(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);
	const char *const *m = main_embedded(name);
	int err;

	if (main_overlay(L, name)) {
		err = luaL_loadfile(L, lua_tostring(L, -1));
	} else if (m && !strcmp(m[1] + strlen(m[1]) - 4, ".lua")) {
		err = luaL_loadbuffer(L, m[2], strlen(m[2]), m[1]);
	} else {
		lua_pushfstring(L, "\n\tno module '%s' in the program", name);
		return 1;
	}
	return err ? lua_error(L) : 1;
}

/* embedded.text(name): the text of an embedded file, nil if there is none. */
static int main_text(lua_State *L)
{
	const char *const *m = main_embedded(luaL_checkstring(L, 1));

	lua_pushstring(L, m ? m[2] : NULL);
	return 1;
}

/* package.loaded["mooncake.embedded"] = { text = , files = {name = file} } */
static void main_list_embedded(lua_State *L)
{
	lua_newtable(L);
	lua_pushcfunction(L, main_text);
	lua_setfield(L, -2, "text");
	lua_newtable(L);
	for (int i = 0; mc_embedded[i][0]; i++) {
		lua_pushstring(L, mc_embedded[i][1] + 1);
		lua_setfield(L, -2, mc_embedded[i][0]);
	}
	lua_setfield(L, -2, "files");
}

/* ---- what signals can end ------------------------------------------- */

enum { MAIN_SIGNALS = 4 };

/* Where there is no limit in time, only the first is taken. */
static const int main_signals[MAIN_SIGNALS] = {
	SIGINT, SIGTERM, SIGHUP, SIGALRM
};

/* One at a time in the process, as signals are. */
static struct {
	lua_State *L;			/* NULL: nothing runs */
	pthread_t thread;
	struct sigaction old[MAIN_SIGNALS];
	sigset_t mask;
	int n;
	volatile sig_atomic_t came;
} main_bounded;

/* The hook stays until the text has ended, and comes with every instruction:
 * a loop around pcall() ends, too. */
static void main_break(lua_State *L, lua_Debug *ar)
{
	(void)ar;
	lua_pushstring(L, main_bounded.came == SIGALRM ?
		       "stopped: it took too long" :
		       main_bounded.n > 1 ? "stopped: the node ends" :
		       "interrupted");
	lua_error(L);
}

/* Setting a hook is what LuaJIT lets a signal do. A call that waits is left
 * with EINTR, if it is made by the thread that runs Lua. */
static void main_on_signal(int sig)
{
	int err = errno;

	if (!main_bounded.L)
		return;
	if (!pthread_equal(pthread_self(), main_bounded.thread)) {
		pthread_kill(main_bounded.thread, sig);
	} else if (sig != SIGALRM && main_bounded.came &&
		   main_bounded.came != SIGALRM) {
		/* It sits where no hook comes: now without asking. */
		signal(sig, SIG_DFL);
		raise(sig);
	} else {
		if (sig != SIGALRM || !main_bounded.came)
			main_bounded.came = sig;
		lua_sethook(main_bounded.L, main_break, LUA_MASKCALL |
			    LUA_MASKRET | LUA_MASKCOUNT, 1);
	}
	errno = err;
}

/* Again every 0.1 s: the first may come just before a call that waits. */
static void main_alarm(double seconds)
{
	struct itimerval t = {
		.it_value = { seconds, (seconds - (long)seconds) * 1e6 },
		.it_interval = { 0, seconds > 0 ? 100000 : 0 },
	};

	setitimer(ITIMER_REAL, &t, NULL);
}

static void main_arm(lua_State *L, double seconds)
{
	struct sigaction sa = { .sa_handler = main_on_signal };
	sigset_t set;

	main_bounded.L = L;
	main_bounded.thread = pthread_self();
	main_bounded.came = 0;
	main_bounded.n = seconds > 0 ? MAIN_SIGNALS : 1;
	sigemptyset(&set);
	for (int i = 0; i < main_bounded.n; i++) {
		sigaction(main_signals[i], &sa, &main_bounded.old[i]);
		sigaddset(&set, main_signals[i]);
	}
	pthread_sigmask(SIG_UNBLOCK, &set, &main_bounded.mask);
	if (seconds > 0)
		main_alarm(seconds);
}

/* A node that was told to end is told again, in the way that it watches.
 * An alarm that another thread still passes on finds its handler. */
static void main_disarm(lua_State *L)
{
	if (main_bounded.n > 1)
		main_alarm(0);
	pthread_sigmask(SIG_SETMASK, &main_bounded.mask, NULL);
	for (int i = 0; i < main_bounded.n; i++)
		if (main_signals[i] != SIGALRM)
			sigaction(main_signals[i], &main_bounded.old[i], NULL);
	main_bounded.L = NULL;
	lua_sethook(L, NULL, 0, 0);
	if (main_bounded.n > 1 && main_bounded.came &&
	    main_bounded.came != SIGALRM)
		kill(getpid(), main_bounded.came);
}

/* bounded.resume(co, seconds): as coroutine.resume(co), and Ctrl-C ends it.
 * With seconds > 0 so do SIGTERM, SIGHUP, and the time. */
static int main_resume(lua_State *L)
{
	lua_State *co = lua_tothread(L, 1);
	double seconds = luaL_checknumber(L, 2);
	bool outermost = !main_bounded.L;
	int err, n;

	luaL_argcheck(L, co, 1, "coroutine expected");
	if (outermost)
		main_arm(L, seconds);
	err = lua_resume(co, 0);
	if (outermost)
		main_disarm(L);
	n = err > LUA_YIELD ? 1 : lua_gettop(co);
	lua_pushboolean(L, err <= LUA_YIELD);
	if (!lua_checkstack(L, n))
		return luaL_error(L, "too many results");
	lua_xmove(co, L, n);
	return n + 1;
}

/* Ahead of the loader for paths, so that no ./mooncake/ shadows the program. */
static void main_install(lua_State *L)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "loaders");
	for (int i = lua_objlen(L, -1); i >= 2; i--) {
		lua_rawgeti(L, -1, i);
		lua_rawseti(L, -2, i + 1);
	}
	lua_pushcfunction(L, main_loader);
	lua_rawseti(L, -2, 2);
	lua_getfield(L, -2, "loaded");
	main_list_embedded(L);
	lua_setfield(L, -2, "mooncake.embedded");
	lua_createtable(L, 0, 1);
	lua_pushcfunction(L, main_resume);
	lua_setfield(L, -2, "resume");
	lua_setfield(L, -2, "mooncake.bounded");
	lua_pop(L, 3);
}

/* Strings get a traceback; what has its own text or meaning passes. */
static int main_traceback(lua_State *L)
{
	if (!lua_isstring(L, 1)) {
		if (lua_isnoneornil(L, 1) ||
		    !luaL_callmeta(L, 1, "__tostring") || !lua_isstring(L, -1))
			return 1;
		lua_remove(L, 1);
	}
	luaL_traceback(L, L, lua_tostring(L, 1), 1);
	return 1;
}

static int main_start(lua_State *L)
{
	int argc = lua_tointeger(L, 1);
	char **argv = lua_touserdata(L, 2);

	luaL_openlibs(L);
	main_install(L);
	lua_createtable(L, argc, 1);
	for (int i = 0; i < argc; i++) {
		lua_pushstring(L, argv[i]);
		lua_rawseti(L, -2, i);
	}
	lua_setglobal(L, "arg");
	lua_getglobal(L, "require");
	lua_pushliteral(L, "mooncake.cli");
	lua_call(L, 1, 1);
	lua_getfield(L, -1, "main");
	lua_getglobal(L, "arg");
	lua_call(L, 1, 1);
	return 1;
}

int main(int argc, char **argv)
{
	lua_State *L = luaL_newstate();
	int status = EXIT_FAILURE;

	if (!L) {
		fputs("mooncake: no memory for a Lua state\n", stderr);
		return EXIT_FAILURE;
	}
	/* A peer that hangs up must not end a node; cli.lua ends the command
	 * when it is the reader of stdout that has gone. */
	signal(SIGPIPE, SIG_IGN);
	lua_pushcfunction(L, main_traceback);
	lua_pushcfunction(L, main_start);
	lua_pushinteger(L, argc);
	lua_pushlightuserdata(L, argv);
	if (!lua_pcall(L, 2, 1, 1))
		status = lua_tointeger(L, -1);
	else
		fprintf(stderr, "mooncake: %s\n", lua_isstring(L, -1) ?
			lua_tostring(L, -1) : "error of no text");
	lua_close(L);
	return status;
}
