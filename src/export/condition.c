/* Conditions on entries: from text to a tree of operations, and the check of its types against columns.
 * The grammar is C's, with C's precedence; include/sapwood/export.h describes it. */
#include "../base/numbers.h"
#include "export_internal.h"

#include <errno.h>
#include <stdlib.h>

enum { DEEPEST = 100, MOST_NODES = 1000 };

typedef struct parser {
    sap_condition *condition;
    const char *at;
    int depth, nodes;
    sap_error *err;
} parser;

typedef sap_condition_node node;

/* ---- Words ------------------------------------------------------------------------------------------------ */

static node *refuse(parser *p, const char *what) {
    size_t place = (size_t)(p->at - p->condition->text);
    (void)sap_error_set(p->err, SAP_EARGUMENT, "condition \"%.200s\": at character %zu: %s", p->condition->text,
                        place + 1, what);
    return NULL;
}

static void skip_blanks(parser *p) {
    p->at += strspn(p->at, " \t\r\n");
}

/* Passes over `word` if it comes next. */
static bool accept(parser *p, const char *word) {
    skip_blanks(p);
    size_t length = strlen(word);
    if (strncmp(p->at, word, length) != 0)
        return false;
    p->at += length;
    return true;
}

static node *make(parser *p, sap_operation operation, node *left, node *right) {
    node *n = sap_arena_alloc(&p->condition->arena, sizeof *n);
    if (!n || ++p->nodes > MOST_NODES)
        return refuse(p, n ? "too long a condition" : "out of memory");
    n->operation = operation;
    n->left = left;
    n->right = right;
    n->at = (size_t)(p->at - p->condition->text);
    return n;
}

