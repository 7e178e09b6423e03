/*
 * tsan.c - what the sanitizer of threads reports and should not, for all C
 * tests. Descriptors are numbers that it follows from call to call, and it does
 * not see all calls: those that memfd_create(), fcntl(), SCM_RIGHTS and the
 * insides of libevent make or close. A number that is used again then seems to
 * be shared with whoever had it before.
 */
#ifdef __SANITIZE_THREAD__
__attribute__((visibility("default")))
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:interceptor_close\nrace:libevent-2.1.so\n";
}
#else
/* A file has something in it. */
enum { TSAN_UNUSED };
#endif
