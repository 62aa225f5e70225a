/* SPDX-License-Identifier: MIT */
/*
 * Our own socket has a name in /dev/shm while we wait: the broker may live in another network namespace, where an
 * abstract name would not reach us. It is connected, so that nobody but the broker can answer.
 */
#include "admin.h"

#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <base/cleanup.h>
#include <base/clock.h>

#include "format.h"
#include "json.h"
#include "source.h"

#define ANSWER_NS (20 * NS_PER_S) /* longer than the broker's LESSOR_ADMIN_PATIENCE_NS */
#define LOOK_MS 100

static struct sockaddr_un ours; /* its path, for whoever ends us with a signal */

static void on_end(int number) {
        (void)unlink(ours.sun_path);
        signal(number, SIG_DFL);
        raise(number);
}

static void catch_ends(void) {
        static const int ends[] = {SIGINT, SIGTERM, SIGHUP};
        for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
                signal(ends[i], on_end);
}

/* ---- asking -------------------------------------------------------------------------------------------------------- */

static int set_addresses(const char *instance, struct sockaddr_un *broker) {
        instance = lessor_status_instance(instance);
        if (strlen(instance) >= LESSOR_NAME_SIZE || strchr(instance, '/'))
                return -EINVAL;
        broker->sun_family = ours.sun_family = AF_UNIX;
        snprintf(broker->sun_path, sizeof(broker->sun_path), LESSOR_ADMIN_PATH, instance);
        snprintf(ours.sun_path, sizeof(ours.sun_path), LESSOR_ADMIN_PATH ".%d", instance, (int)getpid());
        return 0;
}

static int bind_ours(int fd) {
        mode_t mask = umask(0);      /* the broker is to be able to write to it, whoever it is */
        (void)unlink(ours.sun_path); /* of somebody who was killed, and had our pid */
        int r = bind(fd, (struct sockaddr *)&ours, sizeof(ours)) < 0 ? -errno : 0;
        umask(mask);
        return r;
}

/* A datagram socket is not told of the other's end: is somebody still there? */
static bool is_gone(const struct sockaddr_un *broker) {
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        return fd >= 0 && connect(fd, (const struct sockaddr *)broker, sizeof(*broker)) < 0 &&
               (errno == ENOENT || errno == ECONNREFUSED);
}

static int wait_for_answer(int fd, const struct sockaddr_un *broker, uint64_t tag, struct lessor_admin_answer *ret) {
        for (uint64_t end = clock_now() + ANSWER_NS; clock_now() < end;) {
                struct pollfd in = {.fd = fd, .events = POLLIN};
                bool gone = is_gone(broker); /* before we look: the answer may be its last word */
                if (poll(&in, 1, gone ? 0 : LOOK_MS) <= 0) {
                        if (gone)
                                return -EPIPE;
                        continue;
                }
                ssize_t n = recv(fd, ret, sizeof(*ret), MSG_DONTWAIT);
                if (n == (ssize_t)sizeof(*ret) && ret->magic == LESSOR_ADMIN_MAGIC && ret->tag == tag)
                        return 0;
        }
        return -ETIMEDOUT;
}

static int send_order(int fd, const struct sockaddr_un *broker, const struct lessor_admin_request *request) {
        struct timeval patience = {.tv_sec = ANSWER_NS / NS_PER_S};
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
        if (connect(fd, (const struct sockaddr *)broker, sizeof(*broker)) < 0)
                return -errno;
        if (send(fd, request, sizeof(*request), MSG_NOSIGNAL) < 0)
                return errno == EAGAIN ? -ETIMEDOUT : -errno;
        return 0;
}

