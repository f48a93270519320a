"""What report.html and ctrf.json are made of: any run, also one that was killed or is hostile."""

from __future__ import annotations

import base64
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.artifacts import index
from pytest_hil.artifacts.report import capture, console, ctrf, detail, page
from pytest_hil.artifacts.report.gather import Gathered, gather
from pytest_hil.artifacts.store import Run
from pytest_hil.cli.main import main
from tests.artifacts.runs import START, add, boot, iso, large, write_console


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / ".hil", argv=["-n2"], targets=["qemu"])
    run.update(start=iso(START))
    return run


def gathered(run: Run) -> Gathered:
    return gather(index.find_run(run.path.parents[1], run.id))


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.elements.append((tag, facts))
        self._in = f"{tag}#{facts.get('id', '')}" if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.scripts[self._in] = self.scripts.get(self._in, "") + data

    @property
    def model(self) -> Any:
        return json.loads(self.scripts["script#model"])

    def detail(self, number: int) -> Any:
        packed = base64.b64decode(self.scripts[f"script#d{number}"])
        return json.loads(zlib.decompress(packed))


def paged(run: Run, **options: Any) -> Page:
    output = run.path / page.NAME
    page.write(gathered(run), output, **options)
    return Page(output.read_text())


# --- which tests there are, and how they ended ---


def test_directories_and_results_are_put_together(run: Run) -> None:
    add(run, "a.py::test_one", start=START + 5, duration=2.5, markers=["slow"])
    add(run, "a.py::test_two", "failed", start=START + 1, worker="gw1", reason="no", text="E no")
    run.result(nodeid="a.py::test_plain", outcome="skipped", reason="lacks usb", start=START)
    found = gathered(run)
    assert [(t.nodeid, t.outcome) for t in found.tests] == [
        ("a.py::test_plain", "skipped"),
        ("a.py::test_two", "failed"),
        ("a.py::test_one", "passed"),
    ]
    plain, two, one = found.tests
    assert plain.path is None
    assert (two.worker, two.reason, two.text) == ("gw1", "no", "E no")
    assert (one.start, one.duration, one.markers) == (START + 5, 2.5, ("slow",))
    assert found.counts == {"failed": 1, "passed": 1, "skipped": 1}
    assert (found.start, found.end) == (START, START + 7.5)


