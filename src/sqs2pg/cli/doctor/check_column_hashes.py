"""An existing column: does it hold unkeyed hashes of values that can be tried out?

It samples the values and reports what they look like. If they are hashes, it tries IPv4 addresses
and ids until enough are reversed or the time is over. It reports how many, never which.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import msgspec

from sqs2pg.cli.doctor.attack_masks import GPU_HASHES_PER_S
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.cli.doctor.search_space import ALGORITHMS, SPACES, block_size, search, tasks
from sqs2pg.errors import SettingsError
from sqs2pg.mask.brute_force import cores, duration
from sqs2pg.postgres.identifiers import quote_identifier

SAMPLE_VALUES = 10_000
"""Each further value is one more that any try may hit."""
ENOUGH = 20
"""So many reversed values are proof; more would only take longer."""

# As many rows as are cheap to read, then as many of their values as are searched for.
_SAMPLE = """SELECT value FROM (
    SELECT DISTINCT {value} AS value FROM (
        SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 100000) AS rows_read
    ) AS values_read
ORDER BY random() LIMIT %s"""
_TYPE = """SELECT format_type(a.atttypid, NULL), format('%%s', a.attrelid::regclass)
FROM pg_catalog.pg_attribute a
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s
  AND a.attnum > 0 AND NOT a.attisdropped"""

_HEX = {64: "SHA-256", 40: "SHA-1", 32: "MD5"}
_DIGEST = re.compile(r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})\Z", re.IGNORECASE)
_FORMS = {
    "pseudonyms": re.compile(r"v[1-9][0-9]{0,3}_[0-9a-f]{32}\Z"),
    "encrypted values": re.compile(r"[ed][1-9][0-9]{0,3}_[A-Za-z0-9_-]{60,}\Z"),
    "redacted values": re.compile(r"\[redacted\]\Z"),
    "IP addresses in the clear": re.compile(
        r"(?:\d{1,3}\.){3}\d{1,3}\Z|[0-9a-f]*:[0-9a-f:]+\Z", re.IGNORECASE
    ),
    "e-mail addresses in the clear": re.compile(r"[^@\s]+@[^@\s]+\Z"),
    "ids in the clear": re.compile(r"\d{3}-\d{2}-\d{4}\Z|\d{9}\Z"),
}


class Progress(msgspec.Struct):
    """How far a search is."""

    tried: int = 0
    total: int = 0
    reversed: int = 0
    sampled: int = 0


class SearchResult(msgspec.Struct, frozen=True):
    """What a search found."""

    space: str
    """The space of the hits; else the last one that was tried."""
    reversed: int
    seconds: float
    tried: dict[str, int]


async def check_column(context: Context, place: str, limit_s: float, progress: Progress) -> Finding:
    """Report what a column `table.column` holds, and how many of its values were reversed."""
    values = await _sample(context, place)
    name = f"column {place}"
    if not values:
        return warn(name, "the column holds no values", "name a column with values")
    progress.sampled = len(values)
    digests = [value for value in values if _DIGEST.match(value)]
    if 2 * len(digests) < len(values):
        return _finding_by_form(name, values)
    algorithm = _HEX[max({len(d) for d in digests}, key=[len(d) for d in digests].count)]
    targets = frozenset(bytes.fromhex(d) for d in digests if _HEX[len(d)] == algorithm)
    found = await _search(algorithm, targets, limit_s, progress)
    return _finding(name, algorithm, len(values), found)


async def _sample(context: Context, place: str) -> list[str]:
    table, dot, column = place.rpartition(".")
    if not dot:
        raise SettingsError(
            "--column names no table", code="bad_column", hint="give it as table.column"
        )
    rows = await context.query(_TYPE, [table, column])
    if not rows:
        raise SettingsError(
            f"there is no column {place}", code="bad_column", hint="give it as table.column"
        )
    [(kind, table)] = rows
    column = quote_identifier(column)
    value = f"encode({column}, 'hex')" if kind == "bytea" else f"{column}::text"
    sampled = await context.query(
        _SAMPLE.format(value=value, column=column, table=table), [SAMPLE_VALUES]
    )
    return [value for (value,) in sampled]


def _finding_by_form(name: str, values: list[str]) -> Finding:
    for form, pattern in _FORMS.items():
        if 2 * sum(bool(pattern.match(value)) for value in values) >= len(values):
            detail = f"looks like {form}, by {len(values):,} sampled values"
            if "in the clear" in form:
                return fail(name, detail, 'mask the field, such as mask = "pseudonymize"')
            return ok(name, detail)
    return warn(
        name,
        f"{len(values):,} sampled values look like no hash and no mask of ours",
        "look at it: whatever can be read there is not masked",
    )


def _finding(name: str, algorithm: str, sampled: int, found: SearchResult) -> Finding:
    seconds = f"{found.seconds:.1f} seconds"
    if found.reversed:
        size = SPACES[found.space].size
        rate = sum(found.tried.values()) / max(found.seconds, 0.001)
        return fail(
            name,
            f"looks like unkeyed {algorithm} of {found.space}: {found.reversed:,} of {sampled:,} "
            f"sampled values reversed in {seconds}; trying all would take "
            f"{duration(size / rate)} here, {duration(size / GPU_HASHES_PER_S)} on one GPU",
            "move it to pseudonyms: docs/howto/move-from-sha256.md",
        )
    shares = ", ".join(
        f"{count / SPACES[space].size:.1%} of {space}" for space, count in found.tried.items()
    )
    return warn(
        name,
        f"looks like {algorithm}; 0 of {sampled:,} sampled values reversed in {seconds}, after "
        f"trying {shares}",
        "that is no proof of a key: try longer with --limit-s, or look at what fills it",
    )


async def _search(
    algorithm: str, targets: frozenset[bytes], limit_s: float, progress: Progress
) -> SearchResult:
    """Try the spaces in turns, then the one that gave a hit, until enough or out of time."""
    began = time.monotonic()
    left: dict[str, Iterator[list[str]]] = {name: tasks(name) for name in SPACES}
    tried = dict.fromkeys(SPACES, 0)
    hits: dict[str, set[bytes]] = {name: set() for name in SPACES}
    enough = min(ENOUGH, len(targets))
    progress.total = sum(space.size for space in SPACES.values())
    loop = asyncio.get_running_loop()
    turns = _turns(left, hits)
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("spawn")) as pool:
        running: dict[asyncio.Future[set[bytes]], tuple[str, int]] = {}
        try:
            while time.monotonic() - began < limit_s:
                for space, prefixes in islice(turns, 2 * cores() - len(running)):
                    future = loop.run_in_executor(
                        pool, search, ALGORITHMS[algorithm], space, prefixes, targets
                    )
                    running[future] = (space, len(prefixes) * block_size(space))
                if not running:
                    break
                remaining_s = limit_s - (time.monotonic() - began)
                done, _ = await asyncio.wait(
                    running, timeout=max(0, remaining_s), return_when=asyncio.FIRST_COMPLETED
                )
                for future in done:
                    space, count = running.pop(future)
                    hits[space] |= future.result()
                    tried[space] += count
                    progress.tried += count
                progress.reversed = max(map(len, hits.values()))
                if progress.reversed >= enough:
                    break
        finally:
            for future in running:
                future.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
    best = max(hits, key=lambda name: len(hits[name]))
    return SearchResult(best, len(hits[best]), time.monotonic() - began, tried)


def _turns(
    left: dict[str, Iterator[list[str]]], hits: dict[str, set[bytes]]
) -> Iterator[tuple[str, list[str]]]:
    while left:
        found = [name for name in left if hits[name]]
        for name in found or list(left):
            prefixes = next(left[name], None)
            if prefixes is None:
                del left[name]
                continue
            yield name, prefixes
