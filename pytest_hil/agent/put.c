/* PUT: a file, a symlink or a tree comes in beside its destination and is renamed there when it is
 * whole. Until then nothing of it can be seen; if it fails, nothing of it is left. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct put {
    char dest[PATH_MAX];
    char temp[PATH_MAX]; /* the root of what has come in */
    char path[PATH_MAX]; /* the entry that is coming in, below temp */
    int fd;              /* the file that is open, or -1 */
    bool begun;          /* there is something at temp */
    struct attributes {
        uint32_t mode, uid, gid;
        int64_t mtime;
    } wanted;
    uint32_t crc; /* of the open file so far */
    uint64_t size;
    uint32_t digest; /* CRC-32 of all files' CRC-32s, in order */
    uint64_t total;
};

/* --- trees; a path is one buffer of PATH_MAX that grows and shrinks --- */

static bool append(char *path, const char *name, size_t *length)
{
    *length = strlen(path);
    size_t n = strlen(name);
    if (*length + 1 + n >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    path[*length] = '/';
    memcpy(path + *length + 1, name, n + 1);
    return true;
}

static const char *next_name(DIR *dir)
{
    struct dirent *entry;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            return entry->d_name;
    return NULL;
}

static void remove_tree(char *path)
{
    if (unlink(path) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    DIR *dir = opendir(path);
    size_t length;
    for (const char *name; dir && (name = next_name(dir));) {
        if (!append(path, name, &length))
            break;
        remove_tree(path);
        path[length] = 0;
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static bool is_directory(const char *path, bool follow)
{
    struct stat st;
    return (follow ? stat(path, &st) : lstat(path, &st)) == 0 && S_ISDIR(st.st_mode);
}

/* Rename; a directory onto one that is not empty goes in entry by entry. */
static bool publish(char *from, char *to)
{
    if (rename(from, to) == 0)
        return true;
    int error = errno;
    if (!is_directory(from, false) || !is_directory(to, true)) {
        errno = error;
        return false;
    }
    DIR *dir = opendir(from);
    size_t length, to_length;
    bool good = dir != NULL;
    for (const char *name; good && (name = next_name(dir));) {
        good = append(from, name, &length) && append(to, name, &to_length) && publish(from, to);
        if (good)
            from[length] = to[to_length] = 0;
    }
    error = errno;
    if (dir)
        closedir(dir);
    if (good)
        rmdir(from);
    errno = error;
    return good;
}

/* --- the operation --- */

void put_start(uint32_t id, struct reader *r)
{
    const char *dest = read_string(r);
    size_t n = strlen(dest);
    if (r->bad || r->left || !n || n >= PATH_MAX - 64 || dest[n - 1] == '/') {
        op_fail(id, r->bad || r->left ? EBADMSG : EINVAL, "no name to put at: '%.512s'", dest);
        return;
    }
    struct op *op = op_new(id);
    if (!op)
        return;
    struct put *put = calloc(1, sizeof *put);
    if (!put) {
        op_fail(id, ENOMEM, "no memory");
        return;
    }
    op->kind = PUTS;
    op->put = put;
    put->fd = -1;
    memcpy(put->dest, dest, n + 1);
    const char *slash = strrchr(dest, '/');
    int directory = slash ? (int)(slash + 1 - dest) : 0;
    snprintf(put->temp, sizeof put->temp, "%.*s.hil-put-%d-%u", directory, dest, (int)getpid(), id);
}

static void failed(struct op *op, const char *what, const char *path)
{
    int error = errno;
    op_fail(op->id, error, "%s %.512s: %s", what, path, strerror(error));
}

/* The name that the user knows, of a path below temp. */
static const char *shown(struct put *put)
{
    static char name[2 * PATH_MAX];
    snprintf(name, sizeof name, "%s%s", put->dest, put->path + strlen(put->temp));
    return name;
}

static bool set_attributes(const struct put *put, int fd)
{
    const struct attributes *a = &put->wanted;
    struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = a->mtime / 1000000000, .tv_nsec = a->mtime % 1000000000},
    };
    if (times[1].tv_nsec < 0)
        times[1].tv_sec--, times[1].tv_nsec += 1000000000;
    bool owned = a->uid != UINT32_MAX || a->gid != UINT32_MAX;
    bool timed = a->mtime != INT64_MIN;
    if (fd >= 0)
        return (!owned || fchown(fd, a->uid, a->gid) == 0) && fchmod(fd, a->mode & 07777) == 0 &&
               (!timed || futimens(fd, times) == 0);
    return (!owned || chown(put->path, a->uid, a->gid) == 0) &&
           chmod(put->path, a->mode & 07777) == 0 &&
           (!timed || utimensat(AT_FDCWD, put->path, times, 0) == 0);
}

static bool make(struct put *put, uint8_t type, const char *target)
{
    const struct attributes *a = &put->wanted;
    switch (type) {
    case 'd': /* a second time: only its attributes, which its entries would have changed */
        return (mkdir(put->path, 0700) == 0 ||
                (errno == EEXIST && is_directory(put->path, false))) &&
               set_attributes(put, -1);
    case 'f':
        put->fd = open(put->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        return put->fd >= 0;
    case 'l':
        return symlink(target, put->path) == 0 &&
               ((a->uid == UINT32_MAX && a->gid == UINT32_MAX) ||
                lchown(put->path, a->uid, a->gid) == 0);
    default:
        errno = EINVAL;
        return false;
    }
}

/* Relative, and with no way out. */
static bool inside(const char *name)
{
    if (*name == '/')
        return false;
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (!strncmp(p, "..", 2) && (p[2] == '/' || !p[2]))
            return false;
    }
    return true;
}

void put_entry(struct op *op, struct reader *r)
{
    struct put *put = op->put;
    uint8_t type = read_u8(r);
    put->wanted.mode = read_u32(r);
    put->wanted.uid = read_u32(r);
    put->wanted.gid = read_u32(r);
    put->wanted.mtime = (int64_t)read_u64(r);
    read_u64(r); /* the size is a hint for whoever wants it */
    const char *name = read_string(r), *target = read_string(r);
    /* The root comes first, and again only if it is a directory. */
    bool in_place = *name ? put->begun && inside(name) : !put->begun || type == 'd';
    if (r->bad || r->left || put->fd >= 0 || !in_place) {
        op_fail(op->id, EBADMSG, "ENTRY is malformed or out of place");
        return;
    }
    memcpy(put->path, put->temp, sizeof put->path);
    size_t length;
    if (*name && !append(put->path, name, &length)) {
        failed(op, "put", name);
        return;
    }
    if (!*name && !put->begun) {
        remove_tree(put->path); /* of an agent that was killed, with our pid */
        put->begun = true;
    }
    put->crc = 0;
    put->size = 0;
    if (!make(put, type, target))
        failed(op, "make", shown(put));
}

void put_data(struct op *op, const uint8_t *data, size_t n)
{
    struct put *put = op->put;
    if (put->fd < 0) {
        op_fail(op->id, EBADMSG, "DATA with no file open");
        return;
    }
    put->crc = crc32_of(put->crc, data, n);
    put->size += n;
    while (n) {
        ssize_t wrote = write(put->fd, data, n);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote < 0) {
            failed(op, "write", shown(put));
            return;
        }
        data += wrote;
        n -= (size_t)wrote;
    }
}

void put_file_end(struct op *op, struct reader *r)
{
    struct put *put = op->put;
    uint64_t size = read_u64(r);
    uint32_t crc = read_u32(r);
    if (r->bad || r->left || put->fd < 0) {
        op_fail(op->id, EBADMSG, "FILE_END is malformed or out of place");
        return;
    }
    if (size != put->size || crc != put->crc) {
        op_fail(op->id, EBADMSG, "%.512s: sent %llu bytes with CRC %08x, received %llu with %08x",
                shown(put), (unsigned long long)size, (unsigned)crc,
                (unsigned long long)put->size, (unsigned)put->crc);
        return;
    }
    if (!set_attributes(put, put->fd)) {
        failed(op, "set owner and mode of", shown(put));
        return;
    }
    int fd = put->fd;
    put->fd = -1;
    if (close(fd) != 0) {
        failed(op, "close", shown(put));
        return;
    }
    put->digest = crc32_of(put->digest, (const uint8_t *)&put->crc, sizeof put->crc);
    put->total += put->size;
}

void put_commit(struct op *op)
{
    struct put *put = op->put;
    if (put->fd >= 0 || !put->begun) {
        op_fail(op->id, EBADMSG, "COMMIT out of place");
        return;
    }
    memcpy(put->path, put->temp, sizeof put->path);
    if (!publish(put->path, put->dest)) {
        failed(op, "rename to", put->dest);
        return;
    }
    put->begun = false;
    send_done(op->id, put->total, put->digest);
    op_end(op);
}

void put_end(struct op *op)
{
    if (op->put->fd >= 0)
        close(op->put->fd);
    if (op->put->begun)
        remove_tree(op->put->temp);
    free(op->put);
}
