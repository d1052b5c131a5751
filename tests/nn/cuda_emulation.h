/* CUDA on the CPU, for tests: what src/nn/cuda uses of the language and the runtime, so that the same sources compile as
 * C++ and run without a GPU.
 *
 * A block's threads are fibers that take turns; a cooperative launch has all its blocks alive at a time. Barriers, shuffles, ldmatrix
 * and mma move data between threads with the layouts of the PTX manual. What a kernel forgets to wait for shows up, since a fiber runs
 * until it waits: a thread that reads too early reads what was there before. Shared memory starts as NaN and ends in a guard.
 * A launch whose threads all wait for ever ends the program with a message. What a stream gets while it is captured is kept with its
 * arguments, and runs when the graph does; memory cannot be had meanwhile.
 */
#ifndef SAP_CUDA_EMULATION_H
#define SAP_CUDA_EMULATION_H

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <functional>
#include <tuple>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__

using std::min, std::max, std::isfinite, std::isinf;

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct float2 {
    float x, y;
};
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

namespace emulated {

struct place {
    dim3 thread, block;
    char *shared;
};
extern place *here;       /* of the fiber that runs */
extern dim3 grid, blocks; /* of the launch: blocks in the grid, threads in a block */

/* Waits for `count` threads of the block at barrier `id`. */
void barrier(int id, int count);
/* Exchange among the 32 threads of a warp: gives the values that all lanes brought, until the next exchange. */
const uint64_t (*exchange(const uint64_t *mine, int words))[16];
void yield();
void launch(dim3 grid, dim3 block, size_t shared, bool cooperative, const std::function<void()> &kernel);

using work = std::function<void()>;
inline thread_local int captures; /* streams of this thread that are being captured */
inline std::atomic<long> graph_launches;

} // namespace emulated

#define threadIdx (emulated::here->thread)
#define blockIdx (emulated::here->block)
#define gridDim (emulated::grid)
#define blockDim (emulated::blocks)

static inline void __syncthreads() {
    emulated::barrier(0, (int)(blockDim.x));
}
static inline void __syncwarp() {
    uint64_t nothing = 0;
    (void)emulated::exchange(&nothing, 1);
}
static inline void __threadfence() {
}
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask) {
    uint64_t word = 0;
    memcpy(&word, &value, sizeof value);
    unsigned lane = threadIdx.x % 32;
    T result;
    memcpy(&result, emulated::exchange(&word, 1)[lane ^ (unsigned)mask], sizeof result);
    return result;
}
template <class T> static inline T __ldcg(const T *p) {
    return *p;
}
template <class T> static inline void __stcg(T *p, T value) {
    *p = value;
}
template <class T> static inline T atomicAdd(T *p, T value) {
    T old = *p;
    *p = old + value;
    return old;
}
static inline float __uint_as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* ---- The runtime ------------------------------------------------------------------------------------------ */

typedef int cudaError_t;
enum {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorNotReady = 600,
    cudaErrorStreamCaptureUnsupported = 900
};
typedef struct emulated_event *cudaEvent_t;
typedef std::vector<emulated::work> *cudaGraph_t, *cudaGraphExec_t;
typedef struct emulated_stream {
    cudaGraph_t capture; /* NULL: none */
} * cudaStream_t;
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaUUID_t {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int major, minor, multiProcessorCount;
    size_t sharedMemPerBlockOptin, totalGlobalMem;
};

