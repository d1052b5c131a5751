/* sap_model_compile: a model as one plain C file, with its weights, for programs that can have nothing else. */
#include "model_compile.h"
#include "../base/numbers.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

/* ---- Text ----------------------------------------------------------------------------------------------- */

const char *sap_source_text(sap_source *source, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *out = length < 0 ? NULL : sap_arena_alloc(&source->arena, (size_t)length + 1);
    if (out)
        (void)vsnprintf(out, (size_t)length + 1, format, again);
    else
        source->failed = true;
    va_end(again);
    return out ? out : "";
}

/* A name as an identifier: "gru/cell" gives "gru_cell". */
static const char *identifier(sap_source *source, const char *name) {
    char text[120];
    size_t used = 0;
    if (!isalpha((unsigned char)name[0]))
        text[used++] = 'n';
    for (; *name && used + 1 < sizeof text; name++) {
        bool good = isascii((unsigned char)*name) && isalnum((unsigned char)*name);
        if (good || (used && text[used - 1] != '_'))
            text[used++] = good ? *name : '_';
    }
    text[used] = '\0';
    return sap_source_text(source, "%s", text);
}

/* The same for the name of a parameter, which must not be a word of the language or hide what the function uses. */
static const char *parameter(sap_source *source, const char *name) {
    static const char *const words[] = {
        "keep",    "mark",     "auto",     "bool",      "break",    "case",    "catch",    "char",   "class",
        "const",   "continue", "default",  "delete",    "do",       "double",  "else",     "enum",   "export",
        "extern",  "false",    "float",    "for",       "friend",   "goto",    "if",       "inline", "int",
        "long",    "memcpy",   "memory",   "namespace", "new",      "not",     "operator", "or",     "pad",
        "private", "public",   "register", "restrict",  "return",   "rows_of", "short",    "signed", "sizeof",
        "static",  "struct",   "switch",   "template",  "this",     "throw",   "true",     "try",    "typedef",
        "union",   "unsigned", "using",    "void",      "volatile", "while",   "and",      "xor"};
    const char *out = identifier(source, name);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], out) == 0)
            return sap_source_text(source, "%s_", out);
    return strncmp(out, "mask_", 5) == 0 ? sap_source_text(source, "%s_", out) : out; /* masks are called so */
}

const char *sap_source_remark(sap_source *source, const char *text) {
    char *out = sap_arena_text(&source->arena, text, strlen(text));
    for (char *at = out; at && *at; at++)
        if ((unsigned char)*at < ' ' || *at == '*')
            *at = '?';
    source->failed = source->failed || !out;
    return out ? out : "";
}

/* The identifier of item `index`, with a number behind when one before has the same. */
static const char *unique(sap_source *source, const char *const *before, int32_t count, const char *name) {
    const char *base = identifier(source, name), *out = base;
    for (int32_t number = 2;; number++) {
        int32_t i = 0;
        while (i < count && strcmp(before[i], out) != 0)
            i++;
        if (i == count || source->failed)
            return out;
        out = sap_source_text(source, "%s_%d", base, number);
    }
}

const char *sap_source_array(const sap_emission *e, const char *what, int64_t rows, int64_t columns, int64_t width,
                             const float *values) {
    sap_source *source = e->source;
    const char *name = sap_source_text(source, "%s_%s", e->name, what);
    if (!e->first)
        return name;
    sap_text *out = &source->weights;
    if (rows)
        sap_text_add(out, "static const _Alignas(64) float %s[%lld][%lld] = {\n", name, (long long)rows,
                     (long long)width);
    else
        sap_text_add(out, "static const _Alignas(64) float %s[%lld] = {\n", name, (long long)width);
    for (int64_t r = 0; r < (rows ? rows : 1); r++) {
        sap_text_add(out, rows ? "    {" : "    ");
        for (int64_t c = 0; c < columns; c++) {
            char text[SAP_REAL_TEXT]; /* not sap_source_number: there may be millions */
            sap_real_print(text, (double)values[r * columns + c], 9);
            sap_text_add(out, "%s%s%sF",
                         c == 0  ? ""
                         : c % 8 ? ", "
                                 : ",\n     ",
                         text, strpbrk(text, ".e") ? "" : ".0");
            source->infinite = source->infinite || !isfinite(values[r * columns + c]);
        }
        sap_text_add(out, rows ? "},\n" : "\n");
    }
    sap_text_add(out, "};\n");
    return name;
}

