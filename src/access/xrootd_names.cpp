/* Files and folders of an XRootD server by name: XrdCl's blocking calls, each on a thread that is waited for only so long. */
#include "xrootd_client.h"

namespace xrootd {

namespace {

/* A call and its result, which outlive whoever gave up waiting. */
template <typename Result> struct call {
    std::mutex lock;
    std::condition_variable changed;
    bool over = false;
    XrdCl::XRootDStatus status;
    Result result{};
};

/* Asks the server of `url`: body(file system, result) gives a status. A connection that did not answer is not used again. */
template <typename Result, typename Body>
sap_status ask(const char *url, const sap_access_settings *settings, const sap_run *run, Result &result, sap_error *err,
               Body body) {
    return guarded(url, err, [&] {
        prepare_client();
        unsigned number = connections;
        auto shared = std::make_shared<call<Result>>();
        run_aside([shared, body, where = url_on(url, number)] {
            XrdCl::FileSystem system{XrdCl::URL(where)};
            Result found{};
            XrdCl::XRootDStatus status = body(system, found);
            std::lock_guard<std::mutex> guard(shared->lock);
            shared->status = status;
            shared->result = std::move(found);
            shared->over = true;
            shared->changed.notify_all();
        }).detach();
        std::unique_lock<std::mutex> lock(shared->lock);
        sap_status status = wait_for(
            lock, shared->changed, [&] { return shared->over; }, settings, run, url, err);
        if (status == SAP_EIO)
            connections.compare_exchange_strong(number, number + 1);
        SAP_TRY(status);
        if (!shared->status.IsOK())
            return fail(err, refusal_of(shared->status), url, message_of(shared->status));
        result = std::move(shared->result);
        return SAP_OK;
    });
}

struct nothing {};

/* What a server takes as a name. */
std::string path_of(const char *url) {
    return XrdCl::URL(url).GetPathWithParams();
}

struct entry {
    std::string name;
    sap_file_info info;
};

sap_file_info info_of(const XrdCl::StatInfo *info) {
    sap_file_info out = {};
    if (info) {
        out.size = info->GetSize();
        out.modified = static_cast<int64_t>(info->GetModTime());
        out.is_folder = info->TestFlags(XrdCl::StatInfo::IsDir);
    }
    return out;
}

} // namespace

/* A redirector's data servers are asked, each for its part. A name with a slash in it could lead anywhere. */
sap_status list_folder(const char *url, const sap_access_settings *settings, const sap_run *run, sap_list_step step,
                       void *context, sap_error *err) {
    std::vector<entry> entries;
    auto body = [path = path_of(url)](XrdCl::FileSystem &system, std::vector<entry> &out) {
        using Flags = XrdCl::DirListFlags;
        XrdCl::DirectoryList *found = nullptr;
        XrdCl::XRootDStatus status = system.DirList(path, Flags::Stat | Flags::Locate | Flags::Merge, found);
        std::unique_ptr<XrdCl::DirectoryList> own(found);
        for (auto at = found ? found->Begin() : XrdCl::DirectoryList::Iterator(); found && at != found->End(); ++at) {
            const std::string &name = (*at)->GetName();
            if (!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos)
                out.push_back({name, info_of((*at)->GetStatInfo())});
        }
        return status;
    };
    SAP_TRY(ask(url, settings, run, entries, err, body));
    for (entry &one : entries) {
        one.info.name = one.name.c_str();
        SAP_TRY(step(context, &one.info, err));
    }
    return SAP_OK;
}

sap_status find_info(const char *url, const sap_access_settings *settings, const sap_run *run, sap_file_info *out,
                     sap_error *err) {
    return ask(url, settings, run, *out, err, [path = path_of(url)](XrdCl::FileSystem &system, sap_file_info &info) {
        XrdCl::StatInfo *found = nullptr;
        XrdCl::XRootDStatus status = system.Stat(path, found);
        std::unique_ptr<XrdCl::StatInfo> own(found);
        info = info_of(found);
        return status;
    });
}

/* Some servers replace a file, others do not: `replace` is left to the caller. */
sap_status rename_file(const char *from, const char *to, bool, const sap_access_settings *settings, const sap_run *run,
                       sap_error *err) {
    nothing none;
    return ask(from, settings, run, none, err,
               [old = path_of(from), fresh = path_of(to)](XrdCl::FileSystem &system, nothing &) {
                   return system.Mv(old, fresh);
               });
}

sap_status remove_file(const char *url, bool is_folder, const sap_access_settings *settings, const sap_run *run,
                       sap_error *err) {
    nothing none;
    return ask(url, settings, run, none, err, [path = path_of(url), is_folder](XrdCl::FileSystem &system, nothing &) {
        return is_folder ? system.RmDir(path) : system.Rm(path);
    });
}

sap_status make_folder(const char *url, const sap_access_settings *settings, const sap_run *run, sap_error *err) {
    nothing none;
    return ask(url, settings, run, none, err, [path = path_of(url)](XrdCl::FileSystem &system, nothing &) {
        using Access = XrdCl::Access;
        return system.MkDir(path, XrdCl::MkDirFlags::MakePath,
                            Access::UR | Access::UW | Access::UX | Access::GR | Access::GX | Access::OR | Access::OX);
    });
}

void remove_later(const std::string &url) {
    (void)guarded(url.c_str(), nullptr, [&] {
        run_aside([where = url_on(url, connections),
                   path = path_of(url.c_str())] { /* names are looked up here */
                                                  auto system = std::make_shared<XrdCl::FileSystem>(XrdCl::URL(where));
                                                  auto *handler = new answer(
                                                      [system](const XrdCl::XRootDStatus &, XrdCl::AnyObject *) {});
                                                  handler->refused(system->Rm(path, handler));
        })
            .detach();
        return SAP_OK;
    });
}

} // namespace xrootd
