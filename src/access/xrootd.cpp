/* The XRootD plug-in: a thin layer over XrdCl, the official client. What it adds: nothing here waits for a server without a
 * deadline, a file is opened anew after any failure, and a file that changed on the server meanwhile is not read on. No
 * exception leaves. */
extern "C" {
#include "access_internal.h"
}

#include <XrdCl/XrdClDefaultEnv.hh>
#include <XrdCl/XrdClFile.hh>
#include <XrdCl/XrdClFileSystem.hh>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/prctl.h>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

/* ---- XrdCl ------------------------------------------------------------------------------------------------- */

/* The client's own times let a dead server hold a process for minutes. Retrying is the caller's business, who knows how long
 * it may take; so the client tries a connection once. Names as in XRD_CONNECTIONWINDOW…, which win when they are set. */
struct client_setting {
    const char *name;
    int value;
};
constexpr client_setting client_settings[] = {
    {"TimeoutResolution", 1}, /* seconds between looks at the clock */
    {"ConnectionWindow", 10}, /* seconds for a connection, login and all */
    {"ConnectionRetry", 1},   /* attempts */
    {"StreamErrorWindow", 0}, /* seconds in which a server that failed is not tried again */
    {"RequestTimeout", 60},   /* seconds until a request is answered with an error */
    {"StreamTimeout", 30},    /* seconds without a byte, requests waiting, until a connection counts as dead */
    {"RunForkHandler", 1},    /* the client's threads start again in a child */
};

/* Servers refuse vector reads beyond these, which are what all of them allow if they do not say otherwise. */
constexpr sap_request_limits standard_limits = {1024, 2097136, 0x40000000};
constexpr size_t most_ranges = 1 << 16; /* whatever a server says */

/* Runs `body` on a thread of its own, which takes none of the program's signals, and has the name that a fork waits for. XrdCl's
 * threads have both from the thread that starts them. */
template <typename Body> std::thread run_aside(Body body) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread aside;
    try {
        aside = std::thread([body = std::move(body)] {
            (void)prctl(PR_SET_NAME, SAP_PLUGIN_THREAD);
            body();
        });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return aside;
}

void prepare_client() {
    static std::once_flag once;
    std::call_once(once, [] {
        XrdCl::Env *env = XrdCl::DefaultEnv::GetEnv();
        for (const client_setting &setting : client_settings)
            env->PutInt(setting.name, setting.value);
        run_aside([] { XrdCl::DefaultEnv::GetPostMaster(); }).join();
    });
}

/* Calls a function with the answer, once. A call that XrdCl refuses it never answers: then `refused` does. */
class answer final : public XrdCl::ResponseHandler {
  public:
    using function = std::function<void(const XrdCl::XRootDStatus &, XrdCl::AnyObject *)>;
    explicit answer(function f) : on_answer(std::move(f)) {
    }

    void HandleResponse(XrdCl::XRootDStatus *status, XrdCl::AnyObject *response) override {
        std::unique_ptr<XrdCl::XRootDStatus> own_status(status);
        std::unique_ptr<XrdCl::AnyObject> own_response(response);
        std::unique_ptr<answer> self(this);
        try {
            on_answer(*status, response);
        } catch (...) { /* out of memory: whoever waits gives up at his deadline */
        }
    }
    void refused(const XrdCl::XRootDStatus &status) {
        if (!status.IsOK())
            HandleResponse(new XrdCl::XRootDStatus(status), nullptr);
    }

  private:
    function on_answer;
};

/* What went wrong, for people: without XrdCl's brackets and line ends. */
std::string message_of(const XrdCl::XRootDStatus &status) {
    std::string text = status.code == XrdCl::errErrorResponse ? status.GetErrorMessage() : status.ToStr();
    if (text.compare(0, 1, "[") == 0 && text.find("] ") != std::string::npos)
        text.erase(0, text.find("] ") + 2);
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\0'))
        text.pop_back();
    return text.empty() ? "unknown failure" : text;
}

/* Only SAP_EIO is worth another try. */
sap_status code_of(const XrdCl::XRootDStatus &status) {
    switch (status.code) {
    case XrdCl::errErrorResponse:
        switch (status.errNo) {
        case kXR_NotFound:
            return SAP_ENOTFOUND;
        case kXR_isDirectory:
        case kXR_NotFile:
        case kXR_ArgInvalid:
        case kXR_ArgMissing:
        case kXR_ArgTooLong:
        case kXR_NotAuthorized:
        case kXR_AuthFailed:
        case kXR_TLSRequired:
            return SAP_EARGUMENT;
        case kXR_InvalidRequest:
        case kXR_Unsupported:
            return SAP_EUNSUPPORTED;
        default:
            return SAP_EIO;
        }
    case XrdCl::errInvalidArgs:
    case XrdCl::errAuthFailed:
        return SAP_EARGUMENT;
    case XrdCl::errNotSupported:
    case XrdCl::errNotImplemented:
        return SAP_EUNSUPPORTED;
    default:
        return SAP_EIO;
    }
}

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

/* XrdCl shares one connection between all files of a server, unless their URLs differ in xrdcl.intent. One that does not
 * answer is left to its time-out by counting this up. */
std::atomic<unsigned> connections{0};

/* What `sap_source` holds, and all its sessions. */
struct remote_file {
    std::string url;
    std::mutex lock; /* of what follows */
    std::shared_ptr<session> current;
    unsigned connection = 0; /* number of the connection that it is read on */
    sap_request_limits limits = standard_limits;
    bool known = false; /* size and version are those of the first session */
    uint64_t size = 0;
    std::string version;

    bool is_known() {
        std::lock_guard<std::mutex> guard(lock);
        return known;
    }
};

