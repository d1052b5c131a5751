/* Export to CSV (RFC 4180): one line an entry, one value a column; what is nested stands as JSON in its field. */
#include "../base/numbers.h"
#include "export_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { FLUSH_AT = 1 << 18 };

typedef struct csv {
    char *path;
    FILE *file;
    sap_text line; /* lines that are not written yet */
    sap_text json; /* one nested value */
} csv;

/* ---- Values ------------------------------------------------------------------------------------------------ */

static void put(sap_text *out, const char *text) {
    sap_text_put(out, text, strlen(text));
}

/* The shortest decimal that reads back to the same value; what is no number as Python's JSON has it, or as everybody else. */
static void put_real(sap_text *out, double value, bool single, bool json) {
    char text[SAP_REAL_TEXT];
    if (isnan(value)) {
        put(out, json ? "NaN" : "nan");
        return;
    }
    if (isinf(value)) {
        put(out, value < 0 ? "-" : "");
        put(out, json ? "Infinity" : "inf");
        return;
    }
    sap_real_shortest(text, value, single);
    put(out, text);
}

static void put_number(sap_text *out, const sap_column *c, int64_t i, bool json) {
    char text[32];
    switch (c->type) {
    case SAP_FLOAT16:
        put_real(out, sap_half_value(((const uint16_t *)c->values)[i]), true, json);
        return;
    case SAP_FLOAT32:
        put_real(out, (double)((const float *)c->values)[i], true, json);
        return;
    case SAP_FLOAT64:
        put_real(out, ((const double *)c->values)[i], false, json);
        return;
    case SAP_BOOL:
        put(out, ((const uint8_t *)c->values)[i] ? "true" : "false");
        return;
    case SAP_UINT64:
        (void)snprintf(text, sizeof text, "%" PRIu64, ((const uint64_t *)c->values)[i]);
        break;
    default:
        (void)snprintf(text, sizeof text, "%" PRId64, sap_integer_value(c, i));
        break;
    }
    put(out, text);
}

static void put_json_text(sap_text *out, const char *text, size_t length) {
    put(out, "\"");
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            sap_text_add(out, "\\%c", c);
        else if (c < 0x20)
            sap_text_add(out, "\\u%04x", c);
        else
            sap_text_put(out, text + i, 1);
    }
    put(out, "\"");
}

static void put_json(sap_text *out, const sap_column *c, int64_t i) {
    if (c->type == SAP_TYPE_NONE || (c->valid && !c->valid[i])) {
        put(out, "null");
        return;
    }
    int64_t first = 0, items = 0;
    switch (c->type) {
    case SAP_STRING:
        put_json_text(out, (const char *)c->values + c->offsets[i], (size_t)(c->offsets[i + 1] - c->offsets[i]));
        return;
    case SAP_UNION: {
        int tag = ((const int8_t *)c->values)[i];
        put_json(out, &c->children[tag], c->offsets[i]);
        return;
    }
    case SAP_RECORD:
        put(out, "{");
        for (int32_t k = 0; k < c->count; k++) {
            put(out, k ? "," : "");
            put_json_text(out, c->children[k].name, strlen(c->children[k].name));
            put(out, ":");
            put_json(out, &c->children[k], i);
        }
        put(out, "}");
        return;
    case SAP_LIST:
        first = c->offsets[i];
        items = c->offsets[i + 1] - first;
        break;
    case SAP_FIXED_LIST:
        first = i * c->size;
        items = c->size;
        break;
    default:
        put_number(out, c, i, true);
        return;
    }
    put(out, "[");
    for (int64_t k = 0; k < items; k++) {
        put(out, k ? "," : "");
        put_json(out, &c->children[0], first + k);
    }
    put(out, "]");
}

/* In quotes where the text needs them. */
static void put_text(sap_text *out, const char *text, size_t length) {
    bool plain = length > 0;
    for (size_t i = 0; i < length && plain; i++)
        plain = !strchr(",\"\r\n", text[i]); /* a zero byte too */
    if (plain) {
        sap_text_put(out, text, length);
        return;
    }
    put(out, "\"");
    for (size_t i = 0; i < length; i++)
        sap_text_put(out, text[i] == '"' ? "\"\"" : text + i, text[i] == '"' ? 2 : 1);
    put(out, "\"");
}

static void put_value(csv *w, const sap_column *c, int64_t i) {
    if (c->valid && !c->valid[i])
        return;
    if (c->type == SAP_STRING) {
        put_text(&w->line, (const char *)c->values + c->offsets[i], (size_t)(c->offsets[i + 1] - c->offsets[i]));
    } else if (sap_type_size(c->type)) {
        put_number(&w->line, c, i, false);
    } else {
        w->json.length = 0;
        put_json(&w->json, c, i);
        w->line.failed = w->line.failed || w->json.failed;
        put_text(&w->line, w->json.data ? w->json.data : "", w->json.length);
    }
}

/* ---- The file ------------------------------------------------------------------------------------------------- */

static sap_status flush(csv *w, sap_error *err) {
    if (w->line.failed)
        return sap_error_memory(err, w->path);
    if (w->line.length && fwrite(w->line.data, 1, w->line.length, w->file) != w->line.length)
        return sap_error_errno(err, w->path);
    w->line.length = 0;
    return SAP_OK;
}

static void close_writer(void *writer) {
    csv *w = writer;
    if (w->file)
        (void)fclose(w->file);
    sap_text_release(&w->line);
    sap_text_release(&w->json);
    free(w->path);
    free(w);
}

static sap_status create(const char *path, const sap_field *fields, int32_t count, void **writer, sap_error *err) {
    csv *w = calloc(1, sizeof *w);
    if (!w)
        return sap_error_memory(err, path);
    w->path = strdup(path);
    w->file = fopen(path, "we");
    sap_status status = !w->file ? sap_error_errno(err, path) : SAP_OK;
    if (status == SAP_OK && (!w->path))
        status = sap_error_memory(err, path);
    for (int32_t i = 0; i < count; i++) {
        put(&w->line, i ? "," : "");
        put_text(&w->line, fields[i].name, strlen(fields[i].name));
    }
    put(&w->line, "\n");
    if (status == SAP_OK)
        *writer = w;
    else
        close_writer(w);
    return status;
}

static sap_status write_batch(void *writer, sap_batch *batch, sap_error *err) {
    csv *w = writer;
    sap_status status = SAP_OK;
    for (int64_t i = 0; i < batch->length && status == SAP_OK; i++) {
        for (int32_t k = 0; k < batch->count; k++) {
            put(&w->line, k ? "," : "");
            put_value(w, &batch->columns[k], i);
        }
        put(&w->line, "\n");
        if (w->line.length >= FLUSH_AT || w->line.failed)
            status = flush(w, err);
    }
    return status;
}

static sap_status finish(void *writer, sap_error *err) {
    csv *w = writer;
    SAP_TRY(flush(w, err));
    int failed = fclose(w->file);
    w->file = NULL;
    return failed ? sap_error_errno(err, w->path) : SAP_OK;
}

const sap_format sap_format_csv = {"csv", ".csv", create, write_batch, finish, close_writer};
