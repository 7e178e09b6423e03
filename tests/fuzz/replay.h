/*
 * replay.h - a main() for fuzz targets, which gives them files in place of
 * libFuzzer's inputs: with -DFUZZ_REPLAY and -include of this file a target is
 * a plain program that `make check` runs over its corpus.
 */
#ifndef MC_FUZZ_REPLAY_H
#define MC_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_REPLAY
#include <stdio.h>
#include <stdlib.h>

/* A buffer of the exact size, so that ASan sees a read past its end. */
static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data;
	long size;

	if (!f || fseek(f, 0, SEEK_END) < 0 || (size = ftell(f)) < 0) {
		perror(path);
		return 1;
	}
	rewind(f);
	data = malloc(size ? size : 1);
	if (!data || fread(data, 1, size, f) != (size_t)size) {
		perror(path);
		return 1;
	}
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	int bad = 0;

	for (int i = 1; i < argc; i++)
		bad |= replay_file(argv[i]);
	printf("%d inputs\n", argc - 1);
	return bad;
}
#endif
#endif
