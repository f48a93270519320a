"""report.html in a real browser: what people do with it, by mouse and by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.artifacts import index
from pytest_hil.artifacts.report import page
from pytest_hil.artifacts.report.gather import gather
from pytest_hil.artifacts.store import Run
from tests.artifacts.browser import Browser
from tests.artifacts.runs import add, boot, large

pytestmark = pytest.mark.slow

# Of a page with 2,000 tests, 100 kB of console beside each, until it can be used.
USABLE = 1.5


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def at(browser: Browser) -> Iterator[Browser]:
    """A window of usual size; no test may leave an error, or have asked for anything."""
    browser.problems.clear()
    browser.resize(1400, 900)
    yield browser
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith("file://")] == []


def write(run: Run) -> Path:
    output = run.path / page.NAME
    page.write(gather(index.find_run(run.path.parents[1], run.id)), output)
    return output


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(large(tmp_path_factory.mktemp("many"), tests=2000, console_lines=1500))


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(large(tmp_path_factory.mktemp("some"), tests=60, console_lines=200, bad=12))


NAMES = "[...document.querySelectorAll('.row .name')].map(e => e.textContent)"
CHOSEN = "document.querySelector('.row[aria-selected=true] .name').textContent"
TITLE = "document.querySelector('#detail h2').textContent"
LOW_CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


def test_two_thousand_tests_can_be_used_at_once(at: Browser, many: Path) -> None:
    consoles = sum(path.stat().st_size for path in many.parent.glob("*/console.log"))
    assert consoles > 190e6
    took = []
    for _ in range(3):
        at.open(many)
        at.until("document.querySelector('.console')")
        took.append(at.run("performance.now()"))
    # Until there are the list, the first failure, and its console; and then until a search is done.
    assert min(took) < USABLE * 1000
    searched = at.run(
        "(async () => { const start = performance.now();"
        " const s = document.getElementById('search'); s.value = 'hid-75';"
        " s.dispatchEvent(new Event('input'));"
        " await new Promise(requestAnimationFrame); return performance.now() - start; })()"
    )
    assert searched < 500
    assert at.run("document.querySelectorAll('.row').length") < 100
    assert at.run("document.getElementById('count').textContent").endswith("of 2,000 tests")


def test_it_opens_with_the_first_failure(at: Browser, some: Path) -> None:
    at.open(some)
    assert at.run("document.querySelector('.row').classList.contains('failed')") or at.run(
        "document.querySelector('.row').classList.contains('error')"
    )
    assert at.until(TITLE) == at.run(CHOSEN) == at.run(NAMES)[0]
    assert at.run("document.title").startswith("✗ ")
    assert at.until("document.querySelector('.console .x').textContent").startswith("[")


def test_search_and_filters(at: Browser, some: Path) -> None:
    at.open(some)
    at.press("/")
    at.type("BURST cdc")
    names = at.run(NAMES)
    assert names
    assert all(name.startswith("test_burst[cdc-") for name in names)
    assert at.run("document.querySelector('.row mark').textContent") == "test_burst"[5:]
    at.press("Escape")
    assert at.run("document.getElementById('count').textContent") == "60 tests"
    at.run("document.querySelector('.chip.failed').click()")
    assert all(at.run("[...document.querySelectorAll('.row')].map(e => e.matches('.failed'))"))
    for key, value in (("t", "rpi4"), ("w", "gw1"), ("m", "smoke")):
        select = f"document.querySelector('select[data-key={key}]')"
        before = at.run("list = document.getElementById('count').textContent")
        at.run(f"{select}.value = {value!r}; {select}.dispatchEvent(new Event('change'))")
        assert at.run("document.getElementById('count').textContent") != before
        assert value in at.run("location.hash")
        at.run(f"{select}.value = ''; {select}.dispatchEvent(new Event('change'))")
    at.run("document.querySelector('select[data-key=s]').value = 'slow'")
    at.run("document.querySelector('select[data-key=s]').dispatchEvent(new Event('change'))")
    at.run("document.querySelector('.chip.failed').click()")
    slowest = at.run(NAMES)[0]
    at.press("/")
    at.type("nothing has this in it")
    assert "No test fits" in at.run("document.getElementById('list').textContent")
    at.run("document.querySelector('.nothing button').click()")
    assert at.run(NAMES)[0] == slowest


def test_the_keyboard_goes_everywhere(at: Browser, some: Path) -> None:
    at.open(some)
    names = at.run(NAMES)
    at.press("j", "j", "k")
    assert at.run(CHOSEN) == names[1]
    at.press("n")
    assert at.run(CHOSEN) == names[2]
    at.press("Enter")
    assert at.run("document.activeElement.id") == "detail"
    at.until("document.querySelector('.console')")
    at.press("f")
    assert at.run("document.activeElement.className") == "find"
    at.press("Escape")
    assert at.run("document.activeElement.id") == "list"
    assert at.run("document.activeElement.getAttribute('aria-activedescendant')") == at.run(
        "document.querySelector('.row[aria-selected=true]').id"
    )
    at.press("?")
    assert at.run("document.getElementById('help').open")
    at.press("Escape")
    assert not at.run("document.getElementById('help').open")
    for number, view in enumerate(("tests", "timeline", "crashes", "timing", "coverage", "run"), 1):
        at.press(str(number))
        assert at.run(
            "[...document.querySelectorAll('main > section:not([hidden])')].map(e => e.id)"
        ) == [f"view-{view}"]
        assert (
            at.run("document.querySelector('[role=tab][aria-selected=true]').id") == f"tab-{view}"
        )
    at.press("Escape", "t")
    assert at.run("document.documentElement.dataset.theme") == "light"
    at.press("t")
    assert at.run("document.documentElement.dataset.theme") == "dark"
    at.press("t")


def test_what_has_the_focus_can_be_seen(at: Browser, some: Path) -> None:
    """From one end to the other with the tabulator, and no stop is without its ring."""
    at.open(some)
    at.until("document.querySelector('.console')")
    seen = set()
    for _ in range(40):
        at.press("Tab")
        tag, outline, name = at.run(
            "(e => [e.tagName, getComputedStyle(e).outlineStyle,"
            " e.id || e.className || e.textContent])(document.activeElement)"
        )
        seen.add(name)
        assert tag == "BODY" or outline != "none", name
    assert {"search", "list", "theme", "tab-tests"} <= seen


def test_a_link_leads_to_the_same_place(at: Browser, some: Path) -> None:
    at.open(some)
    at.press("/")
    at.type("counts")
    at.press("Enter", "j", "j")
    fragment, chosen = at.run("location.hash"), at.run(CHOSEN)
    at.open(some, fragment)
    assert (at.run(CHOSEN), at.until(TITLE)) == (chosen, chosen)
    assert at.run("document.getElementById('search').value") == "counts"
    at.open(some, "#nonsense?o=%%%&id=nobody")
    assert at.run("document.getElementById('view-tests').hidden") is False


def test_a_console_is_searched_and_shows_the_crash(at: Browser, tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    text = "BUG: KASAN: bad in drv\n drv_irq+0x1c/0x80\n---[ end ]---"
    pieces = [(0.5, boot(6000)), (1.25, b"needle one\r\n")]
    pieces += [(2.0, text.replace("\n", "\r\n").encode() + b"\r\n"), (3.0, boot(50))]
    crash = {"title": "KASAN: bad in drv", "kind": "kasan", "text": text}
    add(run, "t.py::test_a", "failed", console=pieces, crashes=[crash])
    at.open(write(run))
    assert at.until("document.querySelector('.crash-box h3').textContent") == "KASAN: bad in drv"
    assert at.run(
        "[...document.querySelectorAll('.hit .x')].map(e => e.textContent)"
    ) == text.split("\n")
    assert at.run("document.querySelector('.hit .t').textContent") == "2.000"
    seen = (
        "(e => { const b = document.querySelector('.console').getBoundingClientRect(),"
        " r = e.getBoundingClientRect(); return r.top >= b.top && r.bottom <= b.bottom; })"
    )
    assert at.run(f"{seen}(document.querySelector('.hit'))")
    assert "cut: the last" in at.run("document.querySelector('.warn').textContent")
    at.press("f")
    at.type("needle")
    at.press("Enter")
    assert at.until(f"{seen}(document.querySelector('mark.now'))")
    assert (
        at.run("document.querySelector('mark.now').closest('.l').textContent") == "1.250needle one"
    )
    at.press("Escape", "3")
    assert "KASAN: bad in drv" in at.run("document.getElementById('view-crashes').textContent")
    at.run("document.querySelector('#view-crashes a').click()")
    assert at.run(TITLE) == "test_a"


def test_the_time_line_by_mouse_and_keys(at: Browser, some: Path) -> None:
    at.open(some, "#timeline")
    at.run("document.querySelector('canvas').focus()")
    at.press("ArrowRight", "ArrowRight", "ArrowDown", "+", "+")
    said = at.until("document.getElementById('timeline-said').textContent")
    assert "gw1" in said
    x, y = at.run(
        "(b => [b.left + b.width / 2, b.top + 50])"
        "(document.querySelector('canvas').getBoundingClientRect())"
    )
    at.mouse(x, y)
    assert at.until(
        "!document.getElementById('tip').hidden && document.getElementById('tip').textContent"
    )
    at.run("document.querySelector('canvas').focus()")
    at.press("Enter")
    assert at.until(TITLE) in said
    at.open(some, "#timeline")
    at.run("document.querySelector('[data-group=target]').click()")
    rows = (
        "[...document.querySelectorAll('#view-timeline tbody tr')].map(e => e.cells[0].textContent)"
    )
    assert at.run(rows) == ["qemu", "rpi4"]


def test_the_command_is_copied(at: Browser, some: Path) -> None:
    at.open(some)
    wanted = at.run("document.querySelector('.command code').textContent")
    assert wanted.startswith("pytest ")
    copied = (
        "new Promise(done => { navigator.clipboard.writeText = async text => done(text);"
        " document.querySelector('.command button').click(); })"
    )
    assert at.run(copied) == wanted


HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
)


def test_a_hostile_run_is_only_text(at: Browser, tmp_path: Path) -> None:
    run = Run.create(tmp_path, argv=[HOSTILE], targets=[HOSTILE])
    console = f"{HOSTILE}\x1b]0;x\x07\0\x1b[2J".encode() + b"\xff\xfe\x9b\r\n"
    crash = {"title": HOSTILE, "text": HOSTILE, "kind": HOSTILE, "severity": HOSTILE}
    test = add(
        run,
        f"t.py::test[{HOSTILE}]",
        "failed",
        target=HOSTILE,
        worker=HOSTILE,
        console=[(0.1, console)],
        crashes=[crash],
        reason=HOSTILE,
        text=HOSTILE,
        markers=[HOSTILE],
    )
    test.events("javascript:alert(1)", **{HOSTILE: HOSTILE})
    (run.path / "coverage.json").write_text(json.dumps({"files": {HOSTILE: {"lines": [1, 2]}}}))
    run.update(versions={HOSTILE: HOSTILE}, root=HOSTILE)
    shown = write(run)
    at.open(shown)
    for view in ("tests", "timeline", "crashes", "timing", "coverage", "run"):
        at.open(shown, f"#{view}")
        assert "owned" not in at.run("document.title")
        assert at.run("document.querySelectorAll('img').length") == 0
        assert at.run("document.getElementsByTagName('script').length") == 3
    at.open(shown)
    at.until("document.querySelector('.console .x')")
    assert HOSTILE in at.run("document.querySelector('.console .x').textContent")


def test_a_page_that_is_cut_says_so(at: Browser, some: Path, tmp_path: Path) -> None:
    whole = some.read_bytes()
    cut = tmp_path / "cut.html"
    cut.write_bytes(whole[: whole.index(b'<script type="application/x-hil"')])
    at.open(cut)
    assert "this file is cut" in at.until("document.querySelector('.part.warn').textContent")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_fits_and_can_be_read(at: Browser, some: Path, width: int, dark: bool) -> None:
    """Nothing is wider than the window, and text has the contrast that WCAG 2.2 AA asks for."""
    at.resize(width, 800, dark=dark)
    for view in ("tests", "timeline", "crashes", "timing", "coverage", "run"):
        at.open(some, f"#{view}")
        at.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert at.run("document.documentElement.scrollWidth") <= width
        assert at.run(LOW_CONTRAST) == []
    at.open(some)
    if width == 400:
        at.run("document.querySelector('.row').click()")
        at.until("document.querySelector('.console')")
        assert at.run("getComputedStyle(document.querySelector('.detail')).position") == "absolute"
        at.run("document.querySelector('.back').click()")
        assert at.run("document.activeElement.id") == "list"
    else:
        at.until("document.querySelector('.console')")
        assert at.run(LOW_CONTRAST) == []
