/* Commands: fed, listened to, killed. */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void exec_send_exit(uint32_t id, uint8_t flags, int32_t code)
{
    send_frame(EXIT, flags, id, &code, sizeof code);
}

/* --- while it runs --- */

static void pass_input(struct op *op)
{
    struct exec *e = &op->exec;
    while (e->in >= 0 && e->input_from < e->input_to) {
        ssize_t n = write(e->in, e->input + e->input_from, e->input_to - e->input_from);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) { /* nobody reads it any more */
            close_fd(&e->in);
            send_credit(op->id, 0, true);
            return;
        }
        e->input_from += (uint32_t)n;
        send_credit(op->id, (uint32_t)n, false);
    }
    if (e->input_ended)
        close_fd(&e->in);
}

void exec_input(struct op *op, uint8_t flags, const uint8_t *data, size_t n)
{
    struct exec *e = &op->exec;
    if (e->in < 0)
        return;
    uint32_t used = e->input_to - e->input_from;
    if (n > INPUT_WINDOW - used || e->input_ended) {
        op_fail(op->id, EPROTO, "more stdin than there was credit for");
        return;
    }
    memmove(e->input, e->input + e->input_from, used);
    memcpy(e->input + used, data, n);
    e->input_from = 0;
    e->input_to = used + (uint32_t)n;
    e->input_ended = flags & END_OF_DATA;
    pass_input(op);
}

void exec_credit(struct op *op, uint32_t bytes)
{
    op->exec.credit = bytes > UINT32_MAX - op->exec.credit ? UINT32_MAX : op->exec.credit + bytes;
}

/* One read's worth; false when there is nothing to read, or no credit or room to send it. */
static bool pass_output(struct op *op, int i)
{
    struct exec *e = &op->exec;
    size_t most = e->credit < CHUNK ? e->credit : CHUNK;
    if (e->budget[i] >= 0 && (size_t)e->budget[i] < most)
        most = (size_t)e->budget[i];
    if (e->output[i] < 0 || !most || out_room() < HEADER + most + ROOM_FOR_ANSWER)
        return false;
    uint8_t *p = frame_begin(most);
    ssize_t n = read(e->output[i], p, most);
    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0) {
        close_fd(&e->output[i]);
        return false;
    }
    frame_end(DATA, i ? STDERR : STDOUT, op->id, (size_t)n);
    e->credit -= (uint32_t)n;
    if (e->budget[i] >= 0 && !(e->budget[i] -= (int)n))
        close_fd(&e->output[i]);
    return true;
}

size_t exec_poll(struct op *op, struct pollfd *set)
{
    struct exec *e = &op->exec;
    size_t n = 0;
    if (e->in >= 0 && e->input_from < e->input_to)
        set[n++] = (struct pollfd){.fd = e->in, .events = POLLOUT};
    if (e->credit && out_room() >= HEADER + CHUNK + ROOM_FOR_ANSWER)
        for (int i = 0; i < 2; i++)
            if (e->output[i] >= 0)
                set[n++] = (struct pollfd){.fd = e->output[i], .events = POLLIN};
    return n;
}

void exec_ready(struct op *op, const struct pollfd *ready)
{
    if (ready->fd == op->exec.in) {
        if (out_room() >= ROOM_FOR_ANSWER)
            pass_input(op);
        return;
    }
    for (int i = 0; i < 2; i++) {
        if (ready->fd != op->exec.output[i])
            continue;
        if (ready->revents & POLLIN)
            pass_output(op, i);
        else
            close_fd(&op->exec.output[i]);
    }
    if (op->exec.output[0] < 0 && op->exec.output[1] < 0)
        exec_reap(); /* it has most likely just ended: answer at once */
}

/* --- its end --- */

static void kill_group(struct exec *e)
{
    if (e->pid)
        kill(-e->pid, SIGKILL);
}

void exec_reap(void)
{
    int status;
    pid_t pid;
    while (exec_alive > 0 && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
        exec_alive--;
        for (struct op *op = ops; op < ops + MAX_OPS; op++) {
            if (op->kind != RUNS || op->exec.pid != pid)
                continue;
            op->exec.pid = 0;
            op->exec.status = status;
            /* Its children may keep the pipes open for ever: what is in them now is the output. */
            for (int i = 0; i < 2; i++)
                if (op->exec.output[i] >= 0 &&
                    (ioctl(op->exec.output[i], FIONREAD, &op->exec.budget[i]) != 0 ||
                     op->exec.budget[i] == 0))
                    close_fd(&op->exec.output[i]);
        }
    }
}

void exec_check(struct op *op, int64_t time)
{
    struct exec *e = &op->exec;
    if (e->deadline && time >= e->deadline) {
        e->deadline = 0;
        e->timed_out = e->pid != 0;
        kill_group(e);
    }
    if (e->pid)
        return;
    for (int i = 0; i < 2; i++)
        while (pass_output(op, i))
            ;
    if (e->output[0] >= 0 || e->output[1] >= 0 || out_room() < ROOM_FOR_ANSWER)
        return;
    uint8_t flags = (WIFSIGNALED(e->status) ? BY_SIGNAL : 0) | (e->timed_out ? TIMED_OUT : 0);
    if (e->is_sync)
        send_frame(DONE, 0, op->id, NULL, 0);
    else
        exec_send_exit(op->id, flags,
                  WIFSIGNALED(e->status) ? WTERMSIG(e->status) : WEXITSTATUS(e->status));
    op_end(op);
}

void exec_cancel(struct op *op)
{
    kill_group(&op->exec);
    for (int i = 0; i < 2; i++)
        close_fd(&op->exec.output[i]);
}

void exec_end(struct op *op)
{
    exec_cancel(op);
    close_fd(&op->exec.in);
    free(op->exec.input);
}
