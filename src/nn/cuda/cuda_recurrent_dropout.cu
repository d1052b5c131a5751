/* Dropout inside recurrent layers: masks that are the same in all steps of a row, and products of what they are laid over. */
#include "cuda_product.h"
#include "cuda_recurrent.h"

namespace {

/* The same random numbers as the CPU's: those of the inputs first, gate by gate. */
__global__ void draw_masks(const __grid_constant__ cell_dropout p, float *masks) {
    int64_t of_x = (int64_t)p.x_masks * p.width, all = of_x + (int64_t)p.h_masks * p.units;
    FOR_EACH (i, *p.rows * all) {
        int64_t v = i % all;
        uint64_t key = mix(mix(p.row_keys[i / all], p.key), p.cell);
        bool kept = dropout_bits(key, (uint32_t)v) >= (v < of_x ? p.x_threshold : p.h_threshold);
        masks[i] = !kept ? 0 : v < of_x ? p.x_scale : p.h_scale;
    }
}

/* A warp a row. */
__global__ void number_rows(sequences at, int32_t *row_of) {
    for (int64_t r = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32; r < *at.rows;
         r += (int64_t)gridDim.x * blockDim.x / 32)
        for (int32_t t = (int32_t)threadIdx.x % 32; t < row_steps(at, r); t += 32)
            row_of[first_step(at, r) + t] = (int32_t)r;
}

/* The columns of one mask. */
struct masked_part : masked_product {
    int64_t first, count;
    int32_t number;
    __device__ float mask(int64_t position, int64_t k) const {
        return masks[row_of[position] * mask_row + number * width + k];
    }
    __device__ float masked(int64_t position, int64_t k) const {
        return x[position * width + k] * mask(position, k);
    }
};

struct forward_product : masked_part {
    const float *bias;
    float *y;
    static const bool a_along = true, b_along = false;
    __device__ int64_t rows() const {
        return extent_of(n);
    }
    __device__ int64_t columns() const {
        return count;
    }
    __device__ int64_t depth() const {
        return width;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return masked(row, k);
    }
    __device__ float b(int64_t k, int64_t column) const {
        return w[k * all + first + column];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        y[row * all + first + column] = (bias ? bias[first + column] : 0) + sum;
    }
};

struct input_product : masked_part {
    const float *d;
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
        return count;
    }
    __device__ float a(int64_t row, int64_t k) const {
        return d[row * all + first + k];
    }
    __device__ float b(int64_t k, int64_t column) const {
        return w[column * all + first + k];
    }
    __device__ void put(int64_t, int64_t row, int64_t column, float sum) const {
        float *to = dx + row * width + column;
        sum *= mask(row, column);
        *to = add ? *to + sum : sum;
    }
};

/* biased: with one row more, of ones. */
struct weights_product : masked_part {
    const float *d;
    bool biased;
    float *work;
    static const bool a_along = false, b_along = false;
    __device__ int64_t rows() const {
        return width + biased;
    }
    __device__ int64_t columns() const {
        return count;
    }
    __device__ int64_t depth() const {
        return extent_of(n);
    }
    __device__ float a(int64_t row, int64_t k) const {
        return row == width ? 1 : masked(k, row);
    }
    __device__ float b(int64_t k, int64_t column) const {
        return d[k * all + first + column];
    }
    __device__ void put(int64_t part, int64_t row, int64_t column, float sum) const {
        work[(part * rows() + row) * count + column] = sum;
    }
};

masked_part part_of(const masked_product &p, int32_t number) {
    int64_t count = p.all / p.mask_count;
    return {p, number * count, count, number};
}

} // namespace

void launch_cell_masks(cudaStream_t stream, const cell_dropout &p, int64_t most_rows, float *masks) {
    int64_t most = most_rows * ((int64_t)p.x_masks * p.width + (int64_t)p.h_masks * p.units);
    SAP_LAUNCH(draw_masks, dim3(blocks_for(most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p, masks);
}

void launch_row_numbers(cudaStream_t stream, const sequences &at, int64_t most_rows, int32_t *row_of) {
    SAP_LAUNCH(number_rows, dim3(blocks_for(most_rows, SAP_THREADS / 32)), dim3(SAP_THREADS), 0, stream, at, row_of);
}

void launch_masked(cudaStream_t stream, const masked_product &p, const float *bias, float *y) {
    for (int32_t m = 0; m < p.mask_count; m++) {
        forward_product part = {part_of(p, m), bias, y};
        launch_product(stream, part, p.most, part.count, 1);
    }
}

void launch_masked_input(cudaStream_t stream, const masked_product &p, const float *d, bool add, float *dx) {
    for (int32_t m = 0; m < p.mask_count; m++) {
        input_product part = {part_of(p, m), d, add || m > 0, dx};
        launch_product(stream, part, p.most, p.width, 1);
    }
}

void launch_masked_weights(cudaStream_t stream, const masked_product &p, const float *d, float *work, float *gw,
                           float *gb) {
    unsigned parts = sum_parts(p.most);
    for (int32_t m = 0; m < p.mask_count; m++) {
        weights_product part = {part_of(p, m), d, gb != nullptr, work};
        launch_product(stream, part, p.width + 1, part.count, parts);
        launch_product_parts(stream, work, parts, p.width, part.count, p.all, gw + part.first,
                             gb ? gb + part.first : nullptr);
    }
}
