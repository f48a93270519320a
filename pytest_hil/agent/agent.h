/* hil-agent: runs commands and moves files in a guest, asked through a byte channel.
 *
 * The protocol is written down in protocol.py; the numbers here are the same. One thread, one poll
 * loop, no growth: every buffer has its size here. */
#ifndef HIL_AGENT_H
#define HIL_AGENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2, ppoll; included before anything else */
#endif

#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTOCOL_VERSION = 1,
    HEADER = 20,
    MAX_PAYLOAD = 65536,
    CHUNK = 32768 - HEADER, /* of DATA that we send: virtio_console takes 32 KiB a write */
    MAX_TEXT = 1024,        /* an ERROR's text */
    ROOM_FOR_ANSWER = 4096, /* what handling one frame may add to the output */
    OUT_SIZE = 4 * 32768 + ROOM_FOR_ANSWER,
    MAX_OPS = 64,
    PORT_BUFFER = 4096,      /* what a virtio port gives in one read at most */
    MAX_STRINGS = 8192,      /* arguments and environment additions of one EXEC */
    INPUT_WINDOW = 65536,    /* bytes of stdin that we keep while the command does not read */
    ENTRY_COST = 512, /* of a GET's credit, so that a tree of empty files is not free */
    NONCE = 16,
    MIN_ENTROPY = 32,
    MAX_DEPTH = 64, /* directories below directories in a GET */
};

enum frame_type {
    HELLO = 1,
    EXEC = 2,
    DATA = 3,
    CREDIT = 4,
    CANCEL = 5,
    PUT = 6,
    ENTRY = 7,
    FILE_END = 8,
    COMMIT = 9,
    GET = 10,
    PERSONALISE = 11,
    SYNC = 12,
    POWER = 13,
    HELLO_OK = 32,
    READY = 33,
    DONE = 34,
    EXIT = 35,
    ERROR = 36,
};

/* DATA's flags */
enum { STDIN = 0, STDOUT = 1, STDERR = 2, END_OF_DATA = 0x80 };
/* EXEC's flags */
enum { WITH_STDIN = 1, PLAIN_LINE = 2 };
/* EXIT's flags */
enum { BY_SIGNAL = 1, TIMED_OUT = 2 };

struct exec {
    int pid;        /* 0: reaped */
    int in;         /* -1: closed */
    int output[2];  /* stdout, stderr; -1: closed */
    int budget[2];  /* after the end: bytes that are still to be passed on; -1: until end of file */
    uint32_t credit;
    int64_t deadline; /* ns of CLOCK_MONOTONIC, 0: none */
    bool timed_out, input_ended, is_sync;
    int status;
    uint8_t *input; /* INPUT_WINDOW bytes, when there is a stdin */
    uint32_t input_from, input_to;
};

struct put;
struct get;

struct op {
    enum { FREE, RUNS, PUTS, GETS } kind;
    uint32_t id;
    union {
        struct exec exec;
        struct put *put;
        struct get *get;
    };
};

extern struct op ops[MAX_OPS];

/* frame.c: frames in, frames out */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad; /* something was missing; all that was read is 0 or "" */
};
uint8_t read_u8(struct reader *);
uint16_t read_u16(struct reader *);
uint32_t read_u32(struct reader *);
uint64_t read_u64(struct reader *);
const uint8_t *read_bytes(struct reader *, size_t);
char *read_string(struct reader *); /* up to its NUL, in place */

void crc_init(void);
uint32_t crc32_of(uint32_t crc, const uint8_t *, size_t);

size_t out_room(void);
uint8_t *frame_begin(size_t room); /* where the payload goes; the caller has looked at out_room */
void frame_end(enum frame_type, uint8_t flags, uint32_t id, size_t length);
void send_frame(enum frame_type, uint8_t flags, uint32_t id, const void *, size_t length);
void send_credit(uint32_t id, uint32_t bytes, bool closed);
void send_done(uint32_t id, uint64_t bytes, uint32_t digest);
void send_error(uint32_t id, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void out_reset(void);
bool out_pending(void);
bool out_flush(int fd); /* false: the channel is broken */

enum input { INPUT_NOTHING, INPUT_LAST, INPUT_SOME, INPUT_ENDED }; /* LAST: there is hardly more */
enum input input_read(int fd);
void input_parse(void);
bool input_waits(void); /* input_parse would go on now */
void input_reset(void);
/* The agent's answer to a frame; agent.c, or a test's own. The payload may be written to. */
void handle_frame(uint8_t type, uint8_t flags, uint32_t id, uint8_t *payload, size_t length);

/* agent.c */
struct op *op_find(uint32_t id);
struct op *op_new(uint32_t id); /* NULL after an ERROR was sent */
void op_end(struct op *);       /* frees what it holds: processes, files, memory */
/* Answers ERROR; what the operation held is freed, if there is one of that id. */
void op_fail(uint32_t id, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void session_end(void);
void say_ready(void);
extern const char agent_build[]; /* "HASH ARCH" */
extern int port;

/* main.c */
int64_t now(void); /* ns of CLOCK_MONOTONIC */

/* spawn.c: commands, started */
extern int exec_alive; /* children that nobody has waited for */
void exec_prepare(void); /* what the next command will need, made while nobody waits */
void exec_start(uint32_t id, uint8_t flags, struct reader *);
void sync_start(uint32_t id);

/* exec.c: commands, while they run */
void exec_send_exit(uint32_t id, uint8_t flags, int32_t code);
void exec_input(struct op *, uint8_t flags, const uint8_t *, size_t);
void exec_credit(struct op *, uint32_t);
void exec_cancel(struct op *);
void exec_end(struct op *);
size_t exec_poll(struct op *, struct pollfd *); /* how many it filled in, at most 3 */
void exec_ready(struct op *, const struct pollfd *);
void exec_check(struct op *, int64_t time); /* its deadline, and whether it is over */
void exec_reap(void);

/* put.c */
void put_start(uint32_t id, struct reader *);
void put_entry(struct op *, struct reader *);
void put_data(struct op *, const uint8_t *, size_t);
void put_file_end(struct op *, struct reader *);
void put_commit(struct op *);
void put_end(struct op *);

/* get.c */
void get_start(uint32_t id, struct reader *);
void get_credit(struct op *, uint32_t);
void get_step(struct op *);
bool get_wants(const struct op *); /* it could send something now */
void get_end(struct op *);

/* system.c */
void personalise(uint32_t id, struct reader *);
void power(uint32_t id, struct reader *, int fd);

#endif
