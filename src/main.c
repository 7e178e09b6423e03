/*
 * main.c - the command: a Lua state, the embedded lua/ tree, and argv.
 *
 * What the command does is in lua/mooncake/cli.lua, whose main() returns the
 * exit status. MOONCAKE_LUA=dir puts the files of a checkout's lua/ before
 * the embedded copy: edit, run, no build.
 */
#include <mooncake.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
