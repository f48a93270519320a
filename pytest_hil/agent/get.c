/* GET: a file or a tree goes out, as long as the host gives credit for it. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct get {
    char path[PATH_MAX];
    size_t root;       /* length of the path that was asked for */
    int depth;         /* open directories */
    DIR *directory[MAX_DEPTH];
    size_t length[MAX_DEPTH]; /* of their paths */
    int fd;            /* the file that goes out, or -1 */
    uint64_t credit;
    uint32_t crc;
    uint64_t size;
    uint32_t digest;
    uint64_t total;
};

static void failed(struct op *op, const char *what)
{
    int error = errno;
    op_fail(op->id, error, "%s %.512s: %s", what, op->get->path, strerror(error));
}

static char *put_number(char *p, uint64_t n, size_t size)
{
    memcpy(p, &n, size);
    return p + size;
}

static void send_entry(struct op *op, char type, const struct stat *st, const char *target)
{
    struct get *get = op->get;
    const char *name = get->path + get->root;
    size_t name_size = strlen(name += *name == '/') + 1, target_size = strlen(target) + 1;
    char *start = (char *)frame_begin(64 + name_size + target_size), *p = start;
    p = put_number(p, (uint64_t)type, 1);
    p = put_number(p, st->st_mode & 07777, 4);
    p = put_number(p, st->st_uid, 4);
    p = put_number(p, st->st_gid, 4);
    p = put_number(p, (uint64_t)st->st_mtim.tv_sec * 1000000000 + (uint64_t)st->st_mtim.tv_nsec, 8);
    p = put_number(p, (uint64_t)st->st_size, 8);
    memcpy(p, name, name_size);
    memcpy(p + name_size, target, target_size);
    size_t size = (size_t)(p - start) + name_size + target_size;
    frame_end(ENTRY, 0, op->id, size);
    get->credit -= get->credit < ENTRY_COST ? get->credit : ENTRY_COST;
}

static void enter_file(struct op *op, const struct stat *st)
{
    struct get *get = op->get;
    /* Some files of /proc and /sys block until there is something to say: they shall not. */
    get->fd = open(get->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (get->fd < 0) {
        failed(op, "open");
        return;
    }
    get->crc = 0;
    get->size = 0;
    send_entry(op, 'f', st, "");
}

static void enter_directory(struct op *op, const struct stat *st)
{
    struct get *get = op->get;
    if (get->depth == MAX_DEPTH) {
        errno = ELOOP;
        failed(op, "too many directories in each other:");
        return;
    }
    DIR *dir = opendir(get->path);
    if (!dir) {
        failed(op, "open");
        return;
    }
    get->length[get->depth] = strlen(get->path);
    get->directory[get->depth++] = dir;
    send_entry(op, 'd', st, "");
}

static void enter(struct op *op, const struct stat *st)
{
    char target[PATH_MAX];
    ssize_t n;
    switch (st->st_mode & S_IFMT) {
    case S_IFREG:
        enter_file(op, st);
        break;
    case S_IFDIR:
        enter_directory(op, st);
        break;
    case S_IFLNK:
        n = readlink(op->get->path, target, sizeof target - 1);
        if (n < 0) {
            failed(op, "read the symlink");
            break;
        }
        target[n] = 0;
        send_entry(op, 'l', st, target);
        break;
    default:
        op_fail(op->id, EINVAL, "%.512s is no file, directory or symlink", op->get->path);
    }
}

void get_start(uint32_t id, struct reader *r)
{
    uint32_t credit = read_u32(r);
    const char *path = read_string(r);
    size_t n = strlen(path);
    if (r->bad || r->left || !n || n >= PATH_MAX) {
        op_fail(id, r->bad || r->left ? EBADMSG : EINVAL, "no name to get: '%.512s'", path);
        return;
    }
    struct op *op = op_new(id);
    if (!op)
        return;
    struct get *get = calloc(1, sizeof *get);
    if (!get) {
        op_fail(id, ENOMEM, "no memory");
        return;
    }
    op->kind = GETS;
    op->get = get;
    get->fd = -1;
    get->credit = credit;
    memcpy(get->path, path, n + 1);
    while (n > 1 && get->path[n - 1] == '/')
        get->path[--n] = 0;
    get->root = n;
    struct stat st;
    if (stat(get->path, &st) != 0)
        failed(op, "get");
    else
        enter(op, &st);
}

/* The next entry of the innermost directory, or out of it. */
static void walk(struct op *op)
{
    struct get *get = op->get;
    DIR *dir = get->directory[get->depth - 1];
    size_t length = get->length[get->depth - 1];
    get->path[length] = 0;
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (!entry) {
        if (errno) {
            failed(op, "list");
            return;
        }
        closedir(dir);
        get->depth--;
        return;
    }
    const char *name = entry->d_name;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return;
    size_t n = strlen(name);
    if (length + 1 + n >= PATH_MAX) {
        errno = ENAMETOOLONG;
        failed(op, "below");
        return;
    }
    get->path[length] = '/';
    memcpy(get->path + length + 1, name, n + 1);
    struct stat st;
    if (lstat(get->path, &st) == 0)
        enter(op, &st);
    else if (errno != ENOENT) /* gone since: then it is not in the copy either */
        failed(op, "get");
}

static void file_ended(struct op *op)
{
    struct get *get = op->get;
    char payload[12];
    put_number(put_number(payload, get->size, 8), get->crc, 4);
    send_frame(FILE_END, 0, op->id, payload, sizeof payload);
    get->digest = crc32_of(get->digest, (const uint8_t *)&get->crc, sizeof get->crc);
    get->total += get->size;
    close(get->fd);
    get->fd = -1;
}

static void send_some(struct op *op)
{
    struct get *get = op->get;
    size_t most = get->credit < CHUNK ? (size_t)get->credit : CHUNK;
    uint8_t *p = frame_begin(CHUNK);
    ssize_t n = read(get->fd, p, most);
    if (n < 0 && errno == EINTR)
        return;
    if (n < 0) {
        failed(op, "read");
    } else if (n == 0) {
        file_ended(op);
    } else {
        get->crc = crc32_of(get->crc, p, (size_t)n);
        get->size += (uint64_t)n;
        get->credit -= (uint64_t)n;
        frame_end(DATA, 0, op->id, (size_t)n);
    }
}

bool get_wants(const struct op *op)
{
    return op->get->credit >= ENTRY_COST && out_room() >= HEADER + CHUNK + 3 * ROOM_FOR_ANSWER;
}

void get_step(struct op *op)
{
    while (op->kind == GETS && get_wants(op)) {
        if (op->get->fd >= 0)
            send_some(op);
        else if (op->get->depth)
            walk(op);
        else {
            send_done(op->id, op->get->total, op->get->digest);
            op_end(op);
        }
    }
}

void get_credit(struct op *op, uint32_t bytes)
{
    op->get->credit += bytes;
}

void get_end(struct op *op)
{
    struct get *get = op->get;
    if (get->fd >= 0)
        close(get->fd);
    while (get->depth)
        closedir(get->directory[--get->depth]);
    free(get);
}
