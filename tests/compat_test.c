/*
 * compat_test.c - a program of the public C interface, as others have written
 * them: it declares the documented types and functions itself, and knows
 * nothing of ours. Two processes, all 27 functions. compat_test.sh builds and
 * runs it; "compat_test target" is the other process, driven by lines.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the documented interface --------------------------------------- */

#define INVALID_BATCH UINT64_MAX

enum { OPCODE_READ, OPCODE_WRITE };
enum { WAITING, PENDING, INVALID, CANCELED, COMPLETED, TIMEOUT, FAILED };

struct transfer_request {
	int opcode;
	void *source;
	int32_t target_id;
	uint64_t target_offset;
	uint64_t length;
};
struct transfer_status {
	int status;
	uint64_t transferred_bytes;
};
typedef struct {
	char *name;
	char *msg;
} notify_msg_t;
typedef struct {
	void *addr;
	size_t length;
} buffer_entry_t;
typedef struct {
	char device_name[64];
	uint64_t inflight_bytes;
	double ewma_bandwidth_bps;
} nic_load_stat_t;

void *createTransferEngine(const char *, const char *, const char *, uint64_t,
			   int);
int discoverTopology(void *);
int getLocalIpAndPort(void *, char *, size_t);
void *installTransport(void *, const char *, void **);
int uninstallTransport(void *, const char *);
int32_t openSegment(void *, const char *);
int32_t openSegmentNoCache(void *, const char *);
int closeSegment(void *, int32_t);
int warmupEfaSegment(void *, const char *);
int removeLocalSegment(void *, const char *);
void destroyTransferEngine(void *);
int registerLocalMemory(void *, void *, size_t, const char *, int);
int unregisterLocalMemory(void *, void *);
int registerLocalMemoryBatch(void *, buffer_entry_t *, size_t, const char *);
int unregisterLocalMemoryBatch(void *, void **, size_t);
uint64_t allocateBatchID(void *, size_t);
int submitTransfer(void *, uint64_t, struct transfer_request *, size_t);
int submitTransferWithNotify(void *, uint64_t, struct transfer_request *,
			     size_t, notify_msg_t);
notify_msg_t *getNotifsFromEngine(void *, int *);
int freeNotifsMsgBuf(notify_msg_t *, int);
int genNotifyInEngine(void *, uint64_t, notify_msg_t);
int getTransferStatus(void *, uint64_t, size_t, struct transfer_status *);
int freeBatchID(void *, uint64_t);
int syncSegmentCache(void *);
int getNicLoadStats(void *, nic_load_stat_t *, size_t *);
void enableGracefulShutdown(void *);
int showLinks(void *, char *, size_t, int);

/* ---- helpers -------------------------------------------------------- */

enum { SIZE = 1 << 20, PIECE = 4096, SLOW = 64 << 20 };

static int checks;
static char *ours, *theirs_copy;
static pid_t target_pid;
static FILE *to_target, *from_target;
static uint64_t target_addr;
static char target_name[128];

static void check(int ok, const char *what, int line)
{
	checks++;
	if (ok)
		return;
	fprintf(stderr, "compat_test.c:%d: failed: %s\n", line, what);
	if (target_pid > 0)
		kill(target_pid, SIGKILL);
	exit(1);
}

#define CHECK(cond) check(!!(cond), #cond, __LINE__)

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void nap(void)
{
	struct timespec t = { 0, 1000000 };

	nanosleep(&t, NULL);
}

static void *engine_new(void)
{
	void *e = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1);

	CHECK(e);
	return e;
}

/* ---- the target ----------------------------------------------------- */

static void target_notifs(void *e)
{
	int n;
	notify_msg_t *list = getNotifsFromEngine(e, &n);

	printf("notifs %d", n);
	for (int i = 0; i < n; i++)
		printf(" %s=%s", list[i].name, list[i].msg);
	printf("\n");
	CHECK(!n == !list);
	CHECK(!freeNotifsMsgBuf(list, n));
}

