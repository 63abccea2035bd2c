"""Draws the results as bars in SVG, readable on a light and on a dark page.

The colours of text and bars follow the reader's colour scheme. Every bar has its figure next to it
as text, so that nothing depends on colour. Only measured results are drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .contenders import CONTENDERS
from .workloads import DRAINS, ResultSection

WIDTH = 760
_LEFT = 190
_BAR = 22
_STEP = 34
_ROOM = 190  # right of the longest bar, for its figure
_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .head { font-weight: 600; font-size: 16px }
  .small { font-size: 12px; fill: #59636e }
  .ours { fill: #0969da } .other { fill: #8c959f }
  .line { fill: none; stroke: #0969da; stroke-width: 2 }
  .axis { stroke: #8c959f; stroke-width: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .small { fill: #9198a1 }
    .ours { fill: #4493f8 } .other { fill: #7d8590 } .line { stroke: #4493f8 }
    .axis { stroke: #7d8590 }
  }"""


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar: its label, its length in the panel's unit, and its figure as text."""

    label: str
    value: float
    says: str
    ours: bool = True


def draw(sections: dict[str, ResultSection]) -> str:
    """Return the SVG of all measured results."""
    parts: list[str] = []
    top = 10
    for title, bars in (
        ("Drain of a backlog, messages per second", _contenders(sections.get("drain"))),
        ("One worker by workload, messages per second", _workloads(sections)),
        ("CPU per message with one worker, µs", _cpu(sections.get("drain"))),
    ):
        if bars:
            text, height = _panel(title, bars, top)
            parts.append(text)
            top += height
    if growth := sections.get("ledger"):
        text, height = _growth(growth, top)
        parts.append(text)
        top += height
    if not parts:
        parts = [f'<text x="10" y="{top + 20}">Not measured yet: run make bench</text>']
        top += 40
    return svg("Benchmarks of sqs2pg", parts, top)


def svg(title: str, parts: Sequence[str], height: int) -> str:
    """Return a picture with this title, `WIDTH` wide, made of SVG elements."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title">\n'
        f'<title id="title">{escape(title)}</title>\n<style>{_STYLE}\n</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _contenders(section: ResultSection | None) -> list[Bar]:
    bars = []
    for name in CONTENDERS:
        if section and (rate := section.rate(name)):
            ratio = section.ratio(name, "plain")
            times = f"  ({ratio:,.0f} times)" if ratio and name != "plain" else ""
            ours = name.startswith("sqs2pg")
            bars.append(Bar(CONTENDERS[name].title, rate, f"{rate:,.0f}{times}", ours))
    return bars


def _workloads(sections: dict[str, ResultSection]) -> list[Bar]:
    bars = []
    for workload in DRAINS:
        section = sections.get(workload.name)
        if section and (rate := section.rate("sqs2pg")):
            bars.append(Bar(workload.title, rate, f"{rate:,.0f}"))
    return bars


def _cpu(section: ResultSection | None) -> list[Bar]:
    bars = []
    for title, process in (
        ("pipeline", "pipeline"),
        ("PostgreSQL", "postgres"),
        ("queue server", "queue_server"),
    ):
        if section and (us := section.cpu_us("sqs2pg", process)) is not None:
            bars.append(Bar(title, us, f"{us:.1f}", ours=process == "pipeline"))
    return bars


def _panel(title: str, bars: Sequence[Bar], top: int) -> tuple[str, int]:
    most = max(bar.value for bar in bars) or 1.0
    lines = [f'<text class="head" x="10" y="{top + 18}">{escape(title)}</text>']
    y = top + 32
    for bar in bars:
        length = max(2.0, (WIDTH - _LEFT - _ROOM) * bar.value / most)
        kind = "ours" if bar.ours else "other"
        middle = y + _BAR / 2 + 5
        lines += [
            f'<text x="{_LEFT - 10}" y="{middle:g}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}"/>',
            f'<text x="{_LEFT + length + 8:.1f}" y="{middle:g}">{escape(bar.says)}</text>',
        ]
        y += _STEP
    return "\n".join(lines), y - top + 14


def _growth(section: ResultSection, top: int) -> tuple[str, int]:
    """Draw throughput over the number of ledger rows, with the axis from zero."""
    width, height, left = WIDTH - _LEFT - 60, 150, _LEFT
    bottom = top + 40 + height
    last = section.runs[-1]
    rows = last.rows_before + last.messages
    most = max(run.rate for run in section.runs)
    points = " ".join(
        f"{left + width * (run.rows_before + run.messages / 2) / rows:.1f},"
        f"{bottom - height * run.rate / most:.1f}"
        for run in section.runs
    )
    title = "One worker while the ledger grows, messages per second"
    right = left + width
    lines = [
        f'<text class="head" x="10" y="{top + 18}">{title}</text>',
        f'<line class="axis" x1="{left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>',
        f'<polyline class="line" points="{points}"/>',
        f'<text x="{left - 10}" y="{bottom - height + 5}" text-anchor="end">{most:,.0f}</text>',
        f'<text x="{left - 10}" y="{bottom + 5}" text-anchor="end">0</text>',
        f'<text class="small" x="{left}" y="{bottom + 18}">empty</text>',
        _small_end(right, bottom + 18, f"{rows / 1e6:,.1f} million rows"),
    ]
    return "\n".join(lines), bottom - top + 34


def _small_end(x: int, y: int, words: str) -> str:
    return f'<text class="small" x="{x}" y="{y}" text-anchor="end">{words}</text>'
