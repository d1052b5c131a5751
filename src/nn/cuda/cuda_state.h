/* The engine: what it keeps on the device, and how its parts work on it. */
#ifndef SAP_CUDA_STATE_H
#define SAP_CUDA_STATE_H

#include "cuda_stack.h"

#include <vector>

/* "what: reason" for an error of the runtime. */
sap_status cuda_failed(sap_error *err, const char *what, cudaError_t error);
#define CUDA_TRY(call, what)                                                                                           \
    do {                                                                                                               \
        cudaError_t cuda_error_ = (call);                                                                              \
        if (cuda_error_ != cudaSuccess)                                                                                \
            return cuda_failed(err, what, cuda_error_);                                                                \
    } while (0)

/* Memory on the device, or pinned on the host. */
struct device_memory {
    void *data = nullptr;
    size_t bytes = 0;
    bool pinned = false;
    device_memory() = default;
    device_memory(const device_memory &) = delete;
    device_memory(device_memory &&other) noexcept : data(other.data), bytes(other.bytes), pinned(other.pinned) {
        other.data = nullptr;
        other.bytes = 0;
    }
    device_memory &operator=(device_memory &&other) noexcept {
        release();
        data = other.data;
        bytes = other.bytes;
        pinned = other.pinned;
        other.data = nullptr;
        other.bytes = 0;
        return *this;
    }
    ~device_memory() {
        release();
    }
    void release();
    /* At least so many bytes; what was there is lost where it has to grow. */
    sap_status reserve(size_t wanted, sap_error *err);
    template <class T> T *as() const {
        return (T *)data;
    }
};

/* Rows that the device keeps. */
struct kept_rows {
    int64_t rows = 0;
    std::vector<device_memory> x, offsets;
    std::vector<std::vector<int64_t>> steps;   /* (inputs) first step of each row, and the end; of ragged inputs */
    std::vector<int64_t> longest;              /* (inputs) most steps of a row */
    int64_t capacity = 0;                      /* rows that there is room for */
    std::vector<device_memory> target, weight; /* (outputs), where they have a loss */
    std::vector<int64_t> target_values;        /* (outputs) */
    device_memory identity;
    bool identified = false, weighted = false;
};

/* A batch on its way from the host, which packs one while the device works on the other. */
struct stage {
    kept_rows rows;
    device_memory pinned; /* on the host */
    device_memory order;
    std::vector<int32_t> sorted; /* the same on the host: the longest rows first */
    cudaEvent_t copied = nullptr, used = nullptr;
    bool busy = false;
};

enum run_mode { RUN_PREDICT, RUN_MEASURE, RUN_DIFFERENTIATE, RUN_TRAIN, RUN_MODES };

/* What is launched for a step of one mode, as long as the memory for its tensors stays where it is. */
struct step_graph {
    cudaGraphExec_t ready = nullptr;
    bool loaded =
        false; /* a step ran without it, so the device has the kernels' code, which cannot be loaded in a capture */
};

/* A use of a layer in the engine. */
struct operation {
    const sap_cuda_op *op;
    std::vector<bool> add; /* to the input's gradient, which an operation behind wrote */
    device_memory z;       /* what the activation takes, where its derivative needs it; what else forward keeps */
    device_memory work;    /* of one call */
    bool tiled = false;    /* a recurrent layer on tensor cores */
};

/* A sum over ranks on its way: the device is about to begin with it, and has done it. */
struct rank_sum {
    cudaEvent_t ready = nullptr, done = nullptr;
    bool busy = false;
};
enum { SUMS_AHEAD = 8 }; /* steps that the host is ahead of the device, at most */

struct sap_cuda_engine {
    const sap_cuda_plan *plan;
    sap_cuda_share share = {};
    int64_t batch;
    int multiprocessors = 0, capability = 0;
    size_t shared_most = 0;
    cudaStream_t stream = nullptr;

