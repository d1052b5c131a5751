/* Conditions evaluated: a block of entries at a time, node by node. */
#include "export_internal.h"

#include <math.h>

typedef sap_condition_node node;

/* ---- Values of columns ------------------------------------------------------------------------------------ */

double sap_half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value = exponent == 31  ? (mantissa ? NAN : INFINITY)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(mantissa + 1024, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

int64_t sap_integer_value(const sap_column *c, int64_t i) {
    switch (c->type) {
    case SAP_BOOL:
        return ((const uint8_t *)c->values)[i] != 0;
    case SAP_INT8:
        return ((const int8_t *)c->values)[i];
    case SAP_UINT8:
        return ((const uint8_t *)c->values)[i];
    case SAP_INT16:
        return ((const int16_t *)c->values)[i];
    case SAP_UINT16:
        return ((const uint16_t *)c->values)[i];
    case SAP_INT32:
        return ((const int32_t *)c->values)[i];
    case SAP_UINT32:
        return ((const uint32_t *)c->values)[i];
    default:
        return ((const int64_t *)c->values)[i];
    }
}

/* Value `i` of a primitive or string column, as `row` of the node's block. */
static void load(const sap_column *c, int64_t i, node *n, int64_t row) {
    n->present[row] = !c->valid || c->valid[i];
    switch (c->type) {
    case SAP_FLOAT16:
        n->values.reals[row] = sap_half_value(((const uint16_t *)c->values)[i]);
        break;
    case SAP_FLOAT32:
        n->values.reals[row] = (double)((const float *)c->values)[i];
        break;
    case SAP_FLOAT64:
        n->values.reals[row] = ((const double *)c->values)[i];
        break;
    case SAP_STRING:
        n->values.texts[row] =
            (sap_text_view){(const char *)c->values + c->offsets[i], (size_t)(c->offsets[i + 1] - c->offsets[i])};
        break;
    default:
        n->values.integers[row] = sap_integer_value(c, i);
        break;
    }
}

/* Where the items of entry `i` are in the child. */
static int64_t items_of(const sap_column *c, int64_t i, int64_t *first) {
    if (c->type == SAP_FIXED_LIST) {
        *first = i * c->size;
        return c->size;
    }
    *first = c->offsets[i];
    return c->offsets[i + 1] - c->offsets[i];
}

static void load_block(const sap_column *c, int64_t begin, int64_t count, node *n) {
    for (int64_t row = 0; row < count; row++) {
        int64_t i = begin + row, first;
        if (n->operation == SAP_NODE_COLUMN) {
            load(c, i, n, row);
            continue;
        }
        int64_t items = items_of(c, i, &first);
        bool valid = !c->valid || c->valid[i];
        if (n->operation == SAP_NODE_COUNT) {
            n->values.integers[row] = items;
            n->present[row] = valid;
            continue;
        }
        int64_t index = n->integer < 0 ? items + n->integer : n->integer;
        n->present[row] = false;
        if (valid && index >= 0 && index < items)
            load(&c->children[0], first + index, n, row);
    }
}

/* ---- Operations --------------------------------------------------------------------------------------------- */

static double real_of(const node *n, int64_t row) {
    return n->type == SAP_VALUE_REAL   ? n->values.reals[row]
           : n->type == SAP_VALUE_UINT ? (double)n->values.unsigneds[row]
                                       : (double)n->values.integers[row];
}

static bool truth_of(const node *n, int64_t row) {
    return n->present[row] && (n->type == SAP_VALUE_REAL ? n->values.reals[row] != 0 : n->values.integers[row] != 0);
}

enum { UNORDERED = 2 };

/* -1, 0, 1 */
static int compare_integers(const node *a, const node *b, int64_t row) {
    int64_t x = a->values.integers[row], y = b->values.integers[row];
    bool x_large = a->type == SAP_VALUE_UINT && x < 0, y_large = b->type == SAP_VALUE_UINT && y < 0; /* over 2^63 */
    if (x_large != y_large)
        return x_large ? 1 : -1;
    return x < y ? -1 : x > y;
}

static int compare_texts(sap_text_view a, sap_text_view b) {
    size_t shorter = a.length < b.length ? a.length : b.length;
    int order = shorter ? memcmp(a.data, b.data, shorter) : 0;
    if (order == 0)
        return a.length < b.length ? -1 : a.length > b.length;
    return order < 0 ? -1 : 1;
}

static bool compare(const node *n, int64_t row) {
    const node *a = n->left, *b = n->right;
    if (!a->present[row] || !b->present[row])
        return false;
    int order;
    if (a->type == SAP_VALUE_TEXT) {
        order = compare_texts(a->values.texts[row], b->values.texts[row]);
    } else if (a->type != SAP_VALUE_REAL && b->type != SAP_VALUE_REAL) {
        order = compare_integers(a, b, row);
    } else {
        double x = real_of(a, row), y = real_of(b, row);
        order = x < y ? -1 : x > y ? 1 : x == y ? 0 : UNORDERED;
    }
    switch (n->operation) {
    case SAP_NODE_LESS:
        return order == -1;
    case SAP_NODE_LESS_EQUAL:
        return order == -1 || order == 0;
    case SAP_NODE_GREATER:
        return order == 1;
    case SAP_NODE_GREATER_EQUAL:
        return order == 1 || order == 0;
    case SAP_NODE_EQUAL:
        return order == 0;
    default:
        return order != 0;
    }
}

static double calculate(sap_operation operation, double x, double y) {
    switch (operation) {
    case SAP_NODE_NEGATE:
        return -x;
    case SAP_NODE_ABS:
        return fabs(x);
    case SAP_NODE_ADD:
        return x + y;
    case SAP_NODE_SUBTRACT:
        return x - y;
    case SAP_NODE_MULTIPLY:
        return x * y;
    case SAP_NODE_DIVIDE:
        return x / y;
    default:
        return fmod(x, y);
    }
}

static void run_node(node *n, const sap_batch *batch, int64_t begin, int64_t count) {
    if (n->left)
        run_node(n->left, batch, begin, count);
    if (n->right)
        run_node(n->right, batch, begin, count);
    if (n->operation == SAP_NODE_COLUMN || n->operation == SAP_NODE_ITEM || n->operation == SAP_NODE_COUNT) {
        load_block(&batch->columns[n->column], begin, count, n);
        return;
    }
    for (int64_t row = 0; row < count; row++) {
        n->present[row] = true;
        switch (n->operation) {
        case SAP_NODE_INT:
            n->values.integers[row] = n->integer;
            break;
        case SAP_NODE_REAL:
            n->values.reals[row] = n->real;
            break;
        case SAP_NODE_TEXT:
            n->values.texts[row] = n->text;
            break;
        case SAP_NODE_NOT:
            n->values.integers[row] = !truth_of(n->left, row);
            break;
        case SAP_NODE_AND:
            n->values.integers[row] = truth_of(n->left, row) && truth_of(n->right, row);
            break;
        case SAP_NODE_OR:
            n->values.integers[row] = truth_of(n->left, row) || truth_of(n->right, row);
            break;
        default:
            if (n->type == SAP_VALUE_TRUTH) {
                n->values.integers[row] = compare(n, row);
                break;
            }
            n->present[row] = n->left->present[row] && (!n->right || n->right->present[row]);
            if (n->present[row])
                n->values.reals[row] =
                    calculate(n->operation, real_of(n->left, row), n->right ? real_of(n->right, row) : 0);
            break;
        }
    }
}

void sap_condition_run(sap_condition *condition, const sap_batch *batch, uint8_t *keep) {
    for (int64_t begin = 0; begin < batch->length; begin += SAP_CONDITION_BLOCK) {
        int64_t left = batch->length - begin, count = left < SAP_CONDITION_BLOCK ? left : SAP_CONDITION_BLOCK;
        run_node(condition->root, batch, begin, count);
        for (int64_t row = 0; row < count; row++)
            keep[begin + row] = truth_of(condition->root, row);
    }
}
