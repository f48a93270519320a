/* Frames in, frames out. Everything is little-endian, and so is every machine that we build for. */
#include "agent.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied as they are");

static const uint8_t magic[4] = {0x1b, 'H', 'I', 'L'};

/* One frame at most: what a half frame can hold back is bounded by this. */
static uint8_t in[HEADER + MAX_PAYLOAD];
static size_t in_length;
static bool in_stopped; /* there may be whole frames left: the output had no room for an answer */

static uint8_t out[OUT_SIZE];
static size_t out_from, out_to;

/* --- numbers in payloads --- */

const uint8_t *read_bytes(struct reader *r, size_t n)
{
    static const uint8_t none[16];
    if (r->bad || r->left < n) {
        r->bad = true;
        return none;
    }
    const uint8_t *p = r->at;
    r->at += n;
    r->left -= n;
    return p;
}

#define READ(name, type)                                                                            \
    type name(struct reader *r)                                                                     \
    {                                                                                               \
        type v;                                                                                     \
        memcpy(&v, read_bytes(r, sizeof v), sizeof v);                                              \
        return v;                                                                                   \
    }
READ(read_u8, uint8_t)
READ(read_u16, uint16_t)
READ(read_u32, uint32_t)
READ(read_u64, uint64_t)

char *read_string(struct reader *r)
{
    const uint8_t *end = r->bad || !r->left ? NULL : memchr(r->at, 0, r->left);
    if (!end) {
        static char none[1];
        r->bad = true;
        return none;
    }
    return (char *)read_bytes(r, (size_t)(end - r->at) + 1);
}

/* --- CRC-32 as in zlib, eight bytes a step (slicing-by-8) --- */

static uint32_t table[8][256];

void crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? 0xedb88320 : 0);
        table[0][i] = c;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++)
            table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

uint32_t crc32_of(uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        w ^= crc;
        crc = table[7][w & 255] ^ table[6][w >> 8 & 255] ^ table[5][w >> 16 & 255] ^
              table[4][w >> 24 & 255] ^ table[3][w >> 32 & 255] ^ table[2][w >> 40 & 255] ^
              table[1][w >> 48 & 255] ^ table[0][w >> 56];
    }
    while (n--)
        crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
    return ~crc;
}

static uint16_t header_check(const uint8_t *header)
{
    uint8_t copy[HEADER];
    memcpy(copy, header, HEADER);
    copy[6] = copy[7] = 0;
    return (uint16_t)crc32_of(0, copy, HEADER);
}

/* --- out --- */

size_t out_room(void)
{
    return OUT_SIZE - (out_to - out_from);
}

bool out_pending(void)
{
    return out_to > out_from;
}

void out_reset(void)
{
    out_from = out_to = 0;
}

uint8_t *frame_begin(size_t room)
{
    if (OUT_SIZE - out_to < HEADER + room) {
        memmove(out, out + out_from, out_to - out_from);
        out_to -= out_from;
        out_from = 0;
    }
    return out + out_to + HEADER;
}

void frame_end(enum frame_type type, uint8_t flags, uint32_t id, size_t length)
{
    uint8_t *p = out + out_to;
    uint32_t n = (uint32_t)length, crc = type == DATA ? 0 : crc32_of(0, p + HEADER, length);
    memcpy(p, magic, 4);
    p[4] = (uint8_t)type;
    p[5] = flags;
    memcpy(p + 8, &id, 4);
    memcpy(p + 12, &n, 4);
    memcpy(p + 16, &crc, 4);
    uint16_t check = header_check(p);
    memcpy(p + 6, &check, 2);
    out_to += HEADER + length;
}

void send_frame(enum frame_type type, uint8_t flags, uint32_t id, const void *data, size_t length)
{
    if (out_room() < HEADER + length)
        return; /* cannot be: ROOM_FOR_ANSWER was looked for before */
    uint8_t *p = frame_begin(length);
    if (length)
        memcpy(p, data, length);
    frame_end(type, flags, id, length);
}

void send_credit(uint32_t id, uint32_t bytes, bool closed)
{
    send_frame(CREDIT, closed, id, &bytes, sizeof bytes);
}

void send_done(uint32_t id, uint64_t bytes, uint32_t digest)
{
    uint8_t payload[12];
    memcpy(payload, &bytes, 8);
    memcpy(payload + 8, &digest, 4);
    send_frame(DONE, 0, id, payload, sizeof payload);
}

void send_error(uint32_t id, int error, const char *format, ...)
{
    struct {
        uint32_t error;
        char text[MAX_TEXT];
    } payload = {.error = (uint32_t)error};
    va_list args;
    va_start(args, format);
    int n = vsnprintf(payload.text, sizeof payload.text, format, args);
    va_end(args);
    n = n < 0 ? 0 : n >= MAX_TEXT ? MAX_TEXT - 1 : n;
    send_frame(ERROR, 0, id, &payload, sizeof payload.error + (size_t)n);
}

bool out_flush(int fd)
{
    while (out_from < out_to) {
        ssize_t n = write(fd, out + out_from, out_to - out_from);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        out_from += (size_t)n;
    }
    out_reset();
    return true;
}

/* --- in --- */

void input_reset(void)
{
    in_length = 0;
    in_stopped = false;
}

bool input_waits(void)
{
    return in_stopped && out_room() >= ROOM_FOR_ANSWER;
}

enum input input_read(int fd)
{
    if (in_length == sizeof in)
        return INPUT_NOTHING; /* a frame waits for room in the output */
    ssize_t n = read(fd, in + in_length, sizeof in - in_length);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? INPUT_NOTHING : INPUT_ENDED;
    in_length += (size_t)n;
    return n >= PORT_BUFFER ? INPUT_SOME : n ? INPUT_LAST : INPUT_ENDED;
}

static bool header_good(const uint8_t *p)
{
    uint16_t check;
    uint32_t length;
    if (memcmp(p, magic, sizeof magic) != 0)
        return false;
    memcpy(&check, p + 6, 2);
    memcpy(&length, p + 12, 4);
    return length <= MAX_PAYLOAD && check == header_check(p);
}

/* Every whole frame that is there; what is no frame is skipped up to the next magic. */
void input_parse(void)
{
    size_t at = 0;
    in_stopped = false;
    while (in_length - at >= HEADER) {
        uint8_t *p = in + at;
        if (out_room() < ROOM_FOR_ANSWER) {
            in_stopped = true;
            break;
        }
        if (!header_good(p)) {
            const uint8_t *next = memchr(p + 1, magic[0], in_length - at - 1);
            at = next ? (size_t)(next - in) : in_length;
            continue;
        }
        uint32_t id, length, crc;
        memcpy(&id, p + 8, 4);
        memcpy(&length, p + 12, 4);
        memcpy(&crc, p + 16, 4);
        if (in_length - at < HEADER + length)
            break;
        at += HEADER + length;
        if (p[4] != DATA && crc != crc32_of(0, p + HEADER, length)) {
            op_fail(id, EBADMSG, "a frame of type %d was damaged on the way", p[4]);
            continue;
        }
        handle_frame(p[4], p[5], id, p + HEADER, length);
    }
    if (at) {
        memmove(in, in + at, in_length - at);
        in_length -= at;
    }
}
