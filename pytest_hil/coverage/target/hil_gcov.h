/* Coverage of bare-metal firmware over its console: gcc's counters as lines of text.
 *
 * Compile this file without --coverage, the code to be measured with
 * "--coverage -fprofile-info-section" (gcc 12 or later), link with -lgcov, and give the linker's
 * script a place for the list of what was compiled so:
 *
 *     .gcov_info : {
 *         PROVIDE(__gcov_info_start = .);
 *         KEEP(*(.gcov_info))
 *         PROVIDE(__gcov_info_end = .);
 *     } > FLASH
 *
 * SPDX-License-Identifier: MIT */
#ifndef HIL_GCOV_H
#define HIL_GCOV_H

struct hil_gcov_io {
    /* Sends bytes; returns when they are on their way. */
    void (*write)(const void *data, unsigned size, void *arg);
    /* The next byte that was received, or -1 when none came for about a second. NULL: nothing can be
     * received, and all is sent `passes` times instead of what was lost. */
    int (*read)(void *arg);
    void *arg;
    unsigned passes; /* 0: 2 */
};

/* Send all counters as they are now. Let no interrupt count in the meantime, and none write between
 * the lines if it can be helped: what is damaged is sent again, and what changed is not counted.
 * Returns how many frames there were, or 0 if the other side never said that it has all. */
unsigned hil_gcov_dump(const struct hil_gcov_io *io);

#endif
