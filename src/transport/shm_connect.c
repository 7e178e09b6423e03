/*
 * shm_connect.c - a path of the shm transport begins and ends: attaching to the
 * peer's control region, and making sure that no thread copies any more.
 */
#include "shm_bytes.h"
#include "shm_path.h"

#include "../base/clock.h"
#include "../base/memfd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int shm_map_fd(int fd, uint64_t size, int prot, void **out)
{
	int64_t r = mc_memfd_check(fd, size);
	void *mem;

	if (r < 0)
		return r;
	mem = mmap(NULL, size, prot, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return mc_syserr(-errno, "mapping %llu bytes",
				 (unsigned long long)size);
	*out = mem;
	return 0;
}

static void shm_path_free(struct shm_path *p)
{
	mc_shm_forget_all(p);
	if (p->control)
		munmap((void *)p->control, sizeof(*p->control));
	if (p->shared)
		munmap(p->shared, sizeof(*p->shared));
	if (p->pidfd >= 0)
		close(p->pidfd);
	pthread_mutex_destroy(&p->maps_lock);
	pthread_mutex_destroy(&p->base.lock);
	free(p);
}

static struct shm_path *shm_path_new(void *ctx, const struct mc_peer *peer)
{
	struct shm_path *p = aligned_alloc(64, sizeof(*p));

	if (!p) {
		mc_err(-ENOMEM, "shm: %s: no memory for a path", peer->name);
		return NULL;
	}
	memset(p, 0, sizeof(*p));
	p->host = mc_shm_host(ctx);
	p->peer = *peer;
	p->base.fd = -1;
	p->pidfd = -1;
	p->kept = bytes_kept();
	mc_copy(p->base.remote_dev, "memory");
	pthread_mutex_init(&p->base.lock, NULL);
	pthread_mutex_init(&p->maps_lock, NULL);
	return p;
}

/* The peer's answer, and with it the process that gave it: its number is the
 * kernel's word, held by a descriptor before anything else is asked of it. */
static int shm_take(struct shm_path *p, const struct mc_blob *blob,
		    const int *fds, int n_fds)
{
	struct shm_attached a;
	struct mc_cma_id id;
	void *mem;
	int pid, r;

	if (blob->len != sizeof(a) || n_fds != 2)
		return mc_err(-EPROTO, "an answer that makes no sense");
	memcpy(&a, blob->data, sizeof(a));
	if (a.magic != SHM_MAGIC || a.index >= SHM_ATTACHMENTS || !a.token)
		return mc_err(-EPROTO, "an answer that makes no sense");
	r = shm_map_fd(fds[0], sizeof(*p->control), PROT_READ, &mem);
	if (r < 0)
		return r;
	p->control = mem;
	r = shm_map_fd(fds[1], sizeof(*p->shared), PROT_READ | PROT_WRITE,
		       &mem);
	if (r < 0)
		return r;
	p->shared = mem;
	if (p->peer.epoch && p->peer.epoch != a.epoch)
		return mc_err(-ESTALE, "it was restarted");
	if (p->control->magic != SHM_MAGIC || p->control->epoch != a.epoch)
		return mc_err(-EHOSTDOWN, "its engine was closed");
	p->index = a.index;
	p->token = a.token;
	pid = mc_host_peer_pid(p->host, &p->peer, 0);
	p->pidfd = mc_cma_pidfd(pid);
	id = (struct mc_cma_id){ a.start, a.probe_addr, a.probe };
	mc_cma_open(&p->cma, pid, p->pidfd, &id);
	return 0;
}

static int shm_greet(struct shm_path *p, uint64_t deadline_ns)
{
	struct shm_hello q = { SHM_MAGIC, SHM_VERSION, SHM_ATTACH, 0, 0,
			       { { 0 } } };
	struct mc_blob blob = { .len = sizeof(q) };
	int fds[MC_HOST_FDS], n_fds = MC_HOST_FDS;
	int r;

	mc_copy(q.name, mc_host_name(p->host));
	memcpy(blob.data, &q, sizeof(q));
	r = mc_host_handshake(p->host, &p->peer, "shm", &blob, &blob, fds,
			      &n_fds, deadline_ns);
	if (r < 0)
		return r;
	r = shm_take(p, &blob, fds, n_fds);
	if (r < 0)
		mc_err(r, "shm: %s: %s", p->peer.name, mc_errmsg());
	while (n_fds > 0)
		close(fds[--n_fds]);
	return r;
}

int mc_shm_connect(void *ctx, const struct mc_peer *peer, int dev,
		   uint64_t deadline_ns, struct mc_path **out)
{
	struct mc_host *host = mc_shm_host(ctx);
	uint64_t here = mc_host_id(host);
	struct shm_path *p;
	int r;

	(void)dev;
	if (!here || peer->host_id != here)
		return mc_err(-EOPNOTSUPP, "shm: %s is not on this host",
			      peer->name);
	if (peer->epoch == mc_host_epoch(host))
		return mc_err(-EOPNOTSUPP, "shm: %s is this engine itself",
			      peer->name);
	p = shm_path_new(ctx, peer);
	if (!p)
		return -ENOMEM;
	r = shm_greet(p, deadline_ns);
	if (r < 0) {
		shm_path_free(p);
		return r;
	}
	*out = &p->base;
	return 0;
}

void mc_shm_abort(struct mc_path *path, uint64_t deadline_ns)
{
	struct shm_path *p = mc_container_of(path, struct shm_path, base);

	/* Pairs with the load in shm_admitted(): who enters later sees it. */
	__atomic_store_n(&p->stopped, 1, __ATOMIC_SEQ_CST);
	mc_slots_drain(&p->slots, deadline_ns);
}

void mc_shm_disconnect(struct mc_path *path)
{
	struct shm_path *p = mc_container_of(path, struct shm_path, base);

	mc_shm_abort(path, UINT64_MAX);
	/* Pairs with the load in shm_harmless(). */
	__atomic_store_n(&p->shared->slot[0].left, 1, __ATOMIC_RELEASE);
	shm_path_free(p);
}
