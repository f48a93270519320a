/* A coverage-guided fuzzer of the agent: everything below its poll loop, with real files in a
 * private tmpfs and a world of its own where the agent touches the machine (processes, clock, power).
 *
 * An input is a list of records: a frame with good checksums, raw bytes, or something that happens
 * (a child prints or ends, the host stops reading, time goes by). After each input a HELLO behind the
 * longest padding must be answered, and nothing of the session may be left. The sanitizers see the rest.
 *
 * usage: fuzz SECONDS SEED DIRECTORY: its files are the seeds; what finds new coverage is added as cov-*,
 * the input that is being run is always in "current". */
#define _GNU_SOURCE
#include "spawn.c" /* for its spare pipes, whose ends a pretended child keeps */

#include <dirent.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <time.h>

enum { INPUT_SIZE = 8192, MAX_CORPUS = 4096, MAP = 1 << 16, SINK = 200, SOURCE = 201 };
enum { MAX_DESCRIPTORS = 150, MAX_MEMORY = 8 << 20 };

size_t __sanitizer_get_current_allocated_bytes(void);

/* The leak checker needs /proc, which is not in our world; we count bytes after each input. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "fuzz: line %d: not so: %s\n", __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* --- coverage: edges, hit counts in AFL's buckets --- */

static uint8_t map[MAP], seen[MAP];
static uintptr_t previous;
static bool tracing;

void __sanitizer_cov_trace_pc(void)
{
    if (!tracing)
        return;
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    pc = (pc >> 1) * 0x9e3779b1u >> 8;
    map[(pc ^ previous) % MAP] += map[(pc ^ previous) % MAP] < 255;
    previous = pc >> 1;
}

static unsigned edges;

static bool new_coverage(void)
{
    bool found = false;
    for (size_t i = 0; i < MAP; i++) {
        uint64_t eight;
        if (i % 8 == 0 && (memcpy(&eight, map + i, 8), eight == 0)) {
            i += 7;
            continue;
        }
        uint8_t n = map[i];
        uint8_t bucket = n < 4 ? 1 << n >> 1 : n < 8 ? 8 : n < 32 ? 16 : n < 128 ? 32 : 64;
        found |= bucket & ~seen[i];
        edges += n && !seen[i];
        seen[i] |= bucket;
    }
    return found;
}

/* --- the agent's world --- */

static int64_t fake_now = 1;
static struct child {
    int pid, status, fd[2];
    bool ended;
} children[MAX_OPS * 2];
static int next_pid = 1000;
static bool host_reads = true;
static const uint8_t *source;
static size_t source_left, source_slice;
static uint8_t sink[4 * OUT_SIZE];
static size_t sink_length;
static unsigned answers;
static uint8_t last_nonce[NONCE];

int64_t now(void)
{
    return fake_now;
}

static void child_ends(struct child *child, int status)
{
    if (child->ended || !child->pid)
        return;
    child->ended = true;
    child->status = status;
    close(child->fd[0]);
    close(child->fd[1]);
}

static pid_t new_child(int out, int err)
{
    for (struct child *child = children; child < children + MAX_OPS * 2; child++)
        if (!child->pid) {
            *child = (struct child){.pid = ++next_pid, .fd = {dup(out), dup(err)}};
            for (int i = 0; i < 2; i++)
                fcntl(child->fd[i], F_SETFL, O_NONBLOCK);
            return child->pid;
        }
    errno = EAGAIN;
    return -1;
}

pid_t __wrap_vfork(void)
{
    return new_child(spare[0][1], spare[1][1]);
}

pid_t __wrap_fork(void)
{
    return new_child(SINK, SINK);
}

int __wrap_kill(pid_t pid, int number)
{
    for (struct child *child = children; child < children + MAX_OPS * 2; child++)
        if (child->pid && child->pid == -pid)
            child_ends(child, number);
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
    (void)pid, (void)options;
    for (struct child *child = children; child < children + MAX_OPS * 2; child++)
        if (child->pid && child->ended) {
            int ended = child->pid;
            *status = child->status;
            child->pid = 0;
            return ended;
        }
    return 0;
}

