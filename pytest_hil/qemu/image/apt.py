"""Packages through the host's own apt, in a private state directory.

Nothing of the host's package state is read but its sources, keys and proxy settings; nothing of
it is written, and no root is needed. Signatures and checksums are apt's job.

To apt nothing is installed there, so resolving a package gives its whole closure. What only
maintainer scripts need (they never run) is said to be installed, and so is left out.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pytest_hil import process
from pytest_hil.errors import ImageError, NoRoom
from pytest_hil.progress import Progress
from pytest_hil.qemu.image import apt_get

FRESH = 3600.0
"""Package lists younger than this are not fetched again, in seconds."""

_SCRIPT_ONLY = {
    "adduser": "",
    "debconf": "debconf-2.0",
    "dpkg": "",
    "init-system-helpers": "",
    "install-info": "",
    "kmod": "",
    "initramfs-tools": "linux-initramfs-tool",
    "libpam-runtime": "",
    "linux-base": "",
    "mawk": "awk",
    "sensible-utils": "",
    "ucf": "",
    "udev": "",
}
"""Packages that only maintainer scripts use, with what they provide."""

_CONF = """\
// The host's hooks are for the host's packages.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
#clear APT::Architectures;
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
APT::Keep-Downloaded-Packages "true";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""

_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Package:
    """A package that apt can fetch. ``size`` of the .deb in bytes."""

    name: str
    version: str
    file: str
    size: int


