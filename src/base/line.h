/*
 * line.h - lines from a terminal, with history and completion: for the REPL.
 */
#ifndef MC_BASE_LINE_H
#define MC_BASE_LINE_H

#include <stdbool.h>

#pragma GCC visibility push(default)

/* The next line without its end, NULL at the end of input, or when Ctrl-C
 * dropped what was typed. Valid until the next call. For one thread; the
 * terminal is the process's. */
const char *mc_line_read(const char *prompt);

/* Whether it was Ctrl-C that ended the last one. */
bool mc_line_interrupted(void);

/* What Tab completes to: words, one a line; copied. NULL: nothing. */
int mc_line_words(const char *words);

/* Read the history from @path and keep it there from now on, the last 1,000
 * lines; a file that is not there yet is none. */
int mc_line_history(const char *path);

/* Add what was read to the history. */
void mc_line_remember(const char *line);

#pragma GCC visibility pop

#endif
