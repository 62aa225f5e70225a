/* SPDX-License-Identifier: MIT */
/*
 * The schema of the configuration: every key is declared here, once. The model's structs (config.h), the parser and its
 * messages, the environment, --set, --print-config, --help-config, the diff and the manual are made from it by X-macros.
 *
 *      X(name, type, min, max, default, unit, alias, reload, help)
 *
 * name     as in the file; `LESSOR_REDIS_<NAME>` in the environment for a database's key, `LESSOR_<NAME>` for the broker's;
 *          the field of the model has the same name (durations with _ns after it)
 * type     COUNT, BOOL, DURATION (ns), SIZE (bytes), MODE (octal), NAME, TEXT, HOST, PATH, SECRET, GROUP, HANDOVER,
 *          ROUTE, LOG_LEVEL, ALLOW
 * min, max the range of a number, in ns for durations; the longest text for texts
 * default  as one would write it in the file; NULL: none, the help says what that means
 * unit     of a plain number, "" if it has none
 * alias    a second environment variable, from the pooling module that Lessor succeeds; NULL: none
 * reload   LIVE: a running broker takes it over; DRAIN: it does so by replacing the pool's connections as they come
 *          back; RESTART: it does not
 * help     one sentence or two for the manual
 *
 * CONFIG_BROKER_KEY: once for a broker. CONFIG_DATABASE_KEY: for each database; at the top level, the default of all.
 * CONFIG_IGNORED_KEY(name, help): accepted and said to be ignored.
 *
 * No include guard: this file is included once for each thing that is made from it.
 */

#ifdef CONFIG_BROKER_KEY
#define X CONFIG_BROKER_KEY
X(instance, NAME, 1, 63, "default", "", NULL, RESTART,
  "the broker's name on this host: of its status segment and, unless `socket` says otherwise, of its socket")
X(socket, PATH, 1, 107, NULL, "", NULL, RESTART, "where workers connect; unless given, /run/lessor/<instance>.sock")
X(socket_mode, MODE, 0600, 0777, "0660", "", NULL, RESTART, "the socket's file mode: who may write to it may connect")
X(socket_group, GROUP, 1, 255, NULL, "", NULL, RESTART,
  "the socket's group, by name or number; unless given, the broker's own")
X(threads, COUNT, 1, 64, "1", "threads", NULL, RESTART,
  "data threads; one is enough for most hosts, more where cores are many and it measures better")
X(max_sessions, COUNT, 1, 1000000, "4096", "sessions", NULL, RESTART,
  "worker processes attached at once; one more is refused")
X(max_sessions_per_user, COUNT, 0, 1000000, "0", "sessions", NULL, LIVE,
  "of those, how many may be of one user (uid); 0: no limit of his own")
X(log_level, LOG_LEVEL, 0, 3, "info", "", NULL, LIVE, "the least severe event that is logged")
X(fd_cache, COUNT, 0, 64, "20", "descriptors", NULL, LIVE,
  "descriptors that a worker keeps for each database beside those of its leases; 0: none")
X(lane_size, SIZE, CONFIG_KIB(4), CONFIG_MIB(16), "64KiB", "bytes", NULL, RESTART,
  "memory for the commands, and as much for the replies, of one worker thread's lane")
X(reply_budget, SIZE, 0, CONFIG_MIB(1048576), "64MiB", "bytes", NULL, LIVE,
  "memory on the whole host for replies that are too large for their lane, or that nobody reads")
#undef X
#undef CONFIG_BROKER_KEY
#endif

#ifdef CONFIG_DATABASE_KEY
#define X CONFIG_DATABASE_KEY
X(db, COUNT, 0, 2147483647, "0", "", NULL, DRAIN, "the number to SELECT")
X(host, HOST, 1, 255, "127.0.0.1", "", "AUTOBOT_REDIS_HOST", DRAIN, "the server's name or address, IPv4 or IPv6")
X(port, COUNT, 1, 65535, "6379", "", "AUTOBOT_REDIS_PORT", DRAIN, "the server's TCP port")
X(unix_socket, PATH, 1, 107, NULL, "", NULL, DRAIN,
  "the path of the server's Unix socket, in the place of `host` and `port`")
X(username, TEXT, 1, 255, NULL, "", NULL, DRAIN, "the ACL user; needs a password; unless given, Redis' own `default`")
X(password, SECRET, 1, 4096, NULL, "", "AUTOBOT_REDIS_PASSWORD", DRAIN,
  "the password; better in `password_file` or a systemd credential, where it is not in a file that others may read")
X(password_file, PATH, 1, 4095, NULL, "", NULL, DRAIN,
  "a file with the password, readable by nobody but its owner and group; the line's end does not count")
X(max_connections, COUNT, 1, 10000, "20", "connections", "AUTOBOT_REDIS_MAX_CONNECTIONS", LIVE,
  "the cap: connections to this database on the whole host, in whatever state, never exceed it; a reload "
  "can raise it to twice what it was at the start, and 8")
