"""What boards.toml says, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_hil.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pytest_hil.config.board import BoardTarget

MiB = 2**20

BUILTIN_TARGET = "qemu"
BUILTIN_IMAGE = "debian"


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file of the host that goes into an image. ``mode`` None: as it is on the host."""

    source: Path
    path: str
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file by URL. At least ``sha256`` is required; ``sha512`` is checked too when given."""

    url: str
    sha256: str
    sha512: str = ""


@dataclass(frozen=True, slots=True)
class DebianImage:
    """Our own initramfs: Debian's kernel (or the user's), busybox, usbip, agent, and additions."""

    name: str
    arch: str | None = None
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    files: tuple[GuestFile, ...] = ()
    startup: tuple[str, ...] = ()
    kernel: Path | None = None
    kernel_modules: Path | None = None
    append: str = ""


@dataclass(frozen=True, slots=True)
class FilesImage:
    """Files that the user has. ``agent``: whether the guest runs our agent."""

    name: str
    kernel: Path | None = None
    initrd: Path | None = None
    disk: Path | None = None
    append: str = ""
    arch: str | None = None
    agent: bool = False


@dataclass(frozen=True, slots=True)
class UrlImage:
    """Files that are fetched and checked."""

    name: str
    kernel: Download | None = None
    initrd: Download | None = None
    disk: Download | None = None
    append: str = ""
    arch: str | None = None
    agent: bool = False


ImageSpec = DebianImage | FilesImage | UrlImage


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the guest made reachable on a port of the host's loopback that the kernel picks."""

    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"


@dataclass(frozen=True, slots=True)
class QemuTarget:
    """``[target.NAME]`` with ``backend = "qemu"``.

    ``memory`` in bytes. ``machine``/``cpu`` "": the architecture's default. ``ready``: for machines
    without an agent, a regular expression on the console that means "booted" ("": at once).
    ``agent``: talk to the agent, if the image has one.
    """

    name: str
    arch: str
    machine: str = ""
    cpu: str = ""
    smp: int = 1
    memory: int = 256 * MiB
    image: str = BUILTIN_IMAGE
    kernel: Path | None = None
    kernel_modules: Path | None = None
    initrd: Path | None = None
    disk: Path | None = None
    append: str = ""
    agent: bool = True
    ready: str = ""
    network: Literal["isolated", "open", "none"] = "isolated"
    forwards: tuple[Forward, ...] = ()
    features: frozenset[str] = frozenset()
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabConfig:
    """``[lab]``: ``labgrid`` is the "host:port" of a coordinator whose places the boards are; "":
    they are shared on this host, by the lab in ``directory`` (None: the user's).
    ``quarantine_after``: so many errors in a row put a board in quarantine.
    """

    labgrid: str = ""
    directory: Path | None = None
    quarantine_after: int = 3


@dataclass(frozen=True, slots=True)
class Config:
    """All of boards.toml. ``path`` None: there is none, the built-in ``qemu`` target alone.

    :func:`pytest_hil.config.load` makes it; there, the target ``qemu`` and the image
    ``debian`` always exist.
    """

    path: Path | None
    targets: dict[str, QemuTarget | BoardTarget] = field(default_factory=dict)
    images: dict[str, ImageSpec] = field(default_factory=dict)
    lab: LabConfig = LabConfig()

    @property
    def source(self) -> str:
        """Where the targets come from, for messages."""
        return str(self.path) if self.path else "no boards.toml"

    def target(self, name: str) -> QemuTarget | BoardTarget:
        """The target of that name; ConfigError with the nearest right name if there is none."""
        try:
            return self.targets[name]
        except KeyError:
            raise ConfigError(
                self.source,
                f"there is no target {name!r}",
                mend=f"{nearest(name, self.targets)}; a table [target.NAME] adds one",
            ) from None

    def machine(self, name: str) -> QemuTarget:
        """:meth:`target` for what is to be a QEMU machine. Raises ConfigError for a board."""
        found = self.target(name)
        if isinstance(found, QemuTarget):
            return found
        machines = sorted(one.name for one in self.targets.values() if isinstance(one, QemuTarget))
        raise ConfigError(
            self.source,
            f"{name} is a board, and a QEMU machine is needed here",
            mend=f"machines: {', '.join(machines)}",
        )

    def image(self, name: str) -> ImageSpec:
        """The image of that name; ConfigError with the nearest right name if there is none."""
        try:
            return self.images[name]
        except KeyError:
            raise ConfigError(
                self.source,
                f"there is no image {name!r}",
                mend=f"{nearest(name, self.images)}; a table [image.NAME] adds one",
            ) from None
