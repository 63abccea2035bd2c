"""The attack: how long each mask holds against somebody who has the table.

Trying all values is the attack that matters: there are few addresses, phone numbers and ids. The
rate of this machine is measured; the rate of one GPU is published. Without the key, the only attack
on a keyed mask is to try all 2**256 keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, ok, warn
from sqs2pg.mask.brute_force import cores, duration, hashes_per_second
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.registry import KEYED, OPERATORS, compile_operator, properties
from sqs2pg.settings import Field

GPU_HASHES_PER_S = 21_975_500_000
"""SHA-256 per second of one NVIDIA RTX 4090: hashcat 6.2.6, mode 1400, in the benchmark that
Chick3nman published in October 2022. Newer ones are faster, and more can be rented."""
GPU = "one GPU (RTX 4090: 22 billion SHA-256/s, hashcat 6.2.6)"

POSSIBLE_VALUES = {
    "ip": (2**32, "all of IPv4"),
    "phone": (10**10, "ten digits"),
    "email": (10**10, "as many as leaked lists hold"),
    "uuid": (2**122, "random UUIDs"),
    "text": (10**9, "assumed; set possible_values"),
}
"""By kind, if the field does not declare them."""

_MEASURE_S = 0.1
_SAMPLES = {
    "ip": "198.51.100.7",
    "phone": "15550104567",
    "email": "a@example.com",
    "uuid": "424cdd21-063a-43a7-b91b-7ca1a833afae",
    "text": "593-47-5928",
}


class Estimate(msgspec.Struct, frozen=True):
    """What trying all values of one field costs, in seconds; None if that is not the attack."""

    field: str
    column: str
    mask: str
    possible_values: int
    seconds_without_key: float | None = None
    seconds_without_key_gpu: float | None = None
    seconds_with_key: float | None = None
    seconds_with_key_gpu: float | None = None


async def check_attack(context: Context, estimates: list[Estimate]) -> list[Finding]:
    """Report how long each masked field holds; append the figures to `estimates`."""
    settings = context.settings
    fields = [field for field in settings.fields if field.mask != "keep"]
    keyring = context.keyring() if any(f.mask in KEYED for f in fields) else None
    plain = await asyncio.to_thread(hashes_per_second, _MEASURE_S)
    findings = [
        ok(
            "attack rate",
            f"this machine: {plain * cores() / 1e6:.1f} million SHA-256/s on {cores()} cores, in "
            f"plain Python; {GPU}",
        )
    ]
    for field in fields:
        operator = compile_operator(
            field.mask,
            kind=field.mask_kind,
            domain=field.domain or field.name,
            keyring=keyring,
        )
        rate = await asyncio.to_thread(_rate, operator, _sample(field))
        estimate = estimate_mask(field, rate * cores())
        estimates.append(estimate)
        findings.append(finding_of(field, estimate, rate))
    return findings


def _sample(field: Field) -> str:
    return _SAMPLES["ip" if field.mask == "truncate_ip" else field.kind]


def _rate(operator: Operator, sample: str) -> float:
    """Return masks per second on one core."""
    count, began = 0, time.perf_counter()
    mask: Callable[[str], str | None] = operator.mask
    while (spent := time.perf_counter() - began) < _MEASURE_S:
        for _ in range(200):
            mask(sample)
        count += 200
    return count / spent


def estimate_mask(field: Field, rate: float) -> Estimate:
    """Return how long the mask withstands a search at `rate` masks per second, on all cores."""
    values = field.possible_values or POSSIBLE_VALUES[field.kind][0]
    declared = properties(field.mask)
    made = Estimate(field.name, field.column, field.mask, values)
    if declared.reversible:
        return msgspec.structs.replace(
            made,
            seconds_without_key=values / rate,
            seconds_without_key_gpu=values / GPU_HASHES_PER_S,
            seconds_with_key=values / rate,
            seconds_with_key_gpu=values / GPU_HASHES_PER_S,
        )
    if declared.keyed and not declared.recoverable:
        return msgspec.structs.replace(
            made,
            seconds_with_key=values / rate,
            # HMAC with its key absorbed takes two compressions of SHA-256; a hash takes one.
            seconds_with_key_gpu=2 * values / GPU_HASHES_PER_S,
        )
    if declared.recoverable:
        return msgspec.structs.replace(made, seconds_with_key=0.0, seconds_with_key_gpu=0.0)
    return made


def finding_of(field: Field, estimate: Estimate, rate: float) -> Finding:
    """Return the finding on one field; `rate` is in masks per second on one core."""
    name = f"attack {field.name}"
    basis = "declared" if field.possible_values else POSSIBLE_VALUES[field.kind][1]
    values = f"{_count(estimate.possible_values)} possible values ({basis})"
    head = f"{field.mask} into {field.column}, {values}: "
    with_key, gpu = estimate.seconds_with_key, estimate.seconds_with_key_gpu
    if estimate.seconds_without_key is not None:
        here = duration(estimate.seconds_without_key)
        on_gpu = duration(estimate.seconds_without_key_gpu or 0)
        told = f"whoever has the table reverses all of it in {here} here, {on_gpu} on one GPU"
        return warn(name, head + told, 'use mask = "pseudonymize"; docs/howto/move-from-sha256.md')
    if with_key is not None and with_key > 0:
        return ok(
            name,
            f"{head}not reversed by trying values without the key (2^256 keys); with it, in "
            f"{duration(with_key)} here, {duration(gpu or 0)} on one GPU",
        )
    if with_key is not None:
        return ok(
            name,
            f"{head}not reversed by trying values without the key (2^256 keys); with it, each is "
            f"opened at once, {1e6 / rate:.0f} µs here",
        )
    rest = OPERATORS[field.mask].shows
    if field.mask == "partial":
        remedy = 'use "redact" where nobody reads it, "pseudonymize" to count'
        return warn(name, f"{field.mask} into {field.column}: {rest}", remedy)
    return ok(name, f"{field.mask} into {field.column}: {rest}")


def _count(values: int) -> str:
    return f"{values:,}" if values < 10**15 else f"{values:.1e}".replace("e+", "e")
