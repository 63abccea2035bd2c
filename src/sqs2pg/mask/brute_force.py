"""The hash rate of this machine: how many SHA-256 per second an attacker can try with it.

It is measured, with the loop that an attacker would write first. A program in C is about ten times
faster, a GPU ten thousand times: see `sqs2pg check --attack`.
"""

from __future__ import annotations

import hashlib
import os
import time
from socket import inet_ntoa

IPV4_VALUES = 2**32
ID_VALUES = 10**9
"""NNN-NN-NNNN."""


def hashes_per_second(seconds: float = 0.05) -> float:
    """Return how many IPv4 addresses one core hashes per second, measured for about `seconds`."""
    began = time.perf_counter()
    ended = began + seconds
    number = 0
    sha256 = hashlib.sha256
    while (now := time.perf_counter()) < ended:
        for host in range(number, number + 1_000):
            sha256(inet_ntoa(host.to_bytes(4, "big")).encode()).digest()
        number += 1_000
    return number / (now - began)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def duration(seconds: float) -> str:
    """Return a time in words: `25 s`, `3.1 hours`, `12,000 years`."""
    for unit, length in (
        ("years", 365.25 * 86_400),
        ("days", 86_400),
        ("hours", 3_600),
        ("minutes", 60),
    ):
        if seconds >= 2 * length:
            amount = seconds / length
            if amount >= 1e6:
                return f"{amount:.0e} {unit}".replace("e+", "e")
            return f"{amount:,.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"
    if seconds < 0.001:
        return "under a millisecond"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def cost_to_reverse() -> str:
    """Return in words how long this machine takes to hash all addresses and ids, measured now."""
    rate = hashes_per_second() * cores()
    return (
        f"at the {rate / 1e6:.1f} million hashes/s just measured here, on {cores()} cores in plain "
        f"Python, every IPv4 address is hashed in {duration(IPV4_VALUES / rate)}, every "
        f"NNN-NN-NNNN id in {duration(ID_VALUES / rate)}"
    )
