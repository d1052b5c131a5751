/* The fibers of cuda_emulation.h. */
#include "cuda_emulation.h"

#include <csetjmp>
#include <memory>
#include <mutex>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulated {

namespace {

constexpr int BARRIERS = 16, WARP = 32, STACK = 64 * 1024;
constexpr size_t GUARD = 256;      /* bytes behind shared memory that nobody may change */
constexpr long PATIENCE = 1000000; /* rounds without progress */

struct block_state {
    std::vector<char> memory;
    char *shared;
    int arrived[BARRIERS] = {};
    unsigned generation[BARRIERS] = {};
};

struct warp_state {
    uint64_t words[2][WARP][16]; /* of this exchange and the one before */
    int arrived = 0;
    unsigned generation = 0;
};

/* Where to go on. Contexts start a fiber; after that jumps go between stacks, since they save no signals, which is a call of the kernel. */
struct fiber {
    place at;
    ucontext_t context;
    jmp_buf spot;
    bool started;
    std::unique_ptr<char[]> stack;
    block_state *block;
    warp_state *warp;
    bool done = false;
    void *fake_stack = nullptr;
};

jmp_buf scheduler_spot;
fiber *running;
const std::function<void()> *body;
long progress;
const void *scheduler_bottom;
size_t scheduler_size;

void start_switch(void **save, const void *bottom, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(save, bottom, size);
#else
    (void)save, (void)bottom, (void)size;
#endif
}
void finish_switch(void *save, const void **bottom, size_t *size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(save, bottom, size);
#else
    (void)save, (void)bottom, (void)size;
#endif
}

void enter() {
    finish_switch(nullptr, &scheduler_bottom, &scheduler_size);
    (*body)();
    running->done = true;
    progress++;
    start_switch(nullptr, scheduler_bottom, scheduler_size);
    _longjmp(scheduler_spot, 1);
}

void resume(fiber &f) {
    void *save = nullptr;
    running = &f;
    here = &f.at;
    start_switch(&save, f.stack.get(), STACK);
    if (_setjmp(scheduler_spot) == 0) {
        if (f.started)
            _longjmp(f.spot, 1);
        f.started = true;
        setcontext(&f.context);
    }
    finish_switch(save, nullptr, nullptr);
}

[[noreturn]] void fail(const char *message) {
    fprintf(stderr, "emulated launch: %s\n", message);
    abort();
}

void init_block(block_state &b, size_t shared) {
    b.memory.assign(shared + GUARD + 1024, (char)0xff);
    uintptr_t start = ((uintptr_t)b.memory.data() + 1023) / 1024 * 1024;
    b.shared = (char *)start;
    memset(b.shared + shared, 0x5a, GUARD);
}

void check_block(const block_state &b, size_t shared) {
    for (size_t i = 0; i < GUARD; i++)
        if (b.shared[shared + i] != 0x5a)
            fail("writes behind its shared memory");
    for (int i = 0; i < BARRIERS; i++)
        if (b.arrived[i] != 0)
            fail("a thread left while others wait at a barrier");
}

void init_fiber(fiber &f, unsigned number, unsigned thread, block_state &block, warp_state &warp) {
    f.at = {dim3(thread, 0, 0), dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y),
            block.shared};
    f.block = &block;
    f.warp = &warp;
    f.done = f.started = false;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, enter, 0);
}

/* Runs blocks [first, first + count) of the grid together. */
void run_blocks(unsigned first, unsigned count, size_t shared) {
    static std::vector<std::unique_ptr<fiber>> fibers; /* kept: stacks are costly to make */
    unsigned threads = blocks.x * blocks.y * blocks.z;
    std::vector<block_state> states(count);
    std::vector<warp_state> warps((size_t)count * ((threads + WARP - 1) / WARP));
    while (fibers.size() < (size_t)count * threads) {
        fibers.push_back(std::make_unique<fiber>());
        fibers.back()->stack.reset(new char[STACK]);
    }
    for (unsigned b = 0; b < count; b++) {
        init_block(states[b], shared);
        warp_state *own = &warps[(size_t)b * ((threads + WARP - 1) / WARP)];
        for (unsigned t = 0; t < threads; t++)
            init_fiber(*fibers[(size_t)b * threads + t], first + b, t, states[b], own[t / WARP]);
    }
    size_t left = (size_t)count * threads;
    for (long idle = 0, before = progress; left > 0; before = progress) {
        left = 0;
        for (size_t i = 0; i < (size_t)count * threads; i++) {
            if (!fibers[i]->done) {
                resume(*fibers[i]);
                left += !fibers[i]->done;
            }
        }
        idle = progress == before ? idle + 1 : 0;
        if (idle > PATIENCE / (long)(count * threads))
            fail("its threads wait for ever");
    }
    for (const block_state &b : states)
        check_block(b, shared);
}

} // namespace

place *here;
dim3 grid, blocks;

void yield() {
    start_switch(&running->fake_stack, scheduler_bottom, scheduler_size);
    fiber *self = running;
    if (_setjmp(self->spot) == 0)
        _longjmp(scheduler_spot, 1);
    finish_switch(self->fake_stack, &scheduler_bottom, &scheduler_size);
}

void barrier(int id, int count) {
    block_state *b = running->block;
    unsigned generation = b->generation[id];
    if (++b->arrived[id] == count) {
        b->arrived[id] = 0;
        b->generation[id]++;
        progress++;
        return;
    }
    while (b->generation[id] == generation)
        yield();
}

const uint64_t (*exchange(const uint64_t *mine, int words))[16] {
    warp_state *w = running->warp;
    unsigned generation = w->generation;
    memcpy(w->words[generation % 2][here->thread.x % WARP], mine, (size_t)words * sizeof *mine);
    if (++w->arrived == WARP) {
        w->arrived = 0;
        w->generation++;
        progress++;
    } else {
        while (w->generation == generation)
            yield();
    }
    return w->words[generation % 2];
}

void launch(dim3 grid_, dim3 block, size_t shared, bool cooperative, const std::function<void()> &kernel) {
    static std::mutex one; /* ranks may be threads */
    std::lock_guard<std::mutex> hold(one);
    grid = grid_;
    blocks = block;
    body = &kernel;
    unsigned count = grid.x * grid.y * grid.z;
    if (block.x > 1024 || block.y != 1 || block.z != 1 || count == 0 || shared > 227 * 1024)
        fail("a shape that no device takes");
    if (cooperative)
        run_blocks(0, count, shared);
    else
        for (unsigned b = 0; b < count; b++)
            run_blocks(b, 1, shared);
}

} // namespace emulated

/* For tests in C. */
extern "C" long emulated_graph_launches();
long emulated_graph_launches() {
    return emulated::graph_launches;
}
