/* Arrow's C Stream interface over anything that gives batches. */
#include "column_internal.h"

#include <errno.h>
#include <stdlib.h>

typedef struct stream_state {
    sap_batches batches;
    sap_error error;
} stream_state;

static int stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    stream_state *state = stream->private_data;
    return sap_schema_export(state->batches.fields, state->batches.count, out, &state->error) == SAP_OK ? 0 : EIO;
}

static int stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    stream_state *state = stream->private_data;
    sap_batch batch = {0};
    memset(out, 0, sizeof *out);
    if (state->batches.next(state->batches.context, &batch, &state->error) != SAP_OK)
        return EIO;
    if (batch.length == 0) {
        sap_batch_release(&batch);
        return 0;
    }
    sap_status status = sap_batch_export(&batch, out, &state->error);
    sap_batch_release(&batch);
    return status == SAP_OK ? 0 : EIO;
}

static const char *stream_error(struct ArrowArrayStream *stream) {
    const stream_state *state = stream->private_data;
    return state->error.message[0] ? state->error.message : NULL;
}

static void stream_release(struct ArrowArrayStream *stream) {
    stream_state *state = stream->private_data;
    state->batches.close(state->batches.context);
    free(state);
    stream->release = NULL;
}

sap_status sap_batches_export(const sap_batches *batches, struct ArrowArrayStream *out, sap_error *err) {
    stream_state *state = calloc(1, sizeof *state);
    if (!state)
        return sap_error_memory(err, "Arrow stream");
    state->batches = *batches;
    *out = (struct ArrowArrayStream){stream_schema, stream_next, stream_error, stream_release, state};
    return SAP_OK;
}
