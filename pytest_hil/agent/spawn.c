/* Commands: started. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHELL "/bin/sh"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

extern char **environ;

int exec_alive;

/* A command's stdout and stderr, made before it is asked for. */
static int spare[2][2] = {{-1, -1}, {-1, -1}};

void exec_prepare(void)
{
    for (int i = 0; i < 2; i++)
        if (spare[i][0] < 0 && pipe2(spare[i], O_CLOEXEC) != 0)
            spare[i][0] = -1;
}

struct request {
    char *argv[MAX_STRINGS + 4];
    char *envp[2 * MAX_STRINGS];
    const char *cwd;
    char *program; /* NULL: not found */
    int argc;
    bool plain;
};
static struct request request; /* one at a time, and too large for the stack */

static const char *variable(char *const *envp, const char *name, size_t length)
{
    for (; *envp; envp++)
        if (!strncmp(*envp, name, length) && (*envp)[length] == '=')
            return *envp + length + 1;
    return NULL;
}

/* Our environment with the additions that stand at envp[0..n), which win. */
static void complete_environment(char **envp, size_t n)
{
    envp[n] = NULL;
    size_t to = n;
    for (char **e = environ; *e && to < 2 * MAX_STRINGS - 2; e++)
        if (!variable(envp, *e, strcspn(*e, "=")))
            envp[to++] = *e, envp[to] = NULL;
}

/* Where execvp would find it by the command's own PATH; errno says why it does not. */
static char *find_program(char *name, char *const *envp)
{
    static char path[PATH_MAX];
    if (strchr(name, '/') || !*name) {
        errno = ENOENT;
        return *name ? name : NULL;
    }
    int error = ENOENT;
    const char *next = variable(envp, "PATH", 4);
    for (next = next ? next : DEFAULT_PATH; next;) {
        size_t n = strcspn(next, ":");
        int wrote = snprintf(path, sizeof path, "%.*s/%s", n ? (int)n : 1, n ? next : ".", name);
        if (wrote < (int)sizeof path && access(path, X_OK) == 0)
            return path;
        if (errno == EACCES)
            error = EACCES;
        next = next[n] ? next + n + 1 : NULL;
    }
    errno = error;
    return NULL;
}

/* A busybox shell may prefer what it has built in to whatever PATH says. It has the same built in
 * when the program is a name of busybox too; else the shell shall decide. */
static bool same_in_shell(const char *program)
{
    struct stat shell, found;
    char target[PATH_MAX];
    if (stat(SHELL, &shell) != 0 || stat(program, &found) != 0)
        return false;
    if (shell.st_ino == found.st_ino && shell.st_dev == found.st_dev)
        return true;
    ssize_t n = readlink(SHELL, target, sizeof target - 1);
    target[n > 0 ? n : 0] = 0;
    return !strstr(target, "busybox");
}

static bool decode(struct exec *exec, bool *with_input, uint8_t flags, struct reader *r)
{
    static char pwd[4 + PATH_MAX] = "PWD=";
    uint32_t timeout = read_u32(r);
    exec->credit = read_u32(r);
    size_t argc = read_u16(r), envc = read_u16(r);
    if (argc < 1 || argc + envc > MAX_STRINGS)
        return false;
    request.cwd = read_string(r);
    for (size_t i = 0; i < argc; i++)
        request.argv[i] = read_string(r);
    request.argv[argc] = NULL;
    for (size_t i = 0; i < envc; i++)
        request.envp[i] = read_string(r);
    if (r->bad || r->left)
        return false;
    request.argc = (int)argc;
    request.plain = flags & PLAIN_LINE;
    if (request.plain && realpath(*request.cwd ? request.cwd : "/", pwd + 4))
        request.envp[envc++] = pwd; /* as a shell would have it */
    complete_environment(request.envp, envc);
    *with_input = flags & WITH_STDIN;
    exec->deadline = timeout ? now() + timeout * INT64_C(1000000) : 0;
    return true;
}

