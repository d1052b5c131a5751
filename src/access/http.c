/* The HTTP plug-in: files on web servers and S3, through libcurl. One thread carries all transfers of the process.
 *
 * A request for several ranges is one transfer where the server answers several parts. One that answers a single part, or the
 * whole file, is asked for each range by itself, and its host is remembered. A transfer that breaks off goes on where it
 * was. A file whose server knows no ranges at all is copied once into a temporary file, when it is opened. */
#include "http_auth.h"
#include "http_response.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD_BYTES = 1 << 16, /* what opening asks for; kept, since reading begins there */
    MOST_RANGES = 100,    /* of one request: servers bound the length of a line */
    MOST_REDIRECTIONS = 10,
    MOST_BYTES = 1 << 30, /* of one request */
    CONNECTIONS = 16,     /* to one host */
    SINGLE_HOSTS = 64
};

/* Lives until its source is closed and its last task is done. */
typedef struct http_file {
    int references; /* with the engine's lock */
    sap_arena arena;
    const char *name, *url; /* as given; where that is */
    sap_http_identity who;
    double connect_seconds;
    uint64_t host; /* hash of the name of the server */
    uint64_t size;
    char etag[200], modified[80];
    uint8_t *head; /* the first bytes */
    size_t head_length;
    int whole; /* descriptor of the copy; -1: none */
    uint64_t whole_limit;
    /* of the engine's thread */
    char *target;    /* where redirections led to, asked first from then on; NULL: they are followed each time */
    bool no_targets; /* that went wrong once */
    /* with the engine's lock */
    bool is_dropped; /* and in the list of these */
    struct http_file *next_dropped;
    /* opening; with the engine's lock */
    bool opened;
    sap_status status;
    char message[400];
    /* atomic */
    unsigned generation; /* tasks of an earlier one are dropped */
    bool fresh;          /* no connection that is there is to be trusted */
    bool copying;        /* the whole file comes */
    int64_t life;        /* nanoseconds: when it last grew */
} http_file;

/* A request on its way, in one transfer or several. */
typedef struct task {
    http_file *file;
    sap_request *request; /* NULL: the opening */
    size_t here;          /* ranges of it that need no server */
    unsigned generation;
    unsigned sent; /* transfers */
    int left;      /* of them not done */
    sap_status status;
    char message[300];
    struct task *next;
} task;

typedef struct transfer {
    task *task;
    CURL *easy;
    struct curl_slist *headers;
    sap_http_response response;
    bool away;      /* asks the target of a redirection */
    bool confirmed; /* the answer is about the file as it was opened */
    char reason[CURL_ERROR_SIZE];
    struct transfer *previous, *next;
    size_t count;
    sap_range ranges[];
} transfer;

static struct engine {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    pthread_t thread;
    bool running;
    bool stopping;
    CURLM *multi;
    task *first, *last; /* to be started */
    http_file *dropped;
    uint64_t single_hosts[SINGLE_HOSTS];
    transfer *transfers; /* the thread's own */
} engine = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- Files ---------------------------------------------------------------------------------------------------------- */

static void release(http_file *f) {
    pthread_mutex_lock(&engine.lock);
    bool last = --f->references == 0;
    pthread_mutex_unlock(&engine.lock);
    if (!last)
        return;
    if (f->whole >= 0)
        close(f->whole);
    free(f->target);
    free(f->head);
    sap_arena_release(&f->arena);
    free(f);
}

/* Length of "https://host:port". */
static size_t server_length(const char *url) {
    const char *host = strstr(url, "://");
    return host ? (size_t)(host - url) + 3 + strcspn(host + 3, "/?#") : strlen(url);
}

static bool same_server(const char *a, const char *b) {
    return server_length(a) == server_length(b) && strncasecmp(a, b, server_length(a)) == 0;
}