/* A file that is open on one connection, or about to be. It lives as long as requests on it do. */
struct session : std::enable_shared_from_this<session> {
    enum class phase { opening, open, failed };

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
    handler->refused(file->Open(url, XrdCl::OpenFlags::Read, XrdCl::Access::None, handler));
}

/* Takes what the server said about the file, and asks for its limits if it is new. */
void session::opened(const XrdCl::XRootDStatus &said) {
    if (!said.IsOK()) {
        sap_status code = code_of(said);
        if (code == SAP_ENOTFOUND &&
            owner->is_known()) /* redirectors forget the files of a server that is just starting */
            code = SAP_EIO;
        return settle(code, message_of(said));
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
        if (owner->connection)
            url += "&xrdcl.intent=sapwood" + std::to_string(owner->connection);
        auto made = std::make_shared<session>(owner);
        run_aside([made, url] { made->open(url); }).detach(); /* XrdCl looks names up before it returns */
        owner->current = made;
    }
    return owner->current;
}

/* ---- The table ------------------------------------------------------------------------------------------------ */

sap_status fail(sap_error *err, sap_status status, const char *url, const std::string &what) {
    if (err) {
        err->status = status;
        (void)snprintf(err->message, sizeof err->message, "%s: %s", url, what.c_str());
    }
    return status;
}

/* Waits until is_over(), with `lock` held, or not any longer. */
template <typename IsOver>
sap_status wait_for(std::unique_lock<std::mutex> &lock, std::condition_variable &changed, IsOver is_over,
                    const sap_access_settings *settings, const sap_run *run, const char *url, sap_error *err) {
    auto end = Clock::now() + std::chrono::duration<double>(settings->connect_seconds);
    while (!is_over()) {
        if (run && run->cancel && *run->cancel)
            return fail(err, SAP_ECANCELLED, url, "interrupted");
        if (Clock::now() >= end) {
            char text[80];
            (void)snprintf(text, sizeof text, "no answer from the server for %g seconds", settings->connect_seconds);
            return fail(err, SAP_EIO, url, text);
        }
        changed.wait_for(lock, std::chrono::milliseconds(100));
    }
    return SAP_OK;
}

/* Runs `body` and turns whatever it throws into an error. */
template <typename Body> sap_status guarded(const char *url, sap_error *err, Body body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return fail(err, SAP_EMEMORY, url, "out of memory");
    } catch (const std::exception &e) {
        return fail(err, SAP_EIO, url, e.what());
    } catch (...) {
        return fail(err, SAP_EIO, url, "unknown failure of the XRootD client");
    }
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

sap_status xrootd_open(const char *url, const sap_access_settings *settings, const sap_run *run, void **state,
                       uint64_t *size, char **version, sap_error *err) {
    return guarded(url, err, [&] {
        prepare_client();
        auto handle = std::make_unique<file_handle>(std::make_shared<remote_file>());
        (*handle)->url = url;
        std::shared_ptr<session> first = session_of(*handle);
        sap_status status;
        {
            std::unique_lock<std::mutex> lock(first->lock);
            auto is_over = [&] { return first->now != session::phase::opening; };
            status = wait_for(lock, first->settled, is_over, settings, run, url, err);
            if (status == SAP_OK && first->why != SAP_OK)
                status = fail(err, first->why, url, first->message);
        }
        if (status == SAP_OK) {
            *size = (*handle)->size;
            *version = strdup((*handle)->version.c_str());
            *state = handle.release();
            return SAP_OK;
        }
        xrootd_close(handle.release());
        return status;
    });
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

/* What a listing leaves behind, for whoever still waits. */
struct listing {
    std::mutex lock;
    std::condition_variable changed;
    bool over = false;
    XrdCl::XRootDStatus status;
    std::string names; /* each with its NUL */
};

/* A redirector's data servers are asked, each for its part. A name with a slash in it could lead anywhere. */
void list_folder(const std::string &where, listing &into) {
    XrdCl::URL url(where);
    XrdCl::FileSystem system(url);
    XrdCl::DirectoryList *found = nullptr;
    using Flags = XrdCl::DirListFlags;
    XrdCl::XRootDStatus status =
        system.DirList(url.GetPathWithParams(), Flags::Stat | Flags::Locate | Flags::Merge, found);
    std::unique_ptr<XrdCl::DirectoryList> own(found);
    std::string names;
    if (status.IsOK() && found) {
        for (auto entry = found->Begin(); entry != found->End(); ++entry) {
            const std::string &name = (*entry)->GetName();
            if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
                continue;
            names += name;
            if ((*entry)->GetStatInfo() && (*entry)->GetStatInfo()->TestFlags(XrdCl::StatInfo::IsDir))
                names += '/';
            names += '\0';
        }
    }
    std::lock_guard<std::mutex> guard(into.lock);
    into.status = status;
    into.names.swap(names);
    into.over = true;
    into.changed.notify_all();
}

sap_status xrootd_list(const char *url, const sap_access_settings *settings, const sap_run *run, char **names,
                       sap_error *err) {
    return guarded(url, err, [&] {
        prepare_client();
        auto shared = std::make_shared<listing>();
        run_aside([shared, where = std::string(url)] { list_folder(where, *shared); }).detach();
        std::unique_lock<std::mutex> lock(shared->lock);
        auto is_over = [&] { return shared->over; };
        SAP_TRY(wait_for(lock, shared->changed, is_over, settings, run, url, err));
        if (!shared->status.IsOK())
            return fail(err, code_of(shared->status), url, message_of(shared->status));
        *names = static_cast<char *>(malloc(shared->names.size() + 1));
        if (!*names)
            return fail(err, SAP_EMEMORY, url, "out of memory");
        memcpy(*names, shared->names.c_str(), shared->names.size() + 1);
        return SAP_OK;
    });
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
                                         .list = xrootd_list};
}
