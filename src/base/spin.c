/* spin.c - looking before sleeping, while there is a CPU to spare. */
#include "spin.h"
#include "clock.h"
#include "util.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

enum {
	/* Worth looking for: between what a message takes when one end sleeps,
	 * and when both do, so that one that looks makes the other look. */
	SPIN_SOON_NS = 50000,
	SPIN_CAP_NS = 1000000,		/* one long wait ends the looking */
	SPIN_SAMPLE_NS = 20 * MC_MS,
	SPIN_PARTS = 16,		/* of a thread */
};

/* Threads that run or want to, without the one that looks, in parts: a moving
 * average; -1: not to be known. When it was last looked at. */
static struct {
	int others;
	uint64_t sampled_ns;
} spin_load;

/* The fourth number of /proc/loadavg, as in "0.20 0.18 0.12 1/80 11206". */
static int spin_running(void)
{
	char text[128], *p = text;
	int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	for (int i = 0; p && i < 3; i++)
		p = strchr(p + (i > 0), ' ');
	return p ? atoi(p + 1) : -1;
}

static void spin_sample(void)
{
	int now = spin_running();
	int others = __atomic_load_n(&spin_load.others, __ATOMIC_RELAXED);

	if (now < 0)
		others = -1;
	else
		others += (SPIN_PARTS * (now - 1) - others) / 4;
	__atomic_store_n(&spin_load.others, others, __ATOMIC_RELAXED);
}

/* Is there a CPU that nobody else would use? Who looks takes it from whom we
 * wait for, otherwise. */
static bool spin_spare(uint64_t now_ns)
{
	static int cpus;
	uint64_t last = __atomic_load_n(&spin_load.sampled_ns,
					__ATOMIC_RELAXED);

	if (now_ns - last > SPIN_SAMPLE_NS &&
	    __atomic_compare_exchange_n(&spin_load.sampled_ns, &last, now_ns,
					false, __ATOMIC_RELAXED,
					__ATOMIC_RELAXED)) {
		if (!__atomic_load_n(&cpus, __ATOMIC_RELAXED))
			__atomic_store_n(&cpus, get_nprocs(),
					 __ATOMIC_RELAXED);
		spin_sample();
	}
	return __atomic_load_n(&spin_load.others, __ATOMIC_RELAXED) <
	       SPIN_PARTS * __atomic_load_n(&cpus, __ATOMIC_RELAXED) -
	       SPIN_PARTS / 2;
}

void mc_spin_init(struct mc_spin *s, int spin_us)
{
	s->fixed_ns = spin_us > 0 ? spin_us * (uint64_t)1000 : 0;
	s->never = spin_us < 0;
	s->usual_ns = SPIN_CAP_NS;
}

uint64_t mc_spin_ns(const struct mc_spin *s, uint64_t now_ns)
{
	uint64_t usual = __atomic_load_n(&s->usual_ns, __ATOMIC_RELAXED);

	if (s->never || s->fixed_ns)
		return s->fixed_ns;
	return usual < SPIN_SOON_NS && spin_spare(now_ns) ? 2 * usual : 0;
}

/* What was looked for in vain is not looked for again until a dozen events have
 * come soon. */
void mc_spin_took(struct mc_spin *s, uint64_t ns, uint64_t spun)
{
	uint64_t usual = __atomic_load_n(&s->usual_ns, __ATOMIC_RELAXED);

	ns = mc_min(ns, (uint64_t)SPIN_CAP_NS);
	usual = usual - usual / 8 + ns / 8;
	if (spun && ns > spun && usual < 2 * SPIN_SOON_NS)
		usual = 2 * SPIN_SOON_NS;
	__atomic_store_n(&s->usual_ns, usual, __ATOMIC_RELAXED);
}