/* Whether its server answers one range at a time. Hosts that share a place forget each other, which costs a request. */
static bool is_single(const http_file *f) {
    return __atomic_load_n(&engine.single_hosts[f->host % SINGLE_HOSTS], __ATOMIC_RELAXED) == f->host;
}

static void mark_single(const http_file *f) {
    __atomic_store_n(&engine.single_hosts[f->host % SINGLE_HOSTS], f->host, __ATOMIC_RELAXED);
}

static bool changed(const http_file *f, const sap_http_response *r) {
    if (*f->etag && *r->etag)
        return strcmp(f->etag, r->etag) != 0;
    return *f->modified && *r->modified && strcmp(f->modified, r->modified) != 0;
}

/* ---- Copies of whole files ------------------------------------------------------------------------------------------ */

static int open_temporary(void) {
    const char *folder = getenv("TMPDIR");
    folder = folder && *folder ? folder : "/tmp";
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/sapwood-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

static sap_status fail(task *t, sap_status status, const char *format, ...) SAP_PRINTF(3, 4);
static sap_status fail(task *t, sap_status status, const char *format, ...) {
    if (t->status == SAP_OK) {
        va_list arguments;
        va_start(arguments, format);
        (void)vsnprintf(t->message, sizeof t->message, format, arguments);
        va_end(arguments);
        t->status = status;
    }
    return status;
}

static bool copy_more(task *t, const char *data, size_t length) {
    http_file *f = t->file;
    if (f->whole < 0)
        f->whole = open_temporary();
    __atomic_store_n(&f->copying, true, __ATOMIC_RELAXED);
    __atomic_store_n(&f->life, sap_nanoseconds(), __ATOMIC_RELAXED);
    if (f->size + length > f->whole_limit) {
        (void)fail(t, SAP_EUNSUPPORTED,
                   "the server reads no ranges, and the whole file is larger than SAPWOOD_CACHE_BYTES (%llu)",
                   (unsigned long long)f->whole_limit);
        return false;
    }
    if (f->whole < 0 || !sap_descriptor_write(f->whole, data, length)) {
        (void)fail(t, SAP_EIO, "the server reads no ranges, and a temporary copy cannot be written: %s",
                   strerror(errno));
        return false;
    }
    f->size += length;
    return true;
}

static bool read_copy(const http_file *f, const sap_range *range) {
    return sap_descriptor_read(f->whole, range->data, range->length, range->offset) == range->length;
}

/* ---- Transfers ------------------------------------------------------------------------------------------------------- */

static size_t on_header(char *data, size_t size, size_t count, void *context) {
    transfer *t = context;
    sap_http_response_header(&t->response, data, size * count);
    return size * count;
}

/* Looks once at what the header says. False: this body is not wanted. */
static bool confirm(transfer *t) {
    sap_http_response *r = &t->response;
    const http_file *f = t->task->file;
    t->confirmed = true;
    if (r->encoded) {
        (void)fail(t->task, SAP_EUNSUPPORTED, "the server sends the file compressed");
        return false;
    }
    if (!t->task->request)
        return r->status == 206 || r->status == 200;
    if ((r->status == 206 || r->status == 200) && changed(f, r)) {
        (void)fail(t->task, SAP_EFORMAT, "the file has changed since it was opened");
        return false;
    }
    if (r->status == 200 && t->count == 1 && t->ranges[0].offset == 0) { /* the range is its beginning, at least */
        r->has_range = true;
        r->first = 0;
        r->last = f->size - 1;
        return true;
    }
    return r->status == 206;
}

static size_t on_body(char *data, size_t size, size_t count, void *context) {
    transfer *t = context;
    const size_t length = size * count, stop = 0;
    if (!t->confirmed && !confirm(t))
        return stop;
    if (t->task->request)
        t->task->request->progress(t->task->request);
    if (!t->task->request && t->response.status == 200)
        return copy_more(t->task, data, length) ? length : stop;
    return sap_http_response_body(&t->response, (const uint8_t *)data, length) ? length : stop;
}

/* "0-99,200-299" */
static bool set_range(CURL *easy, const transfer *t) {
    sap_text text = {0};
    for (size_t i = 0; i < t->count; i++)
        sap_text_add(&text, "%s%llu-%llu", i ? "," : "", (unsigned long long)t->ranges[i].offset,
                     (unsigned long long)(t->ranges[i].offset + t->ranges[i].length - 1));
    bool well = !text.failed && curl_easy_setopt(easy, CURLOPT_RANGE, text.data) == CURLE_OK;
    sap_text_release(&text);
    return well;
}

#define SET(option, value) (curl_easy_setopt(t->easy, CURLOPT_##option, value) == CURLE_OK)

static bool set_options(transfer *t) {
    const http_file *f = t->task->file;
    const char *url = t->away ? f->target : f->url;
    sap_http_identity who = f->who;
    if (!same_server(url,
                     f->url)) { /* who follows a redirection shows the other server no token, as curl itself does */
        who.token = who.token_files[0] = who.s3_keys = NULL;
    }
#if LIBCURL_VERSION_NUM >= 0x075500
    bool web = SET(PROTOCOLS_STR, "http,https") && SET(REDIR_PROTOCOLS_STR, "http,https");
#else
    bool web = SET(PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS)) &&
               SET(REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    return web && SET(URL, url) && SET(PRIVATE, t) && SET(ERRORBUFFER, t->reason) && SET(USERAGENT, "sapwood") &&
           SET(NOSIGNAL, 1L) && SET(FOLLOWLOCATION, 1L) && SET(MAXREDIRS, (long)MOST_REDIRECTIONS) &&
           SET(CONNECTTIMEOUT_MS, (long)(f->connect_seconds * 1000) + 1) && SET(TCP_KEEPALIVE, 1L) &&
           SET(BUFFERSIZE, 1L << 19) && SET(FRESH_CONNECT, (long)__atomic_load_n(&f->fresh, __ATOMIC_RELAXED)) &&
           SET(HEADERFUNCTION, on_header) && SET(HEADERDATA, t) && SET(WRITEFUNCTION, on_body) && SET(WRITEDATA, t) &&
           set_range(t->easy, t) && sap_http_authenticate(t->easy, &who, url, &t->headers);
}

#undef SET

static void free_transfer(transfer *t) {
    if (t->easy)
        curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    sap_http_response_release(&t->response);
    free(t);
}

static void start_transfer(task *k, const sap_range *ranges, size_t count) {
    transfer *t = calloc(1, sizeof *t + count * sizeof *ranges);
    if (t) {
        t->task = k;
        t->count = count;
        t->away = k->file->target != NULL;
        memcpy(t->ranges, ranges, count * sizeof *ranges);
        t->easy = curl_easy_init();
    }
    if (!t || !t->easy || !sap_http_response_init(&t->response, t->ranges, count) || !set_options(t) ||
        curl_multi_add_handle(engine.multi, t->easy) != CURLM_OK) {
        if (t)
            free_transfer(t);
        (void)fail(k, SAP_EMEMORY, "no memory for a transfer, or libcurl lacks what it needs");
        return;
    }
    k->sent++;
    k->left++;
    t->next = engine.transfers;
    if (t->next)
        t->next->previous = t;
    engine.transfers = t;
}

/* Dropped since it was asked for. */
static bool is_stale(const task *k) {
    return k->generation != __atomic_load_n(&k->file->generation, __ATOMIC_RELAXED);
}

static void start_transfers(task *k, const sap_range *ranges, size_t count) {
    size_t each = is_single(k->file) ? 1 : count;
    for (size_t i = 0; i < count; i += each)
        start_transfer(k, ranges + i, each);
}

/* ---- Answers --------------------------------------------------------------------------------------------------------- */

static sap_status status_of_code(int code) {
    switch (code) {
    case 404:
    case 410:
        return SAP_ENOTFOUND;
    case 401:
    case 403:
    case 407:
        return SAP_EARGUMENT;
    case 412:
    case 416:
        return SAP_EFORMAT;
    default: /* too early, too many, timeouts, troubles of the server */
        return code >= 500 || code == 408 || code == 425 || code == 429 || code < 400 ? SAP_EIO : SAP_EUNSUPPORTED;
    }
}

static sap_status status_of_curl(CURLcode code, bool opening) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: /* at first a slip of the pen, later a slip of the network */
        return opening ? SAP_ENOTFOUND : SAP_EIO;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return SAP_EARGUMENT;
    case CURLE_OUT_OF_MEMORY:
        return SAP_EMEMORY;
    default:
        return SAP_EIO;
    }
}

