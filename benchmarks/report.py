"""Writes the tables of RESULTS.md between markers, from the JSON results; the rest is by hand.

The text from `<!-- bench:NAME -->` to `<!-- /bench:NAME -->` belongs to section NAME. If something
was not measured, the text says so. A ratio always compares two contenders of one section, which
were measured in turns in one run.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path

from . import one_bad, plot, recovery, results, shapes
from .contenders import CONTENDERS
from .measure import Run
from .workloads import ResultSection

RESULTS = Path(__file__).parent / "RESULTS.md"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "bench.svg"
NOT_YET = "Not measured yet: run `make bench`."
NAMED_NOT_YET = "Not measured yet: run `make bench BENCH_ARGS='--only {}'`."
_MARKED = re.compile(r"(<!-- bench:(\w+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)


def publish(folder: Path = results.FOLDER, page: Path = RESULTS, picture: Path = PICTURE) -> None:
    """Rewrite the tables and the picture from the results in `folder`."""
    sections = results.load(folder)
    text = page.read_text(encoding="utf-8")
    page.write_text(fill_in(text, sections), encoding="utf-8")
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(plot.draw(sections), encoding="utf-8")


def publish_part(name: str, text: str, page: Path = RESULTS) -> None:
    """Write the result of a separate command between `<!-- NAME -->` and `<!-- /NAME -->`."""
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, mark, rest = before.partition(begin)
    _, close, tail = rest.partition(end)
    if mark and close:
        page.write_text(f"{head}{begin}{text}\n{end}{tail}", encoding="utf-8")


def fill_in(text: str, sections: dict[str, ResultSection]) -> str:
    """Return the page with every marked part rewritten."""

    def part(match: re.Match[str]) -> str:
        name = match[2]
        if name == "machine":
            body = machine(sections)
        elif section := sections.get(name):
            body = f"{table(section)}\n\n{footer(section)}"
        else:
            body = NAMED_NOT_YET.format(name) if name in ("ledger", "mappings") else NOT_YET
        return f"{match[1]}{body}\n{match[3]}"

    return _MARKED.sub(part, text)


def table(section: ResultSection) -> str:
    """Return a section's table."""
    special: dict[str, Callable[[ResultSection], str]] = {
        "idle": _idle,
        "steady": _steady,
        "ledger": _ledger,
        "recovery": _recovery,
        "mappings": _mappings,
        "one_bad": one_bad.table,
    }
    return special.get(section.name, _drain)(section)


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    rule = ["---"] + ["---:"] * (len(names) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (names, rule, *rows))


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _spread(values: list[float], digits: int = 0) -> str:
    """Return `median (min to max)`."""
    middle = f"{statistics.median(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _drain(section: ResultSection) -> str:
    scripts = [name for name in ("plain", "tuned") if section.of(name)]
    names = list(dict.fromkeys(run.contender for run in section.runs))
    large = section.name == "large"
    head = ["", "messages/s, median (min to max)", "runs"]
    head += [f"times the {CONTENDERS[name].title}" for name in scripts]
    head += ["contender, CPU µs", "PostgreSQL, CPU µs", "queue server, CPU µs", "peak MB"]
    head += ["MB/s"] if large else []
    rows = []
    for name in names:
        runs = section.of(name)
        cut = "" if all(run.complete for run in runs) else " (time limit)"
        row = [CONTENDERS[name].title + cut, _spread([run.rate for run in runs]), str(len(runs))]
        row += [_number(section.ratio(name, script), 1) for script in scripts]
        row += [
            _number(section.cpu_us(name, process), 1)
            for process in ("pipeline", "postgres", "queue_server")
        ]
        peaks = [run.peak_bytes / 1e6 for run in runs if run.peak_bytes is not None]
        row.append(_number(max(peaks, default=None)))
        if large:
            row.append(_number(statistics.median(map(_megabytes_a_second, runs))))
        rows.append(row)
    missing = [
        f"{CONTENDERS[name].title}: not measured, {why}." for name, why in section.missing.items()
    ]
    return "\n\n".join([_rows(head, rows), *missing])


def _megabytes_a_second(run: Run) -> float:
    return run.body_bytes / run.seconds / 1e6


_SHARES = ("p50", "p95", "p99", "p99.9", "p100")
_LATENCY_HEAD = ("ms", "p50", "p95", "p99", "p99.9", "most")


def _idle(section: ResultSection) -> str:
    rows = []
    for title, name in (
        ("sent to COMMIT", "commit_ms"),
        ("sent to deleted", "delete_ms"),
    ):
        if summary := section.figures[name]:
            rows.append([title, *(_number(summary[share], 1) for share in _SHARES)])
    return _rows(_LATENCY_HEAD, rows)


