/* Products in tiles whose factors are worked out number by number, since they do not stand in memory as matrices: windows of a convolution,
 * inputs with dropout.
 *
 * A product P is c (rows, columns) = a (rows, depth) b (depth, columns), and says what that is:
 *     int64_t rows() const, columns() const, depth() const;
 *     float a(int64_t row, int64_t k) const, b(int64_t k, int64_t column) const;
 *     void put(int64_t part, int64_t row, int64_t column, float sum) const;   part: of the depth
 *     a_along, b_along: whether neighbours in memory follow each other along the depth, else along rows or columns
 */
#ifndef SAP_CUDA_PRODUCT_H
#define SAP_CUDA_PRODUCT_H

#include "cuda_kernels.h"

namespace {

enum { PRODUCT_TILE = 64, PRODUCT_DEPTH = 16, PRODUCT_SIDE = 4 }; /* a thread has SIDE x SIDE numbers of a tile */
const size_t PRODUCT_SHARED = 2 * PRODUCT_DEPTH * (PRODUCT_TILE + 1) * sizeof(float);

/* Number i of TILE x DEPTH: its place across and along the depth. */
template <bool ALONG> __device__ inline void product_place(int i, int *across, int *depth) {
    *across = ALONG ? i / PRODUCT_DEPTH : i % PRODUCT_TILE;
    *depth = ALONG ? i % PRODUCT_DEPTH : i / PRODUCT_TILE;
}

/* Block (x, y, z): rows from 64 x on, and so forth; columns from 64 y on; part z of the depth. */
template <class P> __global__ void __launch_bounds__(SAP_THREADS) multiply_numbers(const __grid_constant__ P p) {
    SAP_SHARED(raw);
    float *a = (float *)raw, *b = a + PRODUCT_DEPTH * (PRODUCT_TILE + 1); /* [depth][TILE + 1] */
    int64_t rows = p.rows(), columns = p.columns(), depth = p.depth(), column = (int64_t)blockIdx.y * PRODUCT_TILE;
    int64_t first = depth * blockIdx.z / gridDim.z, end = depth * (blockIdx.z + 1) / gridDim.z;
    int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    for (int64_t row = (int64_t)blockIdx.x * PRODUCT_TILE; row < rows; row += (int64_t)gridDim.x * PRODUCT_TILE) {
        float sum[PRODUCT_SIDE][PRODUCT_SIDE] = {};
        for (int64_t k = first; k < end; k += PRODUCT_DEPTH) {
            for (int i = (int)threadIdx.x; i < PRODUCT_TILE * PRODUCT_DEPTH; i += SAP_THREADS) {
                int across, d;
                product_place<P::a_along>(i, &across, &d);
                a[d * (PRODUCT_TILE + 1) + across] = row + across < rows && k + d < end ? p.a(row + across, k + d) : 0;
                product_place<P::b_along>(i, &across, &d);
                b[d * (PRODUCT_TILE + 1) + across] =
                    column + across < columns && k + d < end ? p.b(k + d, column + across) : 0;
            }
            __syncthreads();
            for (int d = 0; d < PRODUCT_DEPTH; d++)
                for (int i = 0; i < PRODUCT_SIDE; i++)
                    for (int j = 0; j < PRODUCT_SIDE; j++)
                        sum[i][j] += a[d * (PRODUCT_TILE + 1) + y + 16 * i] * b[d * (PRODUCT_TILE + 1) + x + 16 * j];
            __syncthreads();
        }
        for (int i = 0; i < PRODUCT_SIDE; i++)
            for (int j = 0; j < PRODUCT_SIDE; j++)
                if (row + y + 16 * i < rows && column + x + 16 * j < columns)
                    p.put(blockIdx.z, row + y + 16 * i, column + x + 16 * j, sum[i][j]);
    }
}

/* Rows of the launch: at most `most`. */
template <class P> void launch_product(cudaStream_t stream, const P &p, int64_t most, int64_t columns, unsigned parts) {
    unsigned across = (unsigned)((columns + PRODUCT_TILE - 1) / PRODUCT_TILE);
    SAP_LAUNCH(multiply_numbers<P>, dim3(blocks_for(most, PRODUCT_TILE), across, parts), dim3(SAP_THREADS),
               PRODUCT_SHARED, stream, p);
}

/* gw (rows, stride), of which `columns`, and gb (columns), NULL: none, += the sum of parts (rows + 1, columns). */
__global__ void add_product_parts(const float *work, int parts, int64_t rows, int64_t columns, int64_t stride,
                                  float *gw, float *gb) {
    FOR_EACH (i, (rows + (gb ? 1 : 0)) * columns) {
        float sum = 0;
        for (int part = 0; part < parts; part++)
            sum += work[part * (rows + 1) * columns + i];
        if (i < rows * columns)
            gw[i / columns * stride + i % columns] += sum;
        else
            gb[i - rows * columns] += sum;
    }
}

void launch_product_parts(cudaStream_t stream, const float *work, unsigned parts, int64_t rows, int64_t columns,
                          int64_t stride, float *gw, float *gb) {
    SAP_LAUNCH(add_product_parts, dim3(blocks_for((rows + 1) * columns, SAP_THREADS)), dim3(SAP_THREADS), 0, stream,
               work, (int)parts, rows, columns, stride, gw, gb);
}

} // namespace

#endif
