"""Generated logins: the same under a seed, bad in the share promised, devices recur."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import islice
from typing import Any

import pytest

from sqs2pg.cli.embedded import sample_logins
from sqs2pg.cli.embedded.sample_logins import BAD, logins, takes_logins
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.transform import Mask, Transformer
from sqs2pg.mask import canonical
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.settings import USER_LOGINS, EnvelopeSettings, Field, Settings
from tests.records import Reader

READER = Reader(USER_LOGINS)
TYPES = {"app_version": "int4", "create_date": "date"}


def mask_ip(value: str) -> str:
    return canonical.ip(value).hex()


MASKS: list[Mask | None] = [mask_ip if field.source == "ip" else None for field in USER_LOGINS]
TRANSFORMER = Transformer(
    USER_LOGINS,
    [Column(f.column, TYPES.get(f.column, "varchar"), f.length_max) for f in USER_LOGINS],
    MASKS,
)


def verdict(body: str) -> str:
    """The reason a body is refused for, or "" for a good one."""
    try:
        decoded = READER.decode(body)
    except PermanentFault as fault:
        return f"{fault.code} {fault.detail}".rstrip()
    message = Message("id", "handle", body, SystemAttributes(0))
    [line] = TRANSFORMER.lines([message], decoded.batch.targets[0].columns)
    return "" if isinstance(line, str) else f"{line.code} {line.detail}"


def good(count: int, seed: int = 1) -> list[dict[str, Any]]:
    return [json.loads(body) for body in logins(count, seed=seed, bad_share=0)]


def test_a_seed_gives_the_same_bodies_and_another_seed_others() -> None:
    assert list(logins(500, seed=1)) == list(logins(500, seed=1))
    for one, other in ((1, 2), (None, None)):
        bodies = set(logins(500, seed=one, bad_share=0)) & set(logins(500, seed=other, bad_share=0))
        assert not bodies


def test_a_smaller_count_gives_the_first_of_them() -> None:
    assert list(logins(50, seed=1)) == list(islice(logins(5_000, seed=1), 50))


def test_zero_logins_are_an_empty_list() -> None:
    assert list(logins(0)) == []


@pytest.mark.parametrize(
    ("count", "share", "bad"),
    [
        *((1_000, 0.02, 20), (100, 0.0, 0), (100, 1.0, 100), (100, 0.5, 50)),
        *((100, 0.3, 30), (100, 0.4, 40), (100, 0.7, 70), (100, 0.29, 29), (200, 0.57, 114)),
        *((1_000, 0.001, 1), (999, 0.001, 0), (1, 0.02, 0), (49, 0.02, 0), (50, 0.02, 1)),
        *((1, 1.0, 1), (3, 1 / 3, 0), (4, 1 / 3, 1)),
    ],
)
def test_the_share_of_bad_bodies_is_the_one_asked_for(count: int, share: float, bad: int) -> None:
    assert sum(map(bool, map(verdict, logins(count, seed=3, bad_share=share)))) == bad


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7])
def test_bad_bodies_are_evenly_spread(share: float) -> None:
    bad = [bool(verdict(body)) for body in logins(500, seed=4, bad_share=share)]
    for start in range(0, 500, 100):
        assert abs(sum(bad[start : start + 100]) - 100 * share) <= 1


def test_the_bad_kinds_take_turns_and_each_is_refused_for_its_reason() -> None:
    reasons = [verdict(body) for body in logins(12 * len(BAD), seed=5, bad_share=0.5)]
    assert [reason for reason in reasons if reason] == [
        "missing_field user_id",
        "not_json",
        "bad_ip ip",
        "missing_field user_id",
        "wrong_type device_id",
        "bad_version app_version",
    ] * 6


def test_devices_recur_with_their_people() -> None:
    found = good(3_000)
    devices = Counter(login["device_id"] for login in found)
    assert 0.28 < 1 - len(devices) / len(found) < 0.38
    assert devices.most_common(1)[0][1] > 2
    owners = {(login["device_id"], login["user_id"], login["ip"]) for login in found}
    assert len(owners) == len(devices)


def test_the_number_of_recurring_people_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_logins, "PEOPLE_MAX", 10)
    last_seen: dict[str, int] = {}
    absences = []
    for index, login in enumerate(good(2_000)):
        device = login["device_id"]
        if device in last_seen:
            absences.append(index - last_seen[device])
        last_seen[device] = index
    assert len(absences) > 500  # people keep coming back,
    assert max(absences) < 500  # but not once they have been replaced


def test_a_good_login_is_like_those_of_the_field() -> None:
    found = good(1_000)
    fields = {"user_id", "device_type", "device_id", "ip", "app_version", "locale"}
    assert all(set(login) == fields for login in found)
    assert {login["locale"] for login in found} > {None, "RU"}
    assert {login["app_version"].count(".") for login in found} == {0, 1, 2}
    assert {login["device_type"] for login in found} == {"android", "iOS"}
    assert all(re.fullmatch(r"\d{3}-\d\d-\d{4}", login["device_id"]) for login in found)
    assert not any(map(verdict, logins(1_000, bad_share=0)))


@pytest.mark.parametrize(
    ("settings", "taken"),
    [
        (Settings(), True),
        (
            Settings(field=(Field(source="ip", column="a"), Field(source="user_id", column="b"))),
            True,
        ),
        (Settings(field=(Field(source=("who", "user_id"), column="a"),)), True),
        (Settings(field=(Field(source="$", column="a"),)), True),
        (
            Settings(
                field=(
                    Field(source="ip", column="a"),
                    Field(source="sqs:MessageId", column="b"),
                    Field(column="c", default="sent_date"),
                )
            ),
            True,
        ),
        (
            Settings(field=(Field(source="ip", column="a"), Field(source="order", column="b"))),
            False,
        ),
        (Settings(field=(Field(source="sqs:MessageId", column="a"),)), False),
        (Settings(envelope=EnvelopeSettings(layers=("sns",))), False),
        (Settings(field=(Field(source="ip", column="a"),), explode="lines"), False),
    ],
)
def test_logins_fit_mappings_that_read_their_members(settings: Settings, taken: bool) -> None:
    assert takes_logins(settings) is taken
