/* What a test server takes for a valid token, in the place of a library that asks the issuer: the one text "valid" as its
 * payload. The interface is that of XRootD's "ztn" protocol, whose header Debian does not ship. */
#include <string>
#include <vector>

class XrdSecEntity;

class XrdSciTokensHelper {
  public:
    struct ValidIssuer {
        std::string issuer_name, issuer_url;
    };
    virtual std::vector<ValidIssuer> IssuerList() = 0;
    virtual bool Validate(const char *token, std::string &reason, long long *expires, XrdSecEntity *who) = 0;
    virtual ~XrdSciTokensHelper() = default;
};

namespace {

class one_token final : public XrdSciTokensHelper {
  public:
    std::vector<ValidIssuer> IssuerList() override {
        return {{"test", "https://localhost"}};
    }
    bool Validate(const char *token, std::string &reason, long long *expires, XrdSecEntity *) override {
        reason = "this token is not valid";
        if (expires)
            *expires = 4102444800; /* the year 2100 */
        const std::string text = token;
        return text.find(".valid.") != std::string::npos;
    }
};

one_token the_one;

} // namespace

extern "C" {
extern __attribute__((visibility("default"))) XrdSciTokensHelper *SciTokensHelper;
XrdSciTokensHelper *SciTokensHelper = &the_one;
}
