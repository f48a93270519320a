"""What a serial shell leaves on a console, taken out again, for people who read its last lines.

The console's own files have all of it. Here the test's and the kernel's words are wanted, not ours.
"""

from __future__ import annotations

import re

# See serial_script and serial_frames: a frame; our directory, which is named from the first line
# that is typed on; the question whether a shell is there, and its answer.
_FRAME = re.compile(r"@[0-9a-f]{8} (?:\d+ )?[A-Z](?: .*)? \.\s*$|@[0-9a-f]{8} \d+ [A-Z] .*$")
_OURS = re.compile(r"\.hil-[0-9a-f]{8}")
_ASKED = re.compile(r"echo hil\$\(\(\d+\+1000000\)\)|^hil1\d{6}$")
_KERNEL = re.compile(r"^\[ *\d+\.\d{6}\]")


def without(text: str) -> str:
    """A console's text without what a serial shell typed, and without its frames."""
    if not any(word in text for word in ("@", ".hil-", "hil$((")):
        return text
    kept = []
    typing = False
    for line in text.splitlines():
        found = _FRAME.search(line)
        if found is not None:
            # The shell answers: what was typed has been taken.
            typing = False
            line = line[: found.start()]
            if not line.strip():
                continue
        if _OURS.search(line):
            typing = True
            continue
        if (typing and not _KERNEL.match(line)) or _ASKED.search(line):
            continue
        kept.append(line)
    return "\n".join(kept)
