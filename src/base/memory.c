/* Arenas, large blocks, growing arrays and growing text. */
#include "base_internal.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

typedef struct sap_arena_block {
    struct sap_arena_block *before;
    size_t capacity;
    alignas(16) unsigned char data[];
} sap_arena_block;

enum { BLOCK_BYTES = 64 * 1024 - 64 };

void *sap_arena_alloc(sap_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = (bytes + 15) & ~(size_t)15;
    if (!arena->block || rounded > arena->block->capacity - arena->used) {
        size_t capacity = rounded > BLOCK_BYTES / 4 ? rounded : BLOCK_BYTES;
        sap_arena_block *block = calloc(1, sizeof *block + capacity);
        if (!block)
            return NULL;
        block->capacity = capacity;
        if (arena->block && capacity == rounded && arena->used < arena->block->capacity) {
            /* a large item gets a block of its own behind the current one, which goes on being filled */
            block->before = arena->block->before;
            arena->block->before = block;
            return block->data;
        }
        block->before = arena->block;
        arena->block = block;
        arena->used = 0;
    }
    void *p = arena->block->data + arena->used;
    arena->used += rounded;
    return p;
}

void *sap_arena_array(sap_arena *arena, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    return sap_arena_alloc(arena, bytes);
}

char *sap_arena_text(sap_arena *arena, const char *text, size_t length) {
    char *copy = sap_arena_alloc(arena, length + 1);
    if (copy && length)
        memcpy(copy, text, length);
    return copy;
}

char *sap_arena_format(sap_arena *arena, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : sap_arena_alloc(arena, (size_t)length + 1);
    if (text)
        (void)vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

void sap_arena_release(sap_arena *arena) {
    while (arena->block) {
        sap_arena_block *before = arena->block->before;
        free(arena->block);
        arena->block = before;
    }
    arena->used = 0;
}

/* ---- Large blocks ---------------------------------------------------------------------------------------- */

#ifdef __SANITIZE_ADDRESS__ /* which finds use after release and behind the end: nothing is kept or rounded up */
enum { HUGE_PAGE = 64, SHELF_PLACES = 1, SHELF_BYTES = 0 };
#else
enum { HUGE_PAGE = 2 << 20, SHELF_PLACES = 32, SHELF_BYTES = 128 << 20 };
#endif

/* Blocks that nobody uses, and what they hold: that may be out of date, so a block begins with its capacity while it lies here.
 * Each place is emptied or filled by one exchange, so threads need no lock, and a child of fork() finds none taken. */
static struct {
    _Atomic(size_t *) block;
    atomic_size_t capacity;
} shelf[SHELF_PLACES];
static atomic_size_t shelved; /* bytes */

/* Lays the block into an empty place, or frees it. */
static void shelve(size_t *block) {
    for (int i = 0; i < SHELF_PLACES; i++) {
        size_t *empty = NULL, capacity = *block;
        if (atomic_load_explicit(&shelf[i].block, memory_order_relaxed) == NULL &&
            atomic_compare_exchange_strong(&shelf[i].block, &empty, block)) {
            atomic_store_explicit(&shelf[i].capacity, capacity, memory_order_relaxed);
            return;
        }
    }
    atomic_fetch_sub(&shelved, *block);
    free(block);
}

/* The place of the smallest block that is large enough and not much too large, or -1. */
static int find_shelved(size_t size) {
    enum { MUCH = 8 << 20 };
    int best = -1;
    size_t least = size > MUCH ? 2 * size : size + MUCH;
    for (int i = 0; i < SHELF_PLACES; i++) {
        size_t capacity = atomic_load_explicit(&shelf[i].capacity, memory_order_relaxed);
        if (atomic_load_explicit(&shelf[i].block, memory_order_relaxed) && capacity >= size && capacity <= least) {
            best = i;
            least = capacity - 1;
        }
    }
    return best;
}

void *sap_block_take(size_t bytes, size_t *capacity) {
    if (bytes > SIZE_MAX / 4)
        return NULL;
    size_t size = (bytes + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
    if (size == 0)
        size = HUGE_PAGE;
    for (int place = find_shelved(size); place >= 0; place = find_shelved(size)) {
        size_t *found = atomic_exchange(&shelf[place].block, NULL);
        if (found && *found >= size) {
            *capacity = *found;
            atomic_fetch_sub(&shelved, *capacity);
            return found;
        }
        if (found) /* another than was seen */
            shelve(found);
    }
    void *block = aligned_alloc(HUGE_PAGE, size);
    if (block && HUGE_PAGE > 64)
        (void)madvise(block, size, MADV_HUGEPAGE);
    *capacity = block ? size : 0;
    return block;
}

void sap_block_give(void *block, size_t capacity) {
    if (!block)
        return;
    if (atomic_fetch_add(&shelved, capacity) + capacity > SHELF_BYTES) {
        atomic_fetch_sub(&shelved, capacity);
        free(block);
        return;
    }
    *(size_t *)block = capacity;
    shelve(block);
}

bool sap_space_reserve(sap_space *space, size_t bytes) {
    if (bytes <= space->capacity)
        return true;
    sap_space_release(space);
    if (bytes >= SAP_BLOCK_LEAST) {
        space->data = sap_block_take(bytes, &space->capacity);
    } else {
        space->data = malloc(bytes);
        space->capacity = space->data ? bytes : 0;
    }
    return space->data != NULL;
}

void sap_space_release(sap_space *space) {
    if (space->capacity >= SAP_BLOCK_LEAST)
        sap_block_give(space->data, space->capacity);
    else
        free(space->data);
    *space = (sap_space){0};
}

/* ---- Growing ----------------------------------------------------------------------------------------------- */

bool sap_grow(void **array, size_t *capacity, size_t count, size_t item_size) {
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? *capacity * 2 : 16, bytes;
    if (larger <= count)
        larger = count + 1;
    if (__builtin_mul_overflow(larger, item_size, &bytes))
        return false;
    void *grown = realloc(*array, bytes);
    if (!grown)
        return false;
    *array = grown;
    *capacity = larger;
    return true;
}

/* Room for so many more bytes and the terminating zero. */
static bool reserve(sap_text *text, size_t length) {
    size_t needed = text->length + length + 1;
    if (needed > text->capacity && !text->failed) {
        char *grown = realloc(text->data, needed * 2);
        text->failed = !grown;
        if (grown) {
            text->data = grown;
            text->capacity = needed * 2;
        }
    }
    return !text->failed;
}

void sap_text_put(sap_text *text, const char *bytes, size_t length) {
    if (!reserve(text, length))
        return;
    memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = '\0';
}

void sap_text_add(sap_text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && reserve(text, (size_t)length)) {
        (void)vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
}

void sap_text_release(sap_text *text) {
    free(text->data);
    *text = (sap_text){0};
}
