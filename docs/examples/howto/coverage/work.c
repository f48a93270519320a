/* What is measured: the same source in a program of the guest, and in firmware. */
#include "work.h"

static int odd(unsigned value)
{
    return value & 1;
}

unsigned collatz(unsigned value)
{
    unsigned steps = 0;
    while (value > 1) {
        value = odd(value) ? 3 * value + 1 : value / 2;
        steps++;
    }
    return steps;
}

int classify(int value)
{
    if (value < 0)
        return -1;
    if (value > 100 && odd((unsigned)value))
        return 2;
    switch (value) {
    case 0:
        return 0;
    case 7:
        return 7;
    default:
        return 1;
    }
}

int work(void)
{
    int sum = 0;
    for (int value = -3; value < 200; value += 13)
        sum += classify(value);
    for (unsigned value = 1; value < 40; value++)
        sum += (int)collatz(value);
    return sum;
}
