"""Kernels that find bugs: what is asked for, what is remembered, and that nothing stays behind.

The tree that is built here is small: its Makefile is run by the real make. A real kernel is built
in tests/integration/test_instrumented_kernel.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.cli import main
from pytest_hil.errors import ConfigError, ImageError, NoRoom, ToolMissing
from pytest_hil.kernel import KernelConfig
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu.kernel_build import build, source, together, tools
from pytest_hil.qemu.kernel_build.fragments import FEATURES, fragment, missing, parse

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 9
EXTRAVERSION = -mine

allnoconfig:
	@cp $(KCONFIG_ALLCONFIG) $(O)/.config
bzImage:
	@echo "  CC      main.o"
	@mkdir -p $(O)/arch/x86/boot; echo kernel > $(O)/arch/x86/boot/bzImage
	@echo symbols > $(O)/vmlinux; touch $(O)/main.gcno $(O)/main.o $(O)/vmlinux.symvers
modules_prepare:
	@mkdir -p $(O)/include/generated $(O)/scripts
	@touch $(O)/Makefile $(O)/include/generated/autoconf.h $(O)/scripts/module.lds
"""
SLOW = MAKEFILE.replace(
    "bzImage:\n",
    "bzImage:\n\t@$(MAKE) deep\ndeep:\n\t@sh -c 'echo \"  CC $$$$\"; exec sleep 1000'\nold:\n",
)