X(min_idle, COUNT, 0, 10000, "0", "connections", NULL, LIVE, "connections kept ready even while nobody asks")
X(socket_timeout, DURATION, CONFIG_MS(1), CONFIG_S(86400), "5s", "seconds", NULL, LIVE,
  "how long a caller waits for a reply")
X(socket_connect_timeout, DURATION, CONFIG_MS(1), CONFIG_S(3600), "3s", "seconds", NULL, LIVE,
  "how long one attempt to connect may take, handshake included")
X(socket_keepalive, BOOL, 0, 1, "yes", "", NULL, DRAIN,
  "TCP keepalive (idle 600 s, each 60 s, 5 probes) and TCP_USER_TIMEOUT (10 s)")
X(health_check_interval, DURATION, 0, CONFIG_S(86400), "30s", "seconds", NULL, LIVE,
  "how often an idle connection is checked; 0: never")
X(retry_base, DURATION, CONFIG_MS(1), CONFIG_S(3600), "2s", "seconds", NULL, LIVE,
  "the wait before the second retry of a dial, doubled for each further one; the first retry comes within 50 ms")
X(retry_max, DURATION, CONFIG_MS(1), CONFIG_S(3600), "30s", "seconds", NULL, LIVE, "the longest wait between two dials")
X(retry_attempts, COUNT, 1, 1000, "5", "attempts", NULL, LIVE, "attempts to connect before those who wait are told so")
X(idle_timeout, DURATION, 0, CONFIG_S(31536000), "300s", "seconds", NULL, LIVE,
  "connections idle for longer are closed, down to `min_idle`; 0: never")
X(idle_check_interval, DURATION, CONFIG_MS(100), CONFIG_S(86400), "60s", "seconds", NULL, LIVE,
  "how often idle connections are looked for")
X(max_lifetime, DURATION, 0, CONFIG_S(31536000), "0s", "seconds", NULL, LIVE,
  "connections older than this, with jitter, are replaced when they come back; 0: never")
X(breaker_failures, COUNT, 1, 1000000, "5", "failures", NULL, LIVE,
  "consecutive failures that open the database's circuit breaker")
X(breaker_open_time, DURATION, CONFIG_MS(1), CONFIG_S(86400), "60s", "seconds", NULL, LIVE,
  "the longest time from the breaker's opening to the next probe")
X(breaker_early_probe, BOOL, 0, 1, "yes", "", NULL, LIVE,
  "probe at the dialling backoff while the breaker is open, so that the host recovers as soon as Redis does")
X(wait_timeout, DURATION, 0, CONFIG_S(86400), "5s", "seconds", NULL, LIVE,
  "how long a request waits for a connection unless the caller says otherwise; 0: not at all")
X(max_waiters, COUNT, 0, 1000000, "4096", "requests", NULL, LIVE,
  "requests that may wait; one more is refused at once; 0: nobody waits")
X(max_waiters_per_user, COUNT, 0, 1000000, "0", "requests", NULL, LIVE,
  "of those, how many of one user (uid) may wait; 0: no limit of his own")
X(max_leases_per_user, COUNT, 0, 10000, "0", "leases", NULL, LIVE,
  "connections that the processes of one user (uid) may have leased at once; 0: no limit but `max_connections`")
X(max_pinned, COUNT, 0, 10000, "0", "leases", NULL, LIVE,
  "connections that may be leased for blocking (BLPOP, SUBSCRIBE, MONITOR) at once, so that some are left for "
  "everybody "
  "else; 0: no limit but `max_connections`")
X(lease_warn, DURATION, 0, CONFIG_S(31536000), "60s", "seconds", NULL, LIVE,
  "leases held for longer are reported with process, thread and call site; 0: never")
X(lease_timeout, DURATION, 0, CONFIG_S(31536000), "0s", "seconds", NULL, LIVE,
  "leases held for longer are cut off; 0: never")
X(handover, HANDOVER, 0, 2, "auto", "", NULL, LIVE,
  "what becomes of a connection that comes back with state on it: `close` it and dial; `reset` it, which only "
  "databases "
  "without a password allow; `auto`: what is safe for this database")
X(path, ROUTE, 0, 2, "auto", "", NULL, LIVE,
  "how single commands go: `auto`, by lease while few callers are active and by lane when many are; always by `lease`, "
  "or by `lane` whatever may go there, for diagnosis")
X(allow, ALLOW, 0, 0, "everyone", "", NULL, LIVE,
  "who may lease: {users: [names or numbers], groups: [names or numbers]}, or `everyone` who may connect to the socket")
#undef X
#undef CONFIG_DATABASE_KEY
#endif

#ifdef CONFIG_IGNORED_KEY
#define X CONFIG_IGNORED_KEY
X(decode_responses, "replies are bytes: decoding them is the caller's")
X(description, "a comment does")
X(retry_on_timeout, "a command that may have run is never sent again by Lessor")
#undef X
#undef CONFIG_IGNORED_KEY
#endif