/* No range came: by what libcurl says, or by what the server answers. */
static void fail_by_answer(transfer *t, CURLcode code) {
    const int answer = t->response.status;
    const char *meaning = answer == 401 || answer == 403   ? ": access denied"
                          : answer == 404 || answer == 410 ? ": no such file"
                          : answer == 416                  ? ": the file has become shorter"
                                                           : "";
    if (code == CURLE_TOO_MANY_REDIRECTS || (code != CURLE_OK && code != CURLE_WRITE_ERROR && answer < 300))
        (void)fail(t->task, status_of_curl(code, !t->task->request), "%s",
                   *t->reason ? t->reason : curl_easy_strerror(code));
    else if (answer >= 300)
        (void)fail(t->task, status_of_code(answer), "the server answers %d%s", answer, meaning);
    else
        (void)fail(t->task, SAP_EIO, "the server answers %d with other bytes than those it was asked for", answer);
}

/* Takes up what is missing, where something came, or where asking otherwise may help. */
static bool go_on(transfer *t) {
    sap_http_response *r = &t->response;
    task *k = t->task;
    bool came = false, learned = false;
    for (size_t i = 0; i < t->count; i++)
        came = came || r->filled[i] > 0;
    bool refuses = r->status == 200 || (r->status == 206 && !*r->boundary) || r->status == 400 || r->status == 413 ||
                   r->status == 416 || r->status == 431 || r->status == 501;
    if (t->count > 1 && refuses) {
        mark_single(k->file);
        learned = true;
    }
    if (!(learned || (came && r->status == 206)) || is_stale(k))
        return false;
    size_t left = 0;
    for (size_t i = 0; i < t->count; i++) {
        size_t filled = r->filled[i];
        if (filled < t->ranges[i].length)
            t->ranges[left++] = (sap_range){t->ranges[i].offset + filled, t->ranges[i].length - filled,
                                            (uint8_t *)t->ranges[i].data + filled};
    }
    start_transfers(k, t->ranges, left);
    return true;
}

