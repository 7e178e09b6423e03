/*
 * forked.c - what is left to do in a child made by fork() with an engine that
 * the parent opened: close the copies of its descriptors and free the memory.
 *
 * No other thread exists here, and any lock may be held by one that did when
 * the child was made: none is taken. The files behind the descriptors are the
 * parent's still: nothing is said to a peer, and above all the epoll instances
 * go first, for what is taken out of them is taken out of the parent's.
 */
#include "engine.h"

#include <unistd.h>

static void forked_loop(struct mc_loop *l)
{
	close(l->epfd);
	close(l->timer_fd);
	close(l->stop_fd);
	l->epfd = l->timer_fd = l->stop_fd = -1;
}

/* A rail that copies shares memory with its peer, in which a word of ours
 * would be heard: its paths are left as they are. */
static void forked_rail(struct rail *r)
{
	if (!rail_copies(r))
		for (int i = 0; i < r->n_paths; i++) {
			r->t->disconnect(r->paths[i]->p);
			free(r->paths[i]);
		}
	free(r);
}

static void forked_peer(struct peer *p)
{
	if (p->control.up)
		mc_stream_fini(&p->control.s);
	if (p->local.up)
		mc_stream_fini(&p->local.s);
	for (int i = 0; i < p->n_rails; i++)
		forked_rail(p->rails[i]);
	if (p->desc)
		mc_matrix_put(p->desc->matrix);
	free(p->desc);
	free(p);
}

static void forked_batch(struct batch *b)
{
	free(b->reqs);
	free(b->pieces);
	free(b->piece_req);
	free(b->slices);
	free(b->held);
	free(b->note);
	free(b);
}

void engine_forget(struct mc_engine *e)
{
	for (int i = 0; i < e->n_loops; i++)
		forked_loop(&e->loops[i]);
	mc_server_forget(e->server);
	mc_v1_server_forget(e->v1);
	for (int i = 0; i < e->n_peers; i++)
		if (e->peers[i])
			forked_peer(e->peers[i]);
	for (uint32_t i = 0; i < e->n_batches; i++)
		forked_batch(e->batches[i]);
	free(e->batches);
	while (e->waiters) {
		struct waiter *w = e->waiters;

		e->waiters = w->next;
		close(w->fd);
		free(w);
	}
	mc_tls_close(e->tls);
}
