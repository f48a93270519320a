"""Addresses of a report → files and lines, by the user's own vmlinux, modules or firmware.

A kernel's ``function+0x12/0x40 [module]`` is looked up by its name, so it does not matter where
the kernel was loaded (KASLR). Functions of one name are told apart by their size. Firmware
prints addresses; they are looked up as they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.crash.elf import Elf, Function
from pytest_hil.errors import ConfigError

_SYMBOL = re.compile(
    r"(?P<function>[A-Za-z_.$][\w.$]*)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]++)"
    r"(?: \[(?P<module>[\w-]+)(?: (?P<id>[0-9a-f]{40}))?\])?+(?! \()"
)
# Lines whose address is that of the instruction itself; all others are where a call returns to.
_COUNTER = re.compile(r"\b(?:RIP|EIP|IP|PC is at|pc|epc|PC|MEPC)\b")
# What firmware says of addresses, and the addresses in it.
_RAW_LINE = re.compile(
    r"\b(?:Backtrace|(?:PC|LR|pc|lr|MEPC|RA|R15|R14)\b\s*(?:\[\w+\]\s*)?[:=]|Faulting instruction)"
)
_RAW = re.compile(
    r"(?:(?P<name>\b(?:PC|LR|pc|lr|MEPC|RA|R15|R14)\b\s*(?:\[\w+\]\s*)?[:=]\s*)|(?<=[ :]))"
    r"(?P<address>0x[0-9a-fA-F]{8}|(?<![0-9a-fA-F:])[0-9a-fA-F]{8})(?![0-9a-fA-F])"
)
# The kernel's build id, with CONFIG_STACKTRACE_BUILD_ID: the last word of the line of the CPU.
_KERNEL_ID = re.compile(r"CPU: \d+ .*?PID: .* ([0-9a-f]{40})\s*$", re.MULTILINE)
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class _Place:
    """An address in a file, for addr2line."""

    path: Path
    section: str
    address: int


def symbolise(text: str, elf: Path | str | None, modules: Sequence[Path | str] = ()) -> str:
    """A report with ``(file:line)`` behind each address; inlined calls as ``(file:line, by …)``.

    ``elf``: vmlinux or firmware with debug information; None: only modules are looked up.
    ``modules``: modules (.ko, .ko.debug), or directories, searched to the bottom. What is not
    found in them stays as it is. Raises ConfigError if a file has no debug information or is of
    another build, ToolMissing without addr2line.
    """
    main = None if elf is None else Path(elf)
    return _Symboliser(main, [Path(each) for each in modules]).run(text)


class _Symboliser:
    def __init__(self, main: Path | None, modules: list[Path]) -> None:
        self._given = modules
        self._main = None if main is None else Elf(main)
        if self._main is not None:
            _demand_lines(self._main)
        self._modules: dict[str, Elf | None] = {}
        self._other_sizes: dict[Path, set[str]] = defaultdict(set)
        self._right_sizes: dict[Path, int] = defaultdict(int)

    def run(self, text: str) -> str:
        kernel = _KERNEL_ID.search(text)
        if kernel and self._main is not None:
            _demand_build(self._main, kernel[1])
        wanted: dict[tuple[int, int], _Place] = {}  # line and column → place
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            for end, place in self._places(line):
                wanted[number, end] = place
        for path, names in self._other_sizes.items():
            if not self._right_sizes[path]:
                raise ConfigError(
                    str(path),
                    f"it is of another build: {', '.join(sorted(names)[:3])} of the report "
                    "have other sizes in it",
                    mend="Name the file of the very build that ran.",
                )
        said = _addr2line(wanted.values())
        for (number, end), place in sorted(wanted.items(), reverse=True):
            where = said.get(place, "")
            if where:
                lines[number] = f"{lines[number][:end]} ({where}){lines[number][end:]}"
        return "".join(lines)

    def _places(self, line: str) -> Iterable[tuple[int, _Place]]:
        """Where in a line an address ends, and what it is of."""
        back = 0 if _COUNTER.search(line) else 1
        symbols = list(_SYMBOL.finditer(line))
        for found in symbols:
            elf = self._file(found["module"] or "", found["id"] or "")
            size, offset = int(found["size"], 16), int(found["offset"], 16)
            function = self._function(elf, found["function"], size) if elf else None
            if elf is not None and function is not None and offset <= size:
                address = function.address + max(offset - back, 0)
                yield found.end(), _Place(elf.path, function.section, address)
        if symbols or self._main is None or not _RAW_LINE.search(line):
            return
        for raw in _RAW.finditer(line):
            # Bit 0 of a Cortex-M's return address says Thumb.
            address = int(raw["address"], 16) & ~1
            if self._main.executes(address):
                yield raw.end(), _Place(self._main.path, "", address)

    def _function(self, elf: Elf, name: str, size: int) -> Function | None:
        """The function of that size. Two that differ in nothing are none."""
        all_of_name = elf.functions.get(name, [])
        fitting = [each for each in all_of_name if size in each.sizes]
        fitting = fitting or [each for each in all_of_name if each.last and size > max(each.sizes)]
        exact = [each for each in fitting if each.sizes[0] == size] or fitting
        if exact:
            self._right_sizes[elf.path] += 1
        elif all_of_name:
            self._other_sizes[elf.path].add(name)
        return exact[0] if len({(each.section, each.address) for each in exact}) == 1 else None

    def _file(self, module: str, build_id: str) -> Elf | None:
        if not module:
            return self._main
        if module not in self._modules:
            self._modules[module] = self._find(module)
        found = self._modules[module]
        if found is not None and build_id:
            _demand_build(found, build_id)
        return found

    def _find(self, module: str) -> Elf | None:
        """A module's file; the kernel's name has ``_`` for the file's ``-``."""
        for given in self._given:
            found = [
                path
                for path in _modules(given)
                if path.name.partition(".")[0].replace("-", "_") == module.replace("-", "_")
            ]
            if found:
                elf = Elf(found[0])
                _demand_lines(elf)
                return elf
        return None