static void judge_range(transfer *t, CURLcode code) {
    sap_http_response *r = &t->response;
    task *k = t->task;
    if (k->status != SAP_OK)
        return;
    if (r->status == 206 && r->has_total && r->total != k->file->size)
        (void)fail(k, SAP_EFORMAT, "the file has changed since it was opened: it has %llu bytes now, and had %llu",
                   (unsigned long long)r->total, (unsigned long long)k->file->size);
    else if (sap_http_response_whole(r) || go_on(t))
        return;
    else
        fail_by_answer(t, code);
}

static void judge_opening(transfer *t, CURLcode code) {
    const sap_http_response *r = &t->response;
    task *k = t->task;
    http_file *f = k->file;
    if (k->status != SAP_OK)
        return;
    (void)snprintf(f->etag, sizeof f->etag, "%s", r->etag);
    (void)snprintf(f->modified, sizeof f->modified, "%s", r->modified);
    if (r->status == 416 && r->has_total && r->total == 0) /* an empty file has no first byte */
        f->size = 0;
    else if (r->status == 200 && code == CURLE_OK)
        return; /* copied; an empty body is an empty file */
    else if (r->status == 206 && r->has_range && !r->has_total)
        (void)fail(k, SAP_EUNSUPPORTED, "the server does not say how long the file is");
    else if (r->status == 206 && r->has_range && r->first == 0 && r->total > 0)
        f->size = r->total;
    else
        fail_by_answer(t, code);
    if (k->status == SAP_OK)
        f->head_length = r->filled[0] < f->size ? r->filled[0] : (size_t)f->size;
}