void sap_source_product_of(sap_source *source, int indent, const char *sum, const char *width, const char *x,
                           const char *depth, const char *w) {
    /* four at a time: the sums are loaded and stored a quarter as often */
    sap_text_add(&source->functions,
                 "%*sfor (int32_t i = 0; i < %s; i += 4)\n"
                 "%*sfor (int32_t o = 0; o < %s; o++)\n"
                 "%*s%s[o] += %s[i] * %s[i][o] + %s[i + 1] * %s[i + 1][o] +\n"
                 "%*s(%s[i + 2] * %s[i + 2][o] + %s[i + 3] * %s[i + 3][o]);\n",
                 indent, "", depth, indent + 4, "", width, indent + 8, "", sum, x, w, x, w,
                 indent + 13 + (int)strlen(sum), "", x, w, x, w);
}

void sap_source_product(sap_source *source, int indent, const char *sum, int64_t width, const char *x, int64_t depth,
                        const char *w) {
    long long fours = (long long)(depth / 4 * 4);
    const char *columns = sap_source_text(source, "%lld", (long long)width);
    if (fours)
        sap_source_product_of(source, indent, sum, columns, x, sap_source_text(source, "%lld", fours), w);
    if (depth > fours)
        sap_text_add(&source->functions,
                     "%*sfor (int32_t i = %lld; i < %lld; i++)\n"
                     "%*sfor (int32_t o = 0; o < %s; o++)\n"
                     "%*s%s[o] += %s[i] * %s[i][o];\n",
                     indent, "", fours, (long long)depth, indent + 4, "", columns, indent + 8, "", sum, x, w);
}

const char *sap_source_steps(sap_source *source, const sap_source_tensor *tensor) {
    return tensor->steps ? tensor->steps : sap_source_text(source, "%lld", (long long)tensor->shape.dims[0]);
}

const char *sap_source_count(sap_source *source, const sap_source_tensor *tensor, int64_t width) {
    int64_t values = sap_shape_values(&tensor->shape);
    if (!tensor->steps)
        return sap_source_text(source, "%lld", (long long)(values / width));
    int64_t each = values / tensor->shape.dims[0] / width; /* vectors a step */
    return each == 1 ? tensor->steps : sap_source_text(source, "%s * %lld", tensor->steps, (long long)each);
}

/* ---- Nodes ---------------------------------------------------------------------------------------------- */

/* What the compiler knows of a node. */
typedef struct plan_node {
    const char *name; /* of its function, behind "run_" */
    const sap_emitter_class *emitter;
    bool view;        /* its tensor is that of its input */
    int32_t root;     /* the node whose numbers it shows: itself, or one before */
    int32_t last_use; /* of the numbers; at the root */
    int32_t output;   /* of the outputs, that which the numbers are written to at once, -1: none; at the root */
    int64_t from, to; /* floats in the scratch memory; at the root */
    sap_source_tensor y;
} plan_node;

/* An input as the predict function takes it. */
typedef struct plan_input {
    const char *name, *rows, *steps; /* parameters, and how many rows the network takes; NULL: no sequence */
    const sap_feature *feature;      /* scaled inside; NULL: as given */
    const double *shift, *factor;    /* (width) constants; NULL: its scaling takes none */
} plan_input;

typedef struct plan {
    sap_source *source;
    const sap_model *model;
    const sap_compile_options *options;
    plan_node *nodes;
    plan_input *inputs;
    const char **outputs;     /* (output_count) parameters */
    const char **layer_names; /* (layer_count) */
    bool *written;            /* (layer_count) its weights are in the source */
    const char **steps;       /* (domain_count) the variable with the number of steps, NULL: it does not vary */
    int64_t *most;            /* (domain_count) steps */
    const char **masks;       /* (mask_count) the variable, NULL: not needed */
    int64_t memory;           /* floats */
} plan;

static int32_t layer_index(const sap_model *model, const sap_layer *layer) {
    int32_t i = 0;
    while (model->layers[i] != layer)
        i++;
    return i;
}

