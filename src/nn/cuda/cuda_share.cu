/* Sums of gradients over groups and ranks: on the device's stream, or through the host. */
#include "cuda_state.h"

namespace {

/* Whether the device has come as far as the first sum that is on its way. */
bool is_summing(const sap_cuda_engine *e) {
    for (int i = 0; i < SUMS_AHEAD; i++) {
        const rank_sum &sum = e->ahead[(e->next_sum + i) % SUMS_AHEAD];
        if (sum.busy)
            return cudaEventQuery(sum.ready) == cudaSuccess;
    }
    return false;
}

sap_status wait_for_sum(sap_cuda_engine *e, rank_sum *sum, sap_error *err) {
    if (!sum->busy)
        return SAP_OK;
    float milliseconds = 0;
    SAP_TRY(wait_for_event(e, sum->done, err));
    CUDA_TRY(cudaEventElapsedTime(&milliseconds, sum->ready, sum->done), e->plan->name);
    sum->busy = false;
    e->share.note(e->share.context, 1e-3 * (double)milliseconds);
    return SAP_OK;
}

sap_status sum_on_device(sap_cuda_engine *e, float *gradients, int64_t count, sap_error *err) {
    rank_sum *sum = &e->ahead[e->next_sum++ % SUMS_AHEAD];
    e->next_sum %= SUMS_AHEAD;
    SAP_TRY(wait_for_sum(e, sum, err));
    CUDA_TRY(cudaEventRecord(sum->ready, e->stream), e->plan->name);
    SAP_TRY(e->share.sum(e->share.context, gradients, count, (void *)e->stream, err));
    CUDA_TRY(cudaEventRecord(sum->done, e->stream), e->plan->name);
    sum->busy = true;
    return SAP_OK;
}

sap_status sum_on_host(sap_cuda_engine *e, float *gradients, int64_t count, sap_error *err) {
    size_t bytes = (size_t)count * sizeof(float);
    float *numbers = e->host_gradients.as<float>();
    CUDA_TRY(cudaMemcpyAsync(numbers, gradients, bytes, cudaMemcpyDeviceToHost, e->stream), e->plan->name);
    CUDA_TRY(cudaStreamSynchronize(e->stream), e->plan->name);
    SAP_TRY(e->share.sum(e->share.context, numbers, count, nullptr, err));
    CUDA_TRY(cudaMemcpyAsync(gradients, numbers, bytes, cudaMemcpyHostToDevice, e->stream), e->plan->name);
    return SAP_OK;
}

} // namespace

bool shares(const sap_cuda_engine *e) {
    return e->share.sum || e->share.groups > 1;
}

sap_status open_sums(sap_cuda_engine *e, sap_error *err) {
    size_t bytes = (size_t)(e->share.groups * e->plan->trainable_count) * sizeof(float);
    e->host_gradients.pinned = true;
    if (e->share.groups > 1)
        SAP_TRY(e->group_gradients.reserve(bytes, err));
    if (e->share.sum && !e->share.on_device)
        SAP_TRY(e->host_gradients.reserve(bytes, err));
    if (!e->share.on_device)
        return SAP_OK;
    for (rank_sum &sum : e->ahead) {
        CUDA_TRY(cudaEventCreate(&sum.ready), e->plan->name);
        CUDA_TRY(cudaEventCreate(&sum.done), e->plan->name);
    }
    return SAP_OK;
}

void close_sums(sap_cuda_engine *e) {
    for (rank_sum &sum : e->ahead) {
        if (sum.ready)
            (void)cudaEventDestroy(sum.ready);
        if (sum.done)
            (void)cudaEventDestroy(sum.done);
    }
}

sap_status sum_gradients(sap_cuda_engine *e, sap_error *err) {
    int64_t count = e->plan->trainable_count, groups = e->share.groups;
    float *gradients = groups > 1 ? e->group_gradients.as<float>() : e->gradients.as<float>();
    if (e->share.sum &&
        e->share.on_device) /* where other ranks' groups stand this one has zeros: such a sum is exact */
        SAP_TRY(sum_on_device(e, gradients, groups * count, err));
    else if (e->share.sum)
        SAP_TRY(sum_on_host(e, gradients, groups * count, err));
    if (groups > 1)
        launch_add_groups(e->stream, count, (int)groups, gradients, e->gradients.as<float>());
    return SAP_OK;
}

sap_status wait_for_event(sap_cuda_engine *e, cudaEvent_t event, sap_error *err) {
    cudaError_t error;
    if (!e->share.look) {
        CUDA_TRY(cudaEventSynchronize(event), e->plan->name);
        return SAP_OK;
    }
    while ((error = cudaEventQuery(event)) == cudaErrorNotReady)
        SAP_TRY(e->share.look(e->share.context, is_summing(e), err));
    if (error != cudaSuccess)
        SAP_TRY(e->share.look(e->share.context, false, err)); /* a lost rank says more than what CUDA makes of it */
    CUDA_TRY(error, e->plan->name);
    return SAP_OK;
}

sap_status settle(sap_cuda_engine *e, sap_error *err) {
    for (int i = 0; i < SUMS_AHEAD; i++)
        SAP_TRY(wait_for_sum(e, &e->ahead[(e->next_sum + i) % SUMS_AHEAD], err));
    return SAP_OK;
}
