/* The port and the loop. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_PORT "org.pytest-hil.agent"

static volatile sig_atomic_t child_ended;

int64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int64_t next_deadline(void)
{
    int64_t next = 0;
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind == RUNS && op->exec.deadline && (!next || op->exec.deadline < next))
            next = op->exec.deadline;
    return next;
}

/* How long nothing may happen; NULL: for ever. Not at all when there is something left to do. */
static struct timespec *patience(struct timespec *ts, int64_t at_most)
{
    if (input_waits())
        at_most = 0;
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind == GETS && get_wants(op))
            at_most = 0;
    int64_t deadline = next_deadline(), left = deadline ? deadline - now() : at_most;
    if (deadline && left < 0)
        left = 0;
    if (at_most >= 0 && left > at_most)
        left = at_most;
    if (left < 0)
        return NULL;
    *ts = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    return ts;
}

static void serve(void)
{
    int64_t time = exec_alive ? now() : 0;
    for (struct op *op = ops; op < ops + MAX_OPS; op++) {
        if (op->kind == RUNS)
            exec_check(op, time);
        else if (op->kind == GETS)
            get_step(op);
    }
}

/* Reads what is there, but lets the others have their turn too. False when the host is gone. */
static bool take_input(void)
{
    for (int turn = 0; turn < 32; turn++) {
        enum input got = input_read(port);
        if (got == INPUT_ENDED)
            return false;
        input_parse();
        if (got != INPUT_SOME)
            break;
    }
    return true;
}

static void child_signal(int number)
{
    (void)number;
    child_ended = 1;
}

static void no_signal(int number)
{
    (void)number;
}

/* One wait and all that came of it. False when the host is gone. */
static bool turn(bool absent, int64_t at_most)
{
    struct pollfd set[1 + 3 * MAX_OPS];
    struct op *whose[1 + 3 * MAX_OPS];
    size_t n = 1;
    short wanted = out_room() >= ROOM_FOR_ANSWER ? POLLIN : 0;
    set[0] = (struct pollfd){.fd = absent ? -1 : port,
                             .events = (short)(wanted | (out_pending() ? POLLOUT : 0))};
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind == RUNS)
            for (size_t more = exec_poll(op, set + n); more; more--)
                whose[n++] = op;
    struct timespec ts;
    sigset_t none;
    sigemptyset(&none);
    int ready = ppoll(set, n, patience(&ts, at_most), &none);
    /* Before the input: it may end operations and reuse their places. */
    for (size_t i = 1; ready > 0 && i < n; i++)
        if (set[i].revents && whose[i]->kind == RUNS)
            exec_ready(whose[i], &set[i]);
    if (child_ended) {
        child_ended = 0;
        exec_reap();
    }
    bool there = true;
    if (input_waits())
        input_parse();
    if (ready > 0 && set[0].revents & POLLIN)
        there = take_input();
    else if (ready > 0 && set[0].revents & (POLLHUP | POLLERR | POLLNVAL))
        there = false;
    serve();
    there = there && out_flush(port);
    if (!exec_alive)
        exec_prepare(); /* now that nobody waits */
    return there;
}

/* A virtio port says POLLHUP for as long as the host is absent: wait for it ever more patiently. */
static void run(bool forever)
{
    enum { SHORTEST = 1000000, LONGEST = 100000000 };
    int64_t wait = SHORTEST;
    bool absent = false;
    for (;;) {
        bool there = turn(absent, absent ? wait : -1);
        if (absent) {
            absent = false; /* look again */
        } else if (there) {
            wait = SHORTEST;
        } else {
            session_end();
            input_reset();
            if (!forever)
                return;
            absent = true;
            wait = wait * 2 < LONGEST ? wait * 2 : LONGEST;
        }
    }
}

/* --- starting --- */

/* The device of the virtio port of that name, or -1 with errno ENOENT: not there (yet). */
static int open_port(const char *wanted)
{
    const char *all = "/sys/class/virtio-ports";
    DIR *dir = opendir(all);
    int found = -1, error = ENOENT;
    for (struct dirent *entry; dir && found < 0 && (entry = readdir(dir));) {
        char path[300], name[128] = "";
        snprintf(path, sizeof path, "%s/%.200s/name", all, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, name, sizeof name - 1);
        close(fd);
        name[n > 0 ? n : 0] = 0;
        name[strcspn(name, "\n")] = 0;
        if (strcmp(name, wanted) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%.200s", entry->d_name);
        found = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        error = errno;
    }
    if (dir)
        closedir(dir);
    errno = error;
    return found;
}

static int wait_for_port(const char *name)
{
    struct timespec pause = {.tv_nsec = 1000000};
    for (;;) { /* its driver may still be at work; nothing tells us without udev */
        int fd = open_port(name);
        if (fd >= 0 || errno != ENOENT)
            return fd;
        nanosleep(&pause, NULL);
        if (pause.tv_nsec < 100000000)
            pause.tv_nsec *= 2;
    }
}

static void set_signals(void)
{
    struct sigaction child = {.sa_handler = child_signal}, nothing = {.sa_handler = no_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    sigaction(SIGCHLD, &child, NULL);
    sigaction(SIGPIPE, &nothing, NULL); /* a handler, unlike SIG_IGN, is not inherited by exec */
}

int main(int argc, char **argv)
{
    const char *name = DEFAULT_PORT;
    int fd = -1;
    int extra;
    while ((extra = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && extra < 3)
        ; /* what we open later shall not be 0, 1 or 2: those are for our children */
    close(extra);
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--port") && i + 1 < argc) {
            name = argv[++i];
        } else if (!strcmp(argv[i], "--fd") && i + 1 < argc) {
            fd = atoi(argv[++i]);
        } else if (!strcmp(argv[i], "--stdio")) {
            fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
        } else if (!strcmp(argv[i], "--version")) {
            printf("hil-agent %s, protocol %d\n", agent_build, PROTOCOL_VERSION);
            return 0;
        } else {
            fprintf(stderr, "usage: hil-agent [--port NAME | --fd N | --stdio | --version]\n");
            return 2;
        }
    }
    bool forever = fd < 0;
    port = forever ? wait_for_port(name) : fd;
    if (port < 0 || fcntl(port, F_SETFD, FD_CLOEXEC) != 0 || fcntl(port, F_SETFL, O_NONBLOCK) != 0) {
        fprintf(stderr, "hil-agent: %s: %s\n", forever ? name : "the descriptor", strerror(errno));
        return 1;
    }
    if (chdir("/") != 0)
        return 1;
    crc_init();
    set_signals();
    say_ready();
    run(forever);
    return 0;
}
