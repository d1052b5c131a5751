/* Dense layers: one product in tiles, with either factor transposed, on ordinary cores or in tf32 on tensor cores, and sums over many
 * positions in parts.
 */
#include "cuda_kernels.h"

namespace {

enum { TILE = 64, DEPTH = 16, SIDE = 4 };    /* a thread has SIDE x SIDE numbers of a tile; 16 x 16 threads */
const int64_t PART = 4096, PARTS_MOST = 128; /* positions that a part of a sum has at least; parts */

/* c (rows, columns) = a (rows, depth) b (depth, columns); rows and depth are fixed numbers, or the extent. */
struct product {
    extent n;
    bool n_is_depth; /* the extent is the depth, else the rows */
    int64_t rows, columns, depth;
    const float *a; /* number (r, k) at r * a_row + k * a_depth */
    int64_t a_row, a_depth;
    const float *b; /* number (k, c) at k * b_depth + c * b_column */
    int64_t b_depth, b_column;
    bool ones; /* a has one row more, of ones */
    const float *bias;
    bool add;
    float *c; /* block z writes (rows, columns) behind the ones before it */
};

/* How a thread adds up its 16 numbers of a tile, and where they stand in it. */
struct plain_tile {
    static constexpr int PITCH = TILE + 1;
    float sum[SIDE][SIDE];

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
        for (int d = 0; d < DEPTH; d++)
            for (int i = 0; i < SIDE; i++)
                for (int j = 0; j < SIDE; j++)
                    sum[i][j] += a[d * PITCH + y + 16 * i] * b[d * PITCH + x + 16 * j];
    }
};

/* On tensor cores: a warp has 16 rows and four times 8 columns. */
struct tf32_tile {
    static constexpr int PITCH = TILE + 8; /* the numbers of a fragment stand at different banks */
    float sum[SIDE][4];

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
        for (int d = t; d - t < DEPTH; d += 8) {
            const uint32_t rows[4] = {__float_as_uint(left[d * PITCH]), __float_as_uint(left[d * PITCH + 8]),
                                      __float_as_uint(left[(d + 4) * PITCH]),
                                      __float_as_uint(left[(d + 4) * PITCH + 8])};
            UNROLL
            for (int i = 0; i < SIDE; i++)
                multiply_tf32(sum[i], rows, __float_as_uint(right[d * PITCH + 8 * i]),
                              __float_as_uint(right[(d + 4) * PITCH + 8 * i]));
        }
    }
};

template <class Tile> __global__ void __launch_bounds__(SAP_THREADS) multiply(product p) {
    SAP_SHARED(raw);
    float *a = (float *)raw, *b = a + DEPTH * Tile::PITCH; /* [depth][PITCH] */
    int64_t n = extent_of(p.n), rows = p.n_is_depth ? p.rows + p.ones : n, depth = p.n_is_depth ? n : p.depth;
    int64_t first = depth * blockIdx.z / gridDim.z, end = depth * (blockIdx.z + 1) / gridDim.z;
    int64_t column = (int64_t)blockIdx.y * TILE;
    float *c = p.c + blockIdx.z * (rows * p.columns);
    for (int64_t row = (int64_t)blockIdx.x * TILE; row < rows; row += (int64_t)gridDim.x * TILE) {
        Tile tile = {};
        for (int64_t k = first; k < end; k += DEPTH) {
            for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += SAP_THREADS) {
                /* neighbours in memory to neighbouring threads */
                int ar = p.a_depth == 1 ? i / DEPTH : i % TILE, ak = p.a_depth == 1 ? i % DEPTH : i / TILE;
                int bc = p.b_depth == 1 ? i / DEPTH : i % TILE, bk = p.b_depth == 1 ? i % DEPTH : i / TILE;
                bool in = row + ar < rows && k + ak < end;
                bool one = p.ones && row + ar == p.rows;
                float left = !in ? 0 : one ? 1 : p.a[(row + ar) * p.a_row + (k + ak) * p.a_depth];
                float right = column + bc < p.columns && k + bk < end
                                  ? p.b[(k + bk) * p.b_depth + (column + bc) * p.b_column]
                                  : 0;
                a[ak * Tile::PITCH + ar] = Tile::operand(left);
                b[bk * Tile::PITCH + bc] = Tile::operand(right);
            }
            __syncthreads();
            tile.add(a, b);
            __syncthreads();
        }
        for (int i = 0; i < SIDE; i++) {
            for (int j = 0; j < SIDE; j++) {
                int64_t r = row + Tile::row(i, j), o = column + Tile::column(i, j);
                if (r < rows && o < p.columns) {
                    float *at = c + r * p.columns + o;
                    *at = (p.add ? *at : p.bias ? p.bias[o] : 0) + tile.sum[i][j];
                }
            }
        }
    }
}

/* gw and then gb += the sum over the parts */
__global__ void add_parts(const float *work, int parts, int64_t weights, int64_t biases, float *gw, float *gb) {
    FOR_EACH (i, weights + biases) {
        float sum = 0;
        for (int p = 0; p < parts; p++)
            sum += work[p * (weights + biases) + i];
        if (i < weights)
            gw[i] += sum;
        else
            gb[i - weights] += sum;
    }
}

unsigned tiles(int64_t n) {
    return (unsigned)((n + TILE - 1) / TILE);
}

unsigned parts_for(int64_t most) {
    int64_t parts = (most + PART - 1) / PART;
    if (most > 256 && parts < 8) /* short sums too are worth a few multiprocessors */
        parts = most / 256 < 8 ? most / 256 : 8;
    return (unsigned)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}

template <class Tile> void launch_as(cudaStream_t stream, dim3 blocks, const product &p) {
    SAP_LAUNCH(multiply<Tile>, blocks, dim3(SAP_THREADS), 2 * DEPTH * Tile::PITCH * sizeof(float), stream, p);
}

void launch_product(cudaStream_t stream, dim3 blocks, const product &p, bool tf32) {
    if (tf32)
        launch_as<tf32_tile>(stream, blocks, p);
    else
        launch_as<plain_tile>(stream, blocks, p);
}

} // namespace

void launch_dense(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                  const float *w, const float *bias, float *y, bool tf32) {
    product p = {n, false, 0, units, width, x, width, 1, w, units, 1, false, bias, false, y};
    launch_product(stream, dim3(blocks_for(most, TILE), tiles(units)), p, tf32);
}

void launch_dense_input(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *d,
                        const float *w, bool add, float *dx, bool tf32) {
    product p = {n, false, 0, width, units, d, units, 1, w, 1, units, false, nullptr, add, dx};
    launch_product(stream, dim3(blocks_for(most, TILE), tiles(width)), p, tf32);
}

void launch_dense_weights(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                          const float *d, float *work, float *gw, float *gb, bool tf32) {
    product p = {n, true, width, units, 0, x, 1, width, d, units, 1, gb != nullptr, nullptr, false, work};
    unsigned parts = parts_for(most);
    launch_product(stream, dim3(tiles(width + 1), tiles(units), parts), p, tf32);
    int64_t weights = width * units, biases = gb ? units : 0;
    SAP_LAUNCH(add_parts, dim3(blocks_for(weights + biases, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, work,
               (int)parts, weights, biases, gw, gb);
}

int64_t dense_work(int64_t most, int64_t width, int64_t units) {
    return parts_for(most) * (width + 1) * units;
}

unsigned sum_parts(int64_t most) {
    return parts_for(most);
}