def _steady(section: ResultSection) -> str:
    turns = section.figures["turns"]
    exact = [turn["commit_ms"] for turn in turns if "commit_ms" in turn]
    rows = []
    if exact:
        cells = [_spread([turn[share] for turn in exact]) for share in _SHARES]
        rows.append(["sent to COMMIT, median (min to max) of the runs", *cells])
    cpu = [turn["pipeline_cpu_us"] for turn in turns if "pipeline_cpu_us" in turn]
    note = f"\n\nPipeline CPU: {_spread(cpu, 1)} µs per message." if cpu else ""
    return _rows(_LATENCY_HEAD, rows) + note


def _ledger(section: ResultSection) -> str:
    runs = section.runs
    total = runs[-1].rows_before + runs[-1].messages
    bounds = [total * tenth // 10 for tenth in range(11)]
    rows = []
    for least, most in itertools.pairwise(bounds):
        part = [run for run in runs if least <= run.rows_before < most]
        if part:
            cpu = [us for run in part if (us := run.cpu_us("postgres")) is not None]
            spent = _number(statistics.median(cpu), 1) if cpu else "-"
            rows.append([f"{least:,} to {most:,}", _spread([run.rate for run in part]), spent])
    head = ("ledger rows", "messages/s, median (min to max)", "PostgreSQL, CPU µs")
    return _rows(head, rows) + f"\n\n{growth_says(section)}"


def _recovery(section: ResultSection) -> str:
    rows = []
    for what, title in recovery.TITLES.items():
        for on in (False, True):
            runs = recovery.runs_of(section, what, on=on)
            if not runs:
                continue
            parts = ("pipeline", "postgres")
            spent = [[run.cpu_us(part) or 0.0 for part in parts] for run in runs]
            cpu = [statistics.median(each) for each in zip(*spent, strict=True)]
            both = statistics.median(map(sum, spent))
            name = f"{title}, recovery {'on' if on else 'off'}"
            rows.append(
                [name, _spread([run.rate for run in runs]), str(len(runs))]
                + [_number(us, 1) for us in (*cpu, both)]
            )
    head = ("", "messages/s, median (min to max)", "runs")
    table_ = _rows((*head, "pipeline, CPU µs", "PostgreSQL, CPU µs", "both"), rows)
    return "\n\n".join([table_, *recovery.says(section)])


def _mappings(section: ResultSection) -> str:
    rows = []
    for native, title in (("1", "native"), ("0", "without the extension")):
        first = shapes.name_of(shapes.SHAPES[0].name, native)
        for shape in shapes.SHAPES:
            name = shapes.name_of(shape.name, native)
            if not (runs := section.of(name)):
                continue
            row = [f"{shape.title}, {title}", str(len(runs))]
            row.append(_spread(shapes.shares(section, shape.name, native, first), 2))
            row.append(_spread(shapes.shares(section, shape.name, native, _BUILT_IN), 2))
            row += [_number(section.cpu_us(name, part), 1) for part in ("pipeline", "postgres")]
            rows.append(row)
    head = ("", "runs", "share of the built-in", "share of the native built-in")
    cpu = ("pipeline, CPU µs", "PostgreSQL, CPU µs")
    return "\n\n".join([_rows((*head, *cpu), rows), *shapes.says(section)])


_BUILT_IN = shapes.name_of(shapes.SHAPES[0].name, "1")


def growth_says(section: ResultSection) -> str:
    """Return a sentence on how throughput changed from the first tenth to the last."""
    count = max(1, len(section.runs) // 10)
    first = statistics.median(run.rate for run in section.runs[:count])
    last = statistics.median(run.rate for run in section.runs[-count:])
    change = (last / first - 1) * 100
    return f"From the first tenth to the last: {change:+.1f}% throughput."


def footer(section: ResultSection) -> str:
    """Return when and how a section was measured."""
    stamp = section.stamp
    return (
        f"{section.says[:1].upper()}{section.says[1:]}. Measured {stamp['measured']}, commit "
        f"{stamp['commit'] or '?'}, load before {stamp['load_before']}: `{stamp['command']}`"
    )


def machine(sections: dict[str, ResultSection]) -> str:
    """Return each machine and its versions once, with the sections measured there."""
    seen: dict[str, list[str]] = {}
    for section in sections.values():
        stamp = section.stamp
        parts = [
            f"- Machine: {stamp['machine']}",
            f"- Database: {stamp['postgres']}; 8 KiB write and fsync: {stamp['fsync_ms']:g} ms",
            "- Versions: "
            + ", ".join(f"{name} {number}" for name, number in stamp["versions"].items()),
        ]
        # The disk's speed differs from run to run, even on the same machine.
        key = re.sub(r"[\d.e-]+ ms$", "", "\n".join(parts), flags=re.MULTILINE)
        seen.setdefault(key, ["\n".join(parts)]).append(section.name)
    if not seen:
        return NOT_YET
    if len(seen) == 1:
        return next(iter(seen.values()))[0]
    return "\n\n".join(f"For {', '.join(names)}:\n\n{text}" for text, *names in seen.values())
