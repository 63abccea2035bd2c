"""How the counts of an archive add up over the workers that wrote it; no cluster is needed."""

from __future__ import annotations

from datetime import date

from sqs2pg.pipeline.archive_reader import Archive
from sqs2pg.pipeline.backfill import Done
from sqs2pg.runners.ray_backfill import ArchiveTask


def task(**known: int) -> ArchiveTask:
    return ArchiveTask(Archive("/shared/x", "", 1, date(2023, 5, 6)), Done(**known))


def test_the_counts_of_a_single_worker_are_the_archive_s() -> None:
    done = Done(files=1, lines=700, written=690, quarantined=10, resumed=300)
    assert task().with_known(done) == done
    assert task().with_known(Done(skipped=1)) == Done(skipped=1)


def test_a_worker_that_is_lost_before_its_first_report_has_written_nothing() -> None:
    rest = Done(files=1, lines=600, written=600, resumed=400)
    assert task().with_known(rest) == rest


def test_lines_committed_after_a_lost_worker_s_last_report_are_counted_once() -> None:
    lost = task(files=1, lines=200, written=190, quarantined=10, resumed=100)
    # It had reached line 300 at its last report, and 450 when it died.
    assert lost.with_known(Done()) == lost.known
    rest = Done(files=1, lines=550, written=545, quarantined=5, resumed=450)
    whole = lost.with_known(rest)
    assert (whole.files, whole.resumed, whole.resumed + whole.lines) == (1, 100, 1_000)
    assert (whole.written, whole.quarantined) == (735, 15)


def test_a_third_worker_adds_to_the_reports_of_both_before_it() -> None:
    lost = task(files=1, lines=200, written=200, resumed=100)
    lost.known = lost.with_known(Done(files=1, lines=50, written=50, resumed=300))
    assert (lost.known.lines, lost.known.resumed) == (250, 100)
    whole = lost.with_known(Done(files=1, lines=640, written=640, resumed=360))
    assert (whole.lines, whole.resumed, whole.written) == (900, 100, 890)


def test_an_archive_that_a_lost_worker_finished_is_not_counted_as_skipped() -> None:
    lost = task(files=1, lines=900, written=900, resumed=100)
    assert lost.with_known(Done(skipped=1)) == lost.known
