/* The XRootD plug-in: a thin layer over XrdCl, the official client. What it adds: nothing here waits for a server without a
 * deadline, a file is opened anew after any failure, and a file that changed on the server meanwhile is not read on (one that is
 * written is written on: the same bytes come to the same place however often). No exception leaves. */
#include "xrootd_client.h"

#include <algorithm>
#include <map>

namespace {

using namespace xrootd;

/* Servers refuse vector reads beyond these, which are what all of them allow if they do not say otherwise. */
constexpr sap_request_limits standard_limits = {1024, 2097136, 0x40000000};
constexpr size_t most_ranges = 1 << 16; /* whatever a server says */

/* ---- A file and its connections -------------------------------------------------------------------------------- */

struct session;

/* Limits of the data servers that were asked. */
struct known_servers {
    std::mutex lock;
    std::map<std::string, sap_request_limits> limits;
};
known_servers &servers() {
    static known_servers *const all = new known_servers; /* never freed: XrdCl's threads outlive main */
    return *all;
}

/* What a channel holds, and all its sessions. */
struct remote_file {
    std::string url;
    bool writes = false; /* it is made and written */
    std::mutex lock;     /* of what follows */
    std::shared_ptr<session> current;
    unsigned connection = 0; /* number of the connection that it is read on */
    sap_request_limits limits = standard_limits;
    bool known = false; /* there has been a session: size and version are its; or the file has been made */
    uint64_t size = 0;
    std::string version;

    bool is_known() {
        std::lock_guard<std::mutex> guard(lock);
        return known;
    }
};

/* A file that is open on one connection, or about to be. It lives as long as requests on it do. */
struct session : std::enable_shared_from_this<session> {
    enum class phase { opening, open, closed, failed };

    std::shared_ptr<remote_file> owner;
    XrdCl::File *file = new XrdCl::File();
    std::mutex lock; /* of what follows */
    std::condition_variable settled;
    phase now = phase::opening;
    sap_status why = SAP_OK; /* it failed */
    std::string message;
    std::vector<sap_request *> waiting; /* until it is open */