static sap_status allocate(plan *p, sap_error *err) {
    const sap_model *model = p->model;
    sap_arena *arena = &p->source->arena;
    p->nodes = sap_arena_array(arena, (size_t)model->node_count, sizeof *p->nodes);
    p->inputs = sap_arena_array(arena, (size_t)model->input_count, sizeof *p->inputs);
    p->outputs = sap_arena_array(arena, (size_t)model->output_count, sizeof *p->outputs);
    p->layer_names = sap_arena_array(arena, (size_t)model->layer_count, sizeof *p->layer_names);
    p->written = sap_arena_array(arena, (size_t)model->layer_count, sizeof *p->written);
    p->steps = sap_arena_array(arena, (size_t)model->domain_count + 1, sizeof *p->steps);
    p->most = sap_arena_array(arena, (size_t)model->domain_count + 1, sizeof *p->most);
    p->masks = sap_arena_array(arena, (size_t)model->mask_count + 1, sizeof *p->masks);
    bool made = p->nodes && p->inputs && p->outputs && p->layer_names && p->written && p->steps && p->most && p->masks;
    return made ? SAP_OK : sap_error_memory(err, model->name);
}

static sap_status name_all(plan *p, sap_error *err) {
    const sap_model *model = p->model;
    int32_t count = 0;
    size_t ends = (size_t)(3 * model->input_count + model->output_count);
    const char **names = sap_arena_array(&p->source->arena, (size_t)model->node_count, sizeof *names);
    const char **taken = sap_arena_array(&p->source->arena, ends, sizeof *taken);
    if (!names || !taken)
        return sap_error_memory(err, model->name);
    for (int32_t i = 0; i < model->layer_count; i++)
        p->layer_names[i] = unique(p->source, p->layer_names, i, model->layers[i]->name);
    for (int32_t i = 0; i < model->node_count; i++)
        p->nodes[i].name = names[i] = unique(p->source, names, i, model->nodes[i].layer->name);
    for (int32_t i = 0; i < model->input_count; i++) {
        const char *name = parameter(p->source, model->input_info[i].name);
        p->inputs[i].name = taken[count] = unique(p->source, taken, count, name);
        count++;
    }
    for (int32_t i = 0; i < model->output_count; i++) {
        const char *name = "output";
        if (model->output_count > 1)
            name = sap_source_text(p->source, "output_%s", model->output_info[i].name);
        p->outputs[i] = taken[count] = unique(p->source, taken, count, name);
        count++;
    }
    for (int32_t i = 0; i < model->input_count; i++) {
        plan_input *input = &p->inputs[i];
        if (model->nodes[model->inputs[i]].domain < 0)
            continue;
        const char *rows = sap_source_text(p->source, "%s_rows", input->name);
        const char *steps = sap_source_text(p->source, "%s_steps", input->name);
        input->rows = taken[count] = unique(p->source, taken, count, rows);
        count++;
        input->steps = taken[count] = unique(p->source, taken, count, steps);
        count++;
    }
    return SAP_OK;
}

/* The mask that node n looks at for its input i; -1: none, or its masked steps are not there. */
static int32_t mask_of(const plan *p, const sap_node *node, int32_t i) {
    int32_t mask = node->layer->class_of->mask == SAP_MASK_MAKE ? node->mask
                   : node->masks && node->masks[i] >= 0         ? node->masks[i]
                                                                : p->model->nodes[node->inputs[i]].mask;
    int32_t domain = p->model->nodes[node->inputs[i]].domain;
    return mask >= 0 && domain >= 0 && !p->model->domains[domain].ragged ? mask : -1;
}

static void need_mask(plan *p, int32_t mask) {
    if (mask >= 0 && !p->masks[mask])
        p->masks[mask] = sap_source_text(p->source, "mask_%d", mask);
}