static int target(void)
{
	char *memory = malloc(SLOW), line[128], name[64];
	void *e = engine_new();

	memset(memory, 7, SLOW);
	CHECK(!registerLocalMemory(e, memory, SLOW, "*", 1));
	CHECK(!getLocalIpAndPort(e, name, sizeof(name)));
	printf("%s %llu\n", name, (unsigned long long)(uintptr_t)memory);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "notifs\n"))
			target_notifs(e);
		else if (!strcmp(line, "graceful\n"))
			enableGracefulShutdown(e), puts("ok");
		else if (!strncmp(line, "byte ", 5))
			printf("%d\n", memory[atol(line + 5)]);
		fflush(stdout);
	}
	destroyTransferEngine(e);
	free(memory);
	return 0;
}

static void target_start(void)
{
	int in[2], out[2];
	unsigned long long addr;
	char line[256];

	CHECK(!pipe(in) && !pipe(out));
	target_pid = fork();
	if (!target_pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		for (int i = 3; i < 64; i++)
			close(i);
		execl("/proc/self/exe", "compat_test", "target", (char *)0);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	to_target = fdopen(in[1], "w");
	from_target = fdopen(out[0], "r");
	CHECK(fgets(line, sizeof(line), from_target));
	CHECK(sscanf(line, "%127s %llu", target_name, &addr) == 2);
	target_addr = addr;
}

static void target_say(const char *line, char *reply, int size)
{
	fprintf(to_target, "%s\n", line);
	fflush(to_target);
	CHECK(fgets(reply, size, from_target));
	reply[strcspn(reply, "\n")] = 0;
}

static int target_end(void)
{
	int status;

	/* The end of its lines would tell it to end in peace. */
	CHECK(waitpid(target_pid, &status, 0) == target_pid);
	fclose(to_target);
	fclose(from_target);
	target_pid = 0;
	return status;
}

/* Every thread of it has stopped when this returns. */
static void target_freeze(void)
{
	int status;

	CHECK(!kill(target_pid, SIGSTOP));
	CHECK(waitpid(target_pid, &status, WUNTRACED) == target_pid);
	CHECK(WIFSTOPPED(status));
}

/* ---- transfers ------------------------------------------------------ */

static struct transfer_request request(int op, int32_t segment, uint64_t at,
				       uint64_t len)
{
	return (struct transfer_request){ op, ours + at, segment,
					  target_addr + at, len };
}

static int finish(void *e, uint64_t batch, size_t task, uint64_t *bytes)
{
	struct transfer_status s = { .status = 99 };
	double end = seconds() + 10;

	do {
		CHECK(!getTransferStatus(e, batch, task, &s));
		if (s.status == PENDING || s.status == WAITING)
			nap();
	} while (s.status <= PENDING && seconds() < end);
	if (bytes)
		*bytes = s.transferred_bytes;
	return s.status;
}

static void test_write_and_read(void *e, int32_t segment)
{
	struct transfer_request q[16];
	uint64_t b = allocateBatchID(e, 32), bytes;

	CHECK(b != INVALID_BATCH && b != 0);
	for (int i = 0; i < SIZE; i++)
		ours[i] = i * 31 + (i >> 8);
	memcpy(theirs_copy, ours, SIZE);
	for (int i = 0; i < 16; i++)
		q[i] = request(OPCODE_WRITE, segment, i * PIECE, PIECE);
	CHECK(!submitTransfer(e, b, q, 16));
	for (int i = 0; i < 16; i++)
		CHECK(finish(e, b, i, &bytes) == COMPLETED && bytes == PIECE);
	/* Requests of a second submission are numbered on. */
	memset(ours, 0, SIZE);
	for (int i = 0; i < 16; i++)
		q[i].opcode = OPCODE_READ;
	CHECK(!submitTransfer(e, b, q, 16));
	for (int i = 16; i < 32; i++)
		CHECK(finish(e, b, i, &bytes) == COMPLETED && bytes == PIECE);
	CHECK(!memcmp(ours, theirs_copy, 16 * PIECE));
	CHECK(!freeBatchID(e, b));
}

static void test_codes_of_batches(void *e, int32_t segment)
{
	struct transfer_request q[3];
	struct transfer_status s = { .status = 42 };
	uint64_t b = allocateBatchID(e, 2);

	for (int i = 0; i < 3; i++)
		q[i] = request(OPCODE_WRITE, segment, 0, PIECE);
	CHECK(submitTransfer(e, b, q, 3) == 2);
	CHECK(!submitTransfer(e, b, q, 0));
	CHECK(!submitTransfer(e, b, q, 2));
	CHECK(submitTransfer(e, b, q, 1) == 2);
	CHECK(getTransferStatus(e, b, 2, &s) == 1 && s.status == 42);
	CHECK(finish(e, b, 0, NULL) == COMPLETED);
	CHECK(finish(e, b, 1, NULL) == COMPLETED);
	CHECK(!freeBatchID(e, b));
	CHECK(freeBatchID(e, b) == 1);
	CHECK(getTransferStatus(e, b, 0, &s) == 1 && s.status == 42);
	CHECK(submitTransfer(e, b, q, 1) == 1);
	CHECK(getTransferStatus(e, INVALID_BATCH, 0, &s) == 1);
	CHECK(freeBatchID(e, INVALID_BATCH) == 1);
	CHECK(freeBatchID(e, 0) == 1);
	b = allocateBatchID(e, 4);
	q[0].target_id = 4000;
	CHECK(submitTransfer(e, b, q, 1) == 1);
	q[0] = request(77, segment, 0, PIECE);
	CHECK(submitTransfer(e, b, q, 1) == 1);
	CHECK(!freeBatchID(e, b));
}

/* What is wrong with one request's memory is its own affair. */
static void test_bad_addresses_fail_alone(void *e, int32_t segment)
{
	struct transfer_request q[3];
	uint64_t b = allocateBatchID(e, 3), bytes;

	q[0] = request(OPCODE_WRITE, segment, 0, PIECE);
	q[1] = request(OPCODE_WRITE, segment, PIECE, PIECE);
	q[1].target_offset = target_addr + SLOW;
	q[2] = request(OPCODE_WRITE, segment, 2 * PIECE, PIECE);
	CHECK(!submitTransfer(e, b, q, 3));
	CHECK(finish(e, b, 0, &bytes) == COMPLETED && bytes == PIECE);
	CHECK(finish(e, b, 1, &bytes) == FAILED && bytes == 0);
	CHECK(finish(e, b, 2, NULL) == COMPLETED);
	CHECK(!freeBatchID(e, b));
}

static void test_own_segment_is_0(void *e)
{
	char *to = malloc(PIECE), name[64];
	struct transfer_request q = { OPCODE_WRITE, ours, 0,
				      (uintptr_t)to, PIECE };
	uint64_t b = allocateBatchID(e, 1);

	CHECK(!registerLocalMemory(e, to, PIECE, "cpu:0", 1));
	CHECK(!getLocalIpAndPort(e, name, sizeof(name)));
	CHECK(openSegment(e, name) == 0);
	CHECK(!submitTransfer(e, b, &q, 1));
	CHECK(finish(e, b, 0, NULL) == COMPLETED);
	CHECK(!memcmp(to, ours, PIECE));
	CHECK(!freeBatchID(e, b));
	CHECK(!unregisterLocalMemory(e, to));
	free(to);
}

/* A frozen peer keeps a batch busy; when it goes on, so does the batch. Its
 * memory can be written to nevertheless if it is on this host. */
static void test_busy_batch(void *e, int32_t segment)
{
	struct transfer_request q = request(OPCODE_WRITE, segment, 0, SIZE);
	const char *transports = getenv("MOONCAKE_TRANSPORTS");
	struct transfer_status s;
	uint64_t b;

	if (!transports || strcmp(transports, "tcp"))
		return;
	b = allocateBatchID(e, 1);
	target_freeze();
	CHECK(!submitTransfer(e, b, &q, 1));
	CHECK(!getTransferStatus(e, b, 0, &s) && s.status == PENDING);
	CHECK(freeBatchID(e, b) == 4);
	CHECK(!kill(target_pid, SIGCONT));
	CHECK(finish(e, b, 0, NULL) == COMPLETED);
	CHECK(!freeBatchID(e, b));
}

/* ---- notifications -------------------------------------------------- */

static void expect_notifs(const char *want)
{
	char got[512] = "";
	double end = seconds() + 5;

	do {
		target_say("notifs", got, sizeof(got));
		if (strcmp(got, "notifs 0"))
			break;
		nap();
	} while (seconds() < end);
	if (strcmp(got, want))
		fprintf(stderr, "got '%s'\nwant '%s'\n", got, want);
	CHECK(!strcmp(got, want));
	target_say("notifs", got, sizeof(got));
	CHECK(!strcmp(got, "notifs 0"));
}

static void test_notifications(void *e, int32_t segment)
{
	struct transfer_request q[2] = {
		request(OPCODE_WRITE, segment, 0, PIECE),
		request(OPCODE_WRITE, segment, PIECE, PIECE),
	};
	notify_msg_t m = { "agent", "done" };
	uint64_t b = allocateBatchID(e, 8);

	CHECK(!genNotifyInEngine(e, segment, m));
	expect_notifs("notifs 1 agent=done");
	CHECK(genNotifyInEngine(e, 4000, m) < 0);
	/* Sent once, though nobody asks for the status. */
	m.msg = "unasked";
	CHECK(!submitTransfer(e, b, q, 2));
	CHECK(!submitTransferWithNotify(e, b, q, 2, m));
	expect_notifs("notifs 1 agent=unasked");
	for (int i = 0; i < 4; i++)
		CHECK(finish(e, b, i, NULL) == COMPLETED);
	CHECK(submitTransferWithNotify(e, b, q, 0, m) == 1);
	/* Nothing is said to be there that is not. */
	q[1].target_offset = 64;
	CHECK(!submitTransferWithNotify(e, b, q, 2, m));
	CHECK(finish(e, b, 4, NULL) == COMPLETED);
	CHECK(finish(e, b, 5, NULL) == FAILED);
	CHECK(!freeBatchID(e, b));
	expect_notifs("notifs 0");
}

/* ---- memory, segments, engines -------------------------------------- */

static void test_codes_of_memory(void *e)
{
	static char a[4 * PIECE];
	buffer_entry_t all[2] = { { a, PIECE }, { a + PIECE, PIECE } };
	buffer_entry_t bad[2] = { { a, PIECE }, { a + PIECE / 2, PIECE } };
	void *addrs[3] = { a, a + 2 * PIECE, a + PIECE };

	CHECK(registerLocalMemory(e, a, 0, "*", 1) == -1);
	CHECK(!registerLocalMemory(e, a, PIECE, "*", 1));
	CHECK(registerLocalMemory(e, a, PIECE, "*", 1) == -7);
	CHECK(registerLocalMemory(e, a + 1, PIECE, "*", 1) == -7);
	CHECK(!registerLocalMemory(e, a + PIECE, PIECE, NULL, 0));
	CHECK(!unregisterLocalMemory(e, a));
	CHECK(unregisterLocalMemory(e, a) == -3);
	CHECK(!unregisterLocalMemory(e, a + PIECE));
	CHECK(registerLocalMemoryBatch(e, bad, 2, "*") == -7);
	CHECK(!registerLocalMemoryBatch(e, all, 2, "*"));
	CHECK(unregisterLocalMemoryBatch(e, addrs, 3) == -3);
	CHECK(unregisterLocalMemory(e, a) == -3);
	CHECK(unregisterLocalMemory(e, a + PIECE) == -3);
}

static void test_segments(void *e, int32_t segment)
{
	double start = seconds();
	char name[160];

	CHECK(openSegment(e, target_name) == segment);
	snprintf(name, sizeof(name), "/%s", target_name);
	CHECK(openSegmentNoCache(e, name) == segment);
	CHECK(!syncSegmentCache(e));
	CHECK(!warmupEfaSegment(e, target_name));
	CHECK(!closeSegment(e, segment));
	CHECK(openSegment(e, "127.0.0.1:1") < 0);
	CHECK(openSegmentNoCache(e, "127.0.0.1:1") < 0);
	CHECK(openSegment(e, "") < 0);
	CHECK(seconds() - start < 2);
	CHECK(!getLocalIpAndPort(e, name, sizeof(name)));
	CHECK(!removeLocalSegment(e, name));
	CHECK(removeLocalSegment(e, "another") < 0);
}

static void test_reports(void *e)
{
	nic_load_stat_t nics[8];
	size_t n = 8;
	char text[4096], small[8];

	CHECK(!getNicLoadStats(e, nics, &n) && n <= 8);
	CHECK(getNicLoadStats(e, nics, NULL) == -1);
	CHECK(!showLinks(e, text, sizeof(text), 0));
	CHECK(strstr(text, target_name));
	CHECK(!showLinks(e, text, sizeof(text), 1));
	CHECK(text[0] == '{' && strstr(text, target_name));
	CHECK(!showLinks(e, small, sizeof(small), 1) && strlen(small) == 7);
	CHECK(showLinks(e, NULL, 10, 0) == -1);
	CHECK(showLinks(e, text, 0, 0) == -1);
	CHECK(!discoverTopology(e));
	CHECK(installTransport(e, "tcp", NULL));
	CHECK(!installTransport(e, "warp", NULL));
	CHECK(!uninstallTransport(e, "tcp"));
}

static void test_null_engine(void)
{
	struct transfer_request q = { 0 };
	struct transfer_status s;
	notify_msg_t m = { "a", "b" };
	char text[8] = "x";
	int n = 5;

	CHECK(!createTransferEngine("no-scheme://x", "a", "", 0, 1));
	CHECK(!createTransferEngine(NULL, "a", "", 0, 1));
	CHECK(!createTransferEngine("P2PHANDSHAKE", NULL, "", 0, 1));
	destroyTransferEngine(NULL);
	CHECK(getLocalIpAndPort(NULL, text, sizeof(text)) && !text[0]);
	CHECK(openSegment(NULL, "a") < 0 && openSegmentNoCache(NULL, "a") < 0);
	CHECK(registerLocalMemory(NULL, text, 8, "*", 1) < 0);
	CHECK(unregisterLocalMemory(NULL, text) < 0);
	CHECK(allocateBatchID(NULL, 1) == INVALID_BATCH);
	CHECK(submitTransfer(NULL, 1, &q, 1) > 0);
	CHECK(submitTransferWithNotify(NULL, 1, &q, 1, m) > 0);
	CHECK(getTransferStatus(NULL, 1, 0, &s) > 0);
	CHECK(freeBatchID(NULL, 1) > 0);
	CHECK(!getNotifsFromEngine(NULL, &n) && n == 0);
	CHECK(genNotifyInEngine(NULL, 1, m) < 0);
	CHECK(syncSegmentCache(NULL) < 0 && discoverTopology(NULL) < 0);
	CHECK(getNicLoadStats(NULL, NULL, NULL) == -1);
	CHECK(showLinks(NULL, text, 8, 0) == -1);
	CHECK(!installTransport(NULL, "tcp", NULL));
	enableGracefulShutdown(NULL);
}

/* What NIXL's plug-in does: one batch of 1,024 for a handle that is posted
 * again and again, polled task by task in a bare loop; and TensorRT-LLM: a
 * batch for each request. */
static void test_calls_of_nixl(void *e, int32_t segment)
{
	enum { N = 64 };
	struct transfer_request q[N];
	struct transfer_status s;
	notify_msg_t m = { "nixl-agent", "request-7" };
	uint64_t b = allocateBatchID(e, 1024), one;
	int done = 0;

	CHECK(b != INVALID_BATCH);
	for (int i = 0; i < N; i++)
		q[i] = request(i % 2 ? OPCODE_READ : OPCODE_WRITE, segment,
			       i * PIECE, PIECE);
	for (int post = 0; post < 4; post++) {
		CHECK(!(post % 2 ? submitTransferWithNotify(e, b, q, N, m) :
			submitTransfer(e, b, q, N)));
		for (; done < (post + 1) * N; done++)
			do {
				CHECK(!getTransferStatus(e, b, done, &s));
				CHECK(s.status <= PENDING ||
				      s.status == COMPLETED);
			} while (s.status != COMPLETED);
		if (post % 2)
			expect_notifs("notifs 1 nixl-agent=request-7");
	}
	CHECK(submitTransfer(e, b, q, N) == 0);
	while (freeBatchID(e, b))
		nap();
	for (int i = 0; i < N; i++) {
		one = allocateBatchID(e, 1);
		CHECK(!submitTransfer(e, one, &q[i], 1));
		CHECK(finish(e, one, 0, NULL) == COMPLETED);
		CHECK(!freeBatchID(e, one));
	}
}

/* ---- ends ----------------------------------------------------------- */

/* A peer that dies fails the batch within seconds, and others go on. */
static void test_peer_dies(void *e, int32_t segment)
{
	struct transfer_request q = request(OPCODE_WRITE, segment, 0, PIECE);
	uint64_t b = allocateBatchID(e, 1);
	double start = seconds();
	int32_t again;

	kill(target_pid, SIGKILL);
	target_end();
	CHECK(!submitTransfer(e, b, &q, 1));
	CHECK(finish(e, b, 0, NULL) == FAILED);
	CHECK(seconds() - start < 5);
	CHECK(!freeBatchID(e, b));
	target_start();
	again = openSegment(e, target_name);
	CHECK(again > 0);
	test_write_and_read(e, again);
}

static void test_graceful_shutdown(void *e)
{
	char reply[16];
	int status;

	target_say("graceful", reply, sizeof(reply));
	CHECK(!strcmp(reply, "ok"));
	kill(target_pid, SIGTERM);
	status = target_end();
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CHECK(openSegment(e, "127.0.0.1:1") < 0);
}

/* Destroying with batches that were not freed, some in flight. */
static void test_destroy_in_flight(void)
{
	void *e = engine_new();
	struct transfer_request q;
	int32_t segment;
	uint64_t b;

	target_start();
	segment = openSegment(e, target_name);
	CHECK(segment > 0);
	CHECK(!registerLocalMemory(e, ours, SIZE, "*", 1));
	q = request(OPCODE_WRITE, segment, 0, SIZE);
	b = allocateBatchID(e, 1);
	target_freeze();
	CHECK(!submitTransfer(e, b, &q, 1));
	destroyTransferEngine(e);
	kill(target_pid, SIGKILL);
	target_end();
}

/* A batch and its id survive many rounds; nothing of them is left over. */
static void test_many_batches(void *e, int32_t segment)
{
	struct transfer_request q = request(OPCODE_WRITE, segment, 0, 64);
	uint64_t seen = 0;

	for (int i = 0; i < 5000; i++) {
		uint64_t b = allocateBatchID(e, 1);

		CHECK(b != INVALID_BATCH && b != seen);
		seen = b;
		CHECK(!submitTransfer(e, b, &q, 1));
		while (freeBatchID(e, b) == 4)
			;
	}
}

int main(int argc, char **argv)
{
	void *e;
	int32_t segment;

	_Static_assert(sizeof(struct transfer_request) == 40, "request");
	_Static_assert(offsetof(struct transfer_request, target_offset) == 24,
		       "target_offset");
	if (argc > 1 && !strcmp(argv[1], "target"))
		return target();
	ours = malloc(SIZE);
	theirs_copy = malloc(SIZE);
	test_null_engine();
	e = engine_new();
	target_start();
	CHECK(!registerLocalMemory(e, ours, SIZE, "*", 1));
	segment = openSegment(e, target_name);
	CHECK(segment > 0);
	test_write_and_read(e, segment);
	test_codes_of_batches(e, segment);
	test_bad_addresses_fail_alone(e, segment);
	test_own_segment_is_0(e);
	test_busy_batch(e, segment);
	test_notifications(e, segment);
	test_calls_of_nixl(e, segment);
	test_codes_of_memory(e);
	test_segments(e, segment);
	test_reports(e);
	test_many_batches(e, segment);
	test_peer_dies(e, segment);
	test_graceful_shutdown(e);
	destroyTransferEngine(e);
	test_destroy_in_flight();
	free(ours);
	free(theirs_copy);
	printf("%d checks\n1 passed, 0 failed, 0 skipped\n", checks);
	return 0;
}