static inline const char *cudaGetErrorString(cudaError_t) {
    return "emulated error";
}
static inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceCount(int *count) {
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    *count = text && *text ? 1 + (int)std::count(text, text + strlen(text), ',') : 1;
    return cudaSuccess;
}
namespace emulated {
inline thread_local int device = 0;
}
static inline cudaError_t cudaSetDevice(int device) {
    emulated::device = device;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDevice(int *device) {
    *device = emulated::device;
    return cudaSuccess;
}
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device) {
    *out = {};
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    for (int i = 0; text && i < device; i++)
        text = strchr(text, ',') + 1;
    int number = 1 + (text ? atoi(text) : 0);
    memcpy(out->uuid.bytes, &number, sizeof number);
    snprintf(out->name, sizeof out->name, "emulated device");
    out->major = 9;
    out->multiProcessorCount = 3;
    out->sharedMemPerBlockOptin = 227 * 1024;
    out->totalGlobalMem = (size_t)1 << 30;
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *free_bytes = *total = (size_t)1 << 30;
    return cudaSuccess;
}
template <class T> static inline cudaError_t cudaMalloc(T **out, size_t bytes) {
    if (emulated::captures > 0)
        return cudaErrorStreamCaptureUnsupported;
    *out = (T *)aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*out)
        return cudaErrorMemoryAllocation;
    memset((void *)*out, 0xff, bytes); /* NaN */
    return cudaSuccess;
}
static inline cudaError_t cudaFree(void *p) {
    free(p);
    return cudaSuccess;
}
template <class T> static inline cudaError_t cudaMallocHost(T **out, size_t bytes) {
    return cudaMalloc(out, bytes);
}
static inline cudaError_t cudaFreeHost(void *p) {
    return cudaFree(p);
}
namespace emulated {
/* Does it, or keeps it where the stream is captured. */
static inline void submit(cudaStream_t stream, const work &what) {
    if (stream->capture)
        stream->capture->push_back(what);
    else
        what();
}
} // namespace emulated

static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind,
                                          cudaStream_t stream) {
    if (bytes)
        emulated::submit(stream, [=] { memcpy(to, from, bytes); });
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    if (bytes)
        emulated::submit(stream, [=] { memset(to, value, bytes); });
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreate(cudaStream_t *out) {
    *out = new emulated_stream{nullptr};
    return cudaSuccess;
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return stream->capture ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
enum { cudaStreamCaptureModeThreadLocal = 1 };
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int) {
    stream->capture = new std::vector<emulated::work>();
    emulated::captures++;
    return cudaSuccess;
}
static inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    *out = stream->capture;
    stream->capture = nullptr;
    emulated::captures--;
    return cudaSuccess;
}
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
    *out = new std::vector<emulated::work>(*graph);
    return cudaSuccess;
}
static inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete graph;
    return cudaSuccess;
}
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    emulated::graph_launches++;
    for (const emulated::work &node : *graph)
        emulated::submit(stream, node);
    return cudaSuccess;
}
enum { cudaEventDisableTiming = 2 };
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
    *out = nullptr;
    return cudaSuccess;
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaEventCreate(cudaEvent_t *out) {
    *out = nullptr;
    return cudaSuccess;
}
static inline cudaError_t cudaEventQuery(cudaEvent_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 0;
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
    return cudaSuccess;
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
    return cudaSuccess;
}
template <class F> static inline cudaError_t cudaFuncSetAttribute(F, int, int) {
    return cudaSuccess;
}

namespace emulated {
/* Arguments are taken now, the kernel may run later. */
template <class... P, class... A>
static inline void launch_on(cudaStream_t stream, dim3 shape, dim3 block, size_t shared, bool cooperative,
                             void (*kernel)(P...), A... given) {
    std::tuple<P...> arguments{(P)given...};
    submit(stream, [=] { launch(shape, block, shared, cooperative, [=] { std::apply(kernel, arguments); }); });
}
} // namespace emulated

#define SAP_LAUNCH(kernel, grid_, block_, shared_, stream_, ...)                                                       \
    emulated::launch_on(stream_, grid_, block_, shared_, false, kernel, __VA_ARGS__)
#define SAP_LAUNCH_TOGETHER(kernel, grid_, block_, shared_, stream_, ...)                                              \
    (emulated::launch_on(stream_, grid_, block_, shared_, true, kernel, __VA_ARGS__), cudaSuccess)
#define SAP_SHARED(name) char *name = emulated::here->shared

#endif