    device_memory values, gradients, slots[SAP_CUDA_SLOTS];
    device_memory stretches, scales, squares; /* of the optimizer, where weight arrays are not all alike */
    device_memory group_gradients;            /* (groups, trainable_count), where there are several */
    int64_t step = 0;                         /* since the last finish, from 1 */
    std::vector<device_memory> y, dy;         /* (tensors) */
    std::vector<int64_t> step_capacity;       /* (inputs) steps of a batch that the tensors hold */
    std::vector<int64_t> tile_capacity;       /* (inputs) steps of the tiles of a batch */
    std::vector<int64_t> longest;             /* (inputs) steps that a row may have */
    std::vector<int64_t> steps;               /* (inputs) steps of the rows in hand */
    std::vector<bool> loose_input;            /* (inputs) nobody takes it row by row: it is not gathered */
    bool sorts = false;                       /* rows better come the longest first */
    device_memory now;                        /* step_now */
    step_graph graphs[RUN_MODES];
    std::vector<operation> operations;

    device_memory counts, batch_key, place_loss, place_correct;
    std::vector<device_memory> batch_offsets;
    batch_space space;
    device_memory sums; /* (groups, outputs) totals */

    kept_rows sets[2];
    stage stages[2];
    int turn = 0;
    cudaStream_t copies = nullptr;
    device_memory order, updates;
    device_memory host_order; /* pinned: each batch sorted */
    device_memory loose;      /* float32 on the way to bf16 */

    rank_sum ahead[SUMS_AHEAD];
    int next_sum = 0;
    device_memory host_gradients; /* pinned */

    stack net;
    bool stacked = false;
    device_memory parts, arrived, block_sums;
};

/* ---- Operations (cuda_operations.cu) ------------------------------------------------------------------------ */

/* Positions of a tensor: on the device; at most, as memory was reserved; and for launches, whose sums are taken in an order that may depend on it:
 * with groups it is that of the rows in hand alone, since the memory may be another on other ranks. */
extent positions(const sap_cuda_engine *e, int32_t tensor, int64_t factor);
int64_t positions_most(const sap_cuda_engine *e, int32_t tensor);
int64_t positions_launched(const sap_cuda_engine *e, int32_t tensor);

/* Decides which form of an operation runs here. */
void choose_form(const sap_cuda_engine *e, operation *o);
/* Says what memory an operation needs for the capacity that the engine has now. */
sap_status reserve_operation(sap_cuda_engine *e, operation *o, sap_error *err);
sap_status forward_operation(sap_cuda_engine *e, operation *o, run_mode mode, sap_error *err);
sap_status backward_operation(sap_cuda_engine *e, operation *o, run_mode mode, sap_error *err);

/* ---- Rows (cuda_rows.cu) ------------------------------------------------------------------------------------- */

void init_rows(const sap_cuda_engine *e, kept_rows *rows);
/* Whether an input's numbers are kept as bf16. */
bool halved(const sap_cuda_engine *e, size_t input);
/* As the table of functions has them. */
sap_status reserve_rows(sap_cuda_engine *e, int set, int64_t rows, const int64_t *steps, sap_error *err);
sap_status keep_rows(sap_cuda_engine *e, int set, const sap_cuda_rows *rows, sap_error *err);
/* Packs rows into pinned memory and starts their way to the device, beside what it computes. */
sap_status send_rows(sap_cuda_engine *e, const sap_cuda_rows *rows, const int64_t *begin, stage **out, sap_error *err);
row_set view(const sap_cuda_engine *e, const kept_rows *set);
/* Puts the longest rows of a batch first, equal ones in the order in which they came. */
void sort_rows(const sap_cuda_engine *e, const kept_rows *set, int32_t *order, int64_t rows);

/* ---- Ranks (cuda_share.cu) ---------------------------------------------------------------------------------- */

sap_status open_sums(sap_cuda_engine *e, sap_error *err);
void close_sums(sap_cuda_engine *e);
/* Whether batches have groups, or are shared with other ranks. */
bool shares(const sap_cuda_engine *e);
/* Makes the gradients of the whole batch, of all ranks and groups, out of this rank's groups. */
sap_status sum_gradients(sap_cuda_engine *e, sap_error *err);
/* Waits for an event, with an eye on the other ranks. */
sap_status wait_for_event(sap_cuda_engine *e, cudaEvent_t event, sap_error *err);
/* Waits until no sum is on its way any more, so that nothing that the host waits for waits for other ranks. */
sap_status settle(sap_cuda_engine *e, sap_error *err);

#endif
