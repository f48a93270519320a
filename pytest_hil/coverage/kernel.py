"""The counters of a target's kernel: CONFIG_GCOV_KERNEL, in its debugfs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_hil.coverage.gcov import Counters
from pytest_hil.errors import Unsupported
from pytest_hil.target import Target

DEBUGFS = "/sys/kernel/debug/gcov"
_TIMEOUT = 120.0
# Its files say that they are empty, so that only a copy knows their size, and its directories have
# links to the build. A snapshot of one file's counters is made when the file is opened. All of them
# by one cp: a kernel that counts everywhere has over a thousand files, and a process for each would
# take minutes on a machine that is emulated.
_COPY = """
mkdir -p "$2" && cp -R "$1/." "$2" && find "$2" ! -type d ! -name '*.gcda' -exec rm -f {} +
"""
_MOUNT = """
[ -e "$1/reset" ] || mount -t debugfs none /sys/kernel/debug 2>/dev/null
[ -e "$1/reset" ]
"""


class KernelCounters:
    """``tree`` is the directory on the target that has them."""

    def __init__(self, target: Target, scratch: str, *, tree: str = DEBUGFS) -> None:
        self._target = target
        self._scratch = scratch
        self._tree = tree

    def there(self) -> bool:
        """Whether the target's kernel counts."""
        argv = ["sh", "-c", _MOUNT, "sh", self._tree]
        return self._target.run(argv, check=False, timeout=_TIMEOUT).ok

    def check(self) -> None:
        """Raises Unsupported when its kernel does not count."""
        if not self.there():
            raise Unsupported(
                self._target.name,
                f"{self._tree}: its kernel was built without CONFIG_GCOV_KERNEL",
                mend="build it with CONFIG_DEBUG_FS, CONFIG_GCOV_KERNEL, and "
                "CONFIG_GCOV_PROFILE_ALL or GCOV_PROFILE := y in the Makefiles of interest",
            )

    def reset(self) -> None:
        """All counters are zero from now on."""
        self._target.run(
            ["sh", "-c", 'echo 0 > "$1"', "sh", f"{self._tree}/reset"], timeout=_TIMEOUT
        )

    def fetch(self, into: Path) -> None:
        """Copy them as they are now to a directory of this host, which must not be there."""
        into.parent.mkdir(parents=True, exist_ok=True)
        self._target.run(["sh", "-c", _COPY, "sh", self._tree, self._scratch], timeout=_TIMEOUT)
        try:
            with tempfile.TemporaryDirectory(prefix=".new-", dir=into.parent) as new:
                self._target.get(self._scratch, Path(new, "got"))
                Path(new, "got").rename(into)
        finally:
            self._target.run(["rm", "-rf", self._scratch], timeout=_TIMEOUT, check=False)


def counters(tree: Path) -> Iterator[Counters]:
    """Those that were fetched into a directory: their paths are those of the kernel's build."""
    for path in sorted(tree.rglob("*.gcda")):
        if path.is_file() and not path.is_symlink():
            yield Counters(path, "/" + path.relative_to(tree).as_posix(), kernel=True)