int __real_ioctl(int, unsigned long, void *);
int __wrap_ioctl(int fd, unsigned long request, void *argument)
{
    if (request == FIONREAD)
        return __real_ioctl(fd, request, argument);
    errno = EPERM;
    return next_pid & 1 ? 0 : -1;
}

int __wrap_reboot(int how)
{
    (void)how;
    errno = EPERM;
    return -1;
}

int __wrap_clock_settime(clockid_t clock, const struct timespec *time)
{
    (void)clock;
    errno = EINVAL;
    return time->tv_nsec < 0 || time->tv_nsec >= 1000000000 ? -1 : 0;
}

int __wrap_sethostname(const char *name, size_t length)
{
    errno = EINVAL;
    return strlen(name) == length && length <= 64 ? 0 : -1;
}

void __wrap_sync(void)
{
}

ssize_t __real_read(int, void *, size_t);
ssize_t __wrap_read(int fd, void *to, size_t size)
{
    if (fd != SOURCE)
        return __real_read(fd, to, size);
    if (!source_left) {
        errno = EAGAIN;
        return -1;
    }
    size = size < source_left ? size : source_left;
    size = size < source_slice ? size : source_slice;
    memcpy(to, source, size);
    source += size;
    source_left -= size;
    return (ssize_t)size;
}

/* Whatever the agent says must be whole, good frames. */
static void take_frames(void)
{
    size_t at = 0;
    while (sink_length - at >= HEADER) {
        uint8_t header[HEADER];
        uint16_t check;
        uint32_t length, crc;
        memcpy(header, sink + at, HEADER);
        memcpy(&check, header + 6, 2);
        memcpy(&length, header + 12, 4);
        memcpy(&crc, header + 16, 4);
        header[6] = header[7] = 0;
        CHECK(!memcmp(header, "\x1bHIL", 4) && length <= MAX_PAYLOAD);
        CHECK(check == (uint16_t)crc32_of(0, header, HEADER));
        if (sink_length - at < HEADER + length)
            break;
        CHECK(header[4] == DATA || crc == crc32_of(0, sink + at + HEADER, length));
        if (header[4] == HELLO_OK) {
            CHECK(length > NONCE);
            memcpy(last_nonce, sink + at + HEADER, NONCE);
        }
        answers++;
        at += HEADER + length;
    }
    memmove(sink, sink + at, sink_length - at);
    sink_length -= at;
}

ssize_t __real_write(int, const void *, size_t);
ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (fd != SINK)
        return __real_write(fd, data, size);
    if (!host_reads) {
        errno = EAGAIN;
        return -1;
    }
    CHECK(size <= sizeof sink - sink_length);
    memcpy(sink + sink_length, data, size);
    sink_length += size;
    take_frames();
    return (ssize_t)size;
}

int __real_poll(struct pollfd *, nfds_t, int);
int __wrap_poll(struct pollfd *set, nfds_t n, int timeout)
{
    (void)timeout; /* nothing is waited for */
    return n == 1 && set[0].fd == SINK ? host_reads : __real_poll(set, n, 0);
}

/* --- one turn of the loop, as in main.c --- */

static void turn(void)
{
    struct pollfd set[3 * MAX_OPS];
    struct op *whose[3 * MAX_OPS];
    size_t n = 0;
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind == RUNS)
            for (size_t more = exec_poll(op, set + n); more; more--)
                whose[n++] = op;
    poll(set, n, 0);
    for (size_t i = 0; i < n; i++)
        if (set[i].revents && whose[i]->kind == RUNS)
            exec_ready(whose[i], &set[i]);
    exec_reap();
    if (input_waits())
        input_parse();
    for (size_t left = source_left + 1; source_left && source_left < left;) {
        left = source_left;
        input_read(SOURCE);
        input_parse();
    }
    for (struct op *op = ops; op < ops + MAX_OPS; op++) {
        if (op->kind == RUNS)
            exec_check(op, fake_now);
        else if (op->kind == GETS)
            get_step(op);
    }
    CHECK(out_flush(SINK));
    if (!exec_alive)
        exec_prepare();
}