/* Which numbers each node shows, how long they are needed, and which masks. */
static sap_status look_at_nodes(plan *p, sap_error *err) {
    const sap_model *model = p->model;
    for (int32_t i = 0; i < model->node_count; i++) {
        const sap_node *node = &model->nodes[i];
        plan_node *own = &p->nodes[i];
        own->emitter = sap_emitter_find(node->layer->class_of->name);
        if (!own->emitter)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: layers of this class cannot be compiled to C",
                                 node->layer->where);
        own->view = node->input_count > 0 && (node->view || !own->emitter->emit);
        own->root = own->view ? p->nodes[node->inputs[0]].root : i;
        own->output = -1;
        own->y.shape = node->shape;
        for (int32_t k = 0; k < node->input_count; k++)
            p->nodes[p->nodes[node->inputs[k]].root].last_use = i;
        for (int32_t k = 0; own->emitter->masks && !own->view && k < node->input_count; k++)
            need_mask(p, mask_of(p, node, k));
    }
    for (int32_t m = model->mask_count - 1; m >= 0; m--) { /* one that is made of others comes after those */
        const sap_node *node = &model->nodes[model->masks[m].node];
        for (int32_t k = 0; p->masks[m] && model->masks[m].made && k < node->input_count; k++)
            need_mask(p, mask_of(p, node, k));
    }
    for (int32_t o = 0; o < model->output_count; o++) {
        plan_node *root = &p->nodes[p->nodes[model->outputs[o]].root];
        if (model->nodes[p->nodes[model->outputs[o]].root].input_count > 0 && root->output < 0)
            root->output = o;
        root->last_use = INT32_MAX;
    }
    return SAP_OK;
}

/* Gives the numbers of node `index`, made when node `when` is run, the lowest place in memory that nothing in use overlaps. */
static void place_node(plan *p, int32_t index, int32_t when) {
    plan_node *own = &p->nodes[index];
    int64_t floats = (sap_shape_values(&own->y.shape) + 15) / 16 * 16, from = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < p->model->node_count; i++) {
            const plan_node *other = &p->nodes[i];
            if (other->to > other->from && other->last_use >= when && other->from < from + floats && other->to > from) {
                from = other->to;
                moved = true;
            }
        }
    }
    own->from = from;
    own->to = from + floats;
    p->memory = own->to > p->memory ? own->to : p->memory;
    own->y.place = from ? sap_source_text(p->source, "memory + %lld", (long long)from) : "memory";
}

/* The masks that are taken from the output of node n, or made by it. */
static void emit_masks(plan *p, int32_t n) {
    const sap_model *model = p->model;
    const sap_node *node = &model->nodes[n];
    const sap_source_tensor *y = &p->nodes[n].y;
    sap_text *out = &p->source->body;
    for (int32_t m = 0; m < model->mask_count; m++) {
        const sap_mask *mask = &model->masks[m];
        if (mask->node != n || !p->masks[m])
            continue;
        const char *steps = sap_source_steps(p->source, y);
        sap_text_add(out, "    uint8_t %s[%lld];\n", p->masks[m], (long long)y->shape.dims[0]);
        if (!mask->made) {
            sap_source_use(p->source, SAP_HELPER_MARK);
            sap_text_add(out, "    mark(%s, %s, %lld, %s, %s);\n", y->place, steps,
                         (long long)sap_shape_step_values(&y->shape), sap_source_number(p->source, mask->value),
                         p->masks[m]);
            continue;
        }
        bool joins = node->layer->padding != SAP_PADDING_STEPWISE; /* one sequence after the other */
        int64_t place = 0;
        if (!joins)
            sap_text_add(out, "    for (int32_t t = 0; t < %s; t++)\n        %s[t] = ", steps, p->masks[m]);
        for (int32_t i = 0; i < node->input_count; i++) {
            int32_t from = mask_of(p, node, i);
            int64_t length = p->nodes[node->inputs[i]].y.shape.dims[0];
            if (!joins)
                sap_text_add(out, "%s%s[t]", i ? " | " : "", from >= 0 ? p->masks[from] : "");
            else if (from >= 0)
                sap_text_add(out, "    memcpy(%s + %lld, %s, %lld);\n", p->masks[m], (long long)place, p->masks[from],
                             (long long)length);
            else
                sap_text_add(out, "    memset(%s + %lld, 1, %lld);\n", p->masks[m], (long long)place,
                             (long long)length);
            place += length;
        }
        sap_text_add(out, joins ? "" : ";\n");
    }
}