    explicit session(std::shared_ptr<remote_file> of) : owner(std::move(of)) {
    }
    ~session();
    void open(const std::string &url);
    void opened(const XrdCl::XRootDStatus &said);
    void limited(const std::string &server, const XrdCl::XRootDStatus &said, XrdCl::AnyObject *response);
    void settle(sap_status with, const std::string &text);
    void submit(sap_request *request);
    void send(sap_request *request);
    void write(sap_request *request);
    void sync();
    void ended(const XrdCl::XRootDStatus &said);
    void finish(sap_request *request, size_t wanted, size_t received, const XrdCl::XRootDStatus &said);
    void leave();
};

/* Closes without waiting; the answer, or the time-out of the close, frees the file. A file that cannot be closed has nothing
 * to be closed on the server. */
session::~session() {
    XrdCl::File *ended = file;
    answer *handler = new answer([ended](const XrdCl::XRootDStatus &, XrdCl::AnyObject *) { delete ended; });
    XrdCl::XRootDStatus status = ended->Close(handler);
    if (!status.IsOK() || status.code == XrdCl::suAlreadyDone) {
        delete handler;
        delete ended;
    }
}

/* The next request opens the file anew. */
void session::leave() {
    std::shared_ptr<session> self; /* freed last, without the lock */
    std::lock_guard<std::mutex> guard(owner->lock);
    if (owner->current.get() == this)
        self.swap(owner->current);
}

void session::open(const std::string &url) {
    auto self = shared_from_this();
    answer *handler = new answer([self](const XrdCl::XRootDStatus &said, XrdCl::AnyObject *) { self->opened(said); });
    using Flags = XrdCl::OpenFlags;
    using Access = XrdCl::Access;
    if (!owner->writes)
        return handler->refused(file->Open(url, Flags::Read, Access::None, handler));
    file->SetProperty("WriteRecovery", "false"); /* XrdCl would do it without an end */
    Flags::Flags flags = owner->is_known() ? Flags::Update : Flags::Update | Flags::Delete | Flags::MakePath;
    handler->refused(file->Open(url, flags, Access::UR | Access::UW | Access::GR | Access::OR, handler));
}

/* Takes what the server said about the file, and asks for its limits if it is new. */
void session::opened(const XrdCl::XRootDStatus &said) {
    if (!said.IsOK()) {
        sap_status code = owner->writes ? refusal_of(said) : code_of(said);
        if (code == SAP_ENOTFOUND &&
            owner->is_known()) /* redirectors forget the files of a server that is just starting */
            code = SAP_EIO;
        return settle(code, message_of(said));
    }
    if (owner->writes) {
        std::unique_lock<std::mutex> guard(owner->lock);
        owner->known = true;
        guard.unlock();
        return settle(SAP_OK, "");
    }
    uint64_t size = 0;
    std::string version;
    answer *stat = new answer([&](const XrdCl::XRootDStatus &status, XrdCl::AnyObject *response) {
        XrdCl::StatInfo *info = nullptr;
        if (status.IsOK() && response)
            response->Get(info);
        if (info) {
            size = info->GetSize();
            version = std::to_string(info->GetSize()) + "-" + std::to_string(info->GetModTime());
        }
    });
    stat->refused(file->Stat(false, stat)); /* from memory, answered before it returns */
    if (version.empty())
        return settle(SAP_EIO, "the server does not say how long the file is");
    std::string where, server;
    file->GetProperty("LastURL", where);
    file->GetProperty("DataServer", server);
    bool changed, asked;
    {
        std::scoped_lock guard(owner->lock, servers().lock);
        changed = owner->known && owner->version != version;
        auto found = servers().limits.find(server);
        asked = found != servers().limits.end();
        if (asked)
            owner->limits = found->second;
        if (!owner->known) {
            owner->known = true;
            owner->size = size;
            owner->version = version;
        }
    }
    if (changed)
        return settle(SAP_EFORMAT, "the file has changed on the server while it was read");
    if (asked)
        return settle(SAP_OK, "");
    auto self = shared_from_this();
    auto system = std::make_shared<XrdCl::FileSystem>(XrdCl::URL(where));
    XrdCl::Buffer question;
    question.FromString("readv_ior_max readv_iov_max");
    answer *handler = new answer([self, system, server](const XrdCl::XRootDStatus &status, XrdCl::AnyObject *response) {
        self->limited(server, status, response);
    });
    handler->refused(system->Query(XrdCl::QueryCode::Config, question, handler));
}

/* A server that does not know a limit repeats its name. */
void session::limited(const std::string &server, const XrdCl::XRootDStatus &said, XrdCl::AnyObject *response) {
    XrdCl::Buffer *text = nullptr;
    if (said.IsOK() && response)
        response->Get(text);
    if (text) {
        sap_request_limits limits = standard_limits;
        unsigned long long range_bytes = 0, ranges = 0;
        if (sscanf(text->ToString().c_str(), "%llu %llu", &range_bytes, &ranges) == 2 && range_bytes && ranges) {
            limits.range_bytes = std::min<size_t>(range_bytes, limits.bytes);
            limits.ranges = std::min<size_t>(ranges, most_ranges);
        }
        std::scoped_lock guard(owner->lock, servers().lock);
        servers().limits[server] = limits;
        owner->limits = limits;
    }
    settle(SAP_OK, "");
}

/* Open, or failed: those who wait learn it. */
void session::settle(sap_status with, const std::string &text) {
    std::vector<sap_request *> ready;
    {
        std::lock_guard<std::mutex> guard(lock);
        now = with == SAP_OK ? phase::open : phase::failed;
        why = with;
        message = text;
        ready.swap(waiting);
    }
    settled.notify_all();
    if (with != SAP_OK)
        leave();
    for (sap_request *request : ready) {
        if (with == SAP_OK)
            send(request);
        else
            request->done(request, with, text.c_str());
    }
}

void session::submit(sap_request *request) {
    {
        std::lock_guard<std::mutex> guard(lock);
        if (now == phase::opening) {
            waiting.push_back(request);
            return;
        }
    }
    if (now == phase::open)
        send(request);
    else
        request->done(request, why, message.c_str());
}

/* Ranges that lie behind each other, in the file and in memory, are one read, which the server answers without copying. */
void session::send(sap_request *request) {
    const sap_range *ranges = request->ranges;
    if (owner->writes)
        return write(request);
    size_t wanted = 0;
    bool together = true;
    XrdCl::ChunkList chunks;
    chunks.reserve(request->count);
    for (size_t i = 0; i < request->count; i++) {
        together = together && ranges[i].offset == ranges[0].offset + wanted &&
                   ranges[i].data == static_cast<char *>(ranges[0].data) + wanted;
        chunks.emplace_back(ranges[i].offset, static_cast<uint32_t>(ranges[i].length), ranges[i].data);
        wanted += ranges[i].length;
    }
    auto self = shared_from_this();
    answer *handler =
        new answer([self, request, wanted, together](const XrdCl::XRootDStatus &said, XrdCl::AnyObject *response) {
            size_t received = 0;
            XrdCl::ChunkInfo *chunk = nullptr;
            XrdCl::VectorReadInfo *vector = nullptr;
            if (said.IsOK() && response && together)
                response->Get(chunk);
            else if (said.IsOK() && response)
                response->Get(vector);
            if (chunk || vector)
                received = chunk ? chunk->length : vector->GetSize();
            self->finish(request, wanted, received, said);
        });
    handler->refused(together ? file->Read(ranges[0].offset, static_cast<uint32_t>(wanted), ranges[0].data, handler)
                              : file->VectorRead(chunks, nullptr, handler));
}

void session::write(sap_request *request) {
    const sap_range &range = request->ranges[0];
    auto self = shared_from_this();
    auto *handler = new answer(
        [self, request](const XrdCl::XRootDStatus &said, XrdCl::AnyObject *) { self->finish(request, 0, 0, said); });
    handler->refused(file->Write(range.offset, static_cast<uint32_t>(range.length), range.data, handler));
}

/* On the server's disk, and closed there. */
void session::sync() {
    auto self = shared_from_this();
    auto *closing = new answer([self](const XrdCl::XRootDStatus &said, XrdCl::AnyObject *) { self->ended(said); });
    auto *syncing = new answer([self, closing](const XrdCl::XRootDStatus &said, XrdCl::AnyObject *) {
        if (said.IsOK() || code_of(said) == SAP_EUNSUPPORTED)
            closing->refused(self->file->Close(closing));
        else
            closing->refused(said);
    });
    syncing->refused(file->Sync(syncing));
}

/* Nothing more goes through it: a further try opens the file again. */
void session::ended(const XrdCl::XRootDStatus &said) {
    leave();
    std::lock_guard<std::mutex> guard(lock);
    now = said.IsOK() ? phase::closed : phase::failed;
    why = said.IsOK() ? SAP_OK : code_of(said);
    message = said.IsOK() ? "" : message_of(said);
    settled.notify_all();
}

void session::finish(sap_request *request, size_t wanted, size_t received, const XrdCl::XRootDStatus &said) {
    if (!said.IsOK()) {
        leave();
        return request->done(request, code_of(said), message_of(said).c_str());
    }
    if (received == wanted)
        return request->done(request, SAP_OK, nullptr);
    leave();
    std::string text = std::to_string(received) + " of " + std::to_string(wanted) + " bytes came";
    request->done(request, SAP_EIO, text.c_str());
}

/* The session that requests go to now, made if there is none. */
std::shared_ptr<session> session_of(const std::shared_ptr<remote_file> &owner) {
    std::lock_guard<std::mutex> guard(owner->lock);
    if (!owner->current) {
        owner->connection = connections;
        /* XrdCl would reopen a file by itself, but without a look at whether it is still the same */
        std::string url =
            owner->url + (owner->url.find('?') == std::string::npos ? '?' : '&') + "xrdcl.recover-reads=false";
        url = url_on(url, owner->connection);
        auto made = std::make_shared<session>(owner);
        run_aside([made, url] { made->open(url); }).detach(); /* XrdCl looks names up before it returns */
        owner->current = made;
    }
    return owner->current;
}

using file_handle = std::shared_ptr<remote_file>;

void xrootd_close(void *state) {
    auto *handle = static_cast<file_handle *>(state);
    std::shared_ptr<session> last;
    {
        std::lock_guard<std::mutex> guard((*handle)->lock);
        last.swap((*handle)->current);
    }
    delete handle;
}

/* Waits while the session is in that phase. */
sap_status leave_phase(session &of, session::phase phase, const sap_access_settings *settings, const sap_run *run,
                       const char *url, sap_error *err) {
    std::unique_lock<std::mutex> lock(of.lock);
    SAP_TRY(wait_for(
        lock, of.settled, [&] { return of.now != phase; }, settings, run, url, err));
    return of.why == SAP_OK ? SAP_OK : fail(err, of.why, url, of.message);
}

sap_status open_handle(std::unique_ptr<file_handle> handle, const sap_access_settings *settings, const sap_run *run,
                       void **state, sap_error *err) {
    const std::string url = (*handle)->url;
    std::shared_ptr<session> first = session_of(*handle);
    sap_status status = leave_phase(*first, session::phase::opening, settings, run, url.c_str(), err);
    if (status == SAP_OK)
        *state = handle.release();
    else
        xrootd_close(handle.release());
    return status;
}

sap_status xrootd_open(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                       uint64_t *size, char **version, sap_error *err) {
    return guarded(url, err, [&] {
        prepare_client();
        auto handle = std::make_unique<file_handle>(std::make_shared<remote_file>());
        file_handle file = *handle;
        file->url = url;
        SAP_TRY(open_handle(std::move(handle), settings, run, state, err));
        *size = file->size;
        *version = strdup(file->version.c_str());
        return SAP_OK;
    });
}

sap_status xrootd_create(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                         sap_error *err) {
    return guarded(url, err, [&] {
        prepare_client();
        auto handle = std::make_unique<file_handle>(std::make_shared<remote_file>());
        (*handle)->url = url;
        (*handle)->writes = true;
        return open_handle(std::move(handle), settings, run, state, err);
    });
}

sap_status xrootd_finish(void *state, const char *name, const sap_access_settings *settings, const sap_run *run,
                         sap_error *err) {
    return guarded(name, err, [&] {
        std::shared_ptr<session> last = session_of(*static_cast<file_handle *>(state));
        SAP_TRY(leave_phase(*last, session::phase::opening, settings, run, name, err));
        last->sync();
        return leave_phase(*last, session::phase::open, settings, run, name, err);
    });
}

void xrootd_discard(void *state) {
    const std::string url = (*static_cast<file_handle *>(state))->url;
    xrootd_close(state);
    remove_later(url);
}

void xrootd_submit(void *state, sap_request *request) {
    sap_error error = {};
    sap_status status = guarded("request", &error, [&] {
        session_of(*static_cast<file_handle *>(state))->submit(request);
        return SAP_OK;
    });
    if (status != SAP_OK)
        request->done(request, status, error.message);
}

void xrootd_limits(void *state, sap_request_limits *out) {
    remote_file &file = **static_cast<file_handle *>(state);
    std::lock_guard<std::mutex> guard(file.lock);
    *out = file.limits;
}

void xrootd_reset(void *state) {
    remote_file &file = **static_cast<file_handle *>(state);
    std::shared_ptr<session> last;
    std::lock_guard<std::mutex> guard(file.lock);
    unsigned dead = file.connection;
    connections.compare_exchange_strong(dead, dead + 1); /* unless another file on it was first */
    last.swap(file.current);
}

} // namespace

extern "C" {
extern SAP_API const sap_transport sap_plugin_xrootd;
const sap_transport sap_plugin_xrootd = {.open = xrootd_open,
                                         .close = xrootd_close,
                                         .read = nullptr,
                                         .map = nullptr,
                                         .submit = xrootd_submit,
                                         .limits = xrootd_limits,
                                         .reset = xrootd_reset,
                                         .list = list_folder,
                                         .stat = find_info,
                                         .rename = rename_file,
                                         .remove = remove_file,
                                         .remove_tree = nullptr,
                                         .make_folder = make_folder,
                                         .create = xrootd_create,
                                         .append = nullptr,
                                         .finish = xrootd_finish,
                                         .discard = xrootd_discard};
}
