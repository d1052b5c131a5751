/* YAML files as JSON values, by libyaml: mappings, sequences and scalars (as text). */
#include "pipeline_internal.h"

#include <yaml.h>

typedef struct reader {
    yaml_parser_t parser;
    const char *path;
    int depth;
    sap_error *err;
} reader;

enum { DEEPEST = 32, LARGEST = 1 << 20 };

static sap_status fail_at(reader *r, const yaml_mark_t *mark, const char *what) {
    return sap_error_set(r->err, SAP_EFORMAT, "%s:%zu:%zu: %s", r->path, mark->line + 1, mark->column + 1, what);
}

static sap_status next_event(reader *r, yaml_event_t *event) {
    if (yaml_parser_parse(&r->parser, event))
        return SAP_OK;
    return fail_at(r, &r->parser.problem_mark, r->parser.problem ? r->parser.problem : "not YAML");
}

static sap_status read_value(reader *r, const yaml_event_t *event, json_t **out);

static sap_status read_sequence(reader *r, json_t **out) {
    json_t *array = json_array();
    sap_status status = SAP_OK;
    for (;;) {
        yaml_event_t event;
        json_t *item = NULL;
        status = next_event(r, &event);
        if (status != SAP_OK)
            break;
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        if (!end)
            status = read_value(r, &event, &item);
        yaml_event_delete(&event);
        if (end || status != SAP_OK)
            break;
        json_array_append_new(array, item);
    }
    if (status == SAP_OK)
        *out = array;
    else
        json_decref(array);
    return status;
}

/* One `key: value` of a mapping; `*end` is set at its end. */
static sap_status read_pair(reader *r, json_t *object, bool *end) {
    yaml_event_t key, event;
    json_t *value = NULL;
    SAP_TRY(next_event(r, &key));
    sap_status status = SAP_OK;
    *end = key.type == YAML_MAPPING_END_EVENT;
    if (*end)
        goto done;
    const char *name = key.type == YAML_SCALAR_EVENT ? (const char *)key.data.scalar.value : NULL;
    if (!name)
        status = fail_at(r, &key.start_mark, "a key should be a word");
    else if (json_object_get(object, name))
        status = fail_at(r, &key.start_mark, "this key is given twice");
    if (status != SAP_OK)
        goto done;
    status = next_event(r, &event);
    if (status == SAP_OK) {
        status = read_value(r, &event, &value);
        yaml_event_delete(&event);
    }
    if (status == SAP_OK && json_object_set_new(object, name, value) != 0)
        status = fail_at(r, &key.start_mark, "this key is not UTF-8");
done:
    yaml_event_delete(&key);
    return status;
}

static sap_status read_value(reader *r, const yaml_event_t *event, json_t **out) {
    if (r->depth >= DEEPEST)
        return fail_at(r, &event->start_mark, "nested too deeply");
    sap_status status = SAP_OK;
    r->depth++;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        *out = json_string((const char *)event->data.scalar.value);
        if (!*out)
            status = fail_at(r, &event->start_mark, "this value is not UTF-8");
        break;
    case YAML_SEQUENCE_START_EVENT:
        status = read_sequence(r, out);
        break;
    case YAML_MAPPING_START_EVENT: {
        json_t *object = json_object();
        bool end = false;
        while (status == SAP_OK && !end)
            status = read_pair(r, object, &end);
        if (status == SAP_OK)
            *out = object;
        else
            json_decref(object);
        break;
    }
    default:
        status = fail_at(r, &event->start_mark, "expected a value, a list or a mapping (aliases are not supported)");
    }
    r->depth--;
    return status;
}

sap_status sap_yaml_load(const char *path, json_t **out, sap_error *err) {
    char *text;
    size_t length;
    SAP_TRY(sap_file_load(path, LARGEST, &text, &length, err));
    reader r = {.path = path, .err = err};
    sap_status status = yaml_parser_initialize(&r.parser) ? SAP_OK : sap_error_memory(err, path);
    if (status == SAP_OK) {
        yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
        bool found = false;
        while (status == SAP_OK && !found) {
            yaml_event_t event;
            status = next_event(&r, &event);
            if (status != SAP_OK)
                break;
            if (event.type == YAML_STREAM_END_EVENT) {
                status = fail_at(&r, &event.start_mark, "the file is empty");
            } else if (event.type != YAML_STREAM_START_EVENT && event.type != YAML_DOCUMENT_START_EVENT) {
                status = read_value(&r, &event, out);
                found = true;
            }
            yaml_event_delete(&event);
        }
        yaml_parser_delete(&r.parser);
    }
    free(text);
    return status;
}
