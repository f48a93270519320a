"""Commands as scripts, and files as their input and output: for shells that have just that.

A file goes through cat(1) into a name beside its own and is renamed, a tree through tar(1).
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pytest_hil.errors import TransferError

Run = Callable[[str, bytes], tuple[int, bytes, bytes]]
"""Runs a script with some input: exit code, standard output, standard error."""


def script(
    command: str | Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> str:
    """A shell script that is a command with its environment and directory."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    if cwd is not None:
        lines.append(f"cd {shlex.quote(cwd)} || exit 125")
    lines.append(command if isinstance(command, str) else f"exec {shlex.join(command)}")
    return "\n".join(lines) + "\n"


def put(
    run: Run,
    name: str,
    local: str | os.PathLike[str],
    remote: str,
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
) -> None:
    """See :func:`pytest_hil.shell.agent_put.put`."""
    source = Path(local)
    if remote.endswith("/"):
        remote += Path(os.path.abspath(source)).name  # noqa: PTH100 (symlinks are kept)
    what = f"put {source} to {name}:{remote}"
    own = "{}:{}".format(*(owner or (0, 0)))
    try:
        if source.is_dir():
            archive = _packed(source, mode, owner)
            text = _PUT_TREE.format(remote=shlex.quote(remote))
        else:
            archive = source.read_bytes()
            bits = source.stat().st_mode & 0o7777 if mode is None else mode
            text = _PUT_FILE.format(remote=shlex.quote(remote), mode=f"{bits:o}", owner=own)
    except OSError as error:
        raise TransferError(f"{what}: {error}") from error
    code, _out, err = run(text, archive)
    if code:
        raise TransferError(f"{what}: {_last(err, code)}")


def get(run: Run, name: str, remote: str, local: str | os.PathLike[str]) -> None:
    """See :func:`pytest_hil.shell.agent_get.get`."""
    into = os.fspath(local).endswith("/")
    dest = Path(local) / PurePosixPath(remote).name if into else Path(local)
    what = f"get {name}:{remote} to {dest}"
    code, archive, err = run(_GET.format(remote=shlex.quote(remote)), b"")
    if code:
        raise TransferError(f"{what}: {_last(err, code)}")
    try:
        with tempfile.TemporaryDirectory(prefix=".hil-get-", dir=dest.parent) as directory:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                _unpack(tar, directory)
            (found,) = Path(directory).iterdir()
            _publish(found, dest)
    except (OSError, ValueError, tarfile.TarError) as error:
        raise TransferError(f"{what}: {error}") from error


def _unpack(tar: tarfile.TarFile, directory: str) -> None:
    """Nothing outside of it, no devices: whatever the target sends."""
    if hasattr(tarfile, "tar_filter"):
        tar.extractall(directory, filter="tar")
        return
    # Python before 3.11.4: that of Debian 12. Each is looked at when those before it are there, as
    # a link of theirs may lead away.
    base = os.path.realpath(directory)
    for member in tar:
        member.name = member.name.lstrip("/")
        member.mode &= 0o755
        places = [member.name]
        if member.islnk():
            places.append(member.linkname)
        for place in places:
            real = os.path.realpath(os.path.join(base, os.path.dirname(place)))  # noqa: PTH118, PTH120
            if os.path.commonpath([base, real]) != base or os.path.basename(place) == "..":  # noqa: PTH119
                raise tarfile.TarError(f"{place!r} would be outside of {directory}")
        if member.isdev():
            raise tarfile.TarError(f"{member.name!r} is a device")
        tar.extract(member, base)


# Beside the destination, so that the rename cannot fail for want of room or cross a mount.
_PUT_FILE = """
r={remote}; t="$r.hil-$$"; trap 'rm -f "$t"' EXIT
[ -d "$r" ] && {{ echo "$r is a directory" >&2; exit 1; }}
cat > "$t" && chmod {mode} "$t" && chown {owner} "$t" && mv -f "$t" "$r"
"""

# A directory onto one that is there goes in entry by entry, each by rename: what runs or is mapped
# there stays whole. cp(1) will not do: busybox's stops at a symlink that is there already.
_PUT_TREE = """
r={remote}; p=$(dirname "$r"); t="$p/.hil-put-$$"; trap 'rm -rf "$t"' EXIT
[ -e "$r" ] && [ ! -d "$r" ] && {{ echo "$r is no directory" >&2; exit 1; }}
publish() (
    for f in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$f" ] || [ -L "$f" ] || continue
        d="$2/${{f##*/}}"
        if [ -d "$f" ] && [ ! -L "$f" ] && [ -d "$d" ]; then publish "$f" "$d" || exit 1
        elif [ -d "$d" ] && [ ! -L "$d" ]; then echo "$d is a directory" >&2; exit 1
        else if [ -L "$d" ]; then rm "$d"; fi && mv -f "$f" "$d" || exit 1; fi
    done
)
mkdir "$t" && tar -xf - -C "$t" || exit 1
if [ -d "$r" ]; then publish "$t/root" "$r"; else mv "$t/root" "$r"; fi
"""

_GET = """
r={remote}
[ -e "$r" ] || {{ echo "$r: No such file or directory" >&2; exit 1; }}
cd "$(dirname "$r")" || exit 1
if [ -d "$r" ]; then tar -cf - "$(basename "$r")"; else tar -chf - "$(basename "$r")"; fi
"""


def _packed(source: Path, mode: int | None, owner: tuple[int, int] | None) -> bytes:
    uid, gid = owner or (0, 0)
    out = io.BytesIO()

    def looks(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid, info.gid, info.uname, info.gname = uid, gid, "", ""
        if mode is not None and info.name == "root":
            info.mode = mode
        return info

    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(source.resolve(), arcname="root", filter=looks)
    return out.getvalue()


def _publish(source: Path, dest: Path) -> None:
    """Rename; a directory onto one that is not empty goes in entry by entry."""
    try:
        source.replace(dest)
        return
    except OSError:
        if source.is_symlink() or not source.is_dir() or not dest.is_dir():
            raise
    for child in source.iterdir():
        _publish(child, dest / child.name)
    shutil.rmtree(source, ignore_errors=True)


def _last(err: bytes, code: int) -> str:
    text = err.decode(errors="replace").strip()
    return text or f"it ended with exit code {code} and said nothing"
