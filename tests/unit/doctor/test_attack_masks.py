"""How long masks withstand an attack: figures from hash rates and domain sizes."""

from __future__ import annotations

import hashlib

import pytest

from sqs2pg.cli.doctor.attack_masks import (
    GPU_HASHES_PER_S,
    POSSIBLE_VALUES,
    Estimate,
    estimate_mask,
    finding_of,
)
from sqs2pg.cli.doctor.search_space import SPACES, block_size, search, tasks
from sqs2pg.mask.operator import KINDS
from sqs2pg.mask.registry import OPERATORS
from sqs2pg.settings import Field

RATE = 1_000_000.0


def field(mask: str, kind: str = "text", possible_values: int | None = None) -> Field:
    return Field(
        source="a",
        column="b",
        mask=mask,
        kind=kind,  # type: ignore[arg-type]
        possible_values=possible_values,
    )


def estimate(mask: str, kind: str = "text", possible_values: int | None = None) -> Estimate:
    return estimate_mask(field(mask, kind, possible_values), RATE)


def test_a_plain_hash_falls_without_the_key() -> None:
    made = estimate("sha256", "ip")
    assert made.possible_values == 2**32
    assert made.seconds_without_key == pytest.approx(4294.967, rel=1e-3)
    assert made.seconds_without_key_gpu == pytest.approx(2**32 / GPU_HASHES_PER_S)
    told = finding_of(field("sha256", "ip"), made, RATE)
    assert told.status == "warn"
    assert "reverses all of it in 72 minutes here, 0.2 s on one GPU" in told.detail


def test_a_pseudonym_falls_only_with_the_key() -> None:
    made = estimate("pseudonymize", possible_values=10**9)
    assert made.seconds_without_key is None
    assert made.seconds_with_key == 1_000
    assert made.seconds_with_key_gpu == pytest.approx(2 * 10**9 / GPU_HASHES_PER_S)
    told = finding_of(field("pseudonymize", possible_values=10**9), made, RATE)
    assert told.status == "ok"
    assert "not reversed by trying values without the key" in told.detail
    assert "1,000,000,000 possible values (declared)" in told.detail


@pytest.mark.parametrize("mask", ["encrypt", "encrypt_deterministic", "fpe_ff1"])
def test_encrypted_values_open_at_once_with_the_key(mask: str) -> None:
    made = estimate(mask)
    assert (made.seconds_without_key, made.seconds_with_key) == (None, 0.0)
    assert "with it, each is opened at once" in finding_of(field(mask), made, RATE).detail


@pytest.mark.parametrize("mask", sorted(set(OPERATORS) - {"keep"}))
def test_every_mask_and_kind_has_a_finding(mask: str) -> None:
    for kind in OPERATORS[mask].properties.kinds:
        told = finding_of(field(mask, kind), estimate(mask, kind), RATE)
        assert told.detail
        assert (told.status == "ok") is (mask not in ("sha256", "partial"))
        assert bool(told.remedy) is (told.status != "ok")
    assert set(POSSIBLE_VALUES) == set(KINDS)


@pytest.mark.parametrize("space", SPACES)
def test_a_space_is_searched_completely_and_once(space: str) -> None:
    prefixes = [prefix for task in tasks(space) for prefix in task]
    assert len(prefixes) == len(set(prefixes))
    assert len(prefixes) * block_size(space) == SPACES[space].size
    assert len(SPACES[space].suffixes()) == block_size(space)


@pytest.mark.parametrize(
    ("space", "value", "prefixes"),
    [
        ("IPv4", "199.172.111.135", ["8.8.", "199.172."]),
        ("IPv4", "10.0.0.0", ["10.0."]),
        ("NNN-NN-NNNN ids", "593-47-5928", ["593-47-"]),
        ("NNN-NN-NNNN ids", "000-00-0007", ["000-00-"]),
        ("nine-digit ids", "593475928", ["59347"]),
    ],
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_hashed_value_is_found(
    algorithm: str, space: str, value: str, prefixes: list[str]
) -> None:
    digest = hashlib.new(algorithm, value.encode(), usedforsecurity=False).digest()
    others = {hashlib.new(algorithm, b"another").digest()}
    assert search(algorithm, space, prefixes, frozenset({digest, *others})) == {digest}


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_hash_of_something_else_is_not_found(algorithm: str) -> None:
    others = frozenset({hashlib.new(algorithm, b"another").digest()})
    for space, prefixes in (("NNN-NN-NNNN ids", ["593-47-"]), ("nine-digit ids", ["59347"])):
        assert search(algorithm, space, prefixes, others) == set()