static void feed(const uint8_t *data, size_t size, size_t slice)
{
    source = data;
    source_left = size;
    source_slice = slice ? slice : 1;
    for (size_t left = size + 1; source_left && source_left < left;) {
        left = source_left;
        turn();
    }
    source_left = 0; /* what the agent had no room for is lost: that is a damaged stream */
}

static size_t frame(uint8_t *to, uint8_t type, uint8_t flags, uint32_t id, const uint8_t *data, uint32_t n)
{
    uint32_t crc = type == DATA ? 0 : crc32_of(0, data, n);
    memcpy(to, "\x1bHIL", 4);
    to[4] = type;
    to[5] = flags;
    to[6] = to[7] = 0;
    memcpy(to + 8, &id, 4);
    memcpy(to + 12, &n, 4);
    memcpy(to + 16, &crc, 4);
    uint16_t check = (uint16_t)crc32_of(0, to, HEADER);
    memcpy(to + 6, &check, 2);
    memcpy(to + HEADER, data, n);
    return HEADER + n;
}

/* --- an input --- */

static void happens(uint8_t what, uint8_t argument)
{
    static const uint8_t text[4096] = "output";
    struct child *child = &children[argument % 4];
    switch (what % 6) {
    case 0:
        host_reads = argument & 1;
        break;
    case 1:
        child_ends(child, argument & 16 ? argument >> 5 : (argument >> 5) << 8);
        break;
    case 2:
    case 3:
        for (int i = 0; child->pid && !child->ended && i <= argument >> 4; i++)
            if (__real_write(child->fd[what & 1], text, sizeof text >> (argument & 7)) < 0)
                break;
        break;
    case 4:
        /* A century is enough: the clock that it stands for cannot overflow either. */
        if (fake_now < INT64_C(100) * 365 * 86400 * 1000000000)
            fake_now += INT64_C(1000000) << argument % 30;
        break;
    case 5:
        /* Padding of a frame that never ends. */
        feed(text, sizeof text, sizeof text);
        break;
    }
    turn();
}

static void run_input(const uint8_t *input, size_t size)
{
    static uint8_t stream[HEADER + MAX_PAYLOAD];
    static uint8_t payload[MAX_PAYLOAD];
    size_t at = 0;
    while (at + 3 <= size) {
        uint8_t kind = input[at++], a = input[at++], b = input[at++];
        if (kind % 4 == 3) {
            happens(a, b);
            continue;
        }
        size_t n = at + 1 <= size ? input[at++] : 0;
        if (kind & 16 && at + 1 <= size)
            n = n << 8 | input[at++];
        n = n < size - at ? n : size - at;
        memcpy(payload, input + at, n);
        at += n;
        size_t slice = kind & 64 ? kind >> 2 & 3 ? 7 : 1 : 4096;
        if ((kind & 160) == 160) { /* blow it up */
            memset(payload + n, 'x', sizeof payload - n);
            n = sizeof payload;
            slice = 4096;
        }
        if (kind % 4 == 2)
            feed(payload, n, slice);
        else
            feed(stream, frame(stream, a, b >> 2 & 0x80 ? b : b & 3, b >> 2 & 7, payload, (uint32_t)n),
                 slice);
    }
}

