/* Which tensors have the same steps, which masks they carry, and whose padding may be dropped.
 *
 * Tensors of rank >= 2 (time first) that stand step by step beside each other form a domain. A domain that begins at one
 * input of the model is ragged, each row with its own number of steps, where no use of any of its tensors can tell: the
 * steps that a mask leaves out are dropped when rows are loaded. Everything else is dense: all steps are there, and
 * masks travel beside the tensors.
 */
#include "nn_internal.h"

typedef struct finder {
    sap_model *model;
    int32_t *parent;  /* (node_count) of a union-find; the root stands for the domain; -1: no sequence */
    bool *dense;      /* (node_count) of a root: something looks at padding */
    int32_t *source;  /* (node_count) of a root: the model's input it begins at, -1: none, -2: several things */
    int32_t *dropped; /* (node_count) of a root: the mask whose steps could be dropped, -1: none */
} finder;

static int32_t root_of(const finder *f, int32_t node) {
    while (f->parent[node] != node)
        node = f->parent[node] = f->parent[f->parent[node]];
    return node;
}

static bool is_sequence(const sap_node *node) {
    return node->shape.rank > 1;
}

/* Whether the output has the steps of its first input. */
static bool keeps_steps(const sap_model *model, const sap_node *node) {
    if (!is_sequence(node) || node->input_count == 0 || !is_sequence(&model->nodes[node->inputs[0]]))
        return false;
    if (node->layer->padding == SAP_PADDING_STEPWISE)
        return true;
    return node->layer->class_of->mask == SAP_MASK_PASS &&
           node->shape.dims[0] == model->nodes[node->inputs[0]].shape.dims[0];
}

float sap_sequence_padding(const sap_model *model, int32_t node) {
    for (int32_t m = 0; m < model->mask_count; m++)
        if (model->masks[m].node == node && !model->masks[m].made)
            return model->masks[m].value;
    return 0;
}

int32_t sap_sequence_mask(const sap_model *model, const sap_node *node, int32_t input) {
    return node->masks && node->masks[input] >= 0 ? node->masks[input] : model->nodes[node->inputs[input]].mask;
}

/* ---- Domains -------------------------------------------------------------------------------------------- */

static void join(finder *f, int32_t a, int32_t b) {
    int32_t x = root_of(f, a), y = root_of(f, b);
    if (x == y)
        return;
    f->parent[y] = x;
    f->source[x] = -2;
}

static void find_domains(finder *f) {
    const sap_model *model = f->model;
    for (int32_t n = 0; n < model->node_count; n++) {
        const sap_node *node = &model->nodes[n];
        f->parent[n] = is_sequence(node) ? n : -1;
        f->source[n] = f->dropped[n] = -1;
        if (!keeps_steps(model, node))
            continue;
        f->parent[n] = root_of(f, node->inputs[0]);
        for (int32_t i = 1; node->layer->padding == SAP_PADDING_STEPWISE && i < node->input_count; i++)
            if (is_sequence(&model->nodes[node->inputs[i]]))
                join(f, n, node->inputs[i]);
    }
    for (int32_t i = 0; i < model->input_count; i++) {
        int32_t node = model->inputs[i];
        if (!is_sequence(&model->nodes[node]))
            continue;
        int32_t root = root_of(f, node);
        f->source[root] = f->source[root] == -1 ? i : -2;
    }
}

/* ---- Masks ---------------------------------------------------------------------------------------------- */

/* The number of a mask, which is added unless it is there. There is room for one a node. */
static int32_t add_mask(sap_model *model, sap_mask mask) {
    for (int32_t m = 0; m < model->mask_count; m++)
        if (model->masks[m].node == mask.node && model->masks[m].made == mask.made &&
            model->masks[m].value == mask.value)
            return m;
    model->masks[model->mask_count] = mask;
    return model->mask_count++;
}

/* The mask of a node that passes on those of its inputs. */
static int32_t passed_mask(sap_model *model, int32_t n) {
    const sap_node *node = &model->nodes[n];
    int32_t first = node->input_count ? sap_sequence_mask(model, node, 0) : -1;
    bool keeps = keeps_steps(model, node), same = true, all = first >= 0, any = first >= 0;
    bool merges = node->layer->padding == SAP_PADDING_STEPWISE || !keeps;
    for (int32_t i = 1; merges && i < node->input_count; i++) {
        int32_t other = sap_sequence_mask(model, node, i);
        same = same && other == first;
        all = all && other >= 0;
        any = any || other >= 0;
    }
    if (!is_sequence(node) || (!keeps && node->layer->padding == SAP_PADDING_NEVER))
        return -1;
    if (keeps) /* of several: a step counts where it counts in one, and all have masks */
        return merges && !same ? all ? add_mask(model, (sap_mask){.node = n, .made = true}) : -1 : first;
    return any ? add_mask(model, (sap_mask){.node = n, .made = true}) : -1;
}

static void find_masks(finder *f) {
    sap_model *model = f->model;
    for (int32_t n = 0; n < model->node_count; n++) {
        sap_node *node = &model->nodes[n];
        node->mask = -1;
        if (node->layer->class_of->mask == SAP_MASK_MAKE && is_sequence(node))
            node->mask = add_mask(model, (sap_mask){.node = node->inputs[0], .value = sap_masking_value(node->layer)});
        else if (node->layer->class_of->mask == SAP_MASK_PASS)
            node->mask = passed_mask(model, n);
    }
    for (int32_t m = 0; m < model->mask_count; m++) {
        const sap_mask *mask = &model->masks[m];
        if (!is_sequence(&model->nodes[mask->node]))
            continue;
        int32_t root = root_of(f, mask->node);
        bool at_input = f->source[root] >= 0 && model->inputs[f->source[root]] == mask->node;
        if (!mask->made && at_input && f->dropped[root] < 0)
            f->dropped[root] = m;
    }
}

