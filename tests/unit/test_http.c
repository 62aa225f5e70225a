/* SPDX-License-Identifier: MIT */
/* Heads of requests. The server around them is in integration/test_metrics. */
#include "http.h"

#include "support/check.h"

TEST(http, what_is_asked_for) {
        struct http_request r;
        check_eq(http_parse("GET /metrics HTTP/1.1\r\nHost: x\r\n", &r), 0);
        check_str(r.method, "GET");
        check_str(r.path, "/metrics");
        check(!r.openmetrics);
        check_eq(http_parse("HEAD /healthz?verbose=1 HTTP/1.0\r\n", &r), 0);
        check_str(r.method, "HEAD");
        check_str(r.path, "/healthz");
}

TEST(http, openmetrics_is_for_those_who_accept_it) {
        struct http_request r;
        check_eq(http_parse(
                         "GET / HTTP/1.1\r\nhost: x\r\nACCEPT: text/plain;q=0.5, Application/OpenMetrics-Text;q=1\r\n",
                         &r),
                 0);
        check(r.openmetrics);
        check_eq(http_parse("GET / HTTP/1.1\r\nAccept: text/plain\r\nX: application/openmetrics-text\r\n", &r), 0);
        check(!r.openmetrics);
}

TEST(http, what_is_no_request_is_refused) {
        static const char *const bad[] = {"",
                                          "GET",
                                          "GET ",
                                          "GET /",
                                          "GET / ",
                                          "GET /x HTTP/2\r\n",
                                          " / HTTP/1.1\r\n",
                                          "GET http://x/ HTTP/1.1\r\n",
                                          "GET\r\n / HTTP/1.1\r\n",
                                          "\r\n",
                                          "\x16\x03\x01"};
        struct http_request r;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                check_msg(http_parse(bad[i], &r) == 400, "%zu: %s", i, bad[i]);
        check_eq(http_parse("POST / HTTP/1.1\r\n", &r), 405);
        check_eq(http_parse("GETTTTTTTTTTTT / HTTP/1.1\r\n", &r), 405);
}

TEST(http, a_path_longer_than_ours_is_refused) {
        char head[256];
        struct http_request r;
        snprintf(head, sizeof(head), "GET /%0100d HTTP/1.1\r\n", 0);
        check_eq(http_parse(head, &r), 414);
}