/* The tensors of a node as its function calls them, and the text of the function's head and of the call. */
static void begin_node(plan *p, const sap_node *node, plan_node *own, sap_source_tensor *x, sap_source_tensor *y) {
    sap_source *source = p->source;
    sap_text *head = &source->functions, *call = &source->body;
    char from[200], to[200];
    sap_shape_text(&p->nodes[node->inputs[0]].y.shape, false, from, sizeof from);
    sap_shape_text(&own->y.shape, false, to, sizeof to);
    sap_text_add(head, "/* %s: %s to %s. */\nstatic void run_%s(", node->layer->class_of->name, from, to, own->name);
    sap_text_add(call, "    run_%s(", own->name);
    *y = own->y;
    y->place = "y";
    y->steps = NULL;
    for (int32_t i = 0; i < node->input_count; i++) {
        const sap_source_tensor *outside = &p->nodes[node->inputs[i]].y;
        char number[16] = "";
        int32_t mask = own->emitter->masks ? mask_of(p, node, i) : -1;
        if (node->input_count > 1)
            (void)snprintf(number, sizeof number, "%d", i);
        x[i] = *outside;
        x[i].place = sap_source_text(source, "x%s", number);
        sap_text_add(head, "const float *restrict x%s, ", number);
        sap_text_add(call, "%s, ", outside->place);
        if (mask >= 0) {
            x[i].mask = sap_source_text(source, "mask%s", number);
            sap_text_add(head, "const uint8_t *restrict mask%s, ", number);
            sap_text_add(call, "%s, ", p->masks[mask]);
        }
        if (!outside->steps)
            continue;
        for (int32_t k = 0; k < i; k++)
            if (p->nodes[node->inputs[k]].y.steps && strcmp(p->nodes[node->inputs[k]].y.steps, outside->steps) == 0)
                x[i].steps = x[k].steps;
        if (x[i].steps != outside->steps)
            continue; /* the steps of an input before */
        x[i].steps = sap_source_text(source, "steps%s", number);
        if (!y->steps && own->y.steps && strcmp(own->y.steps, outside->steps) == 0)
            y->steps = x[i].steps;
        sap_text_add(head, "int32_t steps%s, ", number);
        sap_text_add(call, "%s, ", outside->steps);
    }
    sap_text_add(head, "float *restrict y) {\n");
    sap_text_add(call, "%s);\n", own->y.place);
}

static sap_status emit_node(plan *p, int32_t index, sap_error *err) {
    const sap_node *node = &p->model->nodes[index];
    plan_node *own = &p->nodes[index];
    if (node->domain >= 0) {
        own->y.shape.dims[0] = p->most[node->domain];
        own->y.steps = p->steps[node->domain];
    }
    if (own->view) {
        own->y.place = p->nodes[node->inputs[0]].y.place;
        emit_masks(p, index);
        return SAP_OK;
    }
    if (own->output >= 0)
        own->y.place = p->outputs[own->output];
    else
        place_node(p, index, index);
    sap_source_tensor y, *x = sap_arena_array(&p->source->arena, (size_t)node->input_count, sizeof *x);
    if (!x)
        return sap_error_memory(err, node->layer->where);
    begin_node(p, node, own, x, &y);
    int32_t layer = layer_index(p->model, node->layer);
    sap_emission emission = {.source = p->source,
                             .layer = node->layer,
                             .name = p->layer_names[layer],
                             .first = !p->written[layer],
                             .input_count = node->input_count,
                             .x = x,
                             .y = &y};
    SAP_TRY(own->emitter->emit(&emission, err));
    p->written[layer] = true;
    sap_text_add(&p->source->functions, "}\n\n");
    emit_masks(p, index);
    return SAP_OK;
}

/* ---- Inputs --------------------------------------------------------------------------------------------- */

/* dataset.json: features: [{constants: {shift: […], factor: […]}}]. NULL: not there. */
static const double *read_constants(plan *p, const json_t *features, size_t index, int32_t width, const char *key) {
    const json_t *constants = json_object_get(json_array_get(features, index), "constants");
    const json_t *list = json_object_get(constants, key);
    double *out = sap_arena_array(&p->source->arena, (size_t)width, sizeof *out);
    if (!out || json_array_size(list) != (size_t)width)
        return NULL;
    for (int32_t i = 0; i < width; i++)
        out[i] = json_number_value(json_array_get(list, (size_t)i));
    return out;
}

