/* Arenas, growing arrays and text, and hashes. */
#include "base/base_internal.h"
#include "test_support.h"

#include <pthread.h>
#include <sched.h>

static void arenas_keep_what_they_gave(void **state) {
    (void)state;
    sap_arena arena = {0};
    char *small[3000];
    char *large = NULL;
    for (int i = 0; i < 3000; i++) {
        small[i] = sap_arena_format(&arena, "text %d", i);
        assert_non_null(small[i]);
        assert_int_equal((uintptr_t)small[i] % 16, 0);
        if (i == 1000) {
            large = sap_arena_alloc(&arena, 1000000);
            assert_non_null(large);
            for (int j = 0; j < 1000000; j++)
                assert_int_equal(large[j], 0);
            memset(large, 'x', 1000000);
        }
    }
    for (int i = 0; i < 3000; i++) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "text %d", i);
        assert_string_equal(small[i], expected);
    }
    assert_int_equal(large[999999], 'x');
    assert_null(sap_arena_array(&arena, SIZE_MAX / 4, 8));
    assert_null(sap_arena_alloc(&arena, SIZE_MAX - 3));
    sap_arena_release(&arena);
    sap_arena_release(&arena);
}

static void arrays_and_text_grow(void **state) {
    (void)state;
    int *numbers = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < 1000; i++) {
        assert_true(sap_grow((void **)&numbers, &capacity, i, sizeof *numbers));
        numbers[i] = (int)i;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(numbers[i], i);
    free(numbers);
    sap_text text = {0};
    for (int i = 0; i < 100; i++)
        sap_text_add(&text, "%d,", i % 10);
    assert_int_equal(text.length, 200);
    assert_int_equal(strlen(text.data), 200);
    sap_text_release(&text);
    assert_null(text.data);
}

static void messages_are_cut_not_overrun(void **state) {
    (void)state;
    char longest[3000];
    memset(longest, 'm', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    sap_error error = {0};
    assert_int_equal(sap_error_set(&error, SAP_EIO, "%s", longest), SAP_EIO);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_int_equal(sap_error_prefix(&error, "file %d", 7), SAP_EIO);
    assert_int_equal(strlen(error.message), sizeof error.message - 1);
    assert_memory_equal(error.message, "file 7: mmm", 11);
    sap_error_set(&error, SAP_EIO, "short");
    sap_error_prefix(&error, "a");
    assert_string_equal(error.message, "a: short");
    assert_int_equal(sap_error_set(NULL, SAP_EIO, "nowhere"), SAP_EIO);
}

static void random_numbers_are_the_same_everywhere(void **state) {
    (void)state;
    assert_true(sap_mix(1, 2) == sap_mix(1, 2));
    assert_true(sap_mix(1, 2) != sap_mix(1, 3) && sap_mix(1, 2) != sap_mix(2, 2));
    assert_true(sap_mix(0, 0) == UINT64_C(0xE220A8397B1DCDAF)); /* SplitMix64's first number from seed 0 */
    double sum = 0;
    for (uint64_t i = 0; i < 10000; i++) {
        double u = sap_unit(sap_mix(42, i));
        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_true(sum / 10000 > 0.49 && sum / 10000 < 0.51);
    assert_true(sap_hash("abc", 3, 0) == UINT64_C(0x78AF5F94892F3950)); /* XXH3_64bits("abc") */
}

static void blocks_hold_what_was_asked_for(void **state) {
    (void)state;
    static const size_t sizes[] = {1, SAP_BLOCK_LEAST, (2 << 20) + 1, 9 << 20};
    for (int round = 0; round < 3; round++) {
        uint8_t *blocks[4];
        size_t capacities[4];
        for (int i = 0; i < 4; i++) {
            blocks[i] = sap_block_take(sizes[i], &capacities[i]);
            assert_non_null(blocks[i]);
            assert_true(capacities[i] >= sizes[i]);
            assert_int_equal((uintptr_t)blocks[i] % 64, 0);
            memset(blocks[i], i, capacities[i]);
        }
        for (int i = 0; i < 4; i++) {
            assert_int_equal(blocks[i][0], i);
            assert_int_equal(blocks[i][capacities[i] - 1], i);
            sap_block_give(blocks[i], capacities[i]);
        }
    }
    size_t capacity;
    assert_null(sap_block_take(SIZE_MAX - 5, &capacity));
    sap_block_give(NULL, 0);
}

#ifndef __SANITIZE_ADDRESS__ /* there none is kept */
static void blocks_are_given_out_again(void **state) {
    (void)state;
    size_t capacity, again;
    void *block = sap_block_take(50 << 20, &capacity);
    sap_block_give(block, capacity);
    void *small = sap_block_take(3 << 20, &again); /* too little for it */
    assert_ptr_not_equal(small, block);
    sap_block_give(small, again);
    assert_ptr_equal(sap_block_take(40 << 20, &again), block);
    assert_int_equal(again, capacity);
    sap_block_give(block, capacity);
}
#endif

static void *take_and_give(void *argument) {
    uint8_t mark = *(uint8_t *)argument;
    for (uint64_t i = 0; i < 2000; i++) {
        size_t bytes = (size_t)(1 + sap_mix(mark, i) % 4) << 20, capacity;
        uint8_t *block = sap_block_take(bytes, &capacity);
        block[0] = block[bytes - 1] = mark;
        sched_yield();
        assert_true(block[0] == mark && block[bytes - 1] == mark);
        sap_block_give(block, capacity);
    }
    return NULL;
}

static void threads_share_blocks(void **state) {
    (void)state;
    pthread_t threads[4];
    uint8_t marks[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &marks[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

static void spaces_grow_and_are_released(void **state) {
    (void)state;
    sap_space space = {0};
    static const size_t sizes[] = {0, 10, 5, 100000, SAP_BLOCK_LEAST - 1, SAP_BLOCK_LEAST, 5 << 20, 7};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_true(sap_space_reserve(&space, sizes[i]));
        assert_true(space.capacity >= sizes[i]);
        if (sizes[i])
            memset(space.data, 1, sizes[i]);
    }
    sap_space_release(&space);
    sap_space_release(&space);
    assert_null(space.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arenas_keep_what_they_gave),     cmocka_unit_test(arrays_and_text_grow),
        cmocka_unit_test(messages_are_cut_not_overrun),   cmocka_unit_test(random_numbers_are_the_same_everywhere),
        cmocka_unit_test(blocks_hold_what_was_asked_for),
#ifndef __SANITIZE_ADDRESS__
        cmocka_unit_test(blocks_are_given_out_again),
#endif
        cmocka_unit_test(threads_share_blocks),           cmocka_unit_test(spaces_grow_and_are_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