/* A target that was found is asked from now on; one that fails is forgotten, and the way to it asked for again. */
static void judge_target(transfer *t) {
    http_file *f = t->task->file;
    if (t->away && t->task->status != SAP_OK && t->task->status != SAP_EFORMAT) {
        free(f->target);
        f->target = NULL;
        f->no_targets = true;
        t->task->status = SAP_EIO;
        return;
    }
    const char *effective = NULL;
    long redirections = 0;
    bool well = curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &effective) == CURLE_OK &&
                curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_COUNT, &redirections) == CURLE_OK;
    if (well && effective && redirections > 0 && !f->target && !f->no_targets && !f->who.s3_keys &&
        t->task->status == SAP_OK)
        f->target = strdup(effective);
}

/* ---- Tasks ----------------------------------------------------------------------------------------------------------- */

static void finish_task(task *k) {
    http_file *f = k->file;
    if (k->request) {
        k->request->sent = k->sent;
        k->request->done(k->request, k->status, k->status == SAP_OK ? NULL : k->message);
    } else {
        pthread_mutex_lock(&engine.lock);
        f->status = k->status;
        (void)snprintf(f->message, sizeof f->message, "%s", k->message);
        f->opened = true;
        pthread_cond_broadcast(&engine.opened);
        pthread_mutex_unlock(&engine.lock);
    }
    release(f);
    free(k);
}

static void finish_transfer(transfer *t, CURLcode code) {
    task *k = t->task;
    (void)curl_multi_remove_handle(engine.multi, t->easy);
    *(t->previous ? &t->previous->next : &engine.transfers) = t->next;
    if (t->next)
        t->next->previous = t->previous;
    (k->request ? judge_range : judge_opening)(t, code);
    judge_target(t);
    if (k->status == SAP_OK)
        __atomic_store_n(&k->file->fresh, false, __ATOMIC_RELAXED);
    free_transfer(t);
    if (--k->left == 0)
        finish_task(k);
}

/* ---- The thread -------------------------------------------------------------------------------------------------------- */

static const char dropped_message[] = "the connection did not answer and was dropped";

static void start_task(task *k) {
    const sap_range head = {0, HEAD_BYTES, k->file->head};
    k->left = 1; /* so that it is not done before all of it has begun */
    if (is_stale(k))
        (void)fail(k, SAP_EIO, "%s", dropped_message);
    else if (k->request)
        start_transfers(k, k->request->ranges + k->here, k->request->count - k->here);
    else
        start_transfer(k, &head, 1);
    if (--k->left == 0)
        finish_task(k);
}

static void drop_transfers(const http_file *f) {
    for (transfer *t = engine.transfers, *next; t; t = next) {
        next = t->next;
        if (t->task->file != f || !is_stale(t->task))
            continue;
        (void)fail(t->task, SAP_EIO, "%s", dropped_message);
        finish_transfer(t, CURLE_ABORTED_BY_CALLBACK);
    }
}

/* One round of what others asked for. False: the end of the process. */
static bool take_orders(void) {
    pthread_mutex_lock(&engine.lock);
    task *tasks = engine.first;
    http_file *dropped = engine.dropped;
    engine.first = engine.last = NULL;
    engine.dropped = NULL;
    for (http_file *f = dropped; f; f = f->next_dropped)
        f->is_dropped = false;
    bool stopping = engine.stopping;
    pthread_mutex_unlock(&engine.lock);
    while (dropped && !stopping) {
        http_file *f = dropped;
        dropped = f->next_dropped;
        drop_transfers(f);
        release(f);
    }
    while (tasks && !stopping) {
        task *k = tasks;
        tasks = k->next;
        start_task(k);
    }
    return !stopping;
}

