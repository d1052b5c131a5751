/* Dense layers: products with either factor transposed, on ordinary cores or in tf32 on tensor cores. */
#include "cuda_product.h"

namespace {

const int64_t PART = 4096, PARTS_MOST = 128; /* positions that a part of a sum has at least; parts */

struct dense {
    extent n;
    int64_t width, units;
};

struct forward_product : dense {
    const float *x, *w, *bias;
    float *y;
    static const bool a_along = true, b_along = false;
    __device__ int64_t rows() const {
        return extent_of(n);
    }
    __device__ int64_t columns() const {
        return units;
    }
    __device__ int64_t depth() const {
        return width;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return x[row * width + k];
    }
    __device__ float b(int64_t k, int64_t column) const {
        return w[k * units + column];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        y[row * units + column] = (bias ? bias[column] : 0) + sum;
    }
};

struct input_product : dense {
    const float *d, *w;
    bool add;
    float *dx;
    static const bool a_along = true, b_along = true;
    __device__ int64_t rows() const {
        return extent_of(n);
    }
    __device__ int64_t columns() const {
        return width;
    }
    __device__ int64_t depth() const {
        return units;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return d[row * units + k];
    }
    __device__ float b(int64_t k, int64_t column) const {
        return w[column * units + k];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        float *to = dx + row * width + column;
        *to = (add ? *to : 0) + sum;
    }
};

/* biased: with one row more, of ones. */
struct weights_product : dense {
    const float *x, *d;
    bool biased;
    float *work;
    static const bool a_along = false, b_along = false;
    __device__ int64_t rows() const {
        return width + biased;
    }
    __device__ int64_t columns() const {
        return units;
    }
    __device__ int64_t depth() const {
        return extent_of(n);
    }
    __device__ float a(int64_t row, int64_t k) const {
        return row == width ? 1 : x[k * width + row];
    }
    __device__ float b(int64_t k, int64_t column) const {
        return d[k * units + column];
    }
    __device__ void put(int64_t part, int64_t row, int64_t column, float sum) const {
        work[(part * rows() + row) * units + column] = sum;
    }
};

template <class P>
void launch_as(bool tf32, cudaStream_t stream, const P &p, int64_t most, int64_t columns, unsigned parts) {
    if (tf32)
        launch_product<tf32_tile>(stream, p, most, columns, parts);
    else
        launch_product(stream, p, most, columns, parts);
}

} // namespace

void launch_dense(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                  const float *w, const float *bias, float *y, bool tf32) {
    launch_as(tf32, stream, forward_product{{n, width, units}, x, w, bias, y}, most, units, 1);
}

void launch_dense_input(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *d,
                        const float *w, bool add, float *dx, bool tf32) {
    launch_as(tf32, stream, input_product{{n, width, units}, d, w, add, dx}, most, width, 1);
}

void launch_dense_weights(cudaStream_t stream, extent n, int64_t most, int64_t width, int64_t units, const float *x,
                          const float *d, float *work, float *gw, float *gb, bool tf32) {
    unsigned parts = sum_parts(most);
    launch_as(tf32, stream, weights_product{{n, width, units}, x, d, gb != nullptr, work}, width + 1, units, parts);
    launch_product_parts(stream, work, parts, width, units, units, gw, gb);
}

int64_t dense_work(int64_t most, int64_t width, int64_t units) {
    return sum_parts(most) * (width + 1) * units;
}

unsigned sum_parts(int64_t most) {
    int64_t parts = (most + PART - 1) / PART;
    if (most > 256 && parts < 8) /* short sums too are worth a few multiprocessors */
        parts = most / 256 < 8 ? most / 256 : 8;
    return (unsigned)(parts < 1 ? 1 : parts > PARTS_MOST ? PARTS_MOST : parts);
}