static const char *feature_name(const void *dataset, size_t index) {
    return sap_dataset_feature(dataset, index)->name;
}

/* The feature that an input is called after, and whether it fits. */
static sap_status find_feature(plan *p, int32_t index, sap_error *err) {
    const sap_dataset *dataset = p->options->dataset;
    const sap_node *node = &p->model->nodes[p->model->inputs[index]];
    const char *folder = sap_dataset_folder(dataset), *name = node->layer->name;
    size_t number = 0, count = sap_dataset_feature_count(dataset);
    char text[300];
    while (number < count && strcmp(feature_name(dataset, number), name) != 0)
        number++;
    if (number == count) {
        sap_text_nearest(name, count, feature_name, dataset, text, sizeof text);
        return sap_error_set(err, SAP_ENOTFOUND, "%s: %s has no feature of that name%s", node->layer->where, folder,
                             text);
    }
    const sap_feature *feature = sap_dataset_feature(dataset, number);
    const sap_shape *shape = &node->shape;
    bool fits = feature->sequence ? shape->rank == 2 && shape->dims[1] == feature->width &&
                                        (shape->dims[0] == feature->pad_rows || shape->dims[0] < 0)
                                  : sap_shape_values(shape) == feature->width;
    if (!fits) {
        sap_shape_text(shape, false, text, sizeof text);
        return sap_error_set(err, SAP_ETYPE, "%s: has the shape %s, which feature \"%s\" of %s does not fit",
                             node->layer->where, text, name, folder);
    }
    p->inputs[index].feature = feature;
    if (!sap_scaling_has_constants(feature))
        return SAP_OK;
    json_t *json = json_loads(sap_dataset_json(dataset), 0, NULL);
    const json_t *features = json_object_get(json, "features");
    p->inputs[index].shift = read_constants(p, features, number, feature->width, "shift");
    p->inputs[index].factor = read_constants(p, features, number, feature->width, "factor");
    json_decref(json);
    if (!p->inputs[index].shift || !p->inputs[index].factor)
        return sap_error_set(err, SAP_EFORMAT, "%s/dataset.json: feature \"%s\" has no constants", folder, name);
    return SAP_OK;
}

/* Rows as they are given, scaled by now or not, become those that the network takes. */
static sap_status emit_rows(plan *p, int32_t index, sap_error *err) {
    sap_source *source = p->source;
    const plan_input *input = &p->inputs[index];
    int32_t at = p->model->inputs[index], d = p->model->nodes[at].domain;
    const sap_domain *domain = &p->model->domains[d];
    sap_source_tensor *y = &p->nodes[at].y;
    int64_t most = domain->length >= 0 ? domain->length : input->feature ? input->feature->pad_rows : p->options->rows;
    if (most < 1)
        return sap_error_set(err, SAP_EARGUMENT,
                             "%s: takes sequences of any length; say how many rows there are at most",
                             p->model->nodes[at].layer->where);
    if (p->steps[d]) /* joined with another input of unknown length */
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: sequences of several inputs that have one unknown length",
                             p->model->nodes[at].layer->where);
    y->shape.dims[0] = p->most[d] = most;
    long long width = (long long)sap_shape_step_values(&y->shape);
    const char *from = y->place ? y->place : input->name;
    sap_source_use(source, SAP_HELPER_ROWS);
    const char *rows = input->feature ? sap_source_text(source, "%lld", (long long)most)
                                      : sap_source_text(source, "rows_of(%s, %lld)", input->rows, (long long)most);
    bool varies = domain->ragged || domain->length < 0;
    if (varies)
        y->steps = p->steps[d] = input->steps;
    if (domain->dropped >= 0) {
        if (!y->place)
            place_node(p, at, 0);
        sap_source_use(source, SAP_HELPER_KEEP);
        sap_text_add(&source->body, "    const int32_t %s = keep(%s, %s, %lld, %s, %s);\n", y->steps, from, rows, width,
                     sap_source_number(source, p->model->masks[domain->dropped].value), y->place);
    } else if (varies) {
        y->place = from;
        sap_text_add(&source->body, "    const int32_t %s = %s;\n", y->steps, rows);
    } else if (!input->feature) {
        place_node(p, at, 0);
        sap_source_use(source, SAP_HELPER_PAD);
        sap_text_add(&source->body, "    pad(%s, %s * %lld, %lld, %s, %s);\n", input->name, rows, width,
                     (long long)most * width, sap_source_number(source, sap_sequence_padding(p->model, at)), y->place);
    }
    return SAP_OK;
}

