"""Generated logins: people and devices recur, and a share of the messages is bad.

For the demo, `send`, tests and benchmarks. Everything is made up from a seed; nothing here is
anybody's data.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator

from sqs2pg.settings import Settings, is_of_message

DEVICES = ("android", "iOS")
LOCALES = ("RU", "US", "DE", "IN", "BR", "JP", "FR")
BAD_SHARE = 0.02
RECURRING_SHARE = 1 / 3
PEOPLE_MAX = 10_000
"""The most people who may come back; bounds the memory of a long run."""


def logins(count: int, *, seed: int | None = None, bad_share: float = BAD_SHARE) -> Iterator[str]:
    """Yield `count` message bodies.

    About one login in three is by a device seen before. `bad_share` (0 to 1) of the bodies are
    bad, rounded down and evenly spread, in the kinds of `BAD` in turn. Equal arguments with a seed
    give equal bodies; a smaller count gives the first of them.
    """
    rng = random.Random(seed)  # noqa: S311  test data, not a secret
    people: list[dict[str, str]] = []
    millionths = round(bad_share * 1_000_000)  # whole numbers: no drift over a long run
    for index in range(count):
        login = _login(rng, _pick(rng, people))
        bad = index * millionths // 1_000_000
        if (index + 1) * millionths // 1_000_000 > bad:
            yield BAD[bad % len(BAD)](login)
        else:
            yield json.dumps(login)


def _pick(rng: random.Random, people: list[dict[str, str]]) -> dict[str, str]:
    """Return somebody of `people`, or somebody new, who joins them."""
    if people and rng.random() < RECURRING_SHARE:
        return rng.choice(people)
    person = _person(rng)
    if len(people) < PEOPLE_MAX:
        people.append(person)
    else:
        people[rng.randrange(PEOPLE_MAX)] = person
    return person


def _person(rng: random.Random) -> dict[str, str]:
    return {
        "user_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        "device_type": rng.choice(DEVICES),
        "device_id": f"{rng.randrange(1000):03}-{rng.randrange(100):02}-{rng.randrange(10000):04}",
        "ip": ".".join(str(rng.randrange(1, 255)) for _ in range(4)),
    }


def _login(rng: random.Random, person: dict[str, str]) -> dict[str, str | None]:
    version = rng.choice(("2", "2.3", "2.3.0", "0.4.6", "10.0.1"))
    locale = None if rng.random() < 0.4 else rng.choice(LOCALES)
    return {**person, "app_version": version, "locale": locale}


def _without_user(login: dict[str, str | None]) -> str:
    return json.dumps({**login, "user_id": None})


def _number_for_text(login: dict[str, str | None]) -> str:
    return json.dumps({**login, "device_id": 4711})


def _bad_ip(login: dict[str, str | None]) -> str:
    return json.dumps({**login, "ip": "300.1.2.3"})


def _cut_short(login: dict[str, str | None]) -> str:
    return json.dumps(login)[:-7]


def _other_shape(_login: dict[str, str | None]) -> str:
    return json.dumps({"foo": "oops_wrong_msg_type", "bar": "123"})


def _bad_version(login: dict[str, str | None]) -> str:
    return json.dumps({**login, "app_version": "latest"})


def takes_logins(settings: Settings) -> bool:
    """Whether the mapping in use reads members of a login, one record in each body.

    What a field reads beside the body, and what an expression reads, is not asked.
    """
    if settings.routed or settings.explode or settings.envelope.layers:
        return False
    in_body = [
        sources
        for field in settings.fields
        if (sources := {source for source in field.sources if not is_of_message(source)})
    ]
    return bool(in_body) and all(sources & _MEMBERS for sources in in_body)


_MEMBERS = {"user_id", "device_type", "device_id", "ip", "locale", "app_version", "create_date"}
_MEMBERS |= {"$"}
"""The sources that a login has something for; `$` is the whole of it."""

BAD: tuple[Callable[[dict[str, str | None]], str], ...] = (
    _other_shape,
    _cut_short,
    _bad_ip,
    _without_user,
    _number_for_text,
    _bad_version,
)
"""The bad kinds, in the order in which they come."""
