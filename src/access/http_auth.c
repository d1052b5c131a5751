/* Credentials for web servers, found where grid and cloud tools look for them: netrc, WLCG bearer tokens, X.509 proxies, keys
 * of S3. Tokens and certificates go over https only, but for a token that was set for us by name (SAPWOOD_HTTP_BEARER). */
#include "http_auth.h"

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

enum { LONGEST_TOKEN = 65536 };

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* ---- S3 ----------------------------------------------------------------------------------------------------------------- */

static const char *region(void) {
    const char *name = setting("AWS_REGION");
    name = name ? name : setting("AWS_DEFAULT_REGION");
    return name ? name : "us-east-1";
}

static void add_encoded(sap_text *out, const char *key) {
    for (; *key; key++) {
        if (isalnum((unsigned char)*key) || strchr("-._~/", *key))
            sap_text_add(out, "%c", *key);
        else
            sap_text_add(out, "%%%02X", (unsigned)(unsigned char)*key);
    }
}

/* s3://bucket/key: below AWS_ENDPOINT_URL, else at Amazon's. */
static sap_status s3_target(const char *name, sap_text *out, sap_error *err) {
    const char *bucket = name + 5, *key = strchr(bucket, '/');
    int length = key ? (int)(key - bucket) : 0;
    if (length == 0 || !key[1])
        return sap_error_set(err, SAP_EARGUMENT, "%s: expected s3://bucket/key", name);
    const char *endpoint = setting("AWS_ENDPOINT_URL_S3");
    endpoint = endpoint ? endpoint : setting("AWS_ENDPOINT_URL");
    if (endpoint) {
        size_t end = strlen(endpoint);
        end -= endpoint[end - 1] == '/';
        sap_text_add(out, "%.*s/%.*s", (int)end, endpoint, length, bucket);
    } else if (memchr(bucket, '.', (size_t)length)) { /* a certificate's star covers no dot */
        sap_text_add(out, "https://s3.%s.amazonaws.com/%.*s", region(), length, bucket);
    } else {
        sap_text_add(out, "https://%.*s.s3.%s.amazonaws.com", length, bucket, region());
    }
    add_encoded(out, key);
    return SAP_OK;
}

/* ---- Names ---------------------------------------------------------------------------------------------------------------- */

static bool is_s3(const char *name) {
    return strncmp(name, "s3://", 5) == 0;
}

sap_status sap_http_target(const char *name, sap_arena *arena, const char **url, sap_error *err) {
    sap_text text = {0};
    sap_status status = SAP_OK;
    if (is_s3(name))
        status = s3_target(name, &text, err);
    else /* dav(s) is http(s) with more verbs */
        sap_text_add(&text, "%s%s", strncmp(name, "dav", 3) == 0 ? "http" : "",
                     strncmp(name, "dav", 3) == 0 ? name + 3 : name);
    *url = text.data && !text.failed ? sap_arena_text(arena, text.data, text.length) : NULL;
    if (status == SAP_OK && !*url)
        status = sap_error_memory(err, name);
    sap_text_release(&text);
    return status;
}

/* ---- What the environment says ---------------------------------------------------------------------------------------------- */

/* In the arena; NULL for NULL, and then nothing is missing. */
static const char *keep(sap_arena *arena, const char *text, bool *well) {
    const char *copy = text ? sap_arena_text(arena, text, strlen(text)) : NULL;
    *well = *well && (copy || !text);
    return copy;
}

static bool identify_for_s3(sap_arena *arena, sap_http_identity *out) {
    const char *id = setting("AWS_ACCESS_KEY_ID"), *secret = setting("AWS_SECRET_ACCESS_KEY");
    const char *session = setting("AWS_SESSION_TOKEN");
    if (!id || !secret) /* public buckets want no name */
        return true;
    out->s3_provider = sap_arena_format(arena, "aws:amz:%s:s3", region());
    out->s3_keys = sap_arena_format(arena, "%s:%s", id, secret);
    out->s3_session = session ? sap_arena_format(arena, "x-amz-security-token: %s", session) : NULL;
    return out->s3_provider && out->s3_keys && (out->s3_session || !session);
}