static sap_status emit_input(plan *p, int32_t index, sap_error *err) {
    sap_source *source = p->source;
    plan_input *input = &p->inputs[index];
    int32_t at = p->model->inputs[index];
    sap_source_tensor *y = &p->nodes[at].y;
    bool sequence = p->model->nodes[at].domain >= 0;
    if (p->options->dataset) {
        SAP_TRY(find_feature(p, index, err));
        if (sequence)
            y->shape.dims[0] = input->feature->pad_rows;
        sap_source_scaling(source, input->name, input->feature, input->shift, input->factor);
        place_node(p, at, 0);
        sap_text_add(&source->body, "    scale_%s(%s, %s%s%s);\n", input->name, input->name,
                     sequence ? input->rows : "", sequence ? ", " : "", y->place);
    }
    if (sequence)
        SAP_TRY(emit_rows(p, index, err));
    else if (!input->feature)
        y->place = input->name;
    emit_masks(p, at);
    return SAP_OK;
}

/* ---- The file ------------------------------------------------------------------------------------------- */

static void add_signature(const plan *p, sap_text *out) {
    sap_text_add(out, "void %s_predict(", p->source->name);
    for (int32_t i = 0; i < p->model->input_count; i++)
        sap_text_add(out, "const float *%s, ", p->inputs[i].name);
    for (int32_t i = 0; i < p->model->input_count; i++)
        if (p->inputs[i].rows)
            sap_text_add(out, "int32_t %s, ", p->inputs[i].rows);
    for (int32_t i = 0; i < p->model->output_count; i++)
        sap_text_add(out, "%sfloat *%s", i ? ", " : "", p->outputs[i]);
    sap_text_add(out, ")");
}

static void add_line(sap_text *out, const char *name, const char *shape, const char *what) {
    sap_text_add(out, " *     %-20s %-14s %s\n", name, shape, what);
}

/* What the function takes and gives, as a comment. */
static void add_description(const plan *p, sap_text *out) {
    const sap_model *model = p->model;
    char shape[200], what[400];
    sap_text_add(out, "/* The network \"%s\" of %s, compiled by Sapwood %s.\n *\n",
                 sap_source_remark(p->source, model->title), sap_source_remark(p->source, model->name), sap_version());
    for (int32_t i = 0; i < model->input_count; i++) {
        const plan_input *input = &p->inputs[i];
        sap_shape_text(&p->nodes[model->inputs[i]].y.shape, false, shape, sizeof shape);
        (void)snprintf(what, sizeof what, "%s%s",
                       !input->feature            ? "as the network was trained on it"
                       : input->feature->sequence ? "as computed, rows in training order; scaled here"
                                                  : "as computed; scaled here",
                       input->rows ? "; its first rows, at most so many" : "");
        add_line(out, input->name, shape, what);
        if (input->rows)
            add_line(out, input->rows, "", "how many rows there are");
    }
    for (int32_t i = 0; i < model->output_count; i++) {
        sap_shape_text(&p->nodes[model->outputs[i]].y.shape, false, shape, sizeof shape);
        sap_text labels = {0};
        const sap_dataset *dataset = p->options->dataset;
        for (size_t k = 0; dataset && k < sap_dataset_label_count(dataset); k++)
            sap_text_add(&labels, "%s%s", k ? ", " : "", sap_source_remark(p->source, sap_dataset_label(dataset, k)));
        add_line(out, p->outputs[i], shape, labels.length ? labels.data : "written");
        sap_text_release(&labels);
    }
    sap_text_add(
        out,
        " *\n"
        " * All arrays are dense, the last index runs fastest. The function allocates nothing, keeps nothing between\n"
        " * calls, and may be called from several threads. What it does depends on numbers of rows alone. It takes\n"
        " * about %lld bytes of stack.\n"
        " */\n",
        (long long)(p->memory + p->source->local_floats) * 4);
}

