/* A Cortex-M3 (QEMU's mps2-an385): says what it found, and its counters when it is asked by a "c". */
#include <stdint.h>

#include "hil_gcov.h"
#include "work.h"

static volatile uint32_t *const uart = (uint32_t *)0x40004000;
enum { DATA, STATE, CONTROL, BAUD = 4 };

static void put(char c)
{
    while (uart[STATE] & 1) {
    }
    uart[DATA] = (uint8_t)c;
}

static void say(const char *text)
{
    while (*text)
        put(*text++);
}

static void write(const void *data, unsigned size, void *arg)
{
    (void)arg;
    for (const char *c = data; size--;)
        put(*c++);
}

/* On a board, a timer would say when a second is over. */
static int read(void *arg)
{
    (void)arg;
    for (uint32_t patience = 20000000; patience; patience--)
        if (uart[STATE] & 2)
            return (int)(uart[DATA] & 0xff);
    return -1;
}

static void number(int value)
{
    if (value > 9)
        number(value / 10);
    put((char)('0' + value % 10));
}

void reset(void)
{
    static const struct hil_gcov_io io = {.write = write, .read = read};
    extern uint32_t data_load[], data_start[], data_end[], bss_end[];
    for (uint32_t *to = data_start, *from = data_load; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = data_end; to < bss_end;)
        *to++ = 0;
    uart[BAUD] = 16;
    uart[CONTROL] = 3;
    say("work: ");
    number(work());
    say("\nfirmware is up\n");
    for (;;) {
        int c = read(0);
        if (c == 'c')
            say(hil_gcov_dump(&io) ? "counters sent\n" : "nobody took the counters\n");
        else if (c == 'w')
            work();
    }
}

extern uint32_t stack_top[];
__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {stack_top, reset};