/* The order of WLCG Bearer Token Discovery: the token, a file that is named, files at known places. */
static bool identify_by_token(sap_arena *arena, sap_http_identity *out) {
    bool well = true;
    const char *named = setting("BEARER_TOKEN_FILE"), *runtime = setting("XDG_RUNTIME_DIR");
    out->token = keep(arena, setting("SAPWOOD_HTTP_BEARER"), &well);
    out->anywhere = out->token != NULL;
    if (!out->token)
        out->token = keep(arena, setting("BEARER_TOKEN"), &well);
    size_t n = 0;
    if (named) {
        out->token_files[n++] = keep(arena, named, &well);
        return well;
    }
    if (runtime)
        out->token_files[n++] = sap_arena_format(arena, "%s/bt_u%lu", runtime, (unsigned long)geteuid());
    out->token_files[n++] = sap_arena_format(arena, "/tmp/bt_u%lu", (unsigned long)geteuid());
    return well && out->token_files[0] && out->token_files[n - 1];
}

static bool identify_by_certificate(sap_arena *arena, sap_http_identity *out) {
    static const char grid[] = "/etc/grid-security/certificates";
    bool well = true;
    const char *proxy = setting("X509_USER_PROXY"), *folder = setting("X509_CERT_DIR"),
               *bundle = setting("CURL_CA_BUNDLE");
    out->certificate = keep(arena, proxy ? proxy : setting("X509_USER_CERT"), &well);
    out->key = keep(arena, proxy ? proxy : setting("X509_USER_KEY"), &well);
    if (!out->certificate) {
        const char *usual = sap_arena_format(arena, "/tmp/x509up_u%lu", (unsigned long)geteuid());
        if (usual && access(usual, R_OK) == 0)
            out->certificate = out->key = usual;
    }
    out->key = out->key ? out->key : out->certificate;
    out->authorities = keep(arena, folder ? folder : access(grid, R_OK) == 0 ? grid : NULL, &well);
    out->bundle = keep(arena, bundle ? bundle : setting("SSL_CERT_FILE"), &well);
    return well;
}

sap_status sap_http_identify(const char *name, sap_arena *arena, sap_http_identity *out, sap_error *err) {
    *out = (sap_http_identity){0};
    bool well = identify_by_certificate(arena, out) &&
                (is_s3(name) ? identify_for_s3(arena, out) : identify_by_token(arena, out));
    return well ? SAP_OK : sap_error_memory(err, name);
}

/* ---- On a transfer ------------------------------------------------------------------------------------------------------------ */

/* The token in the first file that there is, malloc'ed; NULL: none. */
static char *load_token(const sap_http_identity *who) {
    char *text = NULL;
    for (size_t i = 0; i < 3 && who->token_files[i] && !text; i++) {
        if (sap_file_load(who->token_files[i], LONGEST_TOKEN, &text, NULL, NULL) != SAP_OK)
            text = NULL;
    }
    if (text) {
        char *begin = text + strspn(text, " \t\r\n");
        begin[strcspn(begin, " \t\r\n")] = '\0';
        memmove(text, begin, strlen(begin) + 1);
    }
    return text;
}

static bool sign_for_s3(CURL *easy, const sap_http_identity *who, struct curl_slist **headers) {
    /* the SHA-256 of an empty body: a GET has none */
    *headers = curl_slist_append(NULL, "x-amz-content-sha256: "
                                       "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    if (!*headers || (who->s3_session && !curl_slist_append(*headers, who->s3_session)))
        return false;
    return curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, who->s3_provider) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_USERPWD, who->s3_keys) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *headers) == CURLE_OK;
}

static bool set_token(CURL *easy, const char *token) {
    return curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER) == CURLE_OK &&
           curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, token) == CURLE_OK;
}

/* NULL leaves the library's own in place. */
static bool set_text(CURL *easy, CURLoption option, const char *text) {
    return !text || curl_easy_setopt(easy, option, text) == CURLE_OK;
}

bool sap_http_authenticate(CURL *easy, const sap_http_identity *who, const char *url, struct curl_slist **headers) {
    const bool secure = strncasecmp(url, "https:", 6) == 0;
    if (secure && !(set_text(easy, CURLOPT_SSLCERT, who->certificate) && set_text(easy, CURLOPT_SSLKEY, who->key) &&
                    set_text(easy, CURLOPT_CAPATH, who->authorities) && set_text(easy, CURLOPT_CAINFO, who->bundle)))
        return false;
    if (who->s3_keys)
        return sign_for_s3(easy, who, headers);
    if (who->token && (secure || who->anywhere))
        return set_token(easy, who->token);
    char *token = secure ? load_token(who) : NULL;
    bool well = token && *token ? set_token(easy, token)
                                : curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_OPTIONAL) == CURLE_OK;
    free(token);
    return well;
}