static void add_predict(plan *p, sap_text *out) {
    add_signature(p, out);
    sap_text_add(out, " {\n");
    if (p->memory)
        sap_text_add(out, "    _Alignas(64) float memory[%lld];\n", (long long)p->memory);
    if (p->source->body.length)
        sap_text_put(out, p->source->body.data, p->source->body.length);
    for (int32_t i = 0; i < p->model->output_count; i++) {
        const sap_source_tensor *y = &p->nodes[p->model->outputs[i]].y;
        if (strcmp(y->place, p->outputs[i]) != 0)
            sap_text_add(out, "    memcpy(%s, %s, %lld * sizeof *%s);\n", p->outputs[i], y->place,
                         (long long)sap_shape_values(&y->shape), p->outputs[i]);
    }
    sap_text_add(out, "}\n");
}

static sap_status store(sap_text *text, bool failed, const char *path, sap_error *err) {
    sap_status status =
        failed || text->failed ? sap_error_memory(err, path) : sap_file_store(path, text->data, text->length, err);
    sap_text_release(text);
    return status;
}

static sap_status store_source(plan *p, const char *path, sap_error *err) {
    sap_source *source = p->source;
    sap_text text = {0};
    const char *header = p->options->header;
    add_description(p, &text);
    if (header) {
        size_t length;
        const char *base = sap_text_base_name(header, &length);
        sap_text_add(&text, "#include \"%.*s\"\n\n#include <string.h>\n\n", (int)length, base);
    } else {
        sap_text_add(&text, "#include <stdint.h>\n#include <string.h>\n\n");
        add_signature(p, &text);
        sap_text_add(&text, ";\n\n");
    }
    sap_text_put(&text, source->weights.length ? source->weights.data : "", source->weights.length);
    sap_text_add(&text, "\n");
    sap_source_helpers(source, &text);
    sap_text_put(&text, source->functions.length ? source->functions.data : "", source->functions.length);
    add_predict(p, &text);
    bool failed = source->failed || source->weights.failed || source->functions.failed || source->body.failed;
    return store(&text, failed, path, err);
}

static sap_status store_header(plan *p, sap_error *err) {
    sap_text text = {0};
    char guard[140];
    (void)snprintf(guard, sizeof guard, "%s_H", p->source->name);
    for (char *at = guard; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    add_description(p, &text);
    sap_text_add(&text,
                 "#ifndef %s\n#define %s\n\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n",
                 guard, guard);
    add_signature(p, &text);
    sap_text_add(&text, ";\n\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
    return store(&text, p->source->failed, p->options->header, err);
}

static sap_status compile(plan *p, const char *path, sap_error *err) {
    SAP_TRY(allocate(p, err));
    SAP_TRY(name_all(p, err));
    SAP_TRY(look_at_nodes(p, err));
    for (int32_t d = 0; d < p->model->domain_count; d++)
        p->most[d] = p->model->domains[d].length;
    for (int32_t i = 0; i < p->model->input_count; i++)
        SAP_TRY(emit_input(p, i, err));
    for (int32_t i = 0; i < p->model->node_count; i++)
        if (p->model->nodes[i].input_count)
            SAP_TRY(emit_node(p, i, err));
    if (p->source->infinite)
        return sap_error_set(err, SAP_EDATA, "%s: has weights that are not finite", p->model->name);
    SAP_TRY(store_source(p, path, err));
    return p->options->header ? store_header(p, err) : SAP_OK;
}

sap_status sap_model_compile(const sap_model *model, const sap_compile_options *options, const char *path,
                             sap_error *err) {
    static const sap_compile_options standard = {0};
    sap_source source = {.model = model};
    plan p = {.source = &source, .model = model, .options = options ? options : &standard};
    const char *name = p.options->name;
    source.name = identifier(&source, name ? name : model->title);
    sap_status status = name && strcmp(source.name, name) != 0
                            ? sap_error_set(err, SAP_EARGUMENT, "\"%s\" is no name in C; \"%s\" is", name, source.name)
                            : compile(&p, path, err);
    sap_text_release(&source.weights);
    sap_text_release(&source.functions);
    sap_text_release(&source.body);
    sap_arena_release(&source.arena);
    return status;
}
