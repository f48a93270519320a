/* See hil_gcov.h. The frames, and what is done with them: pytest_hil/coverage/frames.py.
 *
 * Nothing is kept but one frame: what is asked for again is made again, by counting through all.
 *
 * SPDX-License-Identifier: MIT */
#include "hil_gcov.h"

#include <gcov.h>
#include <stddef.h>
#include <stdint.h>

enum { CHUNK = 48, LINE = 128, REQUEST = 34, TRIES = 5, ROUNDS = 1000, NOTHING = 0xffffff };

extern const struct gcov_info *const __gcov_info_start[];
extern const struct gcov_info *const __gcov_info_end[];

/* libgcov wants it for counters of values, which --coverage has not. */
__attribute__((weak)) void abort(void)
{
    for (;;) {
    }
}

struct state {
    const struct hil_gcov_io *io;
    uint32_t dump;
    uint32_t sequence;
    uint32_t from, to; /* the frames that are really sent */
    uint32_t first;    /* the frame with which this file begins */
    uint32_t size, crc; /* of this file */
    unsigned used;
    uint8_t chunk[CHUNK];
};

static uint32_t crc32(uint32_t crc, const uint8_t *data, unsigned size)
{
    crc = ~crc;
    while (size--) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

static char *hex(char *out, uint32_t value, int digits)
{
    while (digits--)
        *out++ = "0123456789abcdef"[value >> 4 * digits & 15];
    return out;
}

static char *base64(char *out, const uint8_t *data, unsigned size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (unsigned at = 0; at < size; at += 3) {
        uint32_t word = (uint32_t)data[at] << 16;
        if (at + 1 < size)
            word |= (uint32_t)data[at + 1] << 8;
        if (at + 2 < size)
            word |= data[at + 2];
        *out++ = digits[word >> 18];
        *out++ = digits[word >> 12 & 63];
        *out++ = at + 1 < size ? digits[word >> 6 & 63] : '=';
        *out++ = at + 2 < size ? digits[word & 63] : '=';
    }
    return out;
}

static void frame(struct state *s, char type, const void *data, unsigned size)
{
    char line[LINE], *end = line;
    uint32_t number = s->sequence++;
    if (number < s->from || number > s->to)
        return;
    for (const char *magic = "!HG1:"; *magic;)
        *end++ = *magic++;
    end = hex(end, s->dump, 4);
    *end++ = ':';
    end = hex(end, number, 6);
    *end++ = ':';
    *end++ = type;
    end = hex(end, size, 2);
    *end++ = ':';
    end = base64(end, data, size);
    *end++ = ':';
    end = hex(end, crc32(0, (const uint8_t *)line, (unsigned)(end - line)), 8);
    *end++ = '\r';
    *end++ = '\n';
    s->io->write(line, (unsigned)(end - line), s->io->arg);
}

static void flush(struct state *s)
{
    if (s->used)
        frame(s, 'D', s->chunk, s->used);
    s->used = 0;
}

static void data(const void *data, unsigned size, void *arg)
{
    struct state *s = arg;
    const uint8_t *from = data;
    s->crc = crc32(s->crc, from, size);
    s->size += size;
    while (size--) {
        s->chunk[s->used++] = *from++;
        if (s->used == CHUNK)
            flush(s);
    }
}

static void name(const char *name, void *arg)
{
    struct state *s = arg;
    s->first = s->sequence;
    s->size = s->crc = 0;
    do {
        unsigned size = 0;
        while (size < CHUNK && name && name[size])
            size++;
        frame(s, 'N', name, size);
        name = name ? name + size : NULL;
    } while (name && *name);
}

static void *allocate(unsigned size, void *arg)
{
    (void)size, (void)arg;
    abort();
    return NULL;
}

static uint8_t *put32(uint8_t *out, uint32_t value)
{
    for (int byte = 0; byte < 4; byte++)
        *out++ = (uint8_t)(value >> 8 * byte);
    return out;
}

/* All frames, of which those from `from` to `to` are sent, and the last one always. */
static void pass(struct state *s, unsigned number, uint32_t from, uint32_t to)
{
    uint8_t begin[2] = {s->io->read ? 1 : 0, (uint8_t)number}, end[12];
    uint32_t files = 0;
    s->sequence = 0;
    s->from = from;
    s->to = to;
    s->used = 0;
    frame(s, 'B', begin, sizeof begin);
    /* As numbers: two symbols of the linker are not of one array. */
    const struct gcov_info *const *info = __gcov_info_start;
    for (; (uintptr_t)info < (uintptr_t)__gcov_info_end; info++, files++) {
        __gcov_info_to_gcda(*info, name, data, allocate, s);
        flush(s);
        put32(put32(put32(end, s->first), s->size), s->crc);
        frame(s, 'E', end, 12);
    }
    s->to = NOTHING;
    s->from = 0;
    put32(end, files);
    end[4] = begin[0];
    frame(s, 'Z', end, 5);
}

static int number(const char *text, int digits, uint32_t *value)
{
    *value = 0;
    while (digits--) {
        char c = *text++;
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10)
                                                : 16;
        if (digit > 15)
            return 0;
        *value = *value << 4 | digit;
    }
    return 1;
}

/* Waits for "!HR1:DDDD:FFFFFF:TTTTTT:CCCCCCCC\n": 1 when one came whole, 0 after a silence. */
static int request(struct state *s, uint32_t *from, uint32_t *to)
{
    char line[REQUEST];
    unsigned used = 0;
    for (unsigned budget = 4096; budget; budget--) {
        int byte = s->io->read(s->io->arg);
        uint32_t dump, crc;
        if (byte < 0)
            return 0;
        if (byte == '!')
            used = 0;
        if (byte != '\n' && byte != '\r') {
            if (used < REQUEST)
                line[used++] = (char)byte;
            continue;
        }
        if (used == 32 && line[1] == 'H' && line[2] == 'R' && line[3] == '1' &&
            number(line + 5, 4, &dump) && number(line + 10, 6, from) && number(line + 17, 6, to) &&
            number(line + 24, 8, &crc) && crc == crc32(0, (const uint8_t *)line, 24) &&
            dump == s->dump)
            return 1;
        used = 0;
    }
    return 0;
}

unsigned hil_gcov_dump(const struct hil_gcov_io *io)
{
    static uint32_t dumps;
    static struct state s;
    unsigned passes = io->passes ? io->passes : 2;
    uint32_t from, to;

    s.io = io;
    s.dump = dumps++ & 0xffff;
    pass(&s, 0, 0, NOTHING);
    if (!io->read) {
        for (unsigned number = 1; number < passes; number++)
            pass(&s, number, 0, NOTHING);
        return s.sequence;
    }
    for (unsigned silent = 0, rounds = 0; silent < TRIES && rounds < ROUNDS;) {
        if (!request(&s, &from, &to)) {
            silent++;
            pass(&s, 0, NOTHING, 0); /* its last frame says: I am waiting */
        } else if (from > to) {
            return s.sequence; /* the other side has all */
        } else {
            silent = 0;
            rounds++;
            pass(&s, 0, from, to);
        }
    }
    return 0;
}
