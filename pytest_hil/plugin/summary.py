"""What is made of a run when it has ended: report.html and ctrf.json, in its directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

import pytest

from pytest_hil.plugin import options, status

if TYPE_CHECKING:
    from pytest_hil.artifacts.store import Run

Report = Literal["html", "none"]


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-report",
        choices=("html", "none"),
        help="what is written of the run at its end: report.html and ctrf.json beside the targets' "
        "logs (html, the default), or nothing; `pytest-hil report` writes them later",
    )
    parser.addini("hil_report", "html or none")


def wanted(config: pytest.Config) -> Report:
    return cast("Report", options.chosen(config, "report", options.one_of("html", "none"), "html"))


def pytest_configure(config: pytest.Config) -> None:
    # A wrong word is said before the first test.
    wanted(config)


def prepare() -> None:
    """Import what :func:`write` needs: at the run's end everybody waits for it."""
    import pytest_hil.artifacts.report.ctrf
    import pytest_hil.artifacts.report.page
    import pytest_hil.artifacts.retention  # noqa: F401


def write(config: pytest.Config, run: Run) -> None:
    """Write them. A disk that is full must not make a run red."""
    if wanted(config) == "none":
        return
    from pytest_hil.artifacts import index
    from pytest_hil.artifacts.report import ctrf, page
    from pytest_hil.artifacts.report.gather import gather

    try:
        gathered = gather(index.find_run(run.path.parents[1], run.id))
        ctrf.write(gathered, run.path / ctrf.NAME)
        page.write(gathered, run.path / page.NAME)
    except OSError as error:
        run.trouble(error)
        return
    except Exception as error:  # a mistake of ours here must not make a run red either
        status.status_of(config).say(f"no report, please tell us: {error!r}")
        return
    path = run.path / page.NAME
    try:
        path = path.relative_to(config.invocation_params.dir)
    except ValueError:
        pass
    status.status_of(config).say(f"report: {path}")