/* ---- Who looks at padding ------------------------------------------------------------------------------- */

/* Whether an attention may have queries that meet no key, which shows in the values behind the mask. The tokens of one
 * sequence that look at each other are all there, or none. */
static bool looks_behind_mask(const finder *f, const sap_node *node, int32_t i) {
    bool same = root_of(f, node->inputs[0]) == root_of(f, node->inputs[i]) &&
                sap_sequence_mask(f->model, node, 0) == sap_sequence_mask(f->model, node, i);
    return i > 0 && !same && sap_attention_means_all(node->layer);
}

/* Whether node n can tell if masked steps of its input i are there. Steps that it takes one by one show in its output,
 * which is in the same domain. */
static bool looks(const finder *f, const sap_node *node, int32_t i) {
    const sap_model *model = f->model;
    int32_t dropped = f->dropped[root_of(f, node->inputs[i])];
    if (node->layer->class_of->mask == SAP_MASK_MAKE)
        return node->mask != dropped;
    switch (node->layer->padding) {
    case SAP_PADDING_STEPWISE:
        return node->mask >= 0 && model->masks[node->mask].made;
    case SAP_PADDING_NEVER:
        return sap_sequence_mask(model, node, i) != dropped || (dropped >= 0 && looks_behind_mask(f, node, i));
    case SAP_PADDING_ALWAYS:
        break;
    }
    return true;
}

static void find_dense(finder *f) {
    const sap_model *model = f->model;
    for (int32_t n = 0; n < model->node_count; n++) {
        const sap_node *node = &model->nodes[n];
        for (int32_t i = 0; i < node->input_count; i++) {
            if (!is_sequence(&model->nodes[node->inputs[i]]))
                continue;
            int32_t root = root_of(f, node->inputs[i]), mask = sap_sequence_mask(model, node, i);
            if (looks(f, node, i))
                f->dense[root] = true;
            /* the mask of another tensor is not that of this one's steps */
            if (mask >= 0 && is_sequence(&model->nodes[model->masks[mask].node]) &&
                root_of(f, model->masks[mask].node) != root)
                f->dense[root] = f->dense[root_of(f, model->masks[mask].node)] = true;
        }
    }
    for (int32_t o = 0; o < model->output_count; o++)
        if (is_sequence(&model->nodes[model->outputs[o]]))
            f->dense[root_of(f, model->outputs[o])] = true;
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

static sap_status number_domains(finder *f, sap_error *err) {
    sap_model *model = f->model;
    for (int32_t n = 0; n < model->node_count; n++)
        model->nodes[n].domain = -1;
    for (int32_t n = 0; n < model->node_count; n++) {
        sap_node *node = &model->nodes[n];
        if (!is_sequence(node))
            continue;
        int32_t root = root_of(f, n);
        if (model->nodes[root].domain < 0) {
            model->domains[model->domain_count] = (sap_domain){.input = -1, .dropped = -1, .length = -1};
            model->nodes[root].domain = model->domain_count++;
        }
        node->domain = model->nodes[root].domain;
        sap_domain *domain = &model->domains[node->domain];
        domain->length = node->shape.dims[0] > domain->length ? node->shape.dims[0] : domain->length;
        domain->begins = domain->begins || node->input_count == 0;
        bool open = f->dropped[root] >= 0 || domain->length < 0; /* all rows have all steps otherwise */
        domain->ragged = f->source[root] >= 0 && !f->dense[root] && open;
        domain->input = domain->ragged ? f->source[root] : -1;
        domain->dropped = domain->ragged ? f->dropped[root] : -1;
    }
    for (int32_t n = 0; n < model->node_count; n++) {
        const sap_node *node = &model->nodes[n];
        if (node->domain >= 0 && model->domains[node->domain].length < 0 && !model->domains[node->domain].begins)
            return sap_error_set(err, SAP_EUNSUPPORTED, "%s: sequences of another, unknown length than its input's",
                                 node->layer->where);
    }
    return SAP_OK;
}

static void find_views(sap_model *model) {
    for (int32_t n = 0; n < model->node_count; n++) {
        sap_node *node = &model->nodes[n];
        node->view = node->layer->class_of->view;
        /* Masking has nothing to do where masked steps are not there */
        if (node->layer->class_of->mask == SAP_MASK_MAKE && node->domain >= 0 && model->domains[node->domain].ragged)
            node->view = true;
        if (node->view)
            node->tensor = model->nodes[node->inputs[0]].tensor;
    }
}

sap_status sap_sequence_find(sap_model *model, sap_error *err) {
    size_t count = (size_t)model->node_count;
    finder f = {
        .model = model,
        .parent = sap_arena_array(&model->arena, count, sizeof *f.parent),
        .dense = sap_arena_array(&model->arena, count, sizeof *f.dense),
        .source = sap_arena_array(&model->arena, count, sizeof *f.source),
        .dropped = sap_arena_array(&model->arena, count, sizeof *f.dropped),
    };
    sap_mask *masks = sap_arena_array(&model->arena, count + (size_t)model->mask_count, sizeof *masks);
    model->domains = sap_arena_array(&model->arena, count, sizeof *model->domains);
    if (!f.parent || !f.dense || !f.source || !f.dropped || !masks || !model->domains)
        return sap_error_memory(err, model->name);
    if (model->mask_count)
        memcpy(masks, model->masks, (size_t)model->mask_count * sizeof *masks);
    model->masks = masks;
    find_domains(&f);
    find_masks(&f);
    find_dense(&f);
    SAP_TRY(number_domains(&f, err));
    find_views(model);
    return SAP_OK;
}
