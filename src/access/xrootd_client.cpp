/* XrdCl as this plug-in uses it: its times set once, its failures told in our words. */
#include "xrootd_client.h"

#include <XrdCl/XrdClDefaultEnv.hh>

namespace xrootd {

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

void prepare_client() {
    static std::once_flag once;
    std::call_once(once, [] {
        XrdCl::Env *env = XrdCl::DefaultEnv::GetEnv();
        for (const client_setting &setting : client_settings)
            env->PutInt(setting.name, setting.value);
        run_aside([] { XrdCl::DefaultEnv::GetPostMaster(); }).join();
    });
}

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
        case kXR_ItExists:
        case kXR_fsReadOnly:
        case kXR_NoSpace:
        case kXR_overQuota:
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

sap_status refusal_of(const XrdCl::XRootDStatus &status) {
    const bool refused = status.code == XrdCl::errErrorResponse && status.errNo == kXR_FSError;
    return refused ? SAP_EARGUMENT : code_of(status);
}

sap_status fail(sap_error *err, sap_status status, const char *url, const std::string &what) {
    if (err) {
        err->status = status;
        (void)snprintf(err->message, sizeof err->message, "%s: %s", url, what.c_str());
    }
    return status;
}

std::atomic<unsigned> connections{0};

std::string url_on(const std::string &url, unsigned connection) {
    if (!connection)
        return url;
    return url + (url.find('?') == std::string::npos ? '?' : '&') + "xrdcl.intent=sapwood" + std::to_string(connection);
}

} // namespace xrootd
