"""`python -m benchmarks.masks`: the cost of masking on one core; writes its part of RESULTS.md.

Measures decode and mask as in the pipeline, on batches of generated logins, and every operator
alone. All figures are CPU time of this one thread. Each figure is the best of many rounds taken in
turns, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.compile import Decoded, MessageMapping, compile_mapping
from sqs2pg.mask.registry import OPERATORS, compile_operator
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.runners.compile_plan import masks_of
from sqs2pg.settings import Settings

from .machine import commit, machine
from .report import publish_part

BATCH = 2_000
ROUNDS = 31
TARGET_PER_S = 150_000
"""Messages per second on one core that decoding and two pseudonyms must reach."""

_COLUMNS = [
    Column("user_id", "varchar", 128),
    Column("device_type", "varchar", 32),
    Column("masked_ip", "varchar", 256),
    Column("masked_device_id", "varchar", 256),
    Column("locale", "varchar", 32),
    Column("app_version", "int4"),
    Column("create_date", "date"),
]
_RING = Keyring({1: hashlib.sha256(b"benchmark").digest()})


def logins(count: int, people: int, seed: int = 7) -> list[Message]:
    """Return `count` logins of `people` people, each person with one address and one device."""
    drawn = random.Random(seed)
    persons = [
        {
            "user_id": f"{drawn.getrandbits(128):032x}",
            "app_version": f"{drawn.randint(1, 9)}.{drawn.randint(0, 20)}.0",
            "device_type": drawn.choice(["android", "iOS"]),
            "ip": ".".join(str(drawn.randint(1, 223)) for _ in range(4)),
            "locale": drawn.choice(["RU", "DE", None]),
            "device_id": f"{drawn.randint(0, 999):03}-{drawn.randint(0, 99):02}-"
            f"{drawn.randint(0, 9999):04}",
        }
        for _ in range(people)
    ]
    picked = persons if people >= count else [drawn.choice(persons) for _ in range(count)]
    return [
        Message(
            f"00000000-0000-4000-8000-{number:012}",
            "handle",
            json.dumps(person),
            SystemAttributes(1_700_000_000_000 + number),
        )
        for number, person in enumerate(picked[:count])
    ]


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, in seconds."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def decode_and_mask(mapping: MessageMapping, batch: Sequence[Message]) -> Callable[[], object]:
    """Return a function that turns one batch of bodies into masked rows."""
    keys = [message.message_id for message in batch]

    def work() -> object:
        return mapping.rows(keys, batch, cast("list[Decoded]", mapping.decode_all(batch)))

    return work


def samples(kind: str) -> list[str]:
    """Return distinct values of a kind."""
    drawn = random.Random(3)
    make: dict[str, Callable[[], str]] = {
        "ip": lambda: ".".join(str(drawn.randint(1, 223)) for _ in range(4)),
        "text": lambda: (
            f"{drawn.randint(100, 999)}-{drawn.randint(10, 99)}-{drawn.randint(1000, 9999)}"
        ),
        "email": lambda: f"user{drawn.getrandbits(40):x}@example.com",
        "phone": lambda: f"+1 555 {drawn.randint(1_000_000, 9_999_999)}",
        "uuid": lambda: "-".join(f"{drawn.getrandbits(128):032x}"[a:b] for a, b in _GROUPS),
    }
    return [make[kind]() for _ in range(BATCH)]


_GROUPS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def measure(rounds: int) -> dict[str, float]:
    """Return the calls or messages per second of every piece of work, by name, taken in turns."""
    settings = Settings()
    masks = masks_of(settings, _RING)
    mapping = compile_mapping(settings, [_COLUMNS], masks)
    works: dict[str, Callable[[], object]] = {
        "decode and two pseudonyms, all values different": decode_and_mask(
            mapping, logins(BATCH, BATCH)
        ),
        "decode and two pseudonyms, returning people": decode_and_mask(
            mapping, logins(BATCH, BATCH // 5)
        ),
    }
    for name in OPERATORS:
        for kind in OPERATORS[name].properties.kinds:
            mask = compile_operator(name, kind=kind, domain="d", keyring=_RING).mask
            values = samples("ip" if name == "truncate_ip" else kind)
            works[f"{name} {kind}"] = lambda mask=mask, values=values: list(map(mask, values))  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return {name: BATCH / min(spent) for name, spent in taken.items()}


def table(rates: dict[str, float], commit_id: str, at: str) -> str:
    """Return the part of RESULTS.md."""
    lines = ["| one core | messages/s | µs per message |", "| --- | ---: | ---: |"]
    whole = [name for name in rates if name.startswith("decode")]
    lines += [f"| {name} | {rates[name]:,.0f} | {1e6 / rates[name]:.2f} |" for name in whole]
    kinds = sorted(
        set(itertools.chain.from_iterable(o.properties.kinds for o in OPERATORS.values()))
    )
    lines += ["", "| masks/s on one core | " + " | ".join(kinds) + " |"]
    lines += ["| --- |" + " ---: |" * len(kinds)]
    for name in OPERATORS:
        cells = [
            f"{rates[f'{name} {kind}']:,.0f}" if f"{name} {kind}" in rates else "-"
            for kind in kinds
        ]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    load = os.getloadavg()[0]
    how = f"Batches of {BATCH:,}; CPU time, best of all rounds, in turns; load {load:.1f}."
    lines += ["", f"{machine()}. {how}"]
    lines += [f"Measured {at}, commit {commit_id}: `python -m benchmarks.masks`"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and publish unless told not to; return 1 if the rate misses its target."""
    parser = argparse.ArgumentParser(prog="benchmarks.masks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--no-publish", action="store_true", help="leave RESULTS.md alone")
    options: Any = parser.parse_args(arguments)
    rates = measure(options.rounds)
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = table(rates, commit(), at)
    print(text)
    if not options.no_publish:
        publish_part("masks", text)
    reached = rates["decode and two pseudonyms, all values different"]
    print(f"{reached:,.0f} messages/s with all values different; {TARGET_PER_S:,} wanted")
    return 0 if reached >= TARGET_PER_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