static void *carry(void *nothing) {
    (void)nothing;
    while (take_orders()) {
        int running, left;
        (void)curl_multi_perform(engine.multi, &running);
        for (CURLMsg *m; (m = curl_multi_info_read(engine.multi, &left));) {
            char *private = NULL;
            CURLcode code = m->data.result;
            if (m->msg == CURLMSG_DONE && curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &private) == CURLE_OK)
                finish_transfer((transfer *)(void *)private, code);
        }
        (void)curl_multi_poll(engine.multi, NULL, 0, 1000, NULL);
    }
    return NULL;
}

/* Before the TLS library tidies up behind the thread's back. */
static void stop_engine(void) {
    pthread_mutex_lock(&engine.lock);
    bool running = engine.running;
    engine.stopping = true;
    if (running)
        (void)curl_multi_wakeup(engine.multi);
    pthread_mutex_unlock(&engine.lock);
    if (running)
        (void)pthread_join(engine.thread, NULL);
}

/* The thread is the parent's; so are its connections and its lock. */
static void forget_engine(void) {
    engine = (struct engine){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static void prepare_process(void) {
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    (void)pthread_atfork(NULL, NULL, forget_engine);
    (void)atexit(stop_engine);
}

/* Called with the lock. */
static bool start_engine(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (engine.running)
        return true;
    (void)pthread_once(&once, prepare_process);
    sap_condition_init(&engine.opened);
    engine.multi = curl_multi_init();
    if (!engine.multi)
        return false;
    (void)curl_multi_setopt(engine.multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)CONNECTIONS);
    engine.running = sap_thread_start(&engine.thread, carry, NULL);
    if (!engine.running)
        (void)curl_multi_cleanup(engine.multi);
    return engine.running;
}

/* False: no memory, no thread. */
static bool send_task(http_file *f, sap_request *request, size_t here) {
    task *k = calloc(1, sizeof *k);
    if (!k)
        return false;
    *k = (task){
        .file = f, .request = request, .here = here, .generation = __atomic_load_n(&f->generation, __ATOMIC_RELAXED)};
    pthread_mutex_lock(&engine.lock);
    bool well = start_engine();
    if (well) {
        f->references++;
        *(engine.last ? &engine.last->next : &engine.first) = k;
        engine.last = k;
        (void)curl_multi_wakeup(engine.multi);
    }
    pthread_mutex_unlock(&engine.lock);
    if (!well)
        free(k);
    return well;
}

static void drop(http_file *f) {
    pthread_mutex_lock(&engine.lock);
    (void)__atomic_add_fetch(&f->generation, 1, __ATOMIC_RELAXED);
    if (!f->is_dropped && engine.running) {
        f->is_dropped = true;
        f->references++;
        f->next_dropped = engine.dropped;
        engine.dropped = f;
        (void)curl_multi_wakeup(engine.multi);
    }
    pthread_mutex_unlock(&engine.lock);
}

/* ---- The table ----------------------------------------------------------------------------------------------------------- */

static void http_close(void *state) {
    drop(state);
    release(state);
}

static void http_reset(void *state) {
    http_file *f = state;
    __atomic_store_n(&f->fresh, true, __ATOMIC_RELAXED);
    drop(f);
}

static void http_limits(void *state, sap_request_limits *out) {
    const http_file *f = state;
    *out = (sap_request_limits){is_single(f) ? 1 : MOST_RANGES, MOST_BYTES, MOST_BYTES};
}

/* Ranges of the beginning that are here already and need no server: how many. */
static size_t read_here(const http_file *f, const sap_request *request) {
    for (size_t i = 0; i < request->count; i++) {
        const sap_range *range = &request->ranges[i];
        if (f->whole >= 0) {
            if (!read_copy(f, range))
                return i;
        } else if (range->length <= f->head_length && range->offset <= f->head_length - range->length) {
            memcpy(range->data, f->head + range->offset, range->length);
        } else {
            return i;
        }
    }
    return request->count;
}

static void http_submit(void *state, sap_request *request) {
    http_file *f = state;
    size_t here = read_here(f, request);
    if (here == request->count) {
        request->sent = 0;
        request->done(request, SAP_OK, NULL);
    } else if (f->whole >= 0) {
        request->done(request, SAP_EFORMAT, "the temporary copy of the file cannot be read");
    } else if (!send_task(f, request, here)) {
        request->done(request, SAP_EMEMORY, "no memory or no thread for a transfer");
    }
}

/* Until the answer is there; as long as it takes while the whole file comes. Called with the lock. */
static sap_status wait_until_open(http_file *f, const sap_access_settings *settings, const sap_run *run,
                                  sap_error *err) {
    const int64_t begin = sap_nanoseconds();
    while (!f->opened) {
        bool copying = __atomic_load_n(&f->copying, __ATOMIC_RELAXED);
        int64_t since = copying ? __atomic_load_n(&f->life, __ATOMIC_RELAXED) : begin, now = sap_nanoseconds();
        double quiet = (double)(now - since) * 1e-9;
        if (run && run->cancel && __atomic_load_n(run->cancel, __ATOMIC_RELAXED))
            return sap_error_set(err, SAP_ECANCELLED, "%s: cancelled", f->name);
        if (quiet > (copying ? settings->stall_seconds : settings->connect_seconds))
            return sap_error_set(err, SAP_EIO, "%s: no answer for %.1f s", f->name, quiet);
        now += 100000000;
        struct timespec until = {(time_t)(now / 1000000000), (long)(now % 1000000000)};
        (void)pthread_cond_timedwait(&engine.opened, &engine.lock, &until);
    }
    return f->status == SAP_OK ? SAP_OK : sap_error_set(err, f->status, "%s: %s", f->name, f->message);
}

static sap_status make_file(const char *name, const sap_access_settings *settings, http_file **out, sap_error *err) {
    http_file *f = calloc(1, sizeof *f);
    if (!f)
        return sap_error_memory(err, name);
    f->references = 1;
    f->whole = -1;
    f->whole_limit = settings->cache_bytes;
    f->connect_seconds = settings->connect_seconds;
    f->name = sap_arena_text(&f->arena, name, strlen(name));
    f->head = malloc(HEAD_BYTES);
    sap_status status =
        f->name && f->head ? sap_http_target(name, &f->arena, &f->url, err) : sap_error_memory(err, name);
    if (status == SAP_OK)
        status = sap_http_identify(name, &f->arena, &f->who, err);
    if (status != SAP_OK) {
        release(f);
        return status;
    }
    f->host = 5381; /* Bernstein's hash will do */
    for (size_t i = 0; i < server_length(f->url); i++)
        f->host = f->host * 33 + (unsigned char)f->url[i];
    *out = f;
    return SAP_OK;
}

static sap_status http_open(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                            uint64_t *size, char **version, sap_error *err) {
    http_file *f = NULL;
    SAP_TRY(make_file(url, settings, &f, err));
    sap_status status = SAP_OK;
    if (!send_task(f, NULL, 0)) {
        status = sap_error_memory(err, url);
    } else {
        pthread_mutex_lock(&engine.lock);
        status = wait_until_open(f, settings, run, err);
        pthread_mutex_unlock(&engine.lock);
    }
    const char *mark = *f->etag ? f->etag : f->modified;
    if (status == SAP_OK && *mark && !(*version = strdup(mark)))
        status = sap_error_memory(err, url);
    if (status != SAP_OK) {
        http_close(f);
        return status;
    }
    *size = f->size;
    *state = f;
    return SAP_OK;
}

SAP_API extern const sap_transport sap_plugin_http;
const sap_transport sap_plugin_http = {
    .open = http_open, .close = http_close, .submit = http_submit, .limits = http_limits, .reset = http_reset};
