"""A worker of pytest-xdist tells the controller of a test that passed once, not three times.

A test has three reports: of its setup, its call and its teardown. Each costs the worker and the
controller half a millisecond, as much as the median test. The reports that nobody sees, of a quick
setup or teardown that passed, stay in the worker. All others are sent.
"""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

QUICK_S = 0.005
"""`--durations` lists no phase that is quicker (pytest's default of `--durations-min`)."""


def install(config: pytest.Config) -> None:
    """Install `FewerReports` in a worker, unless a file of results needs every report."""
    if hasattr(config, "workerinput") and not config.getoption("xmlpath"):
        config.pluginmanager.register(FewerReports())


class FewerReports:
    """Runs a test as pytest does, and reports of it what is shown."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.passed:
                if report.when != "call" and report.duration < QUICK_S:
                    continue
                report.keywords = {}  # names and marks, which only select tests
            item.ihook.pytest_runtest_logreport(report=report)
        return True