def tree_with(folder: Path, makefile: str = MAKEFILE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Makefile").write_text(makefile)
    (folder / "Kconfig").touch()
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tree_with(tmp_path / "linux")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def only_what_a_small_tree_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOLS", {"gcc": "gcc", "make": "make"})
    monkeypatch.setattr(tools, "HEADERS", {"stdio.h": "libc6-dev"})


def made(tree: Path, cache: Cache, features: str = "", progress: Progress = silent) -> build.Built:
    found = source.of_directory(tree)
    return build.build(found, parse(features), arch="x86_64", cache=cache, progress=progress)


def left(cache: Cache) -> list[str]:
    """What is in the cache but for what was built."""
    folders = [cache.root / build.KIND, cache.root / build.OBJECTS]
    return [path.name for folder in folders if folder.is_dir() for path in folder.glob("[.]*")] + [
        path.name for path in folders[1].glob("*") if not (folders[0] / path.name).exists()
    ]


# -- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_is_a_fragment_that_is_met_by_itself(name: str) -> None:
    text = fragment([name], arch="x86_64")
    assert missing(text, [name], arch="x86_64") == []
    assert missing(fragment([], arch="x86_64"), [name], arch="x86_64") != []
    config = KernelConfig(text)
    assert {config[word] for word in ("IKCONFIG_PROC", "PVH", "VIRTIO_CONSOLE")} == {"y"}


def test_what_a_kernel_does_not_have_is_named() -> None:
    text = fragment(["kasan"], arch="x86_64").replace("CONFIG_KASAN_INLINE=y\n", "")
    assert missing(text, ["kasan"], arch="x86_64") == ["KASAN_INLINE=y"]


def test_the_order_of_words_does_not_matter() -> None:
    assert parse(" UBSAN,kasan, kasan ,") == ("kasan", "ubsan")
    assert parse("") == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("kasen", "there is no feature 'kasen'\n  did you mean 'kasan'?"),
        ("kcsan,kasan", "a kernel cannot have kasan and kcsan: the compiler"),
        ("kcsan,gcov", "a kernel cannot have kcsan and gcov"),
    ],
)
def test_what_cannot_be_meant_is_said(words: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(words)
    assert said in str(caught.value)


def test_another_architecture_is_said() -> None:
    with pytest.raises(ConfigError, match="kernels for riscv64 cannot be built"):
        fragment([], arch="riscv64")


def test_a_key_is_of_all_that_makes_a_kernel(tree: Path) -> None:
    def key(features: str = "kasan", compiler: str = "gcc 12") -> str:
        found = source.of_directory(tree)
        return build.key_of(found, parse(features), arch="x86_64", compiler=compiler)

    first = key()
    assert first == key()
    assert first.startswith("6.1.9-mine-kasan-x86_64-")
    keys = {first, key("kasan,ubsan"), key(compiler="gcc 13")}
    (tree / ".main.c.swp").touch()
    assert key() == first
    (tree / "main.c").touch()
    assert len(keys | {key()}) == 4


# -- sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize("built", [".config", "include/config/", "arch/x86/include/generated/"])
def test_a_tree_that_was_built_in_is_refused(tree: Path, built: str) -> None:
    path = tree / built
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if built.endswith("/") else path.touch()
    with pytest.raises(ConfigError, match=r"make -C .*/linux mrproper"):
        source.of_directory(tree)


def test_what_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no kernel's source tree"):
        source.of_directory(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="has a blank or a colon"):
        source.of_directory(tree_with(tmp_path / "my linux"))


# -- builds -----------------------------------------------------------------------------------


def test_the_second_call_only_looks(tree: Path, cache: Cache) -> None:
    said: list[str] = []
    first = made(tree, cache, "kasan", progress=said.append)
    assert first.kernel.read_text() == "kernel\n"
    assert KernelConfig(first.config.read_text())["KASAN"] == "y"
    assert any(line.startswith("building: 1 steps") for line in said)
    assert left(cache) == []
    assert sorted(path.name for path in tree.iterdir()) == ["Kconfig", "Makefile"]
    said.clear()
    assert made(tree, cache, "kasan", progress=said.append) == first
    assert said == []


def test_a_damaged_kernel_is_built_again(tree: Path, cache: Cache) -> None:
    first = made(tree, cache)
    first.kernel.write_text("")
    again = made(tree, cache)
    assert again.key == first.key
    assert again.kernel.read_text() == "kernel\n"


def test_what_modules_need_is_kept_and_the_notes_of_a_kernel_that_counts(
    tree: Path, cache: Cache
) -> None:
    found = made(tree, cache, "gcov")
    kept = {path.relative_to(found.modules).as_posix() for path in found.modules.rglob("*.*")}
    needed = {".config", "Module.symvers", "include/generated/autoconf.h", "scripts/module.lds"}
    assert kept == needed | {"main.gcno"}
    assert build.remove(cache, found.key)
    assert not found.modules.exists()


def test_a_kernel_without_its_build_directory_is_built_again(tree: Path, cache: Cache) -> None:
    first = made(tree, cache)
    shutil.rmtree(first.modules)
    assert made(tree, cache) == replace(first, seconds=ANY)
    assert (first.modules / "Makefile").exists()


def test_the_user_s_variables_are_not_the_kernel_s(
    tree: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KCFLAGS", "ARCH", "O", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS"):
        monkeypatch.setenv(name, "nonsense")
    tree_with(tree, MAKEFILE.replace("echo kernel", 'echo "$(KCFLAGS)$(KBUILD_OUTPUT)$(ARCH)"'))
    assert made(tree, cache).kernel.read_text() == "x86_64\n"


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("@echo 'mm/slub.c:7: error: expected x'; exit 1", ImageError, "slub.c:7: error: expected"),
        ("@echo 'as: No space left on device'; exit 1", NoRoom, "PYTEST_HIL_CACHE"),
        (
            "@touch more.c; cd $(O); mkdir -p arch/x86/boot; "
            "echo | tee vmlinux vmlinux.symvers > arch/x86/boot/bzImage",
            ImageError,
            "has changed while it was built",
        ),
    ],
)
def test_a_build_that_fails_leaves_nothing(
    tree: Path, cache: Cache, line: str, error: type[Exception], said: str
) -> None:
    start = MAKEFILE.partition("bzImage:")[0]
    tree_with(tree, f"{start}bzImage:\n\t{line}\nmodules_prepare:\n")
    with pytest.raises(error) as caught:
        made(tree, cache)
    assert said in str(caught.value)
    assert left(cache) == []
    assert cache.entries(build.KIND) == []


