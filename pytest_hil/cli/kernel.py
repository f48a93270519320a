"""``pytest-hil kernel build|list|config|rm``: kernels that find bugs."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.cache import Cache
from pytest_hil.cli.status import Status
from pytest_hil.config import host_arch
from pytest_hil.errors import ConfigError, ImageError
from pytest_hil.qemu.kernel_build import fragments, source
from pytest_hil.qemu.kernel_build.build import KIND, Built, build, read, remove

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

DISTRIBUTION = "debian"


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "kernel",
        help="build kernels that find bugs",
        description="Small kernels with the guest's drivers and the kernel's own bug finders in "
        "them, for --hil-kernel. They are in the cache, $PYTEST_HIL_CACHE or "
        "~/.cache/pytest-hil.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    words = "".join(f"\n  {name:16} {each.help}" for name, each in fragments.FEATURES.items())
    make = actions.add_parser(
        "build",
        help="build one, or find it in the cache, and print its path",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"features:{words}",
    )
    _add_with(make)
    make.add_argument(
        "--source",
        metavar="DIR",
        default=DISTRIBUTION,
        help=f"a kernel's source tree, which is only read; or `{DISTRIBUTION}`, the "
        "distribution's package linux-source (default)",
    )
    make.add_argument(
        "--output", metavar="DIR", type=Path, help="copy bzImage, vmlinux and config there"
    )
    make.add_argument("--jobs", metavar="N", type=_count, help="default: this host's processors")
    make.add_argument(
        "--refresh", action="store_true", help="look for a newer package of the distribution"
    )
    config = actions.add_parser("config", help="print the configuration that features mean")
    _add_with(config)
    rm = actions.add_parser("rm", help="remove kernels; what runs keeps running")
    rm.add_argument("keys", metavar="KEY", nargs="*", help="as `list` shows them")
    rm.add_argument("--all", action="store_true", help="all kernels and unpacked sources")
    for each in (make, actions.add_parser("list", help="list what is in the cache")):
        each.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def _add_with(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with",
        dest="features",
        metavar="FEATURE,…",
        default="",
        help="what it finds: " + ", ".join(fragments.FEATURES),
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of jobs")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    cache = Cache.default()
    actions = {"build": _build, "list": _list, "config": _config, "rm": _rm}
    return actions[args.action](cache, args)


def _build(cache: Cache, args: argparse.Namespace) -> int:
    features = fragments.parse(args.features)
    arch = host_arch()
    fragments.fragment(features, arch=arch)  # an architecture that is not known costs no download
    with Status("kernel") as status:
        if args.source == DISTRIBUTION:
            tree = source.of_distribution(cache, arch=arch, progress=status, refresh=args.refresh)
        else:
            tree = source.of_directory(Path(args.source))
        built = build(tree, features, arch=arch, cache=cache, progress=status, jobs=args.jobs)
    kernel = _copied(built, args.output) if args.output else built.kernel
    if args.json:
        print(json.dumps({**_facts(built), "kernel": str(kernel)}, indent=2))
    else:
        print(kernel)
        if sys.stderr.isatty():
            print(f"use it: pytest --hil-target=qemu --hil-kernel={kernel}", file=sys.stderr)
            print(f"modules for it: make -C {built.modules} M=DIR modules", file=sys.stderr)
    return 0


def _copied(built: Built, output: Path) -> Path:
    """Copies of its files, each there as a whole or not at all."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path in (built.config, built.symbols, built.kernel):
            fd, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=output)
            os.close(fd)
            try:
                shutil.copyfile(path, new)
                Path(new).chmod(0o644)
                Path(new).replace(output / path.name)
            finally:
                Path(new).unlink(missing_ok=True)
    except OSError as error:
        raise ImageError(
            f"the kernel cannot be copied to {output}: {error.strerror}",
            mend=f"it is in the cache: {built.kernel}",
        ) from error
    return output.absolute() / built.kernel.name


def _list(cache: Cache, args: argparse.Namespace) -> int:
    found = [(entry, read(entry.path)) for entry in cache.entries(KIND)]
    if args.json:
        print(json.dumps([_facts(built) for _, built in found if built], indent=2))
        return 0
    for entry, built in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        what = str(built.kernel) if built else "damaged: it is built again when it is asked for"
        print(f"{entry.key}  {entry.size / 1e6:.0f} MB, used {used}\n  {what}")
    for tree in cache.entries(source.KIND):
        print(f"{tree.key}  {tree.size / 1e6:.0f} MB\n  {tree.path / 'tree'}")
    if not found:
        print(f"no kernels in {cache.root}")
    return 0


def _config(_cache: Cache, args: argparse.Namespace) -> int:
    print(fragments.fragment(fragments.parse(args.features), arch=host_arch()), end="")
    return 0


def _rm(cache: Cache, args: argparse.Namespace) -> int:
    if bool(args.keys) == args.all:
        raise ConfigError("kernel rm", "give keys, or --all (and not both)")
    known = {entry.key for entry in cache.entries(KIND)}
    if strange := sorted(set(args.keys) - known):
        raise ConfigError(
            "kernel rm",
            f"there is no {strange[0]!r} in {cache.root}",
            mend="`pytest-hil kernel list` has the keys",
        )
    for key in args.keys or sorted(known):
        if remove(cache, key):
            print(f"removed {key}")
    if args.all:
        for tree in cache.entries(source.KIND):
            if cache.remove(source.KIND, tree.key):
                print(f"removed {tree.key}")
    return 0


def _facts(built: Built) -> dict[str, Any]:
    return {
        "key": built.key,
        "kernel": str(built.kernel),
        "symbols": str(built.symbols),
        "config": str(built.config),
        "modules": str(built.modules),
        "version": built.version,
        "features": list(built.features),
        "arch": built.arch,
        "seconds": built.seconds,
        "source": built.source,
    }
