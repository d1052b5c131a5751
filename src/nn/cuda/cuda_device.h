/* The device side's own words: launches, warps, asynchronous copies and tensor cores, for nvcc or, in tests, emulated.
 *
 * Whatever is written in PTX stands here, each beside its twin in C++. Fragments of a 16 x 8 product, in lane l with g = l / 4 and
 * t = l % 4:  C[4]: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1).
 *   bf16, depth 16, two numbers a word:  A[4]: (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8);  B[2]: (2t, g) (2t + 8, g).
 *   tf32, depth 8:  A[4]: (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4);  B[2]: (t, g) (t + 4, g).
 */
#ifndef SAP_CUDA_DEVICE_H
#define SAP_CUDA_DEVICE_H

#if defined(SAP_CUDA_EMULATED)
#include "cuda_emulation.h"
#else
#include <cuda_runtime.h>

#define SAP_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
/* All blocks run at a time, so that they may wait for each other. */
#define SAP_LAUNCH_TOGETHER(kernel, grid, block, shared, stream, ...)                                                  \
    sap_launch_together(kernel, grid, block, shared, stream, __VA_ARGS__)
/* The block's shared memory. */
#define SAP_SHARED(name) extern __shared__ __align__(1024) char name[]

template <class... P, class... A>
static inline cudaError_t sap_launch_together(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                                              cudaStream_t stream, A... given) {
    return [&](P... taken) {
        void *list[] = {(void *)&taken...};
        return cudaLaunchCooperativeKernel((const void *)kernel, grid, block, list, shared, stream);
    }(P(given)...);
}
#endif

#include <stdint.h>

/* Before a loop over registers. */
#if defined(SAP_CUDA_EMULATED)
#define UNROLL
#else
#define UNROLL _Pragma("unroll")
#endif

/* Whether the code is for a device with tensor cores for bf16 and tf32, and asynchronous copies; kernels that need them are empty elsewhere. */
#if defined(SAP_CUDA_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
#define SAP_TENSOR_CORES 1
#else
#define SAP_TENSOR_CORES 0
#endif

/* ---- Numbers ---------------------------------------------------------------------------------------------- */

/* The nearest bf16, ties to even, as its 16 bits. */
__device__ static inline uint32_t to_bf16(float x) {
    uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* The nearest number with 10 bits behind the point, ties away from zero: a tf32, as the bits of a float. */
__device__ static inline uint32_t to_tf32(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#else
    uint32_t bits = __float_as_uint(x);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000;
#endif
}

/* Two bf16 in a word, `low` first in memory. */
__device__ static inline uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return to_bf16(low) | to_bf16(high) << 16;
#endif
}

__device__ static inline float low_bf16(uint32_t word) {
    return __uint_as_float(word << 16);
}

__device__ static inline float high_bf16(uint32_t word) {
    return __uint_as_float(word & 0xffff0000);
}

/* tanh to about 2^-11, enough where its result is rounded to bf16. */
__device__ static inline float fast_tanh(float x) {
#if defined(__CUDA_ARCH__)
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return tanhf(x);
#endif
}

/* 1 / (1 + e^-x) = tanh(x / 2) / 2 + 1 / 2 */
__device__ static inline float fast_sigmoid(float x) {
    return fmaf(fast_tanh(0.5F * x), 0.5F, 0.5F);
}

/* ---- Blocks ----------------------------------------------------------------------------------------------- */

/* Waits for `threads` threads of the block, whole warps; id from 1 on, 0 is __syncthreads'. */
__device__ static inline void wait_for(int id, int threads) {
#if defined(SAP_CUDA_EMULATED)
    emulated::barrier(id, threads);
#else
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

/* All blocks of a launch together wait: `turn` counts the calls, from 1; *arrived starts as 0. */
__device__ static inline void wait_for_grid(unsigned *arrived, unsigned turn) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1U);
#if defined(SAP_CUDA_EMULATED)
        while (*arrived < turn * gridDim.x)
            emulated::yield();
#else
        while (*(volatile unsigned *)arrived < turn * gridDim.x) {
        }
#endif
        __threadfence();
    }
    __syncthreads();
}

/* ---- Asynchronous copies to shared memory ------------------------------------------------------------------- */

template <int BYTES> __device__ static inline void copy_async(void *shared, const void *global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(at), "l"(global), "n"(BYTES) : "memory");
#else
    for (int i = 0; i < BYTES / 4; i++)
        ((uint32_t *)shared)[i] = ((const uint32_t *)global)[i];
#endif
}

/* Ends a group of copies; of this thread. */
__device__ static inline void copy_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until at most GROUPS of this thread's groups are under way; others see the data after a barrier. */
template <int GROUPS> __device__ static inline void copy_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

/* ---- Tensor cores ------------------------------------------------------------------------------------------- */

#if defined(SAP_CUDA_EMULATED)

/* Four 8 x 8 matrices of 16-bit numbers whose rows (16 bytes) are named by the lanes: lane 8i + r names row r of matrix i. */
template <bool TRANSPOSED> static inline void load_matrices(uint32_t *out, const void *row) {
    uint64_t mine = (uint64_t)(uintptr_t)row;
    if (mine % 16)
        abort();
    auto rows = emulated::exchange(&mine, 1);
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    for (int i = 0; i < 4; i++) {
        auto at = [&](int r, int c) { return (uint32_t)((const uint16_t *)(uintptr_t)rows[8 * i + r][0])[c]; };
        out[i] = TRANSPOSED ? at(2 * t, g) | at(2 * t + 1, g) << 16 : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
    }
    __syncwarp(); /* the rows may be written to now */
}

/* d += a b */
static inline void multiply_bf16(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
    uint64_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    auto all = emulated::exchange(mine, 6);
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    auto half = [](uint64_t word, int which) { return which ? high_bf16((uint32_t)word) : low_bf16((uint32_t)word); };
    for (int e = 0; e < 4; e++) {
        int row = g + (e >= 2 ? 8 : 0), column = 2 * t + (e & 1);
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            float left = half(all[row % 8 * 4 + k % 8 / 2][(row >= 8) + 2 * (k >= 8)], k & 1);
            sum += left * half(all[column * 4 + k % 8 / 2][4 + (k >= 8)], k & 1);
        }
        d[e] += sum;
    }
}

/* The same in tf32, of which a tensor core takes what a tf32 has: 10 bits behind the point. */
static inline void multiply_tf32(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
    uint64_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    auto all = emulated::exchange(mine, 6);
    int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    auto number = [](uint64_t word) { return __uint_as_float((uint32_t)word & 0xffffe000); };
    for (int e = 0; e < 4; e++) {
        int row = g + (e >= 2 ? 8 : 0), column = 2 * t + (e & 1);
        float sum = 0;
        for (int k = 0; k < 8; k++)
            sum += number(all[row % 8 * 4 + k % 4][(row >= 8) + 2 * (k >= 4)]) *
                   number(all[column * 4 + k % 4][4 + (k >= 4)]);
        d[e] += sum;
    }
}

#else

template <bool TRANSPOSED> __device__ static inline void load_matrices(uint32_t *out, const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (TRANSPOSED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at)
                     : "memory");
}

__device__ static inline void multiply_bf16(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    (void)d, (void)a, (void)b0, (void)b1;
    __trap(); /* the host does not come here on such a device */
#endif
}

__device__ static inline void multiply_tf32(float *d, const uint32_t *a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    (void)d, (void)a, (void)b0, (void)b1;
    __trap();
#endif
}

#endif

#endif