/* However it was left: a HELLO is heard, and ends everything. */
static void check_the_end(unsigned run)
{
    static uint8_t stream[HEADER + MAX_PAYLOAD + HEADER + NONCE + 2];
    uint8_t hello[NONCE + 2] = {[4] = 0xa5, 0x5a, 0xa5, 0x5a}; /* in no input, but by bad luck */
    host_reads = true;
    turn();
    memcpy(hello, &run, sizeof run);
    hello[NONCE] = PROTOCOL_VERSION;
    frame(stream + HEADER + MAX_PAYLOAD, HELLO, 0, 0, hello, sizeof hello);
    feed(stream, sizeof stream, 4096);
    turn();
    turn();
    CHECK(!memcmp(last_nonce, hello, NONCE));
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        CHECK(op->kind == FREE);
    CHECK(!out_pending() && !sink_length);
    exec_reap();
    CHECK(exec_alive == 0);
    for (struct child *child = children; child < children + MAX_OPS * 2; child++)
        CHECK(!child->pid);
    CHECK(__sanitizer_get_current_allocated_bytes() < MAX_MEMORY);
    if (run % 64 == 0) {
        int used = 0;
        for (int fd = 0; fd < 1024; fd++)
            used += fcntl(fd, F_GETFD) >= 0;
        CHECK(used < 40);
    }
}

/* --- corpus and mutation --- */

static struct entry {
    uint8_t *data;
    size_t size;
} corpus[MAX_CORPUS];
static size_t corpus_size;
static uint64_t random_state;

static uint32_t dice(uint32_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return below ? (uint32_t)(random_state >> 33) % below : 0;
}

static void keep(const uint8_t *data, size_t size)
{
    struct entry *e = corpus_size < MAX_CORPUS ? &corpus[corpus_size++] : &corpus[dice(MAX_CORPUS)];
    munmap(e->data, INPUT_SIZE); /* not malloc, whose use is watched */
    e->data = mmap(NULL, INPUT_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(e->data != MAP_FAILED);
    memcpy(e->data, data, size);
    e->size = size;
}

static size_t mutate(uint8_t *data)
{
    static const uint8_t types[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 32, 77};
    static const uint8_t values[] = {0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 127, 128, 254, 255, '/', '.'};
    struct entry *e = &corpus[dice((uint32_t)corpus_size)];
    size_t size = e->size;
    memcpy(data, e->data, size);
    for (uint32_t n = 1 + dice(dice(4) ? 4 : 32); n; n--) {
        size_t at = dice((uint32_t)size), more = 1 + dice(dice(3) ? 8 : 200);
        switch (size ? dice(9) : 4) {
        case 0:
            data[at] ^= (uint8_t)(1 << dice(8));
            break;
        case 1:
            data[at] = (uint8_t)dice(256);
            break;
        case 2:
            data[at] = values[dice(sizeof values)];
            break;
        case 3:
            data[at] = types[dice(sizeof types)];
            break;
        case 4: /* insert */
            more = more < INPUT_SIZE - size ? more : INPUT_SIZE - size;
            memmove(data + at + more, data + at, size - at);
            for (size_t i = 0; i < more; i++)
                data[at + i] = (uint8_t)dice(256);
            size += more;
            break;
        case 5: /* delete */
            more = more < size - at ? more : size - at;
            memmove(data + at, data + at + more, size - at - more);
            size -= more;
            break;
        case 6: { /* repeat a part somewhere */
            size_t from = dice((uint32_t)size);
            more = more < size - from ? more : size - from;
            more = more < size - at ? more : size - at;
            memmove(data + at, data + from, more);
            break;
        }
        default: { /* another input's rest, or all of it behind */
            struct entry *other = &corpus[dice((uint32_t)corpus_size)];
            size_t from = dice((uint32_t)other->size), to = dice(2) ? size : at;
            more = other->size - from;
            more = more < INPUT_SIZE - to ? more : INPUT_SIZE - to;
            memcpy(data + to, other->data + from, more);
            size = to + more;
        }
        }
    }
    return size;
}

static void load(int directory)
{
    DIR *dir = fdopendir(dup(directory));
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        static uint8_t data[INPUT_SIZE];
        int fd = openat(directory, entry->d_name, O_RDONLY);
        ssize_t n = fd < 0 || !strcmp(entry->d_name, "current") ? -1 : read(fd, data, sizeof data);
        if (n > 0)
            keep(data, (size_t)n);
        if (fd >= 0)
            close(fd);
    }
    if (dir)
        closedir(dir);
}

