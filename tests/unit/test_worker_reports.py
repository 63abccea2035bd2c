"""A worker reports of a test what is shown, and nothing that failed stays in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import worker_reports
from tests.worker_reports import QUICK_S, FewerReports

PASSED = {"setup": ("passed", 0.0), "call": ("passed", 0.0), "teardown": ("passed", 0.0)}


@pytest.mark.parametrize(
    ("phases", "sent"),
    [
        (PASSED, ["call"]),
        (PASSED | {"setup": ("passed", QUICK_S)}, ["setup", "call"]),
        (PASSED | {"teardown": ("passed", QUICK_S)}, ["call", "teardown"]),
        (PASSED | {"call": ("failed", 0.0)}, ["call"]),
        (PASSED | {"call": ("skipped", 0.0)}, ["call"]),
        (PASSED | {"teardown": ("failed", 0.0)}, ["call", "teardown"]),
        ({"setup": ("failed", 0.0), "teardown": ("passed", 0.0)}, ["setup"]),
        ({"setup": ("skipped", 0.0), "teardown": ("passed", 0.0)}, ["setup"]),
    ],
)
def test_what_is_shown_is_sent(
    phases: dict[str, tuple[Any, float]], sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {"a mark": 1}
    reports = [
        pytest.TestReport("a::b", ("a", 1, "b"), dict(marks), outcome, None, when, duration=took)
        for when, (outcome, took) in phases.items()  # type: ignore[misc]
    ]
    monkeypatch.setattr(worker_reports, "runtestprotocol", lambda *_, **__: reports)
    got: list[pytest.TestReport] = []

    def log(report: pytest.TestReport) -> None:
        got.append(report)

    item: Any = SimpleNamespace(ihook=SimpleNamespace(pytest_runtest_logreport=log))
    assert FewerReports().pytest_runtest_protocol(item, None)
    assert [one.when for one in got] == sent
    assert all(one.keywords == ({} if one.passed else marks) for one in got)
