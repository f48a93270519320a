"""Programs for which permissions count, also when root runs the tests."""

from __future__ import annotations

import os

_RIGHTS = "-dac_override,-dac_read_search,-fowner"
# Goes before a command.
UNPRIVILEGED: tuple[str, ...] = (
    () if os.getuid() else ("setpriv", f"--bounding-set={_RIGHTS}", f"--inh-caps={_RIGHTS}")
)