def test_a_killed_run(tmp_path: Path) -> None:
    """Its owner is gone, its files are cut anywhere: what there is, is told."""
    script = (
        "import os, sys; from pathlib import Path; from pytest_hil.artifacts.store import Run;"
        "run = Run.create(Path(sys.argv[1])); run.result(nodeid='t.py::test_a', outcome='passed');"
        "run.test('t.py::test_b', 'qemu').events('ready'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    run = index.find_run(tmp_path)
    assert run.status == "interrupted"
    (directory,) = (t.path for t in run.tests())
    (run.path / "results.jsonl").open("a").write('{"nodeid": "t.py::test_c", "outc')
    write_console(directory, [(0.5, b"one\r\ntwo\r\n"), (0.75, b"three")], wall=START)
    with (directory / "console.jsonl").open("a") as file:
        file.write('{"t": 0.9, "da')
    (directory / "crash.json").write_text('[{"title": "BUG')
    (directory / "events.jsonl").open("a").write('{"t": 1.5, "ki')
    found = gather(run)
    assert {t.nodeid: t.outcome for t in found.tests} == {
        "t.py::test_a": "passed",
        "t.py::test_b": "interrupted",
    }
    output = tmp_path / "page.html"
    page.write(found, output)
    shown = Page(output.read_text())
    number = [row[0] for row in shown.model["tests"]].index("t.py::test_b")
    assert shown.model["run"]["status"] == "interrupted"
    assert shown.detail(number)["consoles"][0]["text"] == "one\ntwo\nthree"
    assert [event["kind"] for event in shown.detail(number)["events"]] == ["ready"]


@pytest.mark.parametrize(
    "name", ["run.json", "results.jsonl", "coverage.json", "T/meta.json", "T/events.jsonl"]
)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[[[[" * 30_000,
        b'{"start": 1e999, "end": [], "files": {"a": 3}}',
        b"\xff{",
    ],
    ids=["empty", "zeros", "deep", "odd", "binary"],
)
def test_damaged_files_do_no_harm(run: Run, name: str, content: bytes) -> None:
    test = add(run, "t.py::test_a", "failed", crashes=[{"title": "BUG"}])
    for damaged in ("console.jsonl", "crash.json", "usb.pcap", "console.log"):
        if name.startswith("T/"):
            (test.path / damaged).write_bytes(content)
    (run.path / name.replace("T/", f"{test.path.name}/")).write_bytes(content)
    shown = paged(run)
    assert len(shown.model["tests"]) == 1
    ctrf.document(gathered(run))


def test_a_test_whose_worker_died_is_one_test(run: Run) -> None:
    """xdist's report of it knows neither its directory nor its times."""
    run.test("t.py::test_a", "qemu", worker="gw0").update(start=iso(START + 3), pid=0)
    run.result(nodeid="t.py::test_a", outcome="failed", start=0.0, reason="worker crashed")
    (test,) = gathered(run).tests
    assert (test.outcome, test.reason, test.start) == ("failed", "worker crashed", START + 3)
    assert test.path is not None


def test_tries_are_counted_and_flaky_is_seen(run: Run) -> None:
    add(run, "t.py::test_a", "rerun", start=START)
    add(run, "t.py::test_a", "passed", start=START + 5)
    add(run, "t.py::test_a", "failed", start=START, target="rpi4")
    found = gathered(run)
    assert [(t.target, t.outcome, t.attempt) for t in found.tests] == [
        ("qemu", "rerun", 1),
        ("rpi4", "failed", 1),
        ("qemu", "passed", 2),
    ]
    assert found.flaky() == {("t.py::test_a", "qemu")}


def test_crashes_are_grouped_by_title(run: Run) -> None:
    late, early = ({"title": "KASAN in x", "kind": "kasan", "text": "BUG: x\n at"},) * 2
    add(
        run,
        "t.py::test_late",
        "failed",
        start=START + 9,
        crashes=[late, {**late, "follow_up": True}],
    )
    said = [(0.2, b"fine\r\nBU"), (0.5, b"G: x\r\n at\r\n")]
    add(run, "t.py::test_early", "failed", start=START, crashes=[early], console=said)
    add(run, "t.py::test_other", "failed", start=START + 1, crashes=[{"title": "panic"}])
    groups = paged(run).model["crashes"]
    facts = ("title", "first", "follow_ups", "t", "tests")
    assert [[group[name] for name in facts] for group in groups] == [
        ["KASAN in x", 0, 1, 0.2, [0, 2]],
        ["panic", 1, 0, None, [1]],
    ]


# --- consoles ---


def test_lines_have_the_time_at_which_they_began(tmp_path: Path) -> None:
    pieces = [
        (0.1, b"tem"),
        (0.2, b"plate\r\nlog"),
        (1.5, b"in: \x1b[1mred\x1b[0m"),
        (2.0, b"\r\nend"),
    ]
    write_console(tmp_path, pieces, wall=START + 10, inherited=2)
    found = console.tail(tmp_path, limit=10_000, start=START)
    assert found is not None
    assert found.lines == ["template", "login: red", "end"]
    assert found.times == [10_100, 10_200, 12_000]
    assert (found.inherited, found.cut, found.size) == (1, 0, sum(len(d) for _, d in pieces))


def test_a_second_part_has_a_clock_of_its_own(tmp_path: Path) -> None:
    """After a power cycle the console was opened anew. Its times hold where the cut is in it."""
    write_console(tmp_path, [(1.0, b"one\r\n")], wall=START)
    write_console(tmp_path, [(0.5 + n, b"%d\r\n" % n) for n in range(3000)], wall=START + 60)
    whole = console.tail(tmp_path, limit=10**6, start=START)
    assert whole is not None
    assert whole.times is not None
    assert whole.times[:2] == [1000, 60_500]
    found = console.tail(tmp_path, limit=5_000, start=START)
    assert found is not None
    assert found.times is not None
    assert found.lines[-1] == "2999"
    assert found.times[-1] == 60_500 + 2_999_000
    assert found.cut > 0


@pytest.mark.parametrize("limit", [100, 4096, 100_000])
def test_a_large_console_is_cut_and_says_so(tmp_path: Path, limit: int) -> None:
    log = boot(20_000)
    step = 16_384
    pieces = [(n / 1e6, log[n : n + step]) for n in range(0, len(log), step)]
    write_console(tmp_path, pieces, wall=START)
    found = console.tail(tmp_path, limit=limit, start=START)
    assert found is not None
    text = "\n".join(found.lines)
    assert len(text) <= limit + console.LONGEST_LINE
    assert log.decode().replace("\r\n", "\n").endswith(text + "\n")
    assert found.size == len(log)
    assert 0.9 * (len(log) - limit) <= found.cut <= len(log)


def test_a_line_without_an_end(tmp_path: Path) -> None:
    write_console(tmp_path, [(0.1 * n, b"." * 1000) for n in range(200)], wall=START)
    found = console.tail(tmp_path, limit=10_000, start=START)
    assert found is not None
    (line,) = found.lines
    assert len(line) == console.LONGEST_LINE + 2


def test_hostile_bytes_become_visible_text(tmp_path: Path) -> None:
    evil = b"\x1b]0;title\x07</script><b>\0\x08\x7f\xff\xfe\xe2\x80\xae\x1b[2J\x9b31m\r\n"
    write_console(tmp_path, [(0.0, evil)], wall=START)
    found = console.tail(tmp_path, limit=10_000, start=START)
    assert found is not None
    (line,) = found.lines
    assert "</script><b>" in line
    assert line.isprintable()
    (tmp_path / "console.jsonl").unlink()
    untimed = console.tail(tmp_path, limit=10_000, start=START)
    assert untimed is not None
    assert (untimed.lines, untimed.times) == ([line], None)


# --- the page ---

EVIL = "</script><script>alert(1)</script><!--<script> ]]> \u2028 '\" & \ud800 \0"


def test_no_text_can_become_markup(run: Run) -> None:
    """The page's elements are the same, whatever tests and targets say."""
    harmless, hostile = (
        Run.create(run.path.parents[1] / name, targets=["a"]) for name in ("one", "two")
    )
    for made, text in ((harmless, "fine"), (hostile, EVIL)):
        said = text.encode(errors="surrogatepass")
        test = add(
            made,
            f"t.py::test_a[{text}]",
            "failed",
            worker=text,
            target=text,
            reason=text,
            text=text,
            markers=[text],
            console=[(0.1, said + b"\r\n")],
            crashes=[{"title": text, "text": text, "kind": text}],
        )
        test.events(text, **{text: text})
        made.update(argv=[text], root=text, targets=[text], versions={text: text})
        (made.path / "coverage.json").write_text(json.dumps({"files": {text: {"lines": [1, 2]}}}))
    plain, evil = paged(harmless), paged(hostile)
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    assert evil.model["tests"][0][0] == f"t.py::test_a[{EVIL}]"
    assert "</script>" in evil.detail(0)["text"]


def test_only_its_own_script_and_style_may_run(run: Run) -> None:
    add(run, "t.py::test_a", "failed")
    shown = paged(run)
    text = (run.path / page.NAME).read_text()
    (policy,) = (
        str(facts["content"])
        for tag, facts in shown.elements
        if tag == "meta" and "http-equiv" in facts
    )
    assert "default-src 'none'" in policy
    for kind, content in (("script", shown.scripts["script#"]), ("style", shown.scripts["style#"])):
        (wanted,) = re.findall(rf"{kind}-src '(sha256-[^']+)'", policy)
        assert page._hash(content) == wanted
    # Nothing is fetched, no element has code or style in an attribute, and no HTML is parsed.
    addresses = set(re.findall(r"https?://[^\s\"'<>`)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not [f for _, f in shown.elements if f.keys() & {"src", "style", "onclick", "onload"}]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


def test_without_javascript_the_failures_can_be_read(run: Run) -> None:
    add(run, "t.py::test_a[<x>]", "failed", reason="<b>no</b>")
    add(run, "t.py::test_fine")
    text = (paged(run), (run.path / page.NAME).read_text())[1]
    static = text.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "1 failed, 1 passed" in static
    assert "failed: t.py::test_a[&lt;x&gt;] on qemu<br>&lt;b&gt;no&lt;/b&gt;" in static
    assert "test_fine" not in static


def test_links_lead_from_wherever_the_page_is(run: Run, tmp_path: Path) -> None:
    add(run, "t.py::test_a")
    assert paged(run).model["base"] == ""
    away = tmp_path / "out side" / "r.html"
    away.parent.mkdir()
    page.write(gathered(run), away)
    base = Page(away.read_text()).model["base"]
    assert (away.parent / base.replace("%20", " ")).resolve() == run.path.resolve()


def test_the_command_that_runs_a_test_again(run: Run) -> None:
    run.update(options=["--hil-boards=my boards.toml"])
    add(run, "t.py::test_a[it's; rm -rf]")
    assert paged(run).model["commands"] == [
        "pytest 't.py::test_a[it'\"'\"'s; rm -rf]' --hil-target=qemu '--hil-boards=my boards.toml'"
    ]


def test_only_so_much_of_all_consoles_comes_into_the_page(run: Run) -> None:
    log = boot(1200)
    for number in range(6):
        add(run, f"t.py::test_{number}", "failed", start=START + number, console=[(0.1, log)])
    shown = paged(run, room=2 * len(log))
    kept = [len(shown.detail(n)["consoles"][0]["text"]) for n in range(6)]
    assert min(kept[:2]) > len(log) * 0.9
    assert max(kept[3:]) <= detail.CONSOLE_OF_OTHERS + console.LONGEST_LINE
    assert all(shown.detail(n)["consoles"][0]["size"] == len(log) for n in range(6))


def test_a_run_of_some_size(tmp_path: Path) -> None:
    """It stays small, and is made without all consoles in memory."""
    run = large(tmp_path, tests=120, console_lines=1500, bad=4)
    consoles = sum(path.stat().st_size for path in run.path.glob("*/console.log"))
    shown = paged(run)
    assert len(shown.model["tests"]) == 120
    assert (run.path / page.NAME).stat().st_size < consoles / 20
    assert sum(shown.model["counts"].values()) == 120


def test_a_page_that_cannot_be_written_leaves_the_old_one(run: Run) -> None:
    add(run, "t.py::test_a")
    output = run.path / "sub" / page.NAME
    with pytest.raises(OSError) as raised:
        page.write(gathered(run), output)
    assert raised.value.filename == str(output)
    assert not list(run.path.glob(".report*"))


@pytest.mark.parametrize("format", ["html", "ctrf"])
def test_a_link_and_a_pipe_stay_what_they_are(
    run: Run, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that it goes to /dev/stdout too, and devices are not replaced by files."""
    add(run, "t.py::test_a")
    report = ["report", str(run.path), f"--format={format}", "--output"]
    (tmp_path / "site").mkdir()
    file, link, pipe = tmp_path / "site" / "page", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(Path("site") / "page")
    for old in ("", "old"):
        file.write_text(old)
        assert main([*report, str(link)]) == 0
        assert capsys.readouterr().out == f"{link}\n"
        assert link.is_symlink()
        assert "t.py::test_a" in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["page"]
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert main([*report, str(pipe)]) == 0
        assert reader.stdout is not None
        assert b"t.py::test_a" in reader.stdout.read()
    assert pipe.is_fifo()
    assert capsys.readouterr().out == ""


# --- USB ---


def pcap(records: list[tuple[str, int, int, int, int]], *, data: int = 0) -> bytes:
    """``records``: event, address, type, status, length."""
    found = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65600, 220)
    for number, (event, address, kind, status, length) in enumerate(records):
        head = struct.pack(
            *(
                "=QBBBBHBBqiiII8siiII",
                number,
                ord(event),
                kind,
                address,
                5,
                1,
                0,
                0,
                1000 + number,
                0,
            ),
            *(status, length, data, b"", 0, 0, 0, 0),
        )
        found += struct.pack("=IIII", 1000 + number, 0, 64 + data, 64 + data) + head + b"x" * data
    return found


def test_a_capture_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "usb.pcap"
    record = [
        ("S", 0x81, 1, -115, 8),
        ("C", 0x81, 1, 0, 8),
        ("C", 0x81, 1, -32, 0),
        ("C", 2, 3, 0, 512),
    ]
    path.write_bytes(pcap(record, data=40))
    found = capture.summary(path)
    assert found is not None
    assert [
        (e.device, e.address, e.type, e.transfers, e.size, e.errors) for e in found.endpoints
    ] == [
        ("1-5", 0x02, "bulk", 1, 512, {}),
        ("1-5", 0x81, "interrupt", 2, 8, {-32: 1}),
    ]
    assert (found.seconds, found.whole) == (3.0, True)
    first = capture.summary(path, most=2)
    assert first is not None
    assert not first.whole
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        capture.summary(path)


# --- CTRF ---

# The words of the schema's version 0.1.0: what a test may have, of which type.
CTRF_TEST = {
    **{"id": str, "name": str, "status": str, "duration": int, "start": int, "stop": int},
    **{"suite": list, "message": str, "trace": str, "rawStatus": str, "tags": list, "labels": dict},
    **{"filePath": str, "retries": int, "retryAttempts": list, "flaky": bool, "threadId": str},
    **{"attachments": list, "extra": dict},
}
CTRF_ATTEMPT = {"attempt", "status", "duration", "message", "trace", "start", "stop", "attachments"}
CTRF_STATUS = {"passed", "failed", "skipped", "pending", "other"}


def test_ctrf_says_what_its_schema_allows(run: Run, tmp_path: Path) -> None:
    for number, outcome in enumerate(
        ("passed", "failed", "error", "skipped", "xfailed", "xpassed", "rerun", "interrupted")
    ):
        add(run, f"t.py::TestA::test_{outcome}", outcome, start=START + number, markers=["slow"])
    add(run, "t.py::TestA::test_rerun", "passed", start=START + 20)
    run.result(nodeid="t.py::test_plain", outcome="passed", start=START, duration=0.5)
    output = tmp_path / "ctrf.json"
    ctrf.write(gathered(run), output)
    found = json.loads(output.read_text())
    assert found.keys() <= {
        "reportFormat",
        "specVersion",
        "reportId",
        "timestamp",
        "generatedBy",
        "results",
    }
    assert found["reportFormat"] == "CTRF"
    summary, tests = found["results"]["summary"], found["results"]["tests"]
    for test in tests:
        assert {key: type(value) for key, value in test.items()}.items() <= CTRF_TEST.items()
        assert test["status"] in CTRF_STATUS
        assert test["suite"][0] == "t.py"
        for attempt in test.get("retryAttempts", []):
            assert attempt.keys() <= CTRF_ATTEMPT
            assert attempt["status"] in CTRF_STATUS
        for attachment in test.get("attachments", []):
            assert attachment.keys() == {"name", "contentType", "path"}
            assert (run.path / attachment["path"]).is_file()
    for word in CTRF_STATUS:
        assert summary[word] == sum(test["status"] == word for test in tests)
    assert summary["tests"] == len(tests) == 9
    # This process lives: what has no end goes on.
    assert (summary["flaky"], summary["failed"], summary["pending"]) == (1, 2, 1)
    (flaky,) = (test for test in tests if test.get("flaky"))
    assert (flaky["status"], flaky["retries"]) == ("passed", 1)
