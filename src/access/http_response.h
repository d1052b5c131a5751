/* What a web server answers to a request for ranges, taken apart as it comes: one part, several (multipart/byteranges), or
 * the whole file. Nothing that the server says is believed beyond what was asked for. RFC 9110 § 14. */
#ifndef SAP_HTTP_RESPONSE_H
#define SAP_HTTP_RESPONSE_H

#include "access_internal.h"

typedef struct sap_http_response {
    const sap_range *ranges; /* asked for: rising, not overlapping */
    size_t count;
    size_t *filled; /* bytes of each that have come */
    size_t next;    /* range where the last byte went */

    int status;
    bool has_range, has_total; /* Content-Range gives first and last; total */
    uint64_t first, last, total;
    bool encoded;      /* compressed, which nobody asked for */
    char boundary[80]; /* of multipart/byteranges; empty: one part */
    char etag[200], modified[80];

    enum { HTTP_LINES, HTTP_PART, HTTP_END } state; /* of the body of several parts */
    bool in_part_header;
    char line[1000];
    size_t line_length;
    uint64_t position, left; /* of the part */
} sap_http_response;

/* False: no memory. */
bool sap_http_response_init(sap_http_response *r, const sap_range *ranges, size_t count);
void sap_http_response_release(sap_http_response *r);
/* A line of the header, the status line of each answer (of redirections too) among them. */
void sap_http_response_header(sap_http_response *r, const char *line, size_t length);
/* Bytes of the body of a 206. False: they make no sense, or nothing more is needed. */
bool sap_http_response_body(sap_http_response *r, const uint8_t *data, size_t length);
bool sap_http_response_whole(const sap_http_response *r); /* all ranges are filled */

#endif
