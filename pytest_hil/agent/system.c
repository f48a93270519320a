/* What makes a clone itself: its randomness, its clock, its names. And its end. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

enum { SET_ENTROPY = 1, SET_TIME = 2, SET_HOSTNAME = 4, SET_MACHINE_ID = 8 };
enum { MAX_ENTROPY = 512 };

/* Both: the pool gets the bytes, and the generator that getrandom() reads is keyed from it anew.
 * With the first alone every clone of a template goes on with the template's key for a while. */
static bool reseed(const uint8_t *bytes, size_t n)
{
    struct {
        int entropy_count, buf_size;
        uint8_t buf[MAX_ENTROPY];
    } pool = {.entropy_count = (int)n * 8, .buf_size = (int)n};
    memcpy(pool.buf, bytes, n);
    int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool good = ioctl(fd, RNDADDENTROPY, &pool) == 0;
    /* Linux before 4.17 has no RNDRESEEDCRNG. */
    good = good && (ioctl(fd, RNDRESEEDCRNG) == 0 || errno == EINVAL || errno == ENOTTY);
    int error = errno;
    close(fd);
    errno = error;
    return good;
}

static bool set_machine_id(const char *id)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%s\n", id);
    int fd = open("/etc/machine-id", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);
    if (fd < 0)
        return errno == ENOENT; /* there is no /etc: nobody will look */
    bool good = write(fd, line, (size_t)n) == n;
    return close(fd) == 0 && good;
}

void personalise(uint32_t id, struct reader *r)
{
    uint8_t what = read_u8(r);
    int64_t time = (int64_t)read_u64(r);
    size_t n = read_u16(r);
    const uint8_t *entropy = n <= MAX_ENTROPY && n <= r->left ? read_bytes(r, n) : NULL;
    const char *hostname = entropy ? read_string(r) : "";
    const char *machine_id = entropy ? read_string(r) : "";
    struct timespec ts = {.tv_sec = time / 1000000000, .tv_nsec = time % 1000000000};
    const char *failed = NULL;
    if (!entropy || r->bad || r->left || strlen(machine_id) > 32 || time < 0) {
        op_fail(id, EBADMSG, "PERSONALISE is malformed");
        return;
    }
    if (what & SET_ENTROPY && n < MIN_ENTROPY) {
        op_fail(id, EINVAL, "%zu bytes are too few to reseed with: at least %d", n, MIN_ENTROPY);
        return;
    }
    if (what & SET_ENTROPY && !reseed(entropy, n))
        failed = "reseed the kernel's random numbers";
    else if (what & SET_TIME && clock_settime(CLOCK_REALTIME, &ts) != 0)
        failed = "set the clock";
    else if (what & SET_HOSTNAME && sethostname(hostname, strlen(hostname)) != 0)
        failed = "set the hostname";
    else if (what & SET_MACHINE_ID && !set_machine_id(machine_id))
        failed = "write /etc/machine-id";
    if (failed)
        op_fail(id, errno, "%s: %s", failed, strerror(errno));
    else
        send_frame(DONE, 0, id, NULL, 0);
}

void power(uint32_t id, struct reader *r, int fd)
{
    uint8_t how = read_u8(r);
    if (r->bad || r->left || how > 1) {
        op_fail(id, EBADMSG, "POWER is malformed");
        return;
    }
    if (geteuid() != 0) {
        op_fail(id, EPERM, "switch off: %s", strerror(EPERM));
        return;
    }
    sync();
    /* Afterwards nobody can answer. If the host does not read, it shall not keep us alive. */
    send_frame(DONE, 0, id, NULL, 0);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    for (int tries = 0; tries < 100 && out_pending(); tries++)
        if (poll(&ready, 1, 1000) <= 0 || !out_flush(fd))
            break;
    reboot(how ? RB_AUTOBOOT : RB_POWER_OFF);
    op_fail(id, errno, "switch off: %s", strerror(errno)); /* heard only if somebody waits for more */
}