int admin_ask(const struct order *order, struct lessor_admin_answer *ret) {
        struct lessor_admin_request request = order->request;
        struct sockaddr_un broker = {0};
        _cleanup_(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        int r = fd < 0 ? -errno : set_addresses(order->instance, &broker);
        if (r < 0)
                return r;
        request.magic = LESSOR_ADMIN_MAGIC;
        request.version = LESSOR_ADMIN_VERSION;
        request.tag = clock_now();
        catch_ends();
        r = bind_ours(fd);
        if (r == 0)
                r = send_order(fd, &broker, &request);
        if (r == 0)
                r = wait_for_answer(fd, &broker, request.tag, ret);
        (void)unlink(ours.sun_path);
        if (r == 0)
                ret->text[sizeof(ret->text) - 1] = '\0';
        return r;
}

/* ---- telling ------------------------------------------------------------------------------------------------------- */

static const char *const outcomes[] = {
        [LESSOR_ADMIN_DONE] = "done",
        [LESSOR_ADMIN_INVALID] = "invalid",
        [LESSOR_ADMIN_VERSION_UNKNOWN] = "version",
        [LESSOR_ADMIN_DENIED] = "denied",
        [LESSOR_ADMIN_NO_SUCH] = "no_such",
        [LESSOR_ADMIN_REFUSED] = "refused",
        [LESSOR_ADMIN_BUSY] = "busy",
        [LESSOR_ADMIN_LATE] = "late",
        [LESSOR_ADMIN_STOPPING] = "stopping",
};

static int exit_code(uint32_t outcome) {
        switch ((enum lessor_admin_outcome)outcome) {
        case LESSOR_ADMIN_DONE:
                return EXIT_FIGURES;
        case LESSOR_ADMIN_NO_SUCH:
        case LESSOR_ADMIN_REFUSED:
                return EXIT_NO_SUCH;
        case LESSOR_ADMIN_DENIED:
                return EXIT_FORBIDDEN;
        case LESSOR_ADMIN_BUSY:
        case LESSOR_ADMIN_LATE:
                return EXIT_LATER;
        case LESSOR_ADMIN_STOPPING:
                return EXIT_ABSENT;
        case LESSOR_ADMIN_INVALID:
        case LESSOR_ADMIN_VERSION_UNKNOWN:
                break;
        }
        return EXIT_TROUBLE;
}

static bool is_socket(const char *instance) {
        char path[sizeof(LESSOR_ADMIN_PATH) + LESSOR_NAME_SIZE];
        struct stat st;
        snprintf(path, sizeof(path), LESSOR_ADMIN_PATH, lessor_status_instance(instance));
        return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static void explain_forbidden(FILE *out, const char *instance) {
        char path[sizeof(LESSOR_ADMIN_PATH) + LESSOR_NAME_SIZE];
        struct passwd *owner = NULL;
        struct stat st;
        snprintf(path, sizeof(path), LESSOR_ADMIN_PATH, lessor_status_instance(instance));
        fputs("only root and the broker's own user may give it orders: try `sudo", out);
        if (stat(path, &st) == 0 && st.st_uid != 0 && (owner = getpwuid(st.st_uid)))
                fprintf(out, " -u %s", owner->pw_name);
        fputs(" lessor ...`", out);
}

/* No socket: is there no broker, a dead one, or one that takes no orders? */
static void explain_absent(FILE *out, int error, const char *instance) {
        struct lessor_status s;
        int r = source_open(instance, &s);
        if (r < 0) {
                char *text = source_explain(r, instance);
                fputs(text, out);
                free(text);
                return;
        }
        if ((error == -ECONNREFUSED && is_socket(instance)) || lessor_status_stale(&s))
                fprintf(out, "the broker is dead: pid %d gave its last sign of life %s ago", s.constants.broker_pid,
                        format_duration(lessor_status_heartbeat_age(&s)).s);
        else
                fprintf(out,
                        "the broker, pid %d, takes no orders: it could not make its socket " LESSOR_ADMIN_PATH
                        " (its log says why), or is of another release. Signals work: TERM stops it, HUP reloads",
                        s.constants.broker_pid, lessor_status_instance(instance));
        lessor_status_close(&s);
}

static int explain(FILE *out, int error, const char *instance) {
        switch (error) {
        case -ENOENT:
        case -ECONNREFUSED:
                explain_absent(out, error, instance);
                return EXIT_ABSENT;
        case -EPIPE:
                fputs("the broker ended before it answered", out);
                return EXIT_ABSENT;
        case -EACCES:
        case -EPERM:
                explain_forbidden(out, instance);
                return EXIT_FORBIDDEN;
        case -ETIMEDOUT:
                fprintf(out, "the broker has not answered within %u s: it hangs", (unsigned)(ANSWER_NS / NS_PER_S));
                return EXIT_LATER;
        case -EINVAL:
                fprintf(out, "`%s` cannot be the name of an instance", lessor_status_instance(instance));
                return EXIT_USAGE;
        default:
                fprintf(out, "cannot give the order: %s", strerror(-error));
                return EXIT_TROUBLE;
        }
}

static void tell_json(const struct command *self, const struct order *order, const char *outcome,
                      const struct lessor_admin_answer *a) {
        json_t *value = json_pack("{s:s, s:s, s:b, s:o, s:I, s:I, s:I, s:I}", "command", self->name, "outcome", outcome,
                                  "done", strcmp(outcome, "done") == 0, "text", json_text(a->text), "concerned",
                                  (json_int_t)a->concerned, "open", (json_int_t)a->open, "in_use",
                                  (json_int_t)a->in_use, "waiting", (json_int_t)a->waiting);
        if (!value || (order->request.database[0] &&
                       json_object_set_new(value, "database", json_text(order->request.database)) < 0))
                out_of_memory();
        json_print(stdout, value);
        json_decref(value);
}

static void tell(const struct command *self, const struct order *order, const char *outcome,
                 const struct lessor_admin_answer *a) {
        bool done = strcmp(outcome, "done") == 0;
        if (order->json) {
                tell_json(self, order, outcome, a);
                return;
        }
        if (!done)
                fprintf(stderr, "lessor %s: ", self->name);
        fprintf(done ? stdout : stderr, "%s\n", a->text);
}

int admin_order(const struct command *self, struct order *order) {
        struct lessor_admin_answer answer = {0};
        const char *outcome = "unreachable";
        char *text = NULL;
        size_t size;
        int r = admin_ask(order, &answer);

        if (r == 0) {
                if (answer.outcome < ARRAY_SIZE(outcomes))
                        outcome = outcomes[answer.outcome];
                r = exit_code(answer.outcome);
        } else {
                FILE *out = open_memstream(&text, &size);
                if (!out)
                        out_of_memory();
                r = explain(out, r, order->instance);
                if (fclose(out) != 0)
                        out_of_memory();
                snprintf(answer.text, sizeof(answer.text), "%s", text);
                free(text);
        }
        for (char *end = answer.text + strlen(answer.text); end > answer.text && end[-1] == '\n';)
                *--end = '\0';
        tell(self, order, outcome, &answer);
        return r;
}

bool admin_option(struct order *order, int option, const char *value) {
        if (option == 'j')
                order->json = true;
        else if (option == 'i')
                order->instance = value;
        else if (option == 'w')
                snprintf(order->request.why, sizeof(order->request.why), "%s", value);
        else
                return false;
        return true;
}
