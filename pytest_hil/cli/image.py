"""``pytest-hil image build|list|verify|rm``: guest images in the cache."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.cache import Cache
from pytest_hil.cli.status import Status
from pytest_hil.config import ARCHES, BUILTIN_IMAGE, Config, host_arch, load
from pytest_hil.errors import ConfigError, nearest
from pytest_hil.qemu.image import Image, resolve
from pytest_hil.qemu.image.stored import Stored, stored

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "image",
        help="build, list, verify and remove guest images",
        description="Guest images: what machines boot. They are in the cache, "
        "$PYTEST_HIL_CACHE or ~/.cache/pytest-hil.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_build(actions)
    _add_list(actions)
    _add_verify(actions)
    _add_rm(actions)
    return parser


def _add_build(actions: Subparsers) -> None:
    build = actions.add_parser("build", help="build or fetch images, so that no test waits for it")
    build.add_argument("names", metavar="NAME", nargs="*", help=f"default: {BUILTIN_IMAGE}")
    build.add_argument(
        "--boards", metavar="FILE", type=Path, help="where [image.NAME] is (boards.toml)"
    )
    build.add_argument("--arch", choices=ARCHES, help="default: the image's, or this host's")
    build.add_argument(
        "--refresh", action="store_true", help="build again, from the packages of today"
    )
    _add_json(build)


def _add_list(actions: Subparsers) -> None:
    _add_json(actions.add_parser("list", help="list what is in the cache"))


def _add_verify(actions: Subparsers) -> None:
    verify = actions.add_parser("verify", help="compare all files with their checksums")
    verify.add_argument("names", metavar="NAME", nargs="*", help="default: all")
    _add_json(verify)


def _add_rm(actions: Subparsers) -> None:
    rm = actions.add_parser("rm", help="remove images; what runs keeps running")
    rm.add_argument("names", metavar="NAME", nargs="*", help="names, or keys as `list` shows them")
    rm.add_argument("--all", action="store_true", help="all images and fetched files")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    cache = Cache.default()
    actions = {"build": _build, "list": _list, "verify": _verify, "rm": _rm}
    return actions[args.action](cache, args)


def _build(cache: Cache, args: argparse.Namespace) -> int:
    config = load(args.boards, root=Path.cwd())
    names = args.names or [BUILTIN_IMAGE]
    for name in names:
        config.image(name)  # all names first: a typo in the last must not cost a build
    images = [_build_one(cache, config, name, args) for name in names]
    if args.json:
        _print_json([_image_facts(image) for image in images])
    else:
        for image in images:
            files = [path for path in (image.kernel, image.initrd, *image.disks) if path]
            print(f"{image.name} ({image.arch}): {' '.join(map(str, files))}")
    return 0


def _build_one(cache: Cache, config: Config, name: str, args: argparse.Namespace) -> Image:
    spec = config.image(name)
    arch = args.arch or spec.arch or host_arch()
    with Status(f"{name} ({arch})") as status:
        return resolve(spec, arch=arch, cache=cache, progress=status, refresh=args.refresh)


def _list(cache: Cache, args: argparse.Namespace) -> int:
    found = stored(cache)
    if args.json:
        _print_json([_facts(item) for item in found])
    elif found:
        _print_table(("name", "arch", "MB", "last used", "what", "key"), [_row(i) for i in found])
    else:
        print(f"no images in {cache.root}")
    return 0


def _verify(cache: Cache, args: argparse.Namespace) -> int:
    results = [(item, item.damage()) for item in _chosen(cache, args.names)]
    if args.json:
        _print_json([{**_facts(item), "damage": damage} for item, damage in results])
    else:
        for item, damage in results:
            print(f"{item.entry.key}: {'; '.join(damage) or 'ok'}")
        if any(damage for _, damage in results):
            print("`pytest-hil image rm KEY` removes it: it is then built or fetched again")
    return 1 if any(damage for _, damage in results) else 0


def _rm(cache: Cache, args: argparse.Namespace) -> int:
    if bool(args.names) == args.all:
        raise ConfigError("image rm", "give names, or --all (and not both)")
    for item in _chosen(cache, args.names):
        if cache.remove(item.entry.kind, item.entry.key):
            print(f"removed {item.entry.key} ({item.entry.size / 1e6:.0f} MB)")
    return 0


def _chosen(cache: Cache, names: Sequence[str]) -> list[Stored]:
    """The items of these names or keys; all of them for no names."""
    found = stored(cache)
    known = {name for item in found for name in (item.name, item.entry.key)}
    for name in names:
        if name not in known:
            raise ConfigError(
                "image",
                f"there is no {name!r} in {cache.root}",
                mend=f"{nearest(name, {item.name for item in found})}; "
                "`pytest-hil image list` has their keys",
            )
    return [item for item in found if not names or {item.name, item.entry.key} & set(names)]


def _facts(item: Stored) -> dict[str, Any]:
    manifest = item.manifest
    return {
        "kind": item.entry.kind,
        "key": item.entry.key,
        "name": item.name,
        "arch": item.arch,
        "what": item.what,
        "path": str(item.path),
        "bytes": item.entry.size,
        "used": item.entry.used,
        "built": manifest.built if manifest else None,
        "unpacked": manifest.unpacked if manifest else None,
        "packages": dict(manifest.packages) if manifest else {},
        "modules": list(manifest.modules) if manifest else [],
    }


def _image_facts(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "key": image.key,
        "arch": image.arch,
        "kernel": str(image.kernel) if image.kernel else None,
        "initrd": str(image.initrd) if image.initrd else None,
        "disks": [str(path) for path in image.disks],
        "append": image.append,
        "agent": image.agent,
    }


def _row(item: Stored) -> tuple[str, ...]:
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.entry.used))
    size = f"{item.entry.size / 1e6:.0f}"
    return (item.name, item.arch or "-", size, used, item.what, item.entry.key)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))
