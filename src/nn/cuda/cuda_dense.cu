/* Dense layers: one product in tiles, with either factor transposed, and sums over many positions in parts. */
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

__global__ void __launch_bounds__(SAP_THREADS) multiply(product p) {
    SAP_SHARED(raw);
    float *a = (float *)raw, *b = a + DEPTH * (TILE + 1); /* [depth][TILE + 1] */
    int64_t n = extent_of(p.n), rows = p.n_is_depth ? p.rows + p.ones : n, depth = p.n_is_depth ? n : p.depth;
    int64_t first = depth * blockIdx.z / gridDim.z, end = depth * (blockIdx.z + 1) / gridDim.z;
    int64_t column = (int64_t)blockIdx.y * TILE;
    int x = (int)threadIdx.x % 16, y = (int)threadIdx.x / 16;
    float *c = p.c + blockIdx.z * (rows * p.columns);
    for (int64_t row = (int64_t)blockIdx.x * TILE; row < rows; row += (int64_t)gridDim.x * TILE) {
        float sum[SIDE][SIDE] = {};
        for (int64_t k = first; k < end; k += DEPTH) {
            for (int i = (int)threadIdx.x; i < TILE * DEPTH; i += SAP_THREADS) {
                /* neighbours in memory to neighbouring threads */
                int ar = p.a_depth == 1 ? i / DEPTH : i % TILE, ak = p.a_depth == 1 ? i % DEPTH : i / TILE;
                int bc = p.b_depth == 1 ? i / DEPTH : i % TILE, bk = p.b_depth == 1 ? i % DEPTH : i / TILE;
                bool in = row + ar < rows && k + ak < end;
                bool one = p.ones && row + ar == p.rows;
                a[ak * (TILE + 1) + ar] = !in ? 0 : one ? 1 : p.a[(row + ar) * p.a_row + (k + ak) * p.a_depth];
                b[bk * (TILE + 1) + bc] = column + bc < p.columns && k + bk < end
                                              ? p.b[(k + bk) * p.b_depth + (column + bc) * p.b_column]
                                              : 0;
            }
            __syncthreads();
            for (int d = 0; d < DEPTH; d++)
                for (int i = 0; i < SIDE; i++)
                    for (int j = 0; j < SIDE; j++)
                        sum[i][j] += a[d * (TILE + 1) + y + 16 * i] * b[d * (TILE + 1) + x + 16 * j];
            __syncthreads();
        }
        for (int i = 0; i < SIDE; i++) {
            for (int j = 0; j < SIDE; j++) {
                int64_t r = row + y + 16 * i, o = column + x + 16 * j;
                if (r < rows && o < p.columns) {
                    float *at = c + r * p.columns + o;
                    *at = (p.add ? *at : p.bias ? p.bias[o] : 0) + sum[i][j];
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

const size_t SHARED = 2 * DEPTH * (TILE + 1) * sizeof(float);

unsigned tiles(int64_t n) {
    return (unsigned)((n + TILE - 1) / TILE);
}

unsigned parts_for(int64_t most) {
    int64_t parts = (most + PART - 1) / PART;
    if (most > 256 && parts < 8) /* short sums too are worth a few multiprocessors */
        parts = most / 256 < 8 ? most / 256 : 8;
    return (unsigned)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}

} // namespace

void launch_dense(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                  const float *w, const float *bias, float *y) {
    product p = {n, false, 0, units, width, x, width, 1, w, units, 1, false, bias, false, y};
    SAP_LAUNCH(multiply, dim3(blocks_for(most, TILE), tiles(units)), dim3(SAP_THREADS), SHARED, stream, p);
}

void launch_dense_input(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *d,
                        const float *w, bool add, float *dx) {
    product p = {n, false, 0, width, units, d, units, 1, w, 1, units, false, nullptr, add, dx};
    SAP_LAUNCH(multiply, dim3(blocks_for(most, TILE), tiles(width)), dim3(SAP_THREADS), SHARED, stream, p);
}

void launch_dense_weights(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                          const float *d, float *work, float *gw, float *gb) {
    product p = {n, true, width, units, 0, x, 1, width, d, units, 1, gb != nullptr, nullptr, false, work};
    unsigned parts = parts_for(most);
    SAP_LAUNCH(multiply, dim3(tiles(width + 1), tiles(units), parts), dim3(SAP_THREADS), SHARED, stream, p);
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
