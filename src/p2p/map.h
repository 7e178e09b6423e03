/*
 * map.h - a node's have-map: what it says of one object to whoever reads it.
 *
 * It lies in memory that peers may read; they do so often, one-sided, and no
 * one is told anything. It says which shards are here, where they lie, and from
 * whom which others are being fetched: by that, readers count how many read
 * from a holder, and those who have died are not counted, for their maps can no
 * longer be read. Only its node writes it, a word at a time, and bits are only
 * ever set, so that whatever a reader catches was true.
 *
 * It also passes on a rumour: which shards someone has, or waits for, who is no
 * source, as far as this node has heard. It goes from map to map in a few steps
 * through the whole crowd, and keeps those who ask the source from asking it
 * for the same shard; a rumour that was wrong costs nothing but time.
 */
#ifndef MC_P2P_MAP_H
#define MC_P2P_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum {
	P2P_ASKS = 16,			/* shards on their way at once, most */
	P2P_MAP_MAGIC = 0x6d703270,	/* "p2pm" */
	P2P_MAP_VERSION = 1,
};

struct p2p_ask {
	uint32_t shard;			/* UINT32_MAX: none */
	uint32_t node;			/* from whom: p2p_node_tag() */
};

struct p2p_map {
	uint32_t magic, version;
	uint64_t id;			/* of the object */
	uint64_t node;			/* its engine's epoch */
	uint32_t shards, buffers;
	uint32_t source;		/* 1: it registered the object */
	uint32_t leaving;		/* 1: ask it for nothing more */
	struct p2p_ask asks[P2P_ASKS];
	uint64_t words[];		/* bits of shards that are here; those
					 * that are out, by rumour; and the
					 * addresses of the buffers */
};

/* Maps are read while they are written. */
#ifdef __SANITIZE_THREAD__
#define P2P_SHARED __attribute__((no_sanitize("thread")))
#else
#define P2P_SHARED
#endif

static inline uint32_t p2p_words(uint32_t shards)
{
	return (shards + 63) / 64;
}

static inline uint64_t p2p_map_bytes(uint32_t shards, uint32_t buffers)
{
	return sizeof(struct p2p_map) +
	       8 * (2 * (uint64_t)p2p_words(shards) + buffers);
}

static inline uint32_t p2p_node_tag(uint64_t node)
{
	return node ^ node >> 32;
}

static inline bool p2p_bit(const uint64_t *words, uint32_t i)
{
	return words[i / 64] >> i % 64 & 1;
}

static inline void p2p_set(uint64_t *words, uint32_t i)
{
	words[i / 64] |= (uint64_t)1 << i % 64;
}

static inline void p2p_clear(uint64_t *words, uint32_t i)
{
	words[i / 64] &= ~((uint64_t)1 << i % 64);
}

P2P_SHARED static inline void p2p_publish(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

#endif
