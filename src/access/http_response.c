/* Taking apart what a web server answers; see http_response.h. */
#include "http_response.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

bool sap_http_response_init(sap_http_response *r, const sap_range *ranges, size_t count) {
    *r = (sap_http_response){.ranges = ranges, .count = count};
    r->filled = calloc(count ? count : 1, sizeof *r->filled);
    return r->filled != NULL;
}

void sap_http_response_release(sap_http_response *r) {
    free(r->filled);
    r->filled = NULL;
}

/* ---- Headers ------------------------------------------------------------------------------------------------------------ */

/* Digits, no more than 19; moves the text on. */
static bool take_number(const char **text, uint64_t *out) {
    size_t digits = strspn(*text, "0123456789");
    if (digits == 0 || digits > 19)
        return false;
    *out = 0;
    for (size_t i = 0; i < digits; i++)
        *out = *out * 10 + (uint64_t)((*text)[i] - '0');
    *text += digits;
    return true;
}

/* "bytes 0-499/1234", "bytes 0-499/" with a star, "bytes" star "/1234" */
static void parse_content_range(sap_http_response *r, const char *value) {
    r->has_range = r->has_total = false;
    if (strncasecmp(value, "bytes", 5) != 0)
        return;
    value += 5;
    while (*value == ' ' || *value == '=')
        value++;
    if (*value == '*') {
        value++;
    } else {
        if (!take_number(&value, &r->first) || *value++ != '-' || !take_number(&value, &r->last) || r->last < r->first)
            return;
        r->has_range = true;
    }
    if (*value++ != '/')
        r->has_range = false;
    else if (*value != '*')
        r->has_total = take_number(&value, &r->total);
}

static void parse_content_type(sap_http_response *r, const char *value) {
    r->boundary[0] = '\0';
    if (strncasecmp(value, "multipart/byteranges", 20) != 0)
        return;
    const char *at = strcasestr(value, "boundary=");
    if (!at)
        return;
    at += 9;
    size_t length = *at == '"' ? strcspn(++at, "\"") : strcspn(at, "; \t");
    if (length > 0 && length < sizeof r->boundary) {
        memcpy(r->boundary, at, length);
        r->boundary[length] = '\0';
    }
}

static void parse_field(sap_http_response *r, const char *name, const char *value) {
    if (strcasecmp(name, "content-range") == 0)
        parse_content_range(r, value);
    else if (strcasecmp(name, "content-type") == 0)
        parse_content_type(r, value);
    else if (strcasecmp(name, "content-encoding") == 0)
        r->encoded = strcasecmp(value, "identity") != 0 && *value;
    else if (strcasecmp(name, "etag") == 0)
        (void)snprintf(r->etag, sizeof r->etag, "%s", value);
    else if (strcasecmp(name, "last-modified") == 0)
        (void)snprintf(r->modified, sizeof r->modified, "%s", value);
}

void sap_http_response_header(sap_http_response *r, const char *line, size_t length) {
    char text[1000];
    length = length < sizeof text ? length : sizeof text - 1;
    memcpy(text, line, length);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    text[length] = '\0';
    if (strncmp(text, "HTTP/", 5) == 0) { /* an answer begins; what an earlier one said is void */
        const char *code = strchr(text, ' ');
        *r = (sap_http_response){.ranges = r->ranges, .count = r->count, .filled = r->filled};
        r->status = code ? atoi(code) : 0;
        return;
    }
    char *colon = strchr(text, ':');
    if (!colon)
        return;
    *colon++ = '\0';
    while (isspace((unsigned char)*colon))
        colon++;
    parse_field(r, text, colon);
}

/* ---- The body ------------------------------------------------------------------------------------------------------------- */

/* Bytes of the file from `position` on go where they were asked for. Each range is filled from its beginning on and once:
 * what comes out of order or again is dropped. */
static void scatter(sap_http_response *r, uint64_t position, const uint8_t *data, size_t length) {
    size_t i = r->next < r->count && r->ranges[r->next].offset <= position ? r->next : 0;
    for (; i < r->count && length > 0; i++) {
        const sap_range *range = &r->ranges[i];
        uint64_t want = range->offset + r->filled[i];
        size_t left = range->length - r->filled[i];
        if (want >= position + length)
            break; /* this range and those behind it begin later */
        if (left == 0 || want < position)
            continue;
        size_t skip = (size_t)(want - position), part = length - skip < left ? length - skip : left;
        memcpy((uint8_t *)range->data + r->filled[i], data + skip, part);
        r->filled[i] += part;
        r->next = i;
    }
}

bool sap_http_response_whole(const sap_http_response *r) {
    for (size_t i = 0; i < r->count; i++) {
        if (r->filled[i] < r->ranges[i].length)
            return false;
    }
    return true;
}

/* A line before, between or behind parts, or of a part's header. */
static bool take_line(sap_http_response *r) {
    char *line = r->line;
    size_t length = r->line_length, boundary = strlen(r->boundary);
    r->line_length = 0;
    while (length > 0 && isspace((unsigned char)line[length - 1]))
        length--;
    line[length] = '\0';
    if (!r->in_part_header) {
        if (length < boundary + 2 || memcmp(line, "--", 2) != 0 || memcmp(line + 2, r->boundary, boundary) != 0)
            return length == 0; /* an empty line stands before each boundary */
        r->in_part_header = strcmp(line + 2 + boundary, "--") != 0;
        r->state = r->in_part_header ? HTTP_LINES : HTTP_END;
        r->has_range = false;
        r->position = 0;
        return true;
    }
    if (length > 0) {
        if (strncasecmp(line, "content-range:", 14) == 0)
            parse_content_range(r, line + 14 + strspn(line + 14, " \t"));
        return true;
    }
    r->in_part_header = false;
    r->state = HTTP_PART;
    r->position = r->first;
    r->left = r->last - r->first + 1;
    return r->has_range;
}

static bool take_parts(sap_http_response *r, const uint8_t *data, size_t length) {
    while (length > 0 && r->state != HTTP_END) {
        size_t part = 1;
        if (r->state == HTTP_PART) {
            part = r->left < length ? (size_t)r->left : length;
            scatter(r, r->position, data, part);
            r->position += part;
            r->left -= part;
            if (r->left == 0)
                r->state = HTTP_LINES;
        } else {
            if (r->line_length + 1 >= sizeof r->line)
                return false;
            r->line[r->line_length++] = (char)*data;
            if (*data == '\n' && !take_line(r))
                return false;
        }
        data += part;
        length -= part;
    }
    r->position += r->state == HTTP_END ? length : 0; /* a little may stand behind the last part */
    return r->state != HTTP_END || r->position < sizeof r->line;
}

bool sap_http_response_body(sap_http_response *r, const uint8_t *data, size_t length) {
    if (r->boundary[0])
        return take_parts(r, data, length);
    if (!r->has_range)
        return false;
    uint64_t left = r->last - r->first + 1 - r->position;
    size_t part = length < left ? length : (size_t)left;
    scatter(r, r->first + r->position, data, part);
    r->position += part;
    return part == length;
}