class Apt:
    """One architecture's package lists and downloaded packages, below ``root``.

    ``sources`` replaces the host's sources with a sources.list of one's own. apt is given up when
    it makes no progress for ``patience`` seconds. Not for two users at once: hold a lock.
    """

    def __init__(
        self,
        root: Path,
        *,
        arch: str,
        progress: Progress,
        sources: str | None = None,
        patience: float = 90.0,
    ) -> None:
        process.find(
            "apt-get",
            mend="without apt no Debian image can be built here: give your own kernel and "
            "initrd, or an image by URL ([image.NAME] in boards.toml)",
        )
        self.root = root
        self.arch = arch
        self._progress = progress
        self._sources = sources
        self._patience = patience
        self._update_said = ""
        for folder in ("lists/partial", "archives/partial", "none/partial"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "apt.conf").write_text(_CONF)
        (root / "status").touch()
        if sources is not None:
            (root / "sources.list").write_text(sources)

    def update(self) -> bool:
        """Fetch the package lists, unless they are younger than FRESH; whether it tried.

        Sources that fail do not matter here: they do when a package is not to be had.
        """
        stamp = self.root / "updated"
        if stamp.is_file() and 0 <= time.time() - stamp.stat().st_mtime < FRESH:
            return False
        self._progress("fetching the package lists")
        done = self._watched(
            ["update"], lambda percent: f"fetching the package lists: {percent} %", cwd=self.root
        )
        self._update_said = done.said
        if done.exit_code == 0:
            stamp.touch()
        return True

    def resolve(self, names: Sequence[str]) -> list[Package]:
        """The packages with all that they depend on. Raises ImageError with what apt says."""
        command = ["--print-uris", "install", *names]
        # An empty archive directory: apt prints no URI for what it already has.
        options = ["-o", f"Dir::Cache::archives={self.root / 'none'}"]
        done = self._run([*options, *command], pretend=frozenset(_SCRIPT_ONLY) - set(names))
        if done.returncode != 0:
            out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
            raise self._unresolved(names, err, _unmet(out))
        found = []
        for match in _URI.finditer(done.stdout.decode(errors="replace")):
            name, version, _arch = match["file"].removesuffix(".deb").split("_")
            found.append(Package(name, unquote(version), match["file"], int(match["size"])))
        return found

    def fetch(self, packages: Sequence[Package]) -> list[Path]:
        """The packages' files, fetched where they are not here already."""
        archives = self.root / "archives"
        missing = [p for p in packages if not _is_there(archives / p.file, p.size)]
        if missing:
            self._fetch(missing)
        for package in packages:
            path = archives / package.file
            if not _is_there(path, package.size):
                full = apt_get.is_full(archives)
                path.unlink(missing_ok=True)  # apt copies from file: sources, and not always all
                if full:
                    raise apt_get.no_room(archives)
                raise ImageError(f"apt said nothing, and yet did not fetch {package.name}")
        return [archives / package.file for package in packages]

    def forget(self) -> None:
        """Fetch the lists again the next time, whatever their age."""
        (self.root / "updated").unlink(missing_ok=True)

    def _fetch(self, missing: Sequence[Package]) -> None:
        total = sum(package.size for package in missing)
        largest = max(missing, key=lambda package: package.size).name
        what = largest if len(missing) == 1 else f"{largest} and {len(missing) - 1} more"

        def line(percent: int) -> str:
            return f"downloading {what}: {total * percent // 100_000_000} of {_megabytes(total)} MB"

        self._progress(line(0))
        names = [f"{package.name}={package.version}" for package in missing]
        done = self._watched(["download", *names], line, cwd=self.root / "archives")
        if done.exit_code != 0:
            self.forget()  # a 404 means that the lists are older than the mirror
            raise ImageError(
                f"apt could not fetch {what}:\n{_errors(done.said)}",
                mend="look at the network and at /etc/apt/sources.list*, then run it again: what "
                "is already here is kept",
            )

    def _unresolved(self, names: Sequence[str], said: str, unmet: str) -> ImageError:
        self.forget()
        update = _errors(self._update_said, otherwise=0)
        if update:
            update = f"\n  apt-get update had said:\n{update}"
        if not any((self.root / "lists").glob("*_Packages*")):
            return ImageError(
                f"the sources in /etc/apt have no packages for {self.arch}{update}",
                mend="look at the network and at /etc/apt/sources.list*; not every release has "
                "every architecture",
            )
        why = unmet or _errors(said)
        return ImageError(
            f"apt cannot resolve {' '.join(names)} for {self.arch}:\n{why}{update}",
            mend="are the names right for this release and architecture? `apt-cache policy NAME` "
            "says what the sources in /etc/apt have",
        )

    def _watched(
        self, command: Sequence[str], line: Callable[[int], str], *, cwd: Path
    ) -> apt_get.Done:
        """Run apt-get and turn its percentages into progress."""

        def percent(done: int) -> None:
            self._progress(line(done))

        argv = self._argv(command)
        try:
            return apt_get.watched(argv, cwd=cwd, percent=percent, patience=self._patience)
        except NoRoom:
            for part in list(self.root.glob("*/partial/*")):
                part.unlink(missing_ok=True)
            raise

    def _run(
        self, command: Sequence[str], *, pretend: Iterable[str]
    ) -> subprocess.CompletedProcess[bytes]:
        (self.root / "status").write_text("".join(map(self._stanza, sorted(pretend))))
        return process.run(self._argv(command), check=False, timeout=120, env=apt_get.env())

    def _argv(self, command: Sequence[str]) -> list[str]:
        root = self.root
        settings = {
            "Dir::State": root,
            "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "APT::Architecture": self.arch,
            "APT::Architectures::": self.arch,
        }
        if self._sources is not None:
            settings["Dir::Etc::sourcelist"] = root / "sources.list"
            settings["Dir::Etc::sourceparts"] = "/dev/null"
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return ["apt-get", "-y", "-q", "-c", str(root / "apt.conf"), *options, *command]

    def _stanza(self, name: str) -> str:
        """A package in dpkg's status file."""
        provides = f"Provides: {_SCRIPT_ONLY[name]}\n" if _SCRIPT_ONLY[name] else ""
        return (
            f"Package: {name}\nStatus: install ok installed\nVersion: 99999\n"
            f"Architecture: {self.arch}\nMulti-Arch: foreign\n{provides}"
            "Maintainer: none\nDescription: not in the guest\n\n"
        )


def _errors(said: str, *, otherwise: int = 12) -> str:
    """The errors and warnings in what apt said, or its last lines when it names none."""
    lines = said.splitlines()
    named = [line for line in lines if line.startswith(("E: ", "W: "))]
    return "\n".join(f"    {line}" for line in named[-12:] or lines[len(lines) - otherwise :])


def _unmet(out: str) -> str:
    """What apt says about dependencies that cannot be met ("" for nothing)."""
    _, _, rest = out.partition("The following packages have unmet dependencies:\n")
    lines = rest.splitlines()
    return "\n".join(f"    {line.strip()}" for line in lines if line.startswith(" "))[:2000]


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _megabytes(size: int) -> int:
    return max(1, round(size / 1_000_000))
