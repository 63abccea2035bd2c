"""One bad message among 300 good ones: what each contender makes of all of them.

The queue has no redrive policy. Each contender works for a fixed time, or until it ends by itself;
then the rows are counted, and how often messages were received and deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Callable, Mapping

from .contenders import CONTENDERS, Contender
from .measure import START_S, Backlog, fill, running, wait
from .rig import BenchmarkError, Rig, Stand
from .workloads import ALL, ResultSection, SuitePlan

GOOD = 300
WATCHED_S = 6.0
_LOGIN = {
    "user_id": "3c2b7a52-5a0e-4f5c-9f0e-6f1d0f3b0c11",
    "device_type": "android",
    "ip": "203.0.113.7",
    "device_id": "593-47-5928",
    "locale": "RU",
    "app_version": "2.3.0",
}
BAD: Mapping[str, str] = {
    "not JSON": json.dumps(_LOGIN)[:-1],
    "a JSON array": json.dumps([_LOGIN]),
    "ip a number": json.dumps(_LOGIN | {"ip": 7}),
    "text too long": json.dumps(_LOGIN | {"device_type": "x" * 400}),
    "NUL": json.dumps(_LOGIN | {"locale": "R\0U"}),
    "number over int4": json.dumps(_LOGIN | {"app_version": "99999.0.0"}),
    "lone surrogate": json.dumps(_LOGIN | {"user_id": "\ud800"}),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one contender did with one queue of messages."""

    rows: int
    received: int
    deleted: int


def run(rig: Rig, plan: SuitePlan, tell: Callable[[str], None]) -> ResultSection:
    """Let each contender meet each bad message once."""
    section = ResultSection(
        "one_bad",
        "One bad message",
        f"{GOOD} good logins and one bad message; after {WATCHED_S:.0f} s",
    )
    for contender in plan.pick(ALL):
        if why := contender.missing():
            section.missing[contender.name] = why
            continue
        found: dict[str, dict[str, int]] = {}
        for kind, body in BAD.items():
            with rig.stand() as stand:
                outcome = _watch(stand, contender, body)
            found[kind] = dataclasses.asdict(outcome)
            tell(f"one_bad {contender.name}, {kind}: {outcome.rows} rows")
        section.figures[contender.name] = found
    return section


def _watch(stand: Stand, contender: Contender, body: str) -> Outcome:
    fill(stand, Backlog(GOOD // 2))
    stand.server.call("SendMessage", {"QueueUrl": stand.target.queue_url, "MessageBody": body})
    fill(stand, Backlog(GOOD - GOOD // 2, seed=2))
    start = dict(stand.server.stats())
    with running(contender.launch(stand.target), stand.target.folder) as process:
        if not wait(stand, process, "received", start["received"] + 1, START_S):
            raise BenchmarkError(f"{contender.name}: no receive within {START_S:.0f} s")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WATCHED_S)
    stats = stand.server.stats()
    [(rows,)] = stand.query("SELECT count(*) FROM user_logins")
    return Outcome(rows, stats["received"] - start["received"], stats["deleted"] - start["deleted"])


def table(section: ResultSection) -> str:
    """Return the section's table: rows of 301 messages, and how often messages were received."""
    names = list(section.figures)
    head = ["bad message", *(CONTENDERS[name].title for name in names)]
    lines = [head, ["---", *("---:" for _ in names)]]
    for kind in BAD:
        cells = [section.figures[name][kind] for name in names]
        lines.append(
            [kind, *(f"{one['rows']} rows, {one['received']:,} received" for one in cells)]
        )
    missing = [
        f"{CONTENDERS[name].title}: not measured, {why}." for name, why in section.missing.items()
    ]
    return "\n\n".join(["\n".join(f"| {' | '.join(line)} |" for line in lines), *missing])
