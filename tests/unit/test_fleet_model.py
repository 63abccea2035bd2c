"""The fleet model: it adds up, and the docs quote what it says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.fleet_model import Assumptions, fleet, main

SCALE = Path(__file__).parents[2] / "docs/discussions/scale.md"


def test_a_million_a_second_is_what_the_docs_say() -> None:
    needs = fleet(1e6, Assumptions())
    text = " ".join(SCALE.read_text().split())
    assert f"{needs.consumer_cores:.0f} cores of consumers in {needs.consumers} processes" in text
    assert f"{needs.postgres_cores:.0f} cores of PostgreSQL in four databases" in text
    assert needs.databases == 4
    assert f"{needs.wal_bytes_s / 1e6:.0f} MB/s of WAL" in text
    assert f"{round(needs.requests_s, -3):,.0f} SQS requests" in text
    assert needs.dollars_a_million_messages == pytest.approx(0.10, abs=0.01)


@pytest.mark.parametrize("times", [2, 10])
def test_twice_the_rate_is_twice_the_fleet(times: int) -> None:
    one, more = fleet(50_000, Assumptions()), fleet(50_000 * times, Assumptions())
    assert more.consumer_cores == pytest.approx(times * one.consumer_cores, rel=0.01)
    assert more.requests_s == pytest.approx(times * one.requests_s)
    assert more.wal_bytes_s == pytest.approx(times * one.wal_bytes_s)
    assert more.dollars_a_million_messages == one.dollars_a_million_messages


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"consumer_us": 33.8}, "consumer_cores"),
        ({"postgres_us": 16.2}, "postgres_cores"),
        ({"wal_bytes": 586.0}, "wal_bytes_s"),
        ({"round_trip_s": 0.1}, "in_flight"),
    ],
)
def test_doubling_an_assumption_doubles_its_result(change: dict[str, float], what: str) -> None:
    before = getattr(fleet(1e6, Assumptions()), what)
    after = getattr(fleet(1e6, dataclasses.replace(Assumptions(), **change)), what)
    assert after == pytest.approx(2 * before, rel=0.001)


def test_a_longer_round_trip_to_the_database_needs_more_queues() -> None:
    assert fleet(1e6, Assumptions(round_trip_s=1.0)).queues == 9
    with pytest.raises(ValueError, match="above 0"):
        fleet(0, Assumptions())


def test_the_command_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rate", "1000", "--json", "--core-share", "1.0"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rate"] == 1000
    assert told["assumptions"]["core_share"] == 1.0
    assert main(["--rate", "1000"]) == 0
    assert "core_share = 0.6" in capsys.readouterr().out