static bool is_name_start(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_name(char c) {
    return is_name_start(c) || (c >= '0' && c <= '9') || c == '.';
}

/* Text up to the quote that opened it. */
static const char *quoted(parser *p, size_t *length) {
    char quote = *p->at++;
    const char *end = strchr(p->at, quote);
    if (!end) {
        (void)refuse(p, "a quote that does not end");
        return NULL;
    }
    *length = (size_t)(end - p->at);
    const char *text = sap_arena_text(&p->condition->arena, p->at, *length);
    p->at = end + 1;
    return text;
}

/* ---- Grammar ------------------------------------------------------------------------------------------------ */

static node *parse_or(parser *p);

static node *parse_number(parser *p) {
    node *n = make(p, SAP_NODE_REAL, NULL, NULL);
    if (!n)
        return NULL;
    char *end;
    size_t digits = strspn(p->at, "0123456789");
    errno = 0;
    n->integer = strtoll(p->at, &end, 10);
    if (digits && !errno && !(*end && strchr(".eE", *end)))
        n->operation = SAP_NODE_INT;
    else
        n->real = sap_real_parse(p->at, &end);
    p->at = end;
    return is_name(*p->at) ? refuse(p, "a number is followed by a letter") : n;
}

static node *name_column(parser *p, sap_operation operation, const char *name) {
    sap_condition *c = p->condition;
    node *n = make(p, operation, NULL, NULL);
    size_t i = 0;
    while (i < c->name_count && strcmp(c->names[i], name) != 0)
        i++;
    if (!n)
        return NULL;
    if (i == c->name_count) {
        if (!sap_grow((void **)&c->names, &c->name_capacity, c->name_count, sizeof *c->names))
            return refuse(p, "out of memory");
        c->names[c->name_count++] = name;
    }
    n->column = i;
    return n;
}

/* The name of a column, plain or in backquotes; NULL after an error. */
static const char *parse_name(parser *p) {
    size_t length = 0;
    skip_blanks(p);
    if (*p->at == '`')
        return quoted(p, &length);
    while (is_name(p->at[length]))
        length++;
    const char *name = sap_arena_text(&p->condition->arena, p->at, length);
    p->at += length;
    if (!name || !*name) {
        (void)refuse(p, "a column is expected");
        return NULL;
    }
    return name;
}

static node *parse_item(parser *p, const char *name) {
    char *end;
    skip_blanks(p);
    errno = 0;
    long long index = strtoll(p->at, &end, 10);
    if (end == p->at || errno)
        return refuse(p, "an index is expected, such as [0]");
    p->at = end;
    if (!accept(p, "]"))
        return refuse(p, "\"]\" is expected");
    node *n = name_column(p, SAP_NODE_ITEM, name);
    if (n)
        n->integer = index;
    return n;
}

/* count(NAME) or abs(…), whose parenthesis is passed. */
static node *parse_call(parser *p, const char *name) {
    node *n = NULL;
    if (strcmp(name, "count") == 0) {
        const char *column = parse_name(p);
        n = column ? name_column(p, SAP_NODE_COUNT, column) : NULL;
    } else if (strcmp(name, "abs") == 0) {
        node *inside = parse_or(p);
        n = inside ? make(p, SAP_NODE_ABS, inside, NULL) : NULL;
    } else {
        return refuse(p, "the functions are count(NAME) and abs(x)");
    }
    return !n ? NULL : accept(p, ")") ? n : refuse(p, "\")\" is expected");
}

static node *parse_named(parser *p) {
    bool plain = *p->at != '`';
    const char *name = parse_name(p);
    if (!name)
        return NULL;
    if (plain && (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)) {
        node *n = make(p, SAP_NODE_INT, NULL, NULL);
        if (n)
            n->integer = name[0] == 't';
        return n;
    }
    if (accept(p, "["))
        return parse_item(p, name);
    if (plain && accept(p, "("))
        return parse_call(p, name);
    return name_column(p, SAP_NODE_COLUMN, name);
}

static node *parse_primary(parser *p) {
    skip_blanks(p);
    if (accept(p, "(")) {
        node *n = parse_or(p);
        return !n ? NULL : accept(p, ")") ? n : refuse(p, "\")\" is expected");
    }
    if (*p->at == '\'' || *p->at == '"') {
        node *n = make(p, SAP_NODE_TEXT, NULL, NULL);
        if (n && !(n->text.data = quoted(p, &n->text.length)))
            return NULL;
        return n;
    }
    if (strchr("0123456789.", *p->at) && *p->at)
        return parse_number(p);
    if (is_name_start(*p->at) || *p->at == '`')
        return parse_named(p);
    return refuse(p, "a column, a number or a text is expected");
}

static node *parse_unary(parser *p) {
    node *n = NULL;
    if (++p->depth > DEEPEST)
        return refuse(p, "nested too deep");
    skip_blanks(p);
    if (*p->at == '!' && p->at[1] != '=') {
        p->at++;
        n = parse_unary(p);
        n = n ? make(p, SAP_NODE_NOT, n, NULL) : NULL;
    } else if (accept(p, "-")) {
        n = parse_unary(p);
        if (n && n->operation == SAP_NODE_INT)
            n->integer = -n->integer;
        else if (n)
            n = make(p, SAP_NODE_NEGATE, n, NULL);
    } else {
        n = parse_primary(p);
    }
    p->depth--;
    return n;
}

/* Operators of two sides, those that bind least first. A word that another begins with stands behind it. */
static const struct operator{
    const char *word;
    sap_operation operation;
    int level;
}
operators[] = {{"||", SAP_NODE_OR, 0},        {"&&", SAP_NODE_AND, 1},        {"==", SAP_NODE_EQUAL, 2},
               {"!=", SAP_NODE_NOT_EQUAL, 2}, {"<=", SAP_NODE_LESS_EQUAL, 3}, {">=", SAP_NODE_GREATER_EQUAL, 3},
               {"<", SAP_NODE_LESS, 3},       {">", SAP_NODE_GREATER, 3},     {"+", SAP_NODE_ADD, 4},
               {"-", SAP_NODE_SUBTRACT, 4},   {"*", SAP_NODE_MULTIPLY, 5},    {"/", SAP_NODE_DIVIDE, 5},
               {"%", SAP_NODE_REMAINDER, 5}};
enum { LEVELS = 6, OPERATORS = sizeof operators / sizeof *operators };

static node *parse_level(parser *p, int level) {
    if (level == LEVELS)
        return parse_unary(p);
    node *left = parse_level(p, level + 1);
    for (size_t i = 0; left && i < OPERATORS; i++) {
        if (operators[i].level != level || !accept(p, operators[i].word))
            continue;
        node *right = parse_level(p, level + 1);
        left = right ? make(p, operators[i].operation, left, right) : NULL;
        i = SIZE_MAX; /* from the first again */
    }
    return left;
}

static node *parse_or(parser *p) {
    if (++p->depth > DEEPEST)
        return refuse(p, "nested too deep");
    node *n = parse_level(p, 0);
    p->depth--;
    return n;
}

void sap_condition_close(sap_condition *condition) {
    if (!condition)
        return;
    free(condition->names);
    sap_arena_release(&condition->arena);
    free(condition);
}

sap_status sap_condition_parse(const char *text, sap_condition **out, sap_error *err) {
    sap_error own = {0};
    sap_condition *condition = calloc(1, sizeof *condition);
    if (!condition)
        return sap_error_memory(err, "condition");
    condition->text = sap_arena_text(&condition->arena, text, strlen(text));
    parser p = {.condition = condition, .at = condition->text, .err = &own};
    if (condition->text)
        condition->root = parse_or(&p);
    skip_blanks(&p);
    if (condition->root && *p.at)
        condition->root = refuse(&p, "an operator is expected");
    if (condition->root) {
        *out = condition;
        return SAP_OK;
    }
    sap_condition_close(condition);
    return own.status ? sap_error_set(err, own.status, "%s", own.message) : sap_error_memory(err, "condition");
}

/* ---- Types ---------------------------------------------------------------------------------------------------- */

static bool type_of(const sap_field *field, sap_value_type *out) {
    switch (field->type) {
    case SAP_BOOL:
        *out = SAP_VALUE_TRUTH;
        return true;
    case SAP_INT8:
    case SAP_INT16:
    case SAP_INT32:
    case SAP_INT64:
    case SAP_UINT8:
    case SAP_UINT16:
    case SAP_UINT32:
        *out = SAP_VALUE_INT;
        return true;
    case SAP_UINT64:
        *out = SAP_VALUE_UINT;
        return true;
    case SAP_FLOAT16:
    case SAP_FLOAT32:
    case SAP_FLOAT64:
        *out = SAP_VALUE_REAL;
        return true;
    case SAP_STRING:
        *out = SAP_VALUE_TEXT;
        return true;
    default:
        return false;
    }
}

static sap_status bind_column(sap_condition *c, node *n, const sap_field *fields, const size_t *columns,
                              sap_error *err) {
    const char *name = c->names[n->column];
    const sap_field *field = &fields[columns[n->column]];
    bool list = field->type == SAP_LIST || field->type == SAP_FIXED_LIST;
    char type[200];
    (void)sap_field_text(field, type, sizeof type);
    n->column = columns[n->column];
    if (n->operation == SAP_NODE_COUNT) {
        n->type = SAP_VALUE_INT;
        if (list || field->type == SAP_STRING)
            return SAP_OK;
        return sap_error_set(err, SAP_ETYPE, "condition \"%.200s\": %s is %s, which has no items to count", c->text,
                             name, type);
    }
    if (n->operation == SAP_NODE_ITEM) {
        if (list && type_of(&field->children[0], &n->type))
            return SAP_OK;
        return sap_error_set(err, SAP_ETYPE, "condition \"%.200s\": %s is %s, which has no items to compare", c->text,
                             name, type);
    }
    if (type_of(field, &n->type))
        return SAP_OK;
    if (list)
        return sap_error_set(
            err, SAP_ETYPE,
            "condition \"%.200s\": %s is %s, not one value an entry; %s[0] is its first item, count(%s) "
            "the number of them",
            c->text, name, type, name, name);
    return sap_error_set(err, SAP_ETYPE, "condition \"%.200s\": %s is %s, not one value an entry", c->text, name, type);
}

static sap_status bind_node(sap_condition *c, node *n, const sap_field *fields, const size_t *columns, sap_error *err) {
    if (n->left)
        SAP_TRY(bind_node(c, n->left, fields, columns, err));
    if (n->right)
        SAP_TRY(bind_node(c, n->right, fields, columns, err));
    bool left_text = n->left && n->left->type == SAP_VALUE_TEXT,
         right_text = n->right && n->right->type == SAP_VALUE_TEXT;
    bool compares = n->operation >= SAP_NODE_LESS && n->operation <= SAP_NODE_NOT_EQUAL;
    if ((left_text || right_text) && !(compares && left_text && right_text))
        return sap_error_set(err, SAP_ETYPE,
                             "condition \"%.200s\": at character %zu: a text can be compared with a text only", c->text,
                             n->at + 1);
    if (n->operation == SAP_NODE_INT)
        n->type = SAP_VALUE_INT;
    else if (n->operation == SAP_NODE_TEXT)
        n->type = SAP_VALUE_TEXT;
    else if (n->operation == SAP_NODE_COLUMN || n->operation == SAP_NODE_ITEM || n->operation == SAP_NODE_COUNT)
        SAP_TRY(bind_column(c, n, fields, columns, err));
    else
        n->type = n->operation >= SAP_NODE_LESS ? SAP_VALUE_TRUTH : SAP_VALUE_REAL;
    size_t size = n->type == SAP_VALUE_TEXT ? sizeof *n->values.texts : sizeof *n->values.integers;
    n->values.integers = sap_arena_array(&c->arena, SAP_CONDITION_BLOCK, size);
    n->present = sap_arena_array(&c->arena, SAP_CONDITION_BLOCK, sizeof *n->present);
    return n->values.integers && n->present ? SAP_OK : sap_error_memory(err, "condition");
}

sap_status sap_condition_bind(sap_condition *condition, const sap_field *fields, const size_t *columns,
                              sap_error *err) {
    SAP_TRY(bind_node(condition, condition->root, fields, columns, err));
    if (condition->root->type == SAP_VALUE_TEXT)
        return sap_error_set(err, SAP_ETYPE, "condition \"%.200s\": a text is neither true nor false", condition->text);
    return SAP_OK;
}
