/* What the files of the XRootD plug-in share: XrdCl with times that end, its answers as functions, its failures as ours. */
#ifndef XROOTD_CLIENT_H
#define XROOTD_CLIENT_H

extern "C" {
#include "access_internal.h"
}

#include <XrdCl/XrdClFile.hh>
#include <XrdCl/XrdClFileSystem.hh>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <sys/prctl.h>
#include <thread>
#include <vector>

namespace xrootd {

using Clock = std::chrono::steady_clock;

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

/* Before anything else of XrdCl is used. */
void prepare_client();

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
std::string message_of(const XrdCl::XRootDStatus &status);
/* Only SAP_EIO is worth another try. */
sap_status code_of(const XrdCl::XRootDStatus &status);
/* The same when names change: what the server's file system says then (not empty, not a folder, read-only) it will say again. */
sap_status refusal_of(const XrdCl::XRootDStatus &status);
sap_status fail(sap_error *err, sap_status status, const char *url, const std::string &what);

/* XrdCl shares one connection between all files of a server, unless their URLs differ in xrdcl.intent. One that does not
 * answer is left to its time-out by counting this up. */
extern std::atomic<unsigned> connections;
/* The URL on a connection of that number. */
std::string url_on(const std::string &url, unsigned connection);

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

/* ---- Names (xrootd_names.cpp): the transport's functions -------------------------------------------------------- */

sap_status list_folder(const char *url, const sap_access_settings *settings, const sap_run *run, sap_list_step step,
                       void *context, sap_error *err);
sap_status find_info(const char *url, const sap_access_settings *settings, const sap_run *run, sap_file_info *out,
                     sap_error *err);
sap_status rename_file(const char *from, const char *to, bool replace, const sap_access_settings *settings,
                       const sap_run *run, sap_error *err);
sap_status remove_file(const char *url, bool is_folder, const sap_access_settings *settings, const sap_run *run,
                       sap_error *err);
sap_status make_folder(const char *url, const sap_access_settings *settings, const sap_run *run, sap_error *err);
/* Does not wait for the answer. */
void remove_later(const std::string &url);

} // namespace xrootd

#endif
