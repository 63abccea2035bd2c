"""Thousands of generated bodies through the whole path: each is written or quarantined."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sqs2pg.message import Message, Outcome, SystemAttributes
from sqs2pg.settings import USER_LOGINS
from tests.hypothesis_profiles import scaled
from tests.integration.support import Assemble, rows

AT_LEAST = scaled(2_000, 10_000)
NAMES = [field.source for field in USER_LOGINS]

characters = st.characters(codec=None, exclude_categories=())  # lone surrogates and NUL included
texts = st.text(characters, max_size=300)
plausible = st.sampled_from(
    ["u1", "199.172.111.135", "::ffff:10.0.0.1", "2.3.0", "2020-02-29", "2020-01-01T00:00:00Z",
     "", " ", "\\N", "a\tb\nc\\", "\x00", "é" * 200, "x" * 129, "9" * 400]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | plausible,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
objects = st.fixed_dictionaries(
    {"user_id": plausible | texts},
    optional=dict.fromkeys(NAMES[1:], values) | {"more": values},
)


def twice(name: str, first: Any, second: Any) -> str:
    """A body in which a key stands twice."""
    key = json.dumps(name)
    return f'{{"user_id": "u", {key}: {json.dumps(first)}, {key}: {json.dumps(second)}}}'


bodies = st.one_of(
    objects.map(json.dumps),
    objects.map(lambda value: json.dumps(value, ensure_ascii=False)),
    values.map(json.dumps),
    st.builds(twice, st.sampled_from(NAMES), values, values),
    st.builds(lambda value, cut: json.dumps(value)[:cut], objects, st.integers(1, 40)),
    st.integers(1, 3_000).map(lambda depth: '{"user_id": "u", "more": ' + "[" * depth),
    st.integers(1, 3_000).map(lambda n: '{"user_id":"u","more":' + "[" * n + "]" * n + "}"),
    st.integers(1, 5_000).map(lambda digits: '{"user_id": "u", "more": ' + "9" * digits + "}"),
    st.sampled_from(
        ['{"user_id": "u", "more": NaN}', '{"user_id": "u", "more": 1e999}', "\ufeff{}"]
    ),
    texts,
)


def generated(count: int) -> list[str]:
    """Draw `count` bodies, the same ones every time."""
    drawn: list[str] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(bodies, min_size=40, max_size=60))
    def collect(batch: list[str]) -> None:
        drawn.extend(batch)

    collect()
    return drawn


async def test_every_body_is_written_or_quarantined(pipeline: Assemble, database: str) -> None:
    drawn = generated(AT_LEAST // 40)
    mebibyte = 2**20
    for character in ("x", "é", "\\", '"', "\U0001f600"):
        login = {"user_id": "u", "more": character * (mebibyte // 4 // len(character.encode()))}
        drawn.append(json.dumps(login, ensure_ascii=False))
    drawn.append(json.dumps({"user_id": "x" * (mebibyte - 20)}))
    drawn.append("[" * mebibyte)
    drawn.append("x" * mebibyte)
    assert len(drawn) >= AT_LEAST
    sent = [
        Message(str(uuid.uuid4()), "-", body, SystemAttributes(1_795_381_566_306 + index))
        for index, body in enumerate(drawn)
    ]
    ended: Counter[Outcome] = Counter()
    async with pipeline() as ready:
        for start in range(0, len(sent), 500):
            ended.update(await ready.processors[0].process(sent[start : start + 500]))
        assert set(ended) == {Outcome.WRITTEN, Outcome.QUARANTINED}
        assert ended.total() == len(sent)
        assert ended[Outcome.WRITTEN] > len(sent) // 50, "bodies of both kinds were drawn"
    books = dict(rows(database, "SELECT outcome::text, count(*) FROM sqs2pg.delivery GROUP BY 1"))
    assert books == {
        "written": ended[Outcome.WRITTEN],
        "quarantined": ended[Outcome.QUARANTINED],
    }
    assert rows(database, "SELECT count(*) FROM user_logins") == [(ended[Outcome.WRITTEN],)]
    reasons = dict(rows(database, "SELECT reason, count(*) FROM sqs2pg.quarantine GROUP BY 1"))
    assert len(reasons) >= 8, reasons
    assert sum(reasons.values()) == ended[Outcome.QUARANTINED]
