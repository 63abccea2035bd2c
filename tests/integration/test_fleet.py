"""One status view of several workers, over real sockets."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics import exposition, parser

from sqs2pg.cli.options import run_async
from sqs2pg.cli.run_process import run_process
from sqs2pg.cli.run_workers import WorkerProcess, Workers
from sqs2pg.errors import FatalFault
from sqs2pg.pipeline.totals import Totals
from sqs2pg.status.fleet import WorkerGroup
from sqs2pg.status.listener import published_address, status_server


def worker(received: int, last_poll: float, expiry: float) -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("sqs2pg_messages_received", "…", registry=registry).inc(received)
    faults = Counter("sqs2pg_faults", "…", ["stage", "code"], registry=registry)
    faults.labels("decode", f"code{received}").inc()
    faults.labels("decode", "not_json").inc(received)
    Gauge("sqs2pg_last_poll_timestamp_seconds", "…", registry=registry).set(last_poll)
    Gauge("sqs2pg_credential_expiry_timestamp_seconds", "…", registry=registry).set(expiry)
    Gauge("sqs2pg_in_flight_messages", "…", registry=registry).set(received)
    Histogram("sqs2pg_batch_rows", "…", buckets=(10, 100), registry=registry).observe(received)
    return registry


def test_counters_add_up_and_times_are_the_latest_or_the_soonest(tmp_path: Path) -> None:
    fleet = WorkerGroup(tmp_path)
    one, other = worker(5, 100.0, 900.0), worker(50, 200.0, 800.0)
    with (
        status_server("127.0.0.1:0", one, lambda: (True, b'{"ok":true}')) as first,
        status_server("127.0.0.1:0", other, lambda: (True, b'{"ok":true}')) as second,
        published_address(tmp_path / "0.address", first),
        published_address(tmp_path / "1.address", second),
    ):
        read = fleet.registry.get_sample_value
        assert read("sqs2pg_messages_received_total") == 55
        assert read("sqs2pg_faults_total", {"stage": "decode", "code": "not_json"}) == 55
        assert read("sqs2pg_faults_total", {"stage": "decode", "code": "code5"}) == 1
        assert read("sqs2pg_in_flight_messages") == 55
        assert read("sqs2pg_last_poll_timestamp_seconds") == 200
        assert read("sqs2pg_credential_expiry_timestamp_seconds") == 800
        assert read("sqs2pg_batch_rows_bucket", {"le": "10.0"}) == 1
        assert read("sqs2pg_batch_rows_count") == 2
        assert fleet.health() == (True, b'{"ok":true,"workers":[{"ok":true},{"ok":true}]}')
    assert list(tmp_path.iterdir()) == [], "a worker that ended withdrew its address"
    assert fleet.health() == (True, b'{"ok":true,"workers":[]}')


def test_a_worker_that_is_unwell_or_does_not_answer_makes_the_fleet_unwell(tmp_path: Path) -> None:
    fleet = WorkerGroup(tmp_path)
    registry = CollectorRegistry()
    with (
        status_server("127.0.0.1:0", registry, lambda: (False, b'{"ok":false}')) as address,
        published_address(tmp_path / "0.address", address),
    ):
        assert fleet.health() == (False, b'{"ok":false,"workers":[{"ok":false}]}')
    with published_address(tmp_path / "0.address", address):
        assert fleet.health() == (False, b'{"ok":false,"workers":[null]}')
        assert fleet.registry.get_sample_value("sqs2pg_messages_received_total") is None


def gone_on(text: str) -> CollectorRegistry:
    """A worker with counts, which began at the given time."""
    registry = worker(int(text), 100.0, 900.0)
    Gauge("sqs2pg_started_timestamp_seconds", "…", registry=registry).set(int(text))
    return registry


def test_a_worker_s_counts_stay_while_it_is_silent_and_after_its_end(tmp_path: Path) -> None:
    fleet = WorkerGroup(tmp_path)

    def read() -> list[float | None]:
        names = ("messages_received_total", "batch_rows_count", "in_flight_messages")
        return [fleet.registry.get_sample_value(f"sqs2pg_{name}") for name in names]

    def well() -> tuple[bool, bytes]:
        return True, b'{"ok":true}'

    with (
        status_server("127.0.0.1:0", gone_on("50"), well) as other,
        published_address(tmp_path / "1.address", other),
    ):
        with status_server("127.0.0.1:0", gone_on("5"), well) as first:
            (tmp_path / "0.address").write_text(first.removeprefix("http://"))
            assert read() == [55, 2, 55]
        assert read() == [55, 2, 50], "killed: its address stays, and nothing answers there"
        with (
            status_server("127.0.0.1:0", gone_on("7"), well) as again,
            published_address(tmp_path / "0.address", again),
        ):
            assert read() == [62, 3, 57]
            assert read() == [62, 3, 57]
        assert read() == [62, 3, 50], "at its end it withdrew its address"
    assert read() == [62, 3, None]


def test_the_counts_of_several_workers_are_well_formed_openmetrics(tmp_path: Path) -> None:
    fleet = WorkerGroup(tmp_path)
    with (
        status_server("127.0.0.1:0", worker(5, 1.0, 2.0), lambda: (True, b"{}")) as address,
        published_address(tmp_path / "0.address", address),
    ):
        # prometheus_client gives all metrics but these two a type.
        text = exposition.generate_latest(fleet.registry).decode()  # type: ignore[no-untyped-call]
        families = list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
    assert "sqs2pg_faults" in {family.name for family in families}


def run_to_the_end(processes: Sequence[WorkerProcess]) -> Totals:
    """As `run --workers` does it, signals included."""
    workers = Workers(processes)
    return run_async(run_process(workers, abort=workers.kill))


def test_a_worker_that_is_started_again_during_a_stop_is_stopped_too(tmp_path: Path) -> None:
    waits = [sys.executable, "-c", "import time; time.sleep(100)"]
    other = WorkerProcess(0, waits, tmp_path, status=False)

    class Killed(WorkerProcess):
        """Dies at once; the stop comes just before it is started again."""

        def start(self) -> None:
            if hasattr(self, "process"):
                os.kill(os.getpid(), signal.SIGTERM)
                other.process.wait()  # it has the signal: the stop is under way
                self._command = waits
            super().start()

    dies = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    killed = Killed(1, dies, tmp_path, status=False)
    assert run_to_the_end([other, killed]).received == 0
    assert killed.process.returncode == -signal.SIGTERM


def test_the_last_line_of_a_worker_is_its_totals_and_none_of_its_lines_reaches_our_stdout(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    totals = (
        '{"received": 7, "written": 6, "duplicate": 0, "quarantined": 1, "released": 0,'
        ' "seconds": 3.0, "busy_seconds": 2.0, "messages_per_second": 3.5}'
    )
    code = f"print('another line'); print({totals!r}); print()"
    prints = WorkerProcess(0, [sys.executable, "-c", code], tmp_path, status=False)
    assert prints.wait() == 0
    assert capfd.readouterr().out == ""
    assert (prints.totals.received, prints.totals.busy_seconds) == (7, 2.0)


class Asked(WorkerProcess):
    """Ends in its own way once all workers are ready and are asked to stop."""

    def __init__(self, number: int, folder: Path, way: str, ready: threading.Barrier) -> None:
        self._ready = ready
        code = (
            f"import os, signal, sys; signal.signal(signal.SIGTERM, lambda *_: {way});"
            "print('ready', flush=True); signal.pause()"
        )
        super().__init__(number, [sys.executable, "-c", code], folder, status=False)

    def wait(self) -> int:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self._ready.wait(timeout=60)
        if self.number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().wait()


def asked(folder: Path, way: str) -> list[WorkerProcess]:
    """Two workers; the second ends in that way."""
    ready = threading.Barrier(2)
    return [Asked(0, folder, "sys.exit(0)", ready), Asked(1, folder, way, ready)]


@pytest.mark.parametrize(
    ("way", "code", "says"),
    [
        ("sys.exit(1)", 1, "worker 1 stopped with exit code 1"),
        ("sys.exit(2)", 2, "worker 1 stopped with exit code 2"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 1, "worker 1 was killed by SIGKILL"),
    ],
)
def test_a_worker_that_fails_while_it_stops_is_reported_and_gives_the_exit_code(
    tmp_path: Path, way: str, code: int, says: str
) -> None:
    with pytest.raises(FatalFault, match=says) as failed:
        run_to_the_end(asked(tmp_path, way))
    assert failed.value.exit_code == code
    assert failed.value.hint


@pytest.mark.parametrize("way", ["sys.exit(0)", "sys.exit(130)"])
def test_a_worker_that_stops_when_asked_to_is_no_failure(tmp_path: Path, way: str) -> None:
    assert run_to_the_end(asked(tmp_path, way)).received == 0
