/* A watch over memory: ends the program when more is allocated at a time than an input justifies. It needs the address
 * sanitizer's hooks, and does nothing without. For one file of a program only. */
#ifndef SAP_TEST_MEMORY_WATCH_H
#define SAP_TEST_MEMORY_WATCH_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes beyond what the input justifies, and how many each byte of input does justify. */
enum { MEMORY_BEYOND = 64 << 20, MEMORY_TIMES = 16 };

#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_IS_WATCHED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMORY_IS_WATCHED
#endif
#endif

#ifdef MEMORY_IS_WATCHED
int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *, size_t),
                                              void (*freed)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

static atomic_llong memory_live, memory_limit = INT64_MAX;

static void memory_allocated(const volatile void *p, size_t size) {
    (void)p;
    long long now = atomic_fetch_add(&memory_live, (long long)size) + (long long)size,
              most = atomic_load(&memory_limit);
    if (now > most) {
        atomic_store(&memory_limit, INT64_MAX);
        (void)fprintf(stderr, "%zu bytes are allocated, %lld at a time; %lld are allowed\n", size, now, most);
        abort();
    }
}

static void memory_freed(const volatile void *p) {
    if (p)
        atomic_fetch_sub(&memory_live, (long long)__sanitizer_get_allocated_size(p));
}

/* From here on, for an input of so many bytes. */
static inline void memory_watch(size_t input) {
    static int installed;
    if (!installed && __sanitizer_install_malloc_and_free_hooks(memory_allocated, memory_freed) == 0)
        abort();
    installed = 1;
    atomic_store(&memory_limit, atomic_load(&memory_live) + MEMORY_BEYOND + (long long)MEMORY_TIMES * (long long)input);
}
#else
static inline void memory_watch(size_t input) {
    (void)input;
}
#endif

#endif
