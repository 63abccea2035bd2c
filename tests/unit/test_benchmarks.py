"""What the benchmarks compute from measurements: rates, ratios, tables, the picture."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from benchmarks import overhead, plot, processes, report, results, shapes, workloads
from benchmarks.contenders import CONTENDERS, RunTarget, plain_script, tuned_script
from benchmarks.latency import percentile
from benchmarks.measure import Backlog, Run, check_rows
from benchmarks.rig import BenchmarkError, with_database
from benchmarks.run import SECTIONS, parse, short_result
from benchmarks.workloads import DRAINS, ResultSection, SuitePlan, describe
from sqs2pg.mapping.columns import column_for
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import load
from tests import native

STAMP = {
    "measured": "2026-01-02 03:04 UTC",
    "command": "make bench",
    "commit": "abc1234",
    "machine": "a machine, 2 cores",
    "load_before": 0.1,
    "postgres": "PostgreSQL 18, fsync on",
    "fsync_ms": 0.7,
    "versions": {"Python": "3.11"},
}


def run(contender: str, rate: float, **changes: Any) -> Run:
    one = Run(
        contender=contender,
        messages=1000,
        seconds=1000 / rate,
        pipeline_cpu_s=0.02,
        postgres_cpu_s=0.01,
        queue_server_cpu_s=0.005,
        peak_bytes=90_000_000,
    )
    return dataclasses.replace(one, **changes)


def section(*runs: Run, name: str = "drain", **changes: Any) -> ResultSection:
    return ResultSection(name, "A title", "what it is", list(runs), stamp=STAMP, **changes)


THREE = section(
    *(run("plain", rate) for rate in (90, 100, 300)),
    *(run("sqs2pg", rate) for rate in (20_000, 10_000, 15_000)),
)


def test_rates_and_ratios_are_of_medians() -> None:
    assert THREE.rate("plain") == pytest.approx(100)
    assert THREE.ratio("sqs2pg", "plain") == pytest.approx(150)
    assert THREE.cpu_us("sqs2pg", "pipeline") == pytest.approx(20)


def test_a_ratio_needs_both_sides_of_one_section() -> None:
    alone = section(run("sqs2pg", 20_000), missing={"plain": "not installed: boto3"})
    assert alone.ratio("sqs2pg", "plain") is None
    assert "times the" not in report.table(alone)
    assert "plain script: not measured, not installed: boto3." in report.table(alone)
    assert short_result(alone) == {
        "messages_per_second": 20_000,
        "cpu_us_per_message": 20,
        "ratio_plain_script": None,
        "ratio_tuned_script": None,
    }


def test_a_contender_that_failed_is_out_with_all_its_runs() -> None:
    mixed = section(run("vector", 5), run("sqs2pg", 100))
    mixed.fail("vector", "exit 1\nits last words")
    assert [one.contender for one in mixed.runs] == ["sqs2pg"]
    assert "Vector: not measured, failed: exit 1." in report.table(mixed)


def test_an_unknown_cpu_time_is_not_shown_as_zero() -> None:
    unknown = section(run("sqs2pg", 100, postgres_cpu_s=None))
    assert unknown.cpu_us("sqs2pg", "postgres") is None
    assert "20.0 + ? + 5.0" in describe(unknown.runs[0])
    assert "| 20.0 | - | 5.0 |" in report.table(unknown)


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4), (0.01, 1)])
def test_percentiles_are_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], share) == value


def test_a_page_without_results_says_so_in_every_part() -> None:
    page = report.RESULTS.read_text(encoding="utf-8")
    names = re.findall(r"<!-- bench:(\w+) -->", page)
    assert sorted(names) == sorted([*SECTIONS, "machine"])
    assert report.fill_in(page, {}).count("Not measured yet") >= len(names)


def test_fill_in_changes_only_the_marked_parts_and_may_be_repeated() -> None:
    page = "by hand\n<!-- bench:drain -->\nold\n<!-- /bench:drain -->\nby hand too\n"
    once = report.fill_in(page, {"drain": THREE})
    assert once.startswith("by hand\n<!-- bench:drain -->\n|")
    assert once.endswith("`make bench`\n<!-- /bench:drain -->\nby hand too\n")
    assert "| plain script | 100 (90 to 300) | 3 | 1.0 |" in once
    assert "| sqs2pg | 15,000 (10,000 to 20,000) | 3 | 150.0 |" in once
    assert "old" not in once
    assert report.fill_in(once, {"drain": THREE}) == once


def test_a_run_cut_by_the_time_limit_says_so() -> None:
    assert "| plain script (time limit) |" in report.table(section(run("plain", 9, complete=False)))


def test_machine_is_shown_once_for_alike_sections_and_apart_for_others() -> None:
    elsewhere = dataclasses.replace(THREE, name="tls", stamp=STAMP | {"machine": "another"})
    same_disk_later = dataclasses.replace(THREE, name="bad", stamp=STAMP | {"fsync_ms": 0.9})
    alike = report.machine({"drain": THREE, "bad": same_disk_later})
    assert alike.count("- Machine:") == 1
    apart = report.machine({"drain": THREE, "bad": same_disk_later, "tls": elsewhere})
    assert "For drain, bad:" in apart
    assert "For tls:" in apart


def test_latency_tables_show_every_percentile() -> None:
    shares = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "p99.9": 4.0, "p100": 5.0}
    idle = section(name="idle", figures={"commit_ms": None, "delete_ms": shares})
    assert "| sent to deleted | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 |" in report.table(idle)
    assert "COMMIT" not in report.table(idle)
    turns = [{"commit_ms": shares, "pipeline_cpu_us": 9.0}, {"commit_ms": shares}]
    steady = section(name="steady", figures={"turns": turns})
    assert "| 1 (1 to 1) |" in report.table(steady)
    assert "Pipeline CPU: 9.0 µs per message." in report.table(steady)


def growth() -> ResultSection:
    runs = [run("sqs2pg", 1000 - 10 * i, rows_before=1000 * i) for i in range(20)]
    return section(*runs, name="ledger")


def test_growth_compares_the_first_tenth_with_the_last() -> None:
    assert "| 0 to 2,000 | 995 (990 to 1,000) |" in report.table(growth())
    assert "-18.1% throughput" in report.table(growth())


def test_results_survive_their_files(tmp_path: Path) -> None:
    for one in (THREE, growth()):
        results.save(one, tmp_path)
    assert results.load(tmp_path) == {"drain": THREE, "ledger": growth()}


def test_picture_has_a_bar_in_proportion_for_each_contender_measured() -> None:
    tree = ET.fromstring(plot.draw({"drain": THREE, "ledger": growth()}))
    name = {"svg": "http://www.w3.org/2000/svg"}
    widths = [float(bar.attrib["width"]) for bar in tree.findall("svg:rect", name)]
    assert widths[0] / widths[1] == pytest.approx(100 / 15_000, abs=0.01)
    words = [text.text or "" for text in tree.findall("svg:text", name)]
    assert "15,000  (150 times)" in words
    assert not any("Vector" in text for text in words)
    assert len(tree.findall("svg:polyline", name)) == 1


def test_picture_without_results_is_one_sentence() -> None:
    tree = ET.fromstring(plot.draw({}))
    texts = [node.text for node in tree.iter() if node.tag.endswith("}text")]
    assert texts == ["Not measured yet: run make bench"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "nothing"],
        ["--contenders", "sqs2pg,nobody"],
        ["--runs", "0"],
        ["--messages", "sqs2pg"],
        ["--messages", "nobody=5"],
        ["--messages", "sqs2pg=0"],
        ["--profile", "gdb"],
    ],
)
def test_wrong_options_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse(arguments)
    assert left.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_the_options_are_parsed() -> None:
    options = parse(["--only", "drain,tls", "--messages", "plain=7", "--setting", "SINK__X=1"])
    assert options.only == ("drain", "tls")
    assert options.messages == [("plain", 7)]
    assert options.setting == [("SINK__X", "1")]
    assert options.profile is None
    assert parse(["--profile"]).profile == "cprofile"


def test_every_workload_names_contenders_that_are_there() -> None:
    for workload in DRAINS:
        assert set(workload.contenders) <= set(CONTENDERS)
    picked = SuitePlan(only=("plain", "sqs2pg")).pick(DRAINS[0].contenders)
    assert [one.name for one in picked] == ["plain", "sqs2pg"]


class Rig:
    """A rig whose stands are only counted."""

    stands = 0

    @contextlib.contextmanager
    def stand(self, *, tls: bool) -> Iterator[None]:
        self.stands += 1
        yield


def drained(monkeypatch: pytest.MonkeyPatch, rig: Any, fails: str = "") -> ResultSection:
    """Run the drain workload against measurements that are made up."""
    turns: dict[str, int] = {}

    def drain(_stand: Any, contender: Any, backlog: Backlog, _limit_s: float) -> Run:
        name = contender.name
        turns[name] = turns.get(name, 0) + 1
        if name == fails and turns[name] == 3:
            raise BenchmarkError("exit 1")
        return run(name, 1, messages=backlog.messages, seconds=2.0)

    monkeypatch.setattr(workloads, "drain", drain)
    plan = SuitePlan(runs=3, seconds=6, only=("plain", "sqs2pg"), messages={"plain": 50})
    return workloads.run_drains(rig, DRAINS[0], plan, lambda _: None)


def test_contenders_take_turns_with_backlogs_sized_by_a_trial(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    found = drained(monkeypatch, rig)
    assert [one.contender for one in found.runs] == ["plain", "sqs2pg"] * 3
    assert {one.messages for one in found.of("plain")} == {50}
    assert {one.messages for one in found.of("sqs2pg")} == {6 * CONTENDERS["sqs2pg"].trial // 2}
    assert rig.stands == 7, "a fresh stand for each run, and one for the trial"


def test_a_contender_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = drained(monkeypatch, Rig(), fails="plain")
    assert [one.contender for one in found.runs] == ["sqs2pg"] * 3
    assert found.failed == ["plain"]


class Counted:
    """A stand whose target holds a number of rows."""

    def __init__(self, count: int, rows: int = 0) -> None:
        self.count, self.rows = count, rows

    def query(self, _statement: str) -> list[tuple[int]]:
        return [(self.count,)]


@pytest.mark.parametrize(
    ("count", "backlog", "complete", "good"),
    [
        (1100, Backlog(1000), True, True),
        (1099, Backlog(1000), True, False),
        (1101, Backlog(1000), True, False),
        (1090, Backlog(1000), False, False),
        (1100, Backlog(2000), False, True),
        (1080, Backlog(1000, duplicate_share=0.05), True, True),
        (1101, Backlog(1000, duplicate_share=0.05), True, False),
    ],
)
def test_a_run_with_a_row_too_many_or_too_few_is_void(
    count: int, backlog: Backlog, complete: bool, good: bool
) -> None:
    stand: Any = Counted(count, rows=100)
    measured = run("sqs2pg", 1, complete=complete)
    if good:
        check_rows(stand, backlog, 0, measured)
        assert stand.rows == count
    else:
        with pytest.raises(BenchmarkError, match="rows found"):
            check_rows(stand, backlog, 0, measured)


def test_the_plain_and_the_tuned_script_make_the_same_row() -> None:
    login = {
        "user_id": "u",
        "device_type": "iOS",
        "ip": "203.0.113.7",
        "device_id": "1",
        "locale": None,
        "app_version": "2.3",
    }
    row = plain_script.to_row(login)
    assert row == tuned_script.to_row(login)
    assert row[2] == hashlib.sha256(b"203.0.113.7").hexdigest()
    assert row[4:6] == (None, 2_003_000)


def test_a_contender_sees_its_target_and_nothing_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "PGHOST", "SQS2PG_SINK__DSN", "BENCH_DATABASE_URL"):
        monkeypatch.setenv(name, "the user's")
    target = RunTarget("http://127.0.0.1:1", "u", "postgresql://db/x", tmp_path, tmp_path / "keys")
    environment = target.environment(MORE="1")
    assert "the user's" not in environment.values()
    assert environment["DATABASE_URL"] == "postgresql://db/x"
    assert environment["MORE"] == "1"
    named = dataclasses.replace(target, ambient=True).environment()
    assert named["PGHOST"] == "the user's"


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:p%40@h:5/a?sslmode=disable", "host=h port=5 user=u password=p@ dbname=a"],
)
def test_with_database_changes_only_the_database_name(dsn: str) -> None:
    parts = conninfo_to_dict(with_database(dsn, "b"))
    assert (parts["host"], parts["port"], parts["password"]) == ("h", "5", "p@")
    assert parts["dbname"] == "b"


BURN = "import time\nwhile time.process_time() < 0.1: pass\nprint('done', flush=True)\ninput()"


def test_cpu_of_a_tree_counts_living_and_ended_children() -> None:
    pid = processes.PROC.joinpath("self").resolve().name
    before = processes.cpu_s(int(pid))
    child = subprocess.Popen(
        [sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        living = processes.cpu_s(int(pid))
        assert child.pid in processes.tree(int(pid))
        assert (processes.peak_bytes(child.pid) or 0) > 1_000_000
    finally:
        child.communicate("\n")
    ended = processes.cpu_s(int(pid))
    assert before is not None
    assert living is not None
    assert ended is not None
    assert living - before > 0.05
    assert ended - before > 0.05
    assert child.pid not in processes.tree(int(pid))


def test_recovery_shows_its_ratio_and_its_rotations() -> None:
    costs = [(0.02, 0.01), (0.03, 0.02), (0.02, 0.02), (0.06, 0.06)]
    runs = [
        run("sqs2pg", 1_000, pipeline_cpu_s=ours, postgres_cpu_s=theirs) for ours, theirs in costs
    ]
    made = section(*runs, name="recovery")
    made.figures = {
        "people": 100,
        "runs": {"again": {"off": [0], "on": [1]}, "new": {"off": [2], "on": [3]}},
        "rotation": {"rewrap": [2_000, 1.5], "rekey": [10, 1.0]},
        "bare": {"rewrap": 0.75},
    }
    shown = report.table(made)
    assert "| returning people, recovery on | 1,000 | 1 | 30.0 | 20.0 | 50.0 |" in shown
    assert "With recovery on, a message costs 1.67 times the CPU: returning people." in shown
    assert "With recovery on, a message costs 3.00 times the CPU: every person new." in shown
    shown = shown.replace("\n", " ")
    assert "`sqs2pg keys rewrap`: 2,000 in 1.5 s, 750.0 s per million, 2.00 times as long" in shown
    assert "`sqs2pg keys rekey`: 10 in 1.0 s, 100,000.0 s per million." in shown


def test_a_mappings_share_is_the_median_of_its_ratios_turn_by_turn() -> None:
    rates = {
        "login-native": (100, 50, 200),
        "nested-native": (90, 40, 190),
        "login-python": (50, 20, 80),
        "ascii-native": (90, 50, 80),
        "accents-native": (81, 50, 40),
    }
    runs = [run(name, rate) for name, found in rates.items() for rate in found]
    shown = report.table(section(*runs, name="mappings"))
    assert "| nested login, native | 3 | 0.90 (0.80 to 0.95) | 0.90 (0.80 to 0.95) |" in shown
    assert "| login, built-in, without the extension | 3 | 1.00 (1.00 to 1.00) |" in shown
    assert "| 0.40 (0.40 to 0.50) |" in shown
    assert "Login and accented text: 0.90 of the ASCII twin." in shown


@pytest.mark.parametrize("shape", shapes.SHAPES, ids=lambda shape: shape.name)
def test_a_shapes_bodies_are_read_by_its_mapping(shape: shapes.Shape, tmp_path: Path) -> None:
    login = '{"user_id": "u", "ip": "192.0.2.1", "device_id": "1"}'
    quoted = json.dumps(login)[1:-1]
    template = shape.template or "$"
    body = template.replace("$", login).replace("%", quoted).replace("@", login[1:])
    file = shapes.settings_file(shape, tmp_path)
    settings = load(file, environ={})
    columns = [[column_for(field) for field in target.fields] for target in settings.targets]
    both = native.Both(settings, columns)
    message = Message("m", "h", body, SystemAttributes(0))
    if shape.name == "conversions":  # measured as what C does
        assert both.fast_or_none
    row = both.check_message(message) if both.fast_or_none else both.row(message)
    assert row is not None
    assert row.count == shape.rows


def test_results_of_another_form_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "scale.json").write_text("{}")
    results.save(THREE, tmp_path)
    assert list(results.load(tmp_path)) == ["drain"]


def test_the_patches_that_turn_monitoring_off_name_what_exists() -> None:
    patched_classes = (overhead.Consumer, overhead.BatchLog, overhead.PeriodicReadings)
    classes = {one.__name__: one for one in patched_classes}
    patches = overhead.TIMED + overhead.NO_MONITORING + overhead.NO_FAULT_LINES
    patched = set(re.findall(r"(Consumer|BatchLog|PeriodicReadings)\.(\w+) =", patches))
    assert len(patched) == 7
    assert all(attribute in vars(classes[name]) for name, attribute in patched)
