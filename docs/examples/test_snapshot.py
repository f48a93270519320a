"""Going back: a snapshot is the whole machine, its memory, its processes, its open files."""

from __future__ import annotations

from pytest_hil import Target


def test_try_something_and_go_back(hil: Target) -> None:
    hil.run("echo precious > /tmp/data")
    before = hil.snapshot()

    hil.run("rm -rf /bin /etc /tmp/*")  # whatever you would not dare to do elsewhere
    hil.restore(before)

    assert hil.run("cat /tmp/data").stdout == "precious\n"


def test_the_same_start_for_several_trials(hil: Target) -> None:
    # What is slow or hard to reach is done once …
    hil.run("for n in $(seq 100); do echo $n >> /tmp/numbers; done")
    prepared = hil.snapshot("prepared")
    # … and each trial begins there.
    for line in ("first", "second", "third"):
        hil.run(f"echo {line} >> /tmp/numbers")
        assert hil.run("wc -l < /tmp/numbers").stdout.strip() == "101"
        hil.restore(prepared)
