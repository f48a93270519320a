"""What is wrong with a boards.toml is said with file, table, key and cure."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pytest_hil.config import Config, load
from pytest_hil.errors import ConfigError


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return load(path, root=tmp_path)


def fault(tmp_path: Path, text: str) -> str:
    """The message about a wrong file, without the file's name, which must be there."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    source = f"{tmp_path}/boards.toml: "
    assert str(caught.value).startswith(source)
    return str(caught.value).removeprefix(source)


BOARD = """
[target.b]
backend = "board"
console = {driver = "unix", path = "console"}
"""


def qemu(keys: str) -> str:
    return f'[target.t]\nbackend = "qemu"\n{keys}\n'


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('memmory = "1G"', "[target.t] memmory: unknown key\n  did you mean 'memory'?"),
        ('memory = "lots"', "[target.t] memory: 'lots' is not a size\n  write a size such as"),
        ("memory = 1.5", "memory: 1.5 is not a size"),
        ("memory = true", "memory: true is not a size"),
        ("memory = 0", "memory: 0 is no size that a machine can have\n  allowed: 1K to 4T"),
        ("memory = -256", "memory: -256 is no size"),
        ('memory = "900T"', "memory: '900T' is no size"),
        (f"memory = 0x{'f' * 5000}", "memory: a huge number is no size"),
        ("smp = 0", "smp: 0 is no number of CPUs\n  allowed: 1 to 256"),
        ("smp = 4096", "smp: 4096 is no number of CPUs"),
        ('smp = "2"', "smp: found '2' (a string), wanted a whole number"),
        ("smp = true", "smp: found true (a boolean), wanted a whole number"),
        ('arch = "x86_46"', "arch: 'x86_46' is no architecture that pytest-hil knows\n  allowed:"),
        ('arch = "x86_46"', "did you mean 'x86_64'?"),
        ('arch = "arm64"', "arch: 'arm64' is no architecture\n  write QEMU's name: \"aarch64\""),
        ("arch = 64", "arch: found 64 (an integer), wanted one of"),
        ('network = "opened"', "did you mean 'open'?"),
        ('image = "debain"', "image: there is no image 'debain'\n  did you mean 'debian'?"),
        ("machine = 3", "machine: found 3 (an integer), wanted a string"),
        ('append = "a\\u0000b"', "append: 'a\\x00b' has a character that cannot be printed"),
        ('kernel = ""', "kernel: '' is not a path"),
        ('kernel = "~no-such-user-here/k"', "there is no such user's home directory"),
        ('ready = "log(in"', "ready: 'log(in' is not a regular expression: missing )"),
        ('ready = "login:"', "ready: is for machines without an agent"),
        ("forwards = 22", "forwards: found 22 (an integer), wanted an array of ports"),
        ("forwards = [22, 65536]", "forwards[1]: 65536 is no port"),
        ('forwards = ["22/sctp"]', "forwards[0]: '22/sctp' is no port"),
        ('forwards = [22, "22/tcp"]', "forwards: 22/tcp is there twice"),
        ('forwards = [22]\nnetwork = "none"', "forwards: there is no network to forward to"),
        ('features = ["net", "U S B"]', "features[1]: 'U S B' is no feature's name"),
        ('extra_args = "-s"', "extra_args: found '-s' (a string), wanted an array of strings"),
        ('initrd = "i"', "initrd: an initrd needs a kernel\n  add kernel ="),
        ('kernel_modules = "m"', "kernel_modules: there is no kernel that they are for"),
        ('disk = "d"\nkernel_modules = "m"', "which this target's disk replaces"),
        ("smp = 1979-05-27", "wanted a whole number"),
        ("[target.t.usb]\nport = 1", "[target.t] usb: unknown key"),
    ],
)
def test_wrong_keys_of_a_target(tmp_path: Path, keys: str, message: str) -> None:
    assert message in fault(tmp_path, qemu(keys))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[targets.a]", "targets: unknown table\n  did you mean 'target'?"),
        ("target = 3", "target: found 3 (an integer), wanted tables [target.NAME]"),
        ("[target]\na = 1", "[target.a]: found 1 (an integer), wanted a table [target.NAME]"),
        ('[target."a b"]\nbackend = "qemu"', "[target.'a b']: 'a b' cannot be a name\n  allowed:"),
        ('[target."../up"]', "cannot be a name"),
        ('[target.""]', "cannot be a name"),
        (f"[target.{'x' * 65}]", "cannot be a name"),
        ("[target.-x]", "cannot be a name"),
        ("[target.a]", '[target.a] backend: missing\n  write backend = "qemu"'),
        ('[target.a]\nbackend = "board"', "[target.a] console: missing\n  write console = {driver"),
        (
            '[target.a]\nbackend = "qmeu"',
            "backend: 'qmeu' is no backend\n  allowed: \"board\", \"qemu\"; did you mean 'qemu'?",
        ),
        (BOARD + "power = 5", "[target.b] power: found 5 (an integer), wanted a table with a key"),
        (BOARD + "power = {url = 'x'}", "[target.b] power.driver: missing\n  write driver ="),
        (BOARD + "boot = ['login', 3]", "[target.b] boot[1]: found 3 (an integer), wanted a table"),
        (BOARD + "tags = ['a b']", "[target.b] tags[0]: 'a b' is no tag"),
        (BOARD + "env = {'1A' = 'x'}", "[target.b] env.1A: '1A' is no variable's name"),
        (BOARD + "between = 'resett'", "did you mean 'reset'?"),
        (
            BOARD + "between = 'cycle'\nreset = 'manual'",
            "[target.b] between: 'cycle' takes a power table",
        ),
        (BOARD + "between = 'reset'", "between: 'reset' takes a power or a reset table, and there"),
        (BOARD + "memory = '1G'", "[target.b] memory: unknown key"),
        (BOARD + "group = 'pi'", "[target.b] group: there is no group 'pi'"),
        (BOARD + "group = 'pi'\n[group.pie]", "did you mean 'pie'?"),
        ("[group.a]\nnonsense = 1", "[group.a] nonsense: unknown key"),
        ("[group.a]\ntagz = ['x']", "[group.a] tagz: unknown key\n  did you mean 'tags'?"),
        ("[group.a]\nbetween = 'resett'", "[group.a] between: 'resett' is no word for it"),
        ("[group.a]\nbackend = 'qmeu'", "[group.a] backend: 'qmeu' is no backend"),
        ("[group.a]\nbackend = 'board'\nmemory = '1G'", "[group.a] memory: unknown key"),
        ("[group.a]\nbackend = 'qemu'\nboot = 'login'", "[group.a] boot: unknown key"),
        ("[group.a]\npower = {url = 'x'}", "[group.a] power.driver: missing"),
        ("[group.a]\nusb = {alow = 1}", "[group.a.usb] alow: unknown key"),
        (BOARD + "group = 'a'\n[group.a]\ngroup = 'b'", "[group.a] group: a group has no group"),
        ('[image.a]\nkind = "debain"', "kind: 'debain' is no kind of image"),
        ("[image.a]\nkind = []", "kind: found [] (an array), wanted one of"),
        ('[image.a]\nkind = "files"', "[image.a] kernel: missing\n  an image needs a kernel or a"),
        ('[image.a]\nkind = "files"\ninitrd = "i"', "initrd: an initrd needs a kernel"),
        ('[image.a]\nkind = "files"\npackages = []', "packages: unknown key"),
        ('[image.a]\nkernel_modules = "m"', "there is no kernel that they are for"),
        ('[image.a]\npackages = ["-o=x"]', "packages[0]: '-o=x' is no Debian package's name"),
        ("[image.a]\nfiles = [{ source = 'a' }]", "files[0].path: missing"),
        ("[image.a]\nfiles = [{ source = 'a', path = 'b' }]", "files[0].path: 'b' is no file's"),
        ("[image.a]\nfiles = { '/a/../..' = 'b' }", "files.'/a/../..': '/a/../..' is no file's"),
        ("[image.a]\nfiles = { '/a' = 'b', '//a' = 'c' }", "files: '/a' is there twice"),
        (
            "[image.a]\nfiles = [{ source = 'a', path = '/b', mode = 755 }]",
            'files[0].mode: 755 is no file mode\n  write the octal digits: "0755"',
        ),
        ("[image.a]\nfiles = [{ src = 'a' }]", "files[0].src: unknown key\n  did you mean"),
        (
            '[image.a]\nkind = "url"\ndisk = { url = "https://example.org/d" }',
            "disk.sha256: missing\n  `sha256sum FILE` prints it",
        ),
        ('[image.a]\nkind = "url"\ndisk = "https://example.org/d"', "wanted a table {url, sha256}"),
        ('[image.a]\nkind = "url"\ndisk = { url = "ftp://x/d" }', "is no http:// or https://"),
        ('[image.a]\nkind = "url"\ndisk = { url = "http://[/d" }', "is no http:// or https://"),
        (
            '[image.a]\nkind = "url"\ndisk = { url = "http://x/d", sha256 = "12" }',
            "disk.sha256: '12' is no checksum\n  wanted: 64 hexadecimal digits",
        ),
        (
            '[image.a]\narch = "arm"\n[target.t]\nbackend = "qemu"\narch = "x86_64"\nimage = "a"',
            "[target.t] arch: the target is x86_64, its image a is arm",
        ),
        ('[target.a]\nbackend = "qemu"\nsmp = = 2', "not TOML: Invalid value (at line 3,"),
        ("a = " + "[" * 10_000, "not TOML: arrays or tables are nested too deeply"),
        ("a = " + "1" * 5_000, "not TOML: "),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    assert message in fault(tmp_path, text)


