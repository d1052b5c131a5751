/* Products in tiles, which say themselves where the numbers of their factors come from: matrices, windows of a convolution, inputs with
 * dropout.
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

/* How a thread adds up its 16 numbers of a tile, and where they stand in it. */
struct plain_tile {
    static constexpr int PITCH = PRODUCT_TILE + 1;
    float sum[PRODUCT_SIDE][PRODUCT_SIDE];

    __device__ static float operand(float x) {
        return x;
    }
    __device__ static int row(int i, int) {
        return (int)threadIdx.x / 16 + 16 * i;
    }
    __device__ static int column(int, int j) {
        return (int)threadIdx.x % 16 + 16 * j;
    }
    __device__ void add(const float *a, const float *b) {
        int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
        for (int d = 0; d < PRODUCT_DEPTH; d++)
            for (int i = 0; i < PRODUCT_SIDE; i++)
                for (int j = 0; j < PRODUCT_SIDE; j++)
                    sum[i][j] += a[d * PITCH + y + 16 * i] * b[d * PITCH + x + 16 * j];
    }
};

/* On tensor cores: a warp has 16 rows and four times 8 columns. */
struct tf32_tile {
    static constexpr int PITCH = PRODUCT_TILE + 8; /* the numbers of a fragment stand at different banks */
    float sum[PRODUCT_SIDE][4];

    __device__ static float operand(float x) {
        return __uint_as_float(to_tf32(x));
    }
    __device__ static int row(int, int e) {
        return (int)threadIdx.x / 32 % 4 * 16 + (int)threadIdx.x % 32 / 4 + 8 * (e / 2);
    }
    __device__ static int column(int i, int e) {
        return (int)threadIdx.x / 128 * 32 + 8 * i + (int)threadIdx.x % 4 * 2 + e % 2;
    }
    __device__ void add(const float *a, const float *b) {
        int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
        const float *left = a + (int)threadIdx.x / 32 % 4 * 16 + g, *right = b + (int)threadIdx.x / 128 * 32 + g;
        UNROLL
        for (int d = t; d - t < PRODUCT_DEPTH; d += 8) {
            const uint32_t rows[4] = {__float_as_uint(left[d * PITCH]), __float_as_uint(left[d * PITCH + 8]),
                                      __float_as_uint(left[(d + 4) * PITCH]),
                                      __float_as_uint(left[(d + 4) * PITCH + 8])};
            UNROLL
            for (int i = 0; i < PRODUCT_SIDE; i++)
                multiply_tf32(sum[i], rows, __float_as_uint(right[d * PITCH + 8 * i]),
                              __float_as_uint(right[(d + 4) * PITCH + 8 * i]));
        }
    }
};

/* Number i of TILE x DEPTH: its place across and along the depth. */
template <bool ALONG> __device__ inline void product_place(int i, int *across, int *depth) {
    *across = ALONG ? i / PRODUCT_DEPTH : i % PRODUCT_TILE;
    *depth = ALONG ? i % PRODUCT_DEPTH : i / PRODUCT_TILE;
}

/* Block (x, y, z): rows from 64 x on, and so forth; columns from 64 y on; part z of the depth. */
template <class Tile, class P> __global__ void __launch_bounds__(SAP_THREADS) multiply(const __grid_constant__ P p) {
    SAP_SHARED(raw);
    float *a = (float *)raw, *b = a + PRODUCT_DEPTH * Tile::PITCH; /* [depth][PITCH] */
    int64_t rows = p.rows(), columns = p.columns(), depth = p.depth(), column = (int64_t)blockIdx.y * PRODUCT_TILE;
    int64_t first = depth * blockIdx.z / gridDim.z, end = depth * (blockIdx.z + 1) / gridDim.z;
    for (int64_t row = (int64_t)blockIdx.x * PRODUCT_TILE; row < rows; row += (int64_t)gridDim.x * PRODUCT_TILE) {
        Tile tile = {};
        for (int64_t k = first; k < end; k += PRODUCT_DEPTH) {
            for (int i = (int)threadIdx.x; i < PRODUCT_TILE * PRODUCT_DEPTH; i += SAP_THREADS) {
                int across, d;
                product_place<P::a_along>(i, &across, &d);
                a[d * Tile::PITCH + across] =
                    row + across < rows && k + d < end ? Tile::operand(p.a(row + across, k + d)) : 0;
                product_place<P::b_along>(i, &across, &d);
                b[d * Tile::PITCH + across] =
                    column + across < columns && k + d < end ? Tile::operand(p.b(k + d, column + across)) : 0;
            }
            __syncthreads();
            tile.add(a, b);
            __syncthreads();
        }
        for (int i = 0; i < PRODUCT_SIDE; i++) {
            for (int j = 0; j < PRODUCT_SIDE; j++) {
                int64_t r = row + Tile::row(i, j), c = column + Tile::column(i, j);
                if (r < rows && c < columns)
                    p.put(blockIdx.z, r, c, tile.sum[i][j]);
            }
        }
    }
}

/* Rows of the launch: at most `most`. */
template <class Tile = plain_tile, class P>
void launch_product(cudaStream_t stream, const P &p, int64_t most, int64_t columns, unsigned parts) {
    unsigned across = (unsigned)((columns + PRODUCT_TILE - 1) / PRODUCT_TILE);
    SAP_LAUNCH((multiply<Tile, P>), dim3(blocks_for(most, PRODUCT_TILE), across, parts), dim3(SAP_THREADS),
               2 * PRODUCT_DEPTH * Tile::PITCH * sizeof(float), stream, p);
}

/* gw (rows, stride), of which `columns`, and gb (columns), NULL: none, += the sum of parts (rows, columns), with one row more for gb. */
__global__ void add_product_parts(const float *work, int parts, int64_t rows, int64_t columns, int64_t stride,
                                  float *gw, float *gb) {
    int64_t all = (rows + (gb ? 1 : 0)) * columns;
    FOR_EACH (i, all) {
        float sum = 0;
        for (int part = 0; part < parts; part++)
            sum += work[part * all + i];
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
