/* Writing a file from its beginning to its end: pieces are sent while the next one is filled, by the same flights that read. The
 * file has its name when it is whole, or never. */
#include "access_internal.h"

#include <stdlib.h>
#include <sys/random.h>

enum { PIECE_BYTES = 1 << 20, MOST_PIECES = 16 };

/* Bytes on their way. A flight borrows the plan. */
typedef struct piece {
    sap_space memory;
    sap_range range;
    sap_plan_request request;
    sap_plan plan;
    sap_flight *flight;
} piece;

struct sap_sink {
    const sap_transport *transport;
    sap_access_settings settings;
    char *name; /* for messages */
    char *place,
        *work;   /* what the transport takes: where the file is to be, and where it is written; may be the same */
    void *state; /* of a local file */
    sap_channel *channel;
    uint64_t length; /* of all that was taken */
    piece pieces[MOST_PIECES];
    size_t piece_bytes, piece_count;
    size_t sent; /* pieces so far; the next one is filled in pieces[sent % piece_count] */
    bool committed, failed;
    sap_error error; /* why it has failed */
};

/* "/a/b" → "/a/.b.0123456789abcdef.partial", the query kept. */
static char *aside_of(const char *place) {
    const char *query = sap_url_query(place), *base = query;
    uint64_t number = 0;
    while (base > place && base[-1] != '/')
        base--;
    if (getrandom(&number, sizeof number, 0) != sizeof number)
        number = sap_mix((uint64_t)(uintptr_t)place, (uint64_t)sap_nanoseconds());
    int length = (int)(query - base < 200 ? query - base : 200); /* file systems take names of 255 bytes */
    sap_text text = {0};
    sap_text_add(&text, "%.*s.%.*s.%016llx.partial%s", (int)(base - place), place, length, base,
                 (unsigned long long)number, query);
    if (text.failed)
        sap_text_release(&text);
    return text.data;
}

static sap_status open_sink(sap_sink *s, const char *rest, const sap_run *run, sap_error *err) {
    SAP_TRY(sap_settings_init(&s->settings, err));
    s->place = strdup(rest);
    s->work = s->settings.write_aside ? aside_of(rest) : strdup(rest);
    if (!s->place || !s->work)
        return sap_error_memory(err, s->name);
    s->piece_bytes = s->settings.request_bytes < PIECE_BYTES ? (size_t)s->settings.request_bytes : PIECE_BYTES;
    s->piece_count = s->settings.in_flight < MOST_PIECES ? (size_t)s->settings.in_flight : MOST_PIECES;
    if (s->transport->append)
        return s->transport->create(s->work, &s->settings, run, &s->state, err);
    return sap_channel_create(s->transport, s->name, s->work, &s->settings, run, &s->channel, err);
}

/* A failure stays, and is told of the file as it is to be called. */
static sap_status settle(sap_sink *s, sap_status status, sap_error *err) {
    const char *message = s->error.message;
    const size_t length = s->work ? strlen(s->work) : 0;
    s->failed = status != SAP_OK;
    s->error.status = status;
    if (!s->failed)
        return SAP_OK;
    return length && strncmp(message, s->work, length) == 0
               ? sap_error_set(err, status, "%s%s", s->name, message + length)
               : sap_error_set(err, status, "%s", message);
}

