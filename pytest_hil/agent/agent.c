/* The session: its operations, and what is asked of them. */
#include "agent.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#ifndef BUILD_ID
#define BUILD_ID "unknown"
#endif
#ifndef ARCH
#define ARCH "unknown"
#endif

struct op ops[MAX_OPS];

const char agent_build[] = BUILD_ID " " ARCH;
int port = -1;
static bool in_session;

/* --- operations --- */

struct op *op_find(uint32_t id)
{
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind != FREE && op->id == id)
            return op;
    return NULL;
}

struct op *op_new(uint32_t id)
{
    if (op_find(id)) {
        op_fail(id, EEXIST, "operation %u is under way already; it was ended", id);
        return NULL;
    }
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        if (op->kind == FREE) {
            op->id = id;
            return op;
        }
    op_fail(id, EAGAIN, "%d operations are under way already", MAX_OPS);
    return NULL;
}

void op_end(struct op *op)
{
    if (op->kind == RUNS)
        exec_end(op);
    else if (op->kind == PUTS)
        put_end(op);
    else if (op->kind == GETS)
        get_end(op);
    op->kind = FREE;
}

void op_fail(uint32_t id, int error, const char *format, ...)
{
    char text[MAX_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    send_error(id, error, "%s", text);
    struct op *op = op_find(id);
    if (op)
        op_end(op);
}

void session_end(void)
{
    for (struct op *op = ops; op < ops + MAX_OPS; op++)
        op_end(op);
    out_reset();
    in_session = false;
}

/* --- frames --- */

static size_t greeting(uint8_t *p)
{
    uint16_t version = PROTOCOL_VERSION;
    memcpy(p, &version, sizeof version);
    memcpy(p + 2, BUILD_ID "\0" ARCH, sizeof BUILD_ID "\0" ARCH);
    return 2 + sizeof BUILD_ID "\0" ARCH;
}

static void hello(struct reader *r)
{
    static uint8_t nonce[NONCE];
    uint8_t answer[NONCE + 128];
    const uint8_t *theirs = read_bytes(r, NONCE);
    uint16_t version = read_u16(r);
    if (r->bad)
        return;
    /* The same nonce again is the same host that did not hear us. */
    if (!in_session || memcmp(nonce, theirs, NONCE) != 0) {
        session_end();
        memcpy(nonce, theirs, NONCE);
        in_session = version == PROTOCOL_VERSION;
    }
    memcpy(answer, nonce, NONCE);
    send_frame(HELLO_OK, 0, 0, answer, NONCE + greeting(answer + NONCE));
}

void say_ready(void)
{
    uint8_t payload[128];
    send_frame(READY, 0, 0, payload, greeting(payload));
}

static void request(uint8_t type, uint8_t flags, uint32_t id, struct reader *r)
{
    switch (type) {
    case EXEC:
        exec_start(id, flags, r);
        break;
    case PUT:
        put_start(id, r);
        break;
    case GET:
        get_start(id, r);
        break;
    case PERSONALISE:
        personalise(id, r);
        break;
    case SYNC:
        sync_start(id);
        break;
    case POWER:
        power(id, r, port);
        break;
    default:
        op_fail(id, ENOSYS, "no such request: %d", type);
    }
}

static void cancel(struct op *op)
{
    if (op->kind == RUNS)
        exec_cancel(op);
    else
        op_fail(op->id, ECANCELED, "cancelled");
}

static void credit(struct op *op, struct reader *r)
{
    uint32_t bytes = read_u32(r);
    if (r->bad || r->left)
        op_fail(op->id, EBADMSG, "CREDIT is malformed");
    else if (op->kind == RUNS)
        exec_credit(op, bytes);
    else if (op->kind == GETS)
        get_credit(op, bytes);
}

/* Frames of an operation that has ended are late, not wrong: it has been answered. */
static void handle_more(uint8_t type, uint8_t flags, uint32_t id, struct reader *r)
{
    struct op *op = op_find(id);
    if (!op)
        return;
    if (type == CANCEL)
        cancel(op);
    else if (type == CREDIT)
        credit(op, r);
    else if (type == DATA && op->kind == RUNS)
        exec_input(op, flags, r->at, r->left);
    else if (type == DATA && op->kind == PUTS)
        put_data(op, r->at, r->left);
    else if (type == ENTRY && op->kind == PUTS)
        put_entry(op, r);
    else if (type == FILE_END && op->kind == PUTS)
        put_file_end(op, r);
    else if (type == COMMIT && op->kind == PUTS)
        put_commit(op);
    else
        op_fail(id, EPROTO, "a frame of type %d does not belong to this operation", type);
}

void handle_frame(uint8_t type, uint8_t flags, uint32_t id, uint8_t *payload, size_t length)
{
    struct reader r = {.at = payload, .left = length};
    if (type == HELLO)
        hello(&r);
    else if (!in_session)
        return; /* of a session that we know nothing of */
    else if (type == DATA || type == CREDIT || type == CANCEL || type == ENTRY ||
             type == FILE_END || type == COMMIT)
        handle_more(type, flags, id, &r);
    else
        request(type, flags, id, &r);
}
