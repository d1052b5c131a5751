/* Scaled dot-product attention without a matrix of all pairs, in float32.
 *
 * A thread has one query, or on the way back to keys and values one key, in registers, and the block goes through the other tokens of the
 * row and head in shared memory, some at a time. Forward carries the largest score and the sum of weights along; backward computes the
 * weights again. No two threads add to the same number, so that sums have one order.
 */
#include "cuda_attention.h"

namespace {

enum { THREADS = 128, TOKENS = 32 }; /* a block's tokens of one side, and of the other at a time */

/* What a block works on: some tokens of a head of a row. */
struct item {
    int64_t row, head, first;       /* token of the row */
    int64_t queries, keys;          /* of the row */
    int64_t query_start, key_start; /* positions before */
};

__device__ inline int64_t item_count(const attention &p) {
    return *p.queries.rows * p.heads * ((p.longest + THREADS - 1) / THREADS);
}

__device__ inline item item_at(const attention &p, int64_t number) {
    int64_t parts = (p.longest + THREADS - 1) / THREADS, row = number / (p.heads * parts);
    return {row,
            number / parts % p.heads,
            number % parts * THREADS,
            row_steps(p.queries, row),
            row_steps(p.keys, row),
            first_step(p.queries, row),
            first_step(p.keys, row)};
}

__device__ inline bool counts(const float *list, int64_t place) {
    return !list || list[place] != 0;
}

/* As on the CPU, which takes the others out first. */
__global__ void number_tokens(attention p) {
    FOR_EACH (row, *p.queries.rows) {
        int64_t queries = row_steps(p.queries, row), query_start = first_step(p.queries, row);
        int64_t keys = row_steps(p.keys, row), key_start = first_step(p.keys, row), first = keys;
        int32_t met = 0, meeting = 0;
        for (int64_t k = 0; k < keys; k++) {
            p.key_number[key_start + k] = met;
            first = met == 0 && counts(p.key_counts, key_start + k) ? k : first;
            met += counts(p.key_counts, key_start + k);
        }
        for (int64_t q = 0; q < queries; q++) {
            p.query_number[query_start + q] = meeting;
            meeting += counts(p.query_counts, query_start + q) && first < keys && (!p.causal || first <= q);
        }
        p.meeting[2 * row] = meeting;
        p.meeting[2 * row + 1] = met;
    }
}

/* What the weight of a pair is multiplied by. */
__device__ inline float factor(const attention &p, const item &t, int64_t query, int64_t key) {
    if (!p.drop)
        return 1;
    int64_t queries = t.queries, keys = t.keys;
    if (p.query_number) {
        query = p.query_number[t.query_start + query];
        key = p.key_number[t.key_start + key];
        queries = p.meeting[2 * t.row];
        keys = p.meeting[2 * t.row + 1];
    }
    uint32_t number = (uint32_t)((t.head * queries + query) * keys + key);
    return dropout_bits(mix(p.row_keys[t.row], p.key), number) >= p.threshold ? p.kept : 0;
}

/* Whether some queries may not meet all keys of their row. */
__device__ inline bool masked(const attention &p) {
    return p.query_counts || p.key_counts;
}

/* Whether they meet; the query counts. */
__device__ inline bool meets(const attention &p, const item &t, int64_t query, int64_t key) {
    return (!p.causal || key <= query) && counts(p.key_counts, t.key_start + key);
}

/* Keys that some query of the block meets stand before it; all, where one may get the mean of all values. */
__device__ inline int64_t keys_end(const attention &p, const item &t) {
    return p.causal && !masked(p) ? min(t.keys, t.first + THREADS) : t.keys;
}

/* Queries that meet some key of the block stand from here on, likewise. */
__device__ inline int64_t queries_begin(const attention &p, const item &t) {
    return p.causal && !masked(p) ? t.first : 0;
}

/* The score of a pair that does not meet: so low that it is gone beside any other, and the same for all, which makes the mean of all values. */
#define NO_SCORE (-1e30F)

/* The weight of a pair, again. statistic: of the query, infinity: it gets the mean of all values, or 0. */
__device__ inline float weight_of(const attention &p, const item &t, int64_t query, int64_t key, float score,
                                  float statistic) {
    if (isinf(statistic))
        return p.means_all ? 1 / (float)t.keys : 0;
    return meets(p, t, query, key) ? expf(score - statistic) : 0;
}

/* `dim` values of a head of the token at `place` to registers, the rest zero. */
template <int DIM>
__device__ inline void take(float *to, const float *x, int64_t place, int64_t heads, int64_t head, int dim) {
    const float *from = x + (place * heads + head) * dim;
    UNROLL
    for (int f = 0; f < DIM; f++)
        to[f] = f < dim ? from[f] : 0;
}

/* Tokens [first, first + TOKENS) of a head to shared memory, rows of DIM. */
template <int DIM>
__device__ inline void share(float *to, const float *x, int64_t start, int64_t first, int64_t count, int64_t heads,
                             int64_t head, int dim) {
    for (int i = (int)threadIdx.x; i < TOKENS * DIM; i += THREADS) {
        int64_t token = first + i / DIM;
        int f = i % DIM;
        to[i] = token < count && f < dim ? x[((start + token) * heads + head) * dim + f] : 0;
    }
}

template <int DIM> __device__ inline float dot(const float *a, const float *b) {
    float sum = 0;
    UNROLL
    for (int f = 0; f < DIM; f++)
        sum += a[f] * b[f];
    return sum;
}

template <int DIM> __device__ inline void put(float *to, const float *from, int dim, bool add) {
    UNROLL
    for (int f = 0; f < DIM; f++)
        if (f < dim)
            to[f] = add ? to[f] + from[f] : from[f];
}

template <int DIM> __global__ void __launch_bounds__(THREADS) attend(attention p) {
    SAP_SHARED(raw);
    float *k = (float *)raw, *v = k + TOKENS * DIM;
    for (int64_t number = blockIdx.x; number < item_count(p); number += gridDim.x) {
        item t = item_at(p, number);
        int64_t query = t.first + threadIdx.x, place = t.query_start + query, end = keys_end(p, t);
        if (t.first >= t.queries)
            continue;
        bool mine = query < t.queries, met = false, asks = mine && counts(p.query_counts, place);
        float q[DIM], y[DIM] = {}, most = -INFINITY, sum = 0;
        if (mine)
            take<DIM>(q, p.q, place, p.heads, t.head, p.key_dim);
        for (int64_t first = 0; first < end; first += TOKENS) {
            __syncthreads();
            share<DIM>(k, p.k, t.key_start, first, t.keys, p.heads, t.head, p.key_dim);
            share<DIM>(v, p.v, t.key_start, first, t.keys, p.heads, t.head, p.value_dim);
            __syncthreads();
            for (int j = 0; mine && j < TOKENS && first + j < end; j++) {
                bool meet = asks && meets(p, t, query, first + j);
                float score = meet ? p.scale * dot<DIM>(q, k + j * DIM) : NO_SCORE;
                met = met || meet;
                if (score > most) {
                    float less = expf(most - score);
                    most = score;
                    sum *= less;
                    UNROLL
                    for (int f = 0; f < DIM; f++)
                        y[f] *= less;
                }
                float weight = expf(score - most), kept = weight * factor(p, t, query, first + j);
                sum += weight;
                UNROLL
                for (int f = 0; f < DIM; f++)
                    y[f] += kept * v[j * DIM + f];
            }
        }
        if (!mine)
            continue;
        UNROLL
        for (int f = 0; f < DIM; f++)
            y[f] = met || (p.means_all && t.keys > 0) ? y[f] / sum : 0;
        put<DIM>(p.y + (place * p.heads + t.head) * p.value_dim, y, p.value_dim, false);
        p.statistic[place * p.heads + t.head] =
            met ? most + logf(sum) : INFINITY; /* weights are e^(score - statistic) */
    }
}

/* To the queries: dscore = weight · (dweight - Σ weight dweight), and that sum is y · dy. */
template <int DIM> __global__ void __launch_bounds__(THREADS) attend_to_queries(attention p) {
    SAP_SHARED(raw);
    float *k = (float *)raw, *v = k + TOKENS * DIM;
    for (int64_t number = blockIdx.x; number < item_count(p); number += gridDim.x) {
        item t = item_at(p, number);
        int64_t query = t.first + threadIdx.x, place = t.query_start + query, end = keys_end(p, t);
        if (t.first >= t.queries)
            continue;
        bool mine = query < t.queries;
        float q[DIM], dy[DIM], dq[DIM] = {}, mean = 0, statistic = 0;
        if (mine) {
            take<DIM>(q, p.y, place, p.heads, t.head, p.value_dim);
            take<DIM>(dy, p.dy, place, p.heads, t.head, p.value_dim);
            mean = dot<DIM>(q, dy);
            take<DIM>(q, p.q, place, p.heads, t.head, p.key_dim);
            statistic = p.statistic[place * p.heads + t.head];
            p.products[place * p.heads + t.head] = mean;
        }
        for (int64_t first = 0; p.dq && first < end; first += TOKENS) {
            __syncthreads();
            share<DIM>(k, p.k, t.key_start, first, t.keys, p.heads, t.head, p.key_dim);
            share<DIM>(v, p.v, t.key_start, first, t.keys, p.heads, t.head, p.value_dim);
            __syncthreads();
            for (int j = 0; mine && !isinf(statistic) && j < TOKENS && first + j < end; j++) {
                float score = p.scale * dot<DIM>(q, k + j * DIM);
                float weight = weight_of(p, t, query, first + j, score, statistic);
                float dweight = factor(p, t, query, first + j) * dot<DIM>(dy, v + j * DIM);
                float dscore = weight * (dweight - mean) * p.scale;
                UNROLL
                for (int f = 0; f < DIM; f++)
                    dq[f] += dscore * k[j * DIM + f];
            }
        }
        if (mine && p.dq)
            put<DIM>(p.dq + (place * p.heads + t.head) * p.key_dim, dq, p.key_dim, p.add[0]);
    }
}

template <int DIM> __global__ void __launch_bounds__(THREADS) attend_to_keys(attention p) {
    SAP_SHARED(raw);
    float *q = (float *)raw, *dy = q + TOKENS * DIM, *statistic = dy + TOKENS * DIM, *mean = statistic + TOKENS;
    for (int64_t number = blockIdx.x; number < item_count(p); number += gridDim.x) {
        item t = item_at(p, number);
        int64_t key = t.first + threadIdx.x, place = t.key_start + key;
        if (t.first >= t.keys)
            continue;
        bool mine = key < t.keys;
        float k[DIM], v[DIM], dk[DIM] = {}, dv[DIM] = {};
        if (mine) {
            take<DIM>(k, p.k, place, p.heads, t.head, p.key_dim);
            take<DIM>(v, p.v, place, p.heads, t.head, p.value_dim);
        }
        for (int64_t first = queries_begin(p, t); first < t.queries; first += TOKENS) {
            __syncthreads();
            share<DIM>(q, p.q, t.query_start, first, t.queries, p.heads, t.head, p.key_dim);
            share<DIM>(dy, p.dy, t.query_start, first, t.queries, p.heads, t.head, p.value_dim);
            if (threadIdx.x < TOKENS && first + threadIdx.x < t.queries) {
                int64_t at = (t.query_start + first + threadIdx.x) * p.heads + t.head;
                statistic[threadIdx.x] = p.statistic[at];
                mean[threadIdx.x] = p.products[at];
            }
            __syncthreads();
            for (int i = 0; mine && i < TOKENS && first + i < t.queries; i++) {
                float score = p.scale * dot<DIM>(k, q + i * DIM);
                float weight = weight_of(p, t, first + i, key, score, statistic[i]);
                float kept = factor(p, t, first + i, key);
                float dscore = weight * (kept * dot<DIM>(v, dy + i * DIM) - mean[i]) * p.scale;
                dscore = isinf(statistic[i]) ? 0 : dscore;
                UNROLL
                for (int f = 0; f < DIM; f++) {
                    dk[f] += dscore * q[i * DIM + f];
                    dv[f] += weight * kept * dy[i * DIM + f];
                }
            }
        }
        if (mine && p.dk)
            put<DIM>(p.dk + (place * p.heads + t.head) * p.key_dim, dk, p.key_dim, p.add[1]);
        if (mine && p.dv)
            put<DIM>(p.dv + (place * p.heads + t.head) * p.value_dim, dv, p.value_dim, p.add[2]);
    }
}

template <int DIM> void launch(cudaStream_t stream, const attention &p, int64_t rows_most, bool backward) {
    int64_t items = rows_most * p.heads * ((p.longest + THREADS - 1) / THREADS);
    size_t shared = (2 * TOKENS * DIM + 2 * TOKENS) * sizeof(float);
    dim3 blocks(blocks_for(items, 1)), threads(THREADS);
    if (!backward) {
        SAP_LAUNCH(attend<DIM>, blocks, threads, shared, stream, p);
        return;
    }
    SAP_LAUNCH(attend_to_queries<DIM>, blocks, threads, shared, stream, p);
    if (p.dk || p.dv)
        SAP_LAUNCH(attend_to_keys<DIM>, blocks, threads, shared, stream, p);
}

void launch_dim(cudaStream_t stream, const attention &p, int64_t rows_most, bool backward) {
    int32_t dim = max(p.key_dim, p.value_dim);
    if (p.longest == 0)
        return;
    if (dim <= 8)
        launch<8>(stream, p, rows_most, backward);
    else if (dim <= 24)
        launch<24>(stream, p, rows_most, backward);
    else if (dim <= 64)
        launch<64>(stream, p, rows_most, backward);
    else
        launch<SAP_CUDA_HEAD_MOST>(stream, p, rows_most, backward);
}

} // namespace

void launch_attention(cudaStream_t stream, const attention &p, int64_t rows_most) {
    if (p.query_number)
        SAP_LAUNCH(number_tokens, dim3(blocks_for(rows_most, SAP_THREADS)), dim3(SAP_THREADS), 0, stream, p);
    launch_dim(stream, p, rows_most, false);
}

void launch_attention_gradient(cudaStream_t stream, const attention &p, int64_t rows_most) {
    launch_dim(stream, p, rows_most, true);
}