static void save(int directory, const uint8_t *data, size_t size)
{
    static unsigned number;
    char name[64];
    snprintf(name, sizeof name, "cov-%d-%06u", (int)getpid(), number++);
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
}

/* --- a place where files can do no harm --- */

static void write_text(const char *path, const char *format, ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd >= 0 && write(fd, text, (size_t)n) != n)
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void lock_in(const char *directory)
{
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)) != 0)
        goto failed;
    if (uid) {
        write_text("/proc/self/setgroups", "deny");
        write_text("/proc/self/uid_map", "0 %u 1", uid);
        write_text("/proc/self/gid_map", "0 %u 1", gid);
    }
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("fuzz", directory, "tmpfs", 0, "size=4m") == 0 && chroot(directory) == 0 &&
        chdir("/") == 0)
        return;
failed:
    fprintf(stderr, "fuzz: a private tmpfs cannot be made: %s\n", strerror(errno));
    exit(3);
}

static void clean(char *path)
{
    DIR *dir = opendir(path);
    size_t length = strlen(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(path + length, PATH_MAX - length, "/%s", entry->d_name);
        if (unlink(path) != 0) {
            clean(path);
            rmdir(path);
        }
        path[length] = 0;
    }
    if (dir)
        closedir(dir);
}

static void furnish(void)
{
    static char path[PATH_MAX];
    path[0] = 0;
    clean(strcpy(path, "."));
    mkdir("/dev", 0755);
    mkdir("/etc", 0755);
    mkdir("/bin", 0755);
    mkdir("/tree", 0755);
    mkdir("/tree/a", 0755);
    write_text("/dev/null", "");
    write_text("/dev/urandom", "");
    write_text("/bin/sh", "x");
    write_text("/tree/file", "content");
    write_text("/tree/a/file", "%d", 12345);
    (void)!symlink("file", "/tree/link");
    (void)!truncate("/tree/a/file", 100000);
    chmod("/bin/sh", 0755);
}

int main(int argc, char **argv)
{
    static uint8_t none[1];
    CHECK(argc == 4);
    time_t end = time(NULL) + atoi(argv[1]);
    random_state = strtoull(argv[2], NULL, 0) * 2 + 1;
    int directory = open(argv[3], O_RDONLY | O_DIRECTORY);
    CHECK(directory >= 0);
    int current = openat(directory, "current", O_RDWR | O_CREAT, 0644);
    CHECK(current >= 0 && ftruncate(current, INPUT_SIZE + 8) == 0);
    uint8_t *shown = mmap(NULL, INPUT_SIZE + 8, PROT_READ | PROT_WRITE, MAP_SHARED, current, 0);
    CHECK(shown != MAP_FAILED);
    int null = open("/dev/null", O_RDWR);
    CHECK(dup2(null, SINK) == SINK && dup2(null, SOURCE) == SOURCE);
    signal(SIGPIPE, SIG_IGN);
    port = SINK;
    load(directory);
    lock_in("/tmp"); /* as we alone see it */
    crc_init();
    furnish();
    keep(none, 0);

    unsigned runs = 0;
    size_t seeds = corpus_size;
    for (; runs < seeds || time(NULL) < end; runs++) {
        uint8_t *input = shown + 8;
        uint64_t size;
        if (runs < seeds) {
            size = corpus[runs].size;
            memcpy(input, corpus[runs].data, size);
        } else {
            size = mutate(input);
        }
        memcpy(shown, &size, sizeof size);
        alarm(20); /* whoever hangs is killed by it */
        if (runs % 200 == 0)
            furnish();
        memset(map, 0, sizeof map);
        previous = 0;
        tracing = true;
        run_input(input, size);
        check_the_end(runs);
        tracing = false;
        if (new_coverage() && runs >= seeds) {
            keep(input, size);
            save(directory, input, size);
        }
    }
    printf("%u runs, %zu inputs, %u edges, %u answers\n", runs, corpus_size, edges, answers);
    return 0;
}