def test_a_configuration_that_does_not_come_true_is_said(tree: Path, cache: Cache) -> None:
    tree_with(
        tree, MAKEFILE.replace("cp $(KCONFIG_ALLCONFIG)", "grep -v KASAN= $(KCONFIG_ALLCONFIG) >")
    )
    with pytest.raises(ImageError, match=r"configured with kasan: it does not have KASAN=y"):
        made(tree, cache, "kasan")
    assert left(cache) == []


def test_what_is_missing_is_named_at_once(
    tree: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "TOOLS", {"gcc": "gcc", "no-flex": "flex", "no-bison": "bison"})
    monkeypatch.setattr(tools, "HEADERS", {"no-such/gelf.h": "libelf-dev"})
    with pytest.raises(ToolMissing) as caught:
        made(tree, cache)
    assert "no-flex, no-bison, <no-such/gelf.h> is not on PATH" in str(caught.value)
    assert "apt-get install bison flex libelf-dev" in str(caught.value)
    monkeypatch.setenv("PATH", str(tree))  # not even a compiler, whose version is asked first
    with pytest.raises(ToolMissing, match="apt-get install bison flex gcc libelf-dev"):
        made(tree, cache)


# -- ends -------------------------------------------------------------------------------------


def start(tree: Path, cache: Cache) -> tuple[subprocess.Popen[str], int]:
    """A build that has come to its deepest process, and the pid of that."""
    tree_with(tree, SLOW)
    code = (
        "import sys; from pytest_hil.cli.main import main;"
        "from pytest_hil.qemu.kernel_build import tools;"
        "tools.TOOLS = {'make': 'make'}; tools.HEADERS = {}; sys.exit(main())"
    )
    cli = subprocess.Popen(
        [sys.executable, "-c", code, "kernel", "build", "--source", str(tree)],
        env={**os.environ, "PYTEST_HIL_CACHE": str(cache.root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert cli.stderr is not None
    for line in cli.stderr:
        if "building" in line:
            return cli, int(line.split()[-1])
    raise AssertionError("it ended without building")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_all_processes_end_with_us(tree: Path, cache: Cache, how: signal.Signals) -> None:
    cli, deepest = start(tree, cache)
    cli.send_signal(how)
    assert process.wait_for_pid(deepest, 60)
    with cli:
        assert cli.wait(60) == (130 if how is signal.SIGINT else -how)
    if how is signal.SIGINT:
        assert left(cache) == []
    # Whoever comes next finds nothing in the way, and what the dead left is gone.
    other = tree_with(tree.parent / "other", MAKEFILE)
    made(other, cache)
    made(tree_with(tree), cache)
    assert left(cache) == []


def test_a_group_ends_with_its_program() -> None:
    said: list[str] = []
    ended = together.run(["sh", "-c", "echo one; echo two >&2; exit 3"], line=said.append)
    assert (ended.exit_code, ended.said, said) == (3, ("one", "two"), ["one", "two"])


# -- the command ------------------------------------------------------------------------------


def test_the_command(
    tree: Path,
    cache: Cache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(cache.root))

    def says(*words: str, code: int = 0) -> str:
        assert main.main(["kernel", *words]) == code
        out, err = capsys.readouterr()
        return out if code == 0 else err

    asked = ("build", "--source", str(tree), "--with", "kfence,ubsan")
    facts = json.loads(says(*asked, "--json"))
    assert facts["features"] == ["kfence", "ubsan"]
    assert says(*asked) == facts["kernel"] + "\n"
    output = tmp_path / "out"
    assert says(*asked, "--output", str(output)) == f"{output / 'bzImage'}\n"
    assert sorted(path.name for path in output.iterdir()) == ["bzImage", "config", "vmlinux"]
    assert facts["key"] in says("list")
    assert "CONFIG_KFENCE=y" in says("config", "--with", "kfence")
    assert "there is no 'x'" in says("rm", "x", code=2)
    assert "give keys, or --all" in says("rm", code=2)
    assert says("rm", "--all") == f"removed {facts['key']}\n"
    assert "no kernels in" in says("list")
    assert "no feature 'x'" in says("build", "--with", "x", code=2)
