"""Files and lines, from real objects of the host's compiler."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_hil.crash.elf import Elf
from pytest_hil.crash.symbols import symbolise
from pytest_hil.errors import ConfigError

ONE = """\
volatile int sink;
static inline __attribute__((always_inline)) void inner(int *p)
{
    sink = *p;
}
static __attribute__((noinline)) void twin(int *p)
{
    sink = 1; sink = 2; sink = p[3];
}
__attribute__((noinline)) void outer(int *p)
{
    inner(p);
    twin(p);
}
int main(void) { outer(0); return 0; }
"""
TWO = """\
extern volatile int sink;
static __attribute__((noinline)) int twin(int *p)
{
    return *p + 7;
}
int other(int *p) { return twin(p) + 1; }
"""
INIT = """\
void helper(int *p);
__attribute__((section(".init.text"))) int start(void)
{
    helper(0);
    return 0;
}
__attribute__((noinline)) void helper(int *p)
{
    *(volatile int *)p = 1;
}
"""


def build(directory: Path, name: str, *sources: str, options: tuple[str, ...] = ("-g",)) -> Path:
    files = []
    for number, source in enumerate(sources):
        files.append(directory / f"{name.partition('.')[0]}{number}.c")
        files[-1].write_text(source)
    argv = ["gcc", "-O1", "-no-pie", "-Wl,--build-id", *options, "-o", str(directory / name)]
    subprocess.run([*argv, *map(str, files)], check=True, timeout=60)
    return directory / name


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("kernel"), "vmlinux", ONE, TWO)


@pytest.fixture(scope="module")
def module(kernel: Path) -> Path:
    deep = kernel.parent / "modules" / "extra"
    deep.mkdir(parents=True)
    return build(deep, "my-mod.ko", INIT, options=("-g", "-c"))


def frame(path: Path, name: str, *, of: int = 0, offset: int = 4) -> str:
    """A function as a kernel prints it that calls by its size."""
    found = sorted(Elf(path).functions[name], key=lambda each: each.address)[of]
    return f"{name}+{offset:#x}/{found.sizes[0]:#x}"


def test_a_frame_gets_its_file_and_line(kernel: Path) -> None:
    said = symbolise(f"[    1.000000]  {frame(kernel, 'main', offset=1)}\n", kernel)
    assert said.endswith("vmlinux0.c:15)\n")
    assert said.startswith("[    1.000000]  main+0x1/")


def test_an_inlined_call_is_shown_with_who_made_it(kernel: Path) -> None:
    said = symbolise(f"RIP: 0010:{frame(kernel, 'outer', offset=5)}", kernel)
    assert "vmlinux0.c:4, by " in said
    assert said.endswith("vmlinux0.c:12)")


def test_functions_of_one_name_are_told_apart_by_their_size(kernel: Path) -> None:
    text = f" {frame(kernel, 'twin', of=0)}\n {frame(kernel, 'twin', of=1, offset=3)}\n"
    first, second = symbolise(text, kernel).splitlines()
    assert "vmlinux0.c:8" in first
    assert "vmlinux1.c:4" in second


def test_a_frame_is_where_a_call_returns_to(kernel: Path) -> None:
    """The line is that of the call, not that of what comes after it; a counter is itself."""
    size = Elf(kernel).functions["outer"][0].sizes[0]
    call = next(
        offset
        for offset in range(1, size)
        if "vmlinux0.c:13" in symbolise(f"RIP: outer+{offset:#x}/{size:#x}", kernel)
    )
    assert "vmlinux0.c:13" not in symbolise(f" outer+{call:#x}/{size:#x}", kernel)


def test_a_module_is_found_below_its_directory(kernel: Path, module: Path) -> None:
    text = (
        f"RIP: 0010:{frame(module, 'helper', offset=0)} [my_mod]\n"
        # The kernel reckons up to the end of the page.
        f" start+0x9/0x1000 [my_mod]\n unknown+0x1/0x2 [other_mod]\n"
    )
    first, second, third = symbolise(text, kernel, [kernel.parent / "modules"]).splitlines()
    assert "my-mod0.c:9" in first
    assert "my-mod0.c:4" in second
    assert third == " unknown+0x1/0x2 [other_mod]"


def test_modules_alone_are_enough(module: Path) -> None:
    text = f"PC: 0x08000100\nRIP: 0010:{frame(module, 'helper', offset=0)} [my_mod]\n"
    first, second = symbolise(text, None, [module]).splitlines()
    assert first == "PC: 0x08000100"
    assert "my-mod0.c:9" in second


def test_addresses_of_firmware(kernel: Path) -> None:
    address = Elf(kernel).functions["twin"][0].address
    said = symbolise(f"PC: 0x{address:08x} LR: 0x00000001\nR0: 0x{address:08x}\n", kernel)
    first, second = said.splitlines()
    assert "vmlinux" in first
    assert first.endswith("LR: 0x00000001")
    assert second == f"R0: 0x{address:08x}"


def test_what_is_done_is_not_done_again(kernel: Path) -> None:
    once = symbolise(f" {frame(kernel, 'main', offset=1)}\n", kernel)
    assert symbolise(once, kernel) == once


def test_text_without_frames_stays(kernel: Path) -> None:
    assert symbolise("hello\r\nworld", kernel) == "hello\r\nworld"


def test_no_debug_information(tmp_path: Path) -> None:
    bare = build(tmp_path, "bare", ONE, options=())
    with pytest.raises(ConfigError, match="no debug information") as caught:
        symbolise(" main+0x1/0x2", bare)
    assert "CONFIG_DEBUG_INFO" in str(caught.value)


def test_another_build_by_its_build_id(kernel: Path) -> None:
    line = f"CPU: 0 PID: 1 Comm: x Not tainted 6.1.0 #1 {'0' * 40}\n"
    with pytest.raises(ConfigError, match="another build: its build id is"):
        symbolise(line, kernel)
    own = Elf(kernel).build_id
    assert len(own) == 40
    assert symbolise(line.replace("0" * 40, own), kernel)


def test_another_build_by_its_sizes(kernel: Path) -> None:
    with pytest.raises(ConfigError, match="another build: main, outer"):
        symbolise(" main+0x1/0x999\n outer+0x1/0x998\n", kernel)


@pytest.mark.parametrize("content", [b"", b"no ELF", b"\x7fELF" + b"\xff" * 60, None])
def test_files_that_are_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "vmlinux"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="vmlinux: it "):
        symbolise("main+0x1/0x2", path)


def test_an_elf_file_that_is_cut_anywhere_is_damaged_or_read(kernel: Path, tmp_path: Path) -> None:
    whole = kernel.read_bytes()
    for part in range(1, 40):
        cut = tmp_path / f"cut{part}"
        cut.write_bytes(whole[: len(whole) * part // 40])
        with pytest.raises(ConfigError, match="cut"):
            symbolise("main+0x1/0x2", cut)
