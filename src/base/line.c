/*
 * line.c - line editing by libedit, which is opened when the first line is
 * asked for: the library does without it, and a machine that has none reads
 * plain lines.
 *
 * C never calls Lua, so the words to complete are set beforehand; a word is
 * anything without blanks and operators, so "mooncake.op" is one.
 *
 * libedit cannot be left in the middle of a line. Ctrl-C therefore only ends
 * the wait for a key, and counts as the one that ends the line.
 */
#include "line.h"
#include "err.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_HISTORY = 1000 };

typedef char *line_entry_fn(const char *text, int state);
typedef int line_getc_fn(FILE *in);

static struct {
	bool opened;
	void *lib;
	char *(*readline)(const char *prompt);
	void (*using_history)(void);
	void (*stifle_history)(int max);
	int (*add_history)(const char *line);
	int (*read_history)(const char *path);
	int (*write_history)(const char *path);
	char **(*matches)(const char *text, line_entry_fn *next);
	int *attempted_over, *append_character;
} line_edit;

static char *line_last;			/* what mc_line_read() returned */
static char *line_remembered;
static char *line_words;
static const char *line_at;		/* where the search for more goes on */
static char *line_path;
static pthread_t line_thread;		/* who reads */
static volatile sig_atomic_t line_broken;

static void line_on_signal(int sig)
{
	int err = errno;

	line_broken = 1;
	if (!pthread_equal(pthread_self(), line_thread))
		pthread_kill(line_thread, sig);
	errno = err;
}

/* What libedit calls for the next byte. */
static int line_getc(FILE *in)
{
	unsigned char c;
	ssize_t n;

	do {
		if (line_broken)
			return '\n';
		n = read(fileno(in), &c, 1);
	} while (n < 0 && errno == EINTR);
	return n == 1 ? c : EOF;
}

/* The next word that begins with @text: libedit calls this, state 0 first,
 * until it is NULL, and frees what it gets. */
static char *line_next(const char *text, int state)
{
	size_t n = strlen(text), len;
	const char *word;

	if (!state)
		line_at = line_words;
	while (line_at && *line_at) {
		word = line_at;
		len = strcspn(word, "\n");
		line_at += len + (word[len] == '\n');
		if (len >= n && !strncmp(word, text, n))
			return strndup(word, len);
	}
	return NULL;
}

/* Without file names where no word fits, and without a blank after it. */
static char **line_complete(const char *text, int start, int end)
{
	(void)start;
	(void)end;
	*line_edit.attempted_over = 1;
	*line_edit.append_character = 0;
	return line_edit.matches(text, line_next);
}

static void *line_symbol(const char *name)
{
	void *p = line_edit.lib ? dlsym(line_edit.lib, name) : NULL;

	if (!p && line_edit.lib) {
		dlclose(line_edit.lib);
		line_edit.lib = NULL;
	}
	return p;
}

static void line_load(void)
{
	line_edit.lib = dlopen("libedit.so.2", RTLD_NOW);
	if (!line_edit.lib)
		line_edit.lib = dlopen("libedit.so.0", RTLD_NOW);
	line_edit.readline = line_symbol("readline");
	line_edit.using_history = line_symbol("using_history");
	line_edit.stifle_history = line_symbol("stifle_history");
	line_edit.add_history = line_symbol("add_history");
	line_edit.read_history = line_symbol("read_history");
	line_edit.write_history = line_symbol("write_history");
	line_edit.matches = line_symbol("rl_completion_matches");
	line_edit.attempted_over = line_symbol("rl_attempted_completion_over");
	line_edit.append_character =
		line_symbol("rl_completion_append_character");
}

/* Whether there is a libedit, set up. */
static bool line_start(void)
{
	static const char breaks[] = " \t\n\"'`=<>;|&{}()[]+-*/%^#~,";
	const char **name, **basic, **completer;
	char **(**attempted)(const char *text, int start, int end);
	line_getc_fn **get;

	if (line_edit.opened)
		return line_edit.lib;
	line_edit.opened = true;
	line_load();
	name = line_symbol("rl_readline_name");
	basic = line_symbol("rl_basic_word_break_characters");
	completer = line_symbol("rl_completer_word_break_characters");
	attempted = line_symbol("rl_attempted_completion_function");
	get = line_symbol("rl_getc_function");
	if (!line_edit.lib)
		return false;
	*name = "mooncake";
	*basic = *completer = breaks;
	*attempted = line_complete;
	*get = line_getc;
	line_edit.using_history();
	line_edit.stifle_history(LINE_HISTORY);
	return true;
}

static char *line_plain(const char *prompt)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	fputs(prompt, stdout);
	fflush(stdout);
	n = getline(&line, &size, stdin);
	if (n < 0 && line_broken)
		clearerr(stdin);
	if (n < 0) {
		free(line);
		return NULL;
	}
	if (n && line[n - 1] == '\n')
		line[n - 1] = 0;
	return line;
}

const char *mc_line_read(const char *prompt)
{
	struct sigaction sa = { .sa_handler = line_on_signal }, old;

	free(line_last);
	line_thread = pthread_self();
	line_broken = 0;
	sigaction(SIGINT, &sa, &old);
	line_last = line_start() ? line_edit.readline(prompt) :
				   line_plain(prompt);
	sigaction(SIGINT, &old, NULL);
	if (!line_broken)
		return line_last;
	fputs("^C\n", stdout);
	free(line_last);
	line_last = NULL;
	return NULL;
}

bool mc_line_interrupted(void)
{
	return line_broken;
}

int mc_line_words(const char *words)
{
	char *copy = NULL;

	if (words) {
		copy = strdup(words);
		if (!copy)
			return mc_err(-ENOMEM, "completion: out of memory");
	}
	free(line_words);
	line_words = copy;
	line_at = NULL;
	return 0;
}

int mc_line_history(const char *path)
{
	struct stat st;
	char *copy = strdup(path);

	if (!copy)
		return mc_err(-ENOMEM, "history: out of memory");
	free(line_path);
	line_path = copy;
	if (line_start() && !stat(path, &st) && line_edit.read_history(path))
		return mc_err(-EIO, "history %s cannot be read", path);
	return 0;
}

void mc_line_remember(const char *line)
{
	if (!*line || !line_start() ||
	    (line_remembered && !strcmp(line, line_remembered)))
		return;
	free(line_remembered);
	line_remembered = strdup(line);
	line_edit.add_history(line);
	if (line_path)
		line_edit.write_history(line_path);
}