def _modules(given: Path) -> list[Path]:
    """A file, or those of a directory: what only has debug information first."""
    if not given.is_dir():
        return [given]
    return [path for end in ("*.ko.debug", "*.ko") for path in sorted(given.rglob(end))]


def _demand_lines(elf: Elf) -> None:
    if not elf.has_lines:
        raise ConfigError(
            str(elf.path),
            "it has no debug information",
            mend="Build with -g (Linux: CONFIG_DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT=y) and do not "
            "strip it; distributions have it in packages of their own (linux-image-…-dbg).",
        )


def _demand_build(elf: Elf, build_id: str) -> None:
    if elf.build_id and elf.build_id != build_id:
        raise ConfigError(
            str(elf.path),
            f"it is of another build: its build id is {elf.build_id}, the report's {build_id}",
            mend="Name the file of the very build that ran.",
        )


def _addr2line(places: Iterable[_Place]) -> dict[_Place, str]:
    """``file:line`` of each place. One process a file, or a section of a file without addresses."""
    groups: dict[tuple[Path, str], set[_Place]] = defaultdict(set)
    for place in places:
        # Addresses in a module that was never loaded begin at 0 in each section.
        groups[place.path, place.section if _is_module(place.path) else ""].add(place)
    found: dict[_Place, str] = {}
    for (path, section), group in sorted(groups.items()):
        ordered = sorted(group, key=lambda place: place.address)
        argv = [_tool(), "-a", "-i", "-e", str(path), *(["-j", section] if section else [])]
        asked = "".join(f"{place.address:#x}\n" for place in ordered).encode()
        said = process.run(argv, input=asked, timeout=_TIMEOUT).stdout.decode(errors="replace")
        by_address: dict[int, list[str]] = {}
        current: list[str] = []
        for line in said.splitlines():
            if line.startswith("0x"):
                current = by_address.setdefault(int(line, 16), [])
            elif not line.startswith("??"):
                current.append(re.sub(r" \(discriminator \d+\)|(?<=:)\?$", "", line))
        for place in ordered:
            found[place] = ", by ".join(by_address.get(place.address, []))
    return found


def _is_module(path: Path) -> bool:
    return ".ko" in path.suffixes or path.suffix == ".o"


def _tool() -> str:
    return process.find("addr2line", package="binutils")
