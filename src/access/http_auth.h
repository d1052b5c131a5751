/* Who we are to a web server: tokens, certificates, keys of S3; and what URL an s3:// name stands for. */
#ifndef SAP_HTTP_AUTH_H
#define SAP_HTTP_AUTH_H

#include "access_internal.h"

#include <curl/curl.h>

/* Read from the environment when a file is opened; kept in its arena. NULL: not there. */
typedef struct sap_http_identity {
    bool anywhere; /* the token may go over plain http too */
    const char *token;
    const char *token_files[3]; /* tried in this order for each request, since tokens are renewed */
    const char *certificate, *key, *authorities, *bundle;
    const char *s3_provider, *s3_keys, *s3_session;
} sap_http_identity;

/* The http(s) URL of a name (http, https, dav, davs, s3), in the arena. */
SAP_MUST_CHECK sap_status sap_http_target(const char *name, sap_arena *arena, const char **url, sap_error *err);
SAP_MUST_CHECK sap_status sap_http_identify(const char *name, sap_arena *arena, sap_http_identity *out, sap_error *err);
/* Sets it on a transfer that goes to `url`. *headers: to be freed with the transfer. */
SAP_MUST_CHECK bool sap_http_authenticate(CURL *easy, const sap_http_identity *who, const char *url,
                                          struct curl_slist **headers);

#endif