def test_all_errors_are_said_at_once(tmp_path: Path) -> None:
    message = fault(
        tmp_path, qemu("smp = 0\ncpus = 3") + '[target.u]\nbackend = "bored"\n[image.i]\nkind = 1\n'
    )
    assert message.splitlines()[0] == "4 errors"
    for part in ("[image.i] kind:", "[target.t] smp:", "[target.t] cpus:", "[target.u] backend:"):
        assert part in message


def test_a_file_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lab\.toml: there is no such file"):
        load(tmp_path / "lab.toml", root=tmp_path)


def test_a_dangling_link_is_not_the_absence_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "boards.toml").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="there is no such file"):
        load(None, root=tmp_path)


def test_things_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path, tmp_path / "fifo", tmp_path / "socket", Path("/dev/zero")):
            with pytest.raises(ConfigError, match="not a regular file"):
                load(path, root=tmp_path)
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load(Path("/dev/null/boards.toml"), root=tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "a\0b", root=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(path, root=tmp_path)


def test_wrong_encodings(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(ConfigError, match="line 2: byte 0xff is not UTF-8") as caught:
        load(path, root=tmp_path)
    assert caught.value.mend == "save the file as UTF-8"
    path.write_text(qemu(""), encoding="utf-16")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(path, root=tmp_path)


def test_a_target_or_image_that_is_not_there(tmp_path: Path) -> None:
    config = read(tmp_path, qemu(""))
    with pytest.raises(ConfigError, match=r"no target 'qmeu'\n  did you mean 'qemu'\?"):
        config.target("qmeu")
    with pytest.raises(ConfigError, match=r"no image 'fedora'\n  known: debian"):
        config.image("fedora")


def test_a_groups_errors_are_said_once(tmp_path: Path) -> None:
    """And not of each of its targets."""
    group = "[group.a]\nbetween = 'resett'\ntagz = []\nusb = {alow = 1}\n"
    targets = [BOARD.replace(".b]", f".{name}]") + "group = 'a'\n" for name in "bcd"]
    said = fault(tmp_path, group + "".join(targets))
    assert "[target." not in said
    for one in ("[group.a] between:", "[group.a] tagz:", "[group.a.usb] alow:"):
        assert said.count(one) == 1


@pytest.mark.parametrize(
    ("group", "wrong"),
    [
        ("backend = 'bord'\nconsole = {driver = 'unix'}", "backend: 'bord' is no backend"),
        ("backend = 'board'\nconsole = 7", "console: found 7"),
    ],
)
def test_what_a_target_must_have_is_wrong_in_its_group(
    tmp_path: Path, group: str, wrong: str
) -> None:
    """It is not said to lack it, nor to be of another kind."""
    targets = "".join(f"[target.{name}]\ngroup = 'a'\n" for name in "bcd")
    said = fault(tmp_path, f"[group.a]\n{group}\n{targets}")
    assert said.startswith(f"[group.a] {wrong}")
    assert "[target." not in said


def test_a_target_of_an_unknown_backend(tmp_path: Path) -> None:
    """Its keys may be right for that; its values are looked at."""
    said = fault(tmp_path, BOARD.replace('"board"', '"bord"') + "arch = 7\nnonsense = 1\n")
    assert "[target.b] backend: 'bord' is no backend" in said
    assert "[target.b] arch: found 7" in said
    assert "[target.b] nonsense: unknown key" in said
    assert said.startswith("3 errors\n")
