"""Search spaces: all IPv4 addresses, all ids, hashed in blocks, for the attack on a column.

It does what an attacker does first: every value is hashed and looked up among the sampled hashes.
It runs in processes of its own. Only hashes come back, never a value that was found.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import random
from collections.abc import Callable, Iterator

ALGORITHMS = {"SHA-256": "sha256", "SHA-1": "sha1", "MD5": "md5"}
"""By the name that is shown; the length of a digest tells which one it is."""

BLOCKS_A_TASK = 8
"""About half a second of work: short enough to stop soon after the last hit."""


class Space:
    """One set of values, in blocks: a block is a prefix before each of the same suffixes."""

    def __init__(
        self,
        name: str,
        size: int,
        prefixes: Callable[[], list[str]],
        suffixes: Callable[[], list[str]],
    ) -> None:
        self.name = name
        self.size = size
        self.prefixes = prefixes
        self.suffixes = suffixes


def _ipv4_prefixes() -> list[str]:
    # Nobody has an address in "this network", loopback, multicast or reserved ranges (RFC 6890).
    return [f"{a}.{b}." for a in range(1, 224) if a != 127 for b in range(256)]


def _ipv4_suffixes() -> list[str]:
    return [f"{c}.{d}" for c in range(256) for d in range(256)]


SPACES = {
    space.name: space
    for space in (
        Space("IPv4", 222 * 2**24, _ipv4_prefixes, _ipv4_suffixes),
        Space(
            "NNN-NN-NNNN ids",
            10**9,
            lambda: [f"{a:03}-{b:02}-" for a in range(1_000) for b in range(100)],
            lambda: [f"{c:04}" for c in range(10_000)],
        ),
        Space(
            "nine-digit ids",
            10**9,
            lambda: [f"{a:05}" for a in range(100_000)],
            lambda: [f"{c:04}" for c in range(10_000)],
        ),
    )
}


def tasks(space: str, seed: int = 1) -> Iterator[list[str]]:
    """Yield all prefixes of a space in lists of BLOCKS_A_TASK, in a random order."""
    prefixes = SPACES[space].prefixes()
    random.Random(seed).shuffle(prefixes)  # noqa: S311  not a secret
    for start in range(0, len(prefixes), BLOCKS_A_TASK):
        yield prefixes[start : start + BLOCKS_A_TASK]


@functools.cache
def _suffixes(space: str) -> list[bytes]:
    return [suffix.encode() for suffix in SPACES[space].suffixes()]


def block_size(space: str) -> int:
    """Return how many values each prefix stands for."""
    return {"IPv4": 65_536}.get(space, 10_000)


def search(
    algorithm: str, space: str, prefixes: list[str], targets: frozenset[bytes]
) -> set[bytes]:
    """Return the targets that are hashes of values in these blocks; `targets` are digests."""
    hash_of = getattr(hashlib, algorithm)
    digest_of = operator.methodcaller("digest")
    found: set[bytes] = set()
    suffixes = _suffixes(space)
    for prefix in prefixes:
        # All of it in C: a Python loop would be half as fast.
        values = map(prefix.encode().__add__, suffixes)
        found |= targets.intersection(map(digest_of, map(hash_of, values)))
    return found
