/* Arenas, growing arrays and growing text. */
#include "base_internal.h"

#include <stdalign.h>
#include <stdlib.h>

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

void sap_text_add(sap_text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && !text->failed) {
        size_t needed = text->length + (size_t)length + 1;
        if (needed > text->capacity) {
            size_t capacity = needed * 2;
            char *grown = realloc(text->data, capacity);
            if (grown) {
                text->data = grown;
                text->capacity = capacity;
            } else {
                text->failed = true;
            }
        }
        if (!text->failed) {
            (void)vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
            text->length += (size_t)length;
        }
    }
    va_end(again);
}

void sap_text_release(sap_text *text) {
    free(text->data);
    *text = (sap_text){0};
}