/* In the child, which shares our memory until it has become the program or failed. */
static void become(int in, int out, int err, volatile int *error, volatile bool *in_cwd)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody could end it any more */
    dup2(in, 0);
    dup2(out, 1);
    dup2(err, 2);
    sigprocmask(SIG_SETMASK, &none, NULL);
    *in_cwd = *request.cwd && chdir(request.cwd) != 0;
    if (!*in_cwd) {
        if (request.program)
            execve(request.program, request.argv, request.envp);
        if (request.plain) {
            /* What could not be run directly is the shell's affair, and its words are the line. */
            char *shell[] = {SHELL, "-c", request.argv[0], NULL};
            for (int i = 1; i < request.argc; i++)
                request.argv[i][-1] = ' ';
            execve(SHELL, shell, request.envp);
        }
    }
    *error = errno;
    _exit(127);
}

static int open_input(struct exec *exec, bool with_input)
{
    static int nothing = -1;
    int fd[2];
    if (!with_input) {
        if (nothing < 0)
            nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return nothing;
    }
    exec->input = malloc(INPUT_WINDOW);
    if (!exec->input || pipe2(fd, O_CLOEXEC) != 0)
        return -1;
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    exec->in = fd[1];
    return fd[0];
}

/* A command that could not be started ends as a shell would say it: 127 not found, else 126. */
static void not_started(struct op *op, int error, bool in_cwd)
{
    char text[MAX_TEXT];
    int n = snprintf(text, sizeof text, "%s%.900s: %s\n", in_cwd ? "cannot change to " : "",
                     in_cwd ? request.cwd : request.argv[0], strerror(error));
    send_frame(DATA, STDERR, op->id, text, (size_t)n);
    exec_send_exit(op->id, 0, error == ENOENT && !in_cwd ? 127 : 126);
    op_end(op);
}

static void spawn(struct op *op, int in)
{
    volatile int error = 0;
    volatile bool in_cwd = false;
    request.program = find_program(request.argv[0], request.envp);
    if (request.plain && request.program && !same_in_shell(request.program))
        request.program = NULL;
    if (!request.program && !request.plain) {
        not_started(op, errno, false);
        return;
    }
    pid_t pid = vfork();
    if (pid == 0)
        become(in, spare[0][1], spare[1][1], &error, &in_cwd);
    if (pid < 0) {
        op_fail(op->id, errno, "fork: %s", strerror(errno));
    } else if (error) {
        waitpid(pid, NULL, 0);
        not_started(op, error, in_cwd);
    } else {
        exec_alive++;
        op->exec.pid = pid;
        for (int i = 0; i < 2; i++) {
            op->exec.output[i] = spare[i][0];
            close(spare[i][1]);
            spare[i][0] = -1;
        }
    }
}

void exec_start(uint32_t id, uint8_t flags, struct reader *r)
{
    struct op *op = op_new(id);
    if (!op)
        return;
    op->kind = RUNS;
    op->exec = (struct exec){.in = -1, .output = {-1, -1}, .budget = {-1, -1}};
    bool with_input;
    if (!decode(&op->exec, &with_input, flags, r)) {
        op_fail(id, EBADMSG, "EXEC is malformed");
        return;
    }
    exec_prepare();
    int in = open_input(&op->exec, with_input);
    if (in < 0 || spare[0][0] < 0 || spare[1][0] < 0)
        op_fail(id, errno, "pipe: %s", strerror(errno));
    else
        spawn(op, in);
    if (with_input && in >= 0)
        close(in);
}

/* sync(2) may take long, so somebody else waits for it. */
void sync_start(uint32_t id)
{
    struct op *op = op_new(id);
    if (!op)
        return;
    op->kind = RUNS;
    op->exec = (struct exec){.in = -1, .output = {-1, -1}, .budget = {-1, -1}, .is_sync = true};
    pid_t pid = fork();
    if (pid == 0) {
        sync();
        _exit(0);
    }
    if (pid < 0) {
        op_fail(id, errno, "fork: %s", strerror(errno));
        return;
    }
    exec_alive++;
    op->exec.pid = pid;
}