sap_status sap_sink_open(const char *url, const sap_run *run, sap_sink **out, sap_error *err) {
    const sap_transport *transport;
    const char *rest;
    SAP_TRY(sap_transport_find(url, &transport, &rest, err));
    if (!transport->create)
        return sap_error_set(err, SAP_EUNSUPPORTED, "%s: files are written here and on root:// only", url);
    sap_sink *s = calloc(1, sizeof *s);
    if (!s)
        return sap_error_memory(err, url);
    s->transport = transport;
    s->name = strdup(url);
    sap_status status = s->name ? settle(s, open_sink(s, rest, run, &s->error), err) : sap_error_memory(err, url);
    if (status != SAP_OK)
        sap_sink_close(s);
    else
        *out = s;
    return status;
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------- */

static sap_status land(piece *p, const sap_run *run, sap_error *err) {
    if (!p->flight)
        return SAP_OK;
    SAP_TRY(sap_flight_wait(p->flight, run, err));
    sap_flight_close(p->flight);
    p->flight = NULL;
    return SAP_OK;
}

static sap_status send_piece(sap_sink *s, piece *p, sap_error *err) {
    p->range.data = p->memory.data;
    p->request = (sap_plan_request){0, 1, p->range.length};
    p->plan = (sap_plan){&p->range, 1, &p->request, 1};
    SAP_TRY(sap_flight_start(s->channel, &p->plan, &p->flight, err));
    s->sent++;
    return SAP_OK;
}

/* The piece that is filled is empty and not under way, or partly full. */
static sap_status take_bytes(sap_sink *s, const uint8_t *data, size_t length, const sap_run *run, sap_error *err) {
    while (length > 0) {
        piece *p = &s->pieces[s->sent % s->piece_count];
        if (p->flight || p->range.length == 0) {
            SAP_TRY(land(p, run, err));
            p->range = (sap_range){s->length, 0, NULL};
            if (!sap_space_reserve(&p->memory, s->piece_bytes))
                return sap_error_memory(err, s->name);
        }
        size_t room = s->piece_bytes - p->range.length, part = length < room ? length : room;
        memcpy(p->memory.data + p->range.length, data, part);
        p->range.length += part;
        s->length += part;
        data += part;
        length -= part;
        if (p->range.length == s->piece_bytes)
            SAP_TRY(send_piece(s, p, err));
    }
    return SAP_OK;
}

static sap_status check(sap_sink *s, sap_error *err) {
    if (s->failed)
        return settle(s, s->error.status, err);
    if (s->committed)
        return sap_error_set(err, SAP_EARGUMENT, "%s: has been written and closed", s->name);
    if (s->channel && !sap_channel_is_ours(s->channel))
        return sap_error_set(err, SAP_EARGUMENT, "%s: is written by the process that forked this one", s->name);
    return SAP_OK;
}

sap_status sap_sink_write(sap_sink *s, const void *data, size_t length, const sap_run *run, sap_error *err) {
    SAP_TRY(check(s, err));
    if (s->channel)
        return settle(s, take_bytes(s, data, length, run, &s->error), err);
    s->length += length;
    return settle(s, s->transport->append(s->state, s->name, data, length, &s->error), err);
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

static sap_status land_all(sap_sink *s, const sap_run *run, sap_error *err) {
    piece *last = &s->pieces[s->sent % s->piece_count];
    if (!last->flight && last->range.length > 0)
        SAP_TRY(send_piece(s, last, err));
    for (size_t i = 0; i < s->piece_count; i++)
        SAP_TRY(land(&s->pieces[i], run, err));
    return SAP_OK;
}

static sap_status finish(sap_sink *s, const sap_run *run, sap_error *err) {
    sap_file_info info;
    if (!s->channel) {
        SAP_TRY(s->transport->finish(s->state, s->name, &s->settings, run, err));
    } else {
        SAP_TRY(land_all(s, run, err));
        SAP_TRY(sap_channel_finish(s->channel, &s->settings, run, err));
    }
    SAP_TRY(sap_store_stat(s->work, run, &info, err));
    if (info.size != s->length)
        return sap_error_set(err, SAP_EIO, "%s: %llu bytes were written, %llu are there", s->name,
                             (unsigned long long)s->length, (unsigned long long)info.size);
    return s->settings.write_aside ? sap_store_rename(s->work, s->place, true, run, err) : SAP_OK;
}

sap_status sap_sink_commit(sap_sink *s, const sap_run *run, sap_error *err) {
    SAP_TRY(check(s, err));
    SAP_TRY(settle(s, finish(s, run, &s->error), err));
    if (s->channel)
        sap_channel_keep(s->channel);
    s->committed = true;
    return SAP_OK;
}

void sap_sink_close(sap_sink *s) {
    if (!s)
        return;
    for (size_t i = 0; i < MOST_PIECES; i++) {
        sap_flight_close(s->pieces[i].flight);
        sap_space_release(&s->pieces[i].memory);
    }
    sap_channel_close(s->channel);
    if (s->state)
        (s->committed ? s->transport->close : s->transport->discard)(s->state);
    sap_settings_release(&s->settings);
    free(s->work);
    free(s->place);
    free(s->name);
    free(s);
}
