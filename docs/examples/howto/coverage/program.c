#include <stdio.h>
#include <stdlib.h>

#include "work.h"

int main(int argc, char **argv)
{
    if (argc > 1)
        printf("%d\n", classify(atoi(argv[1])));
    else
        printf("%d\n", work());
    return 0;
}
