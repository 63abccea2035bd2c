"""What `init` proposes for any JSON objects loads, and takes the sample itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sqs2pg.cli.doctor.propose_mapping import Proposal, of_documents
from sqs2pg.cli.doctor.sample_documents import sample_of
from sqs2pg.cli.doctor.write_proposal import settings_of, settle, write_toml
from sqs2pg.errors import PermanentFault
from sqs2pg.mapping import examples
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.runners.compile_plan import masks_of
from tests.hypothesis_profiles import scaled

PERSONAL = ("ann@example.org", "alice@example.org", "198.51.100.7", "151 23456789")
NAMES = st.sampled_from(
    ["id", "user_id", "name", "email", "at", "tags", "items", "a.b", "x[0]", "$", "it's", "", "n",
     "createdAt", "password", "Ünïcode", "kind", "a", "b", "4711", "geo", "del\x7f",
     "alice@example.org"]
) | st.text(max_size=8)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(1_600_000_000, 1_700_000_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "1", "01", "-7", "1.50", "true", "2026-03-01", "2026-03-01T12:00:00Z", "\x00",
         "2026-03-01T12:00:00+0100", "2026-03-01 12:00", "01.02.2026", "ann@example.org",
         "198.51.100.7", "424cdd21-063a-43a7-b91b-7ca1a833afae", "call +49 151 23456789"]
    )
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), min_size=1, max_size=6)


def messages_of(bodies: list[str]) -> list[Message]:
    return [
        Message(f"00000000-0000-4000-8000-{i:012}", "", body, SystemAttributes(0))
        for i, body in enumerate(bodies)
    ]


def proposed(messages: list[Message]) -> tuple[Proposal, dict[str, Any]]:
    found = sample_of(messages, "a test")
    for explode in (True, False):
        proposal = of_documents(found.documents, "events", explode=explode)
        if settle(proposal, found.envelope, "queue", found.messages):
            return proposal, found.envelope
    raise AssertionError("no proposal takes the sample")


@settings(max_examples=scaled(60))
@given(DOCUMENTS)
def test_a_proposal_loads_and_takes_its_own_sample(documents: list[dict[str, Any]]) -> None:
    documents = [d for d in documents if d]
    messages = messages_of([json.dumps(document) for document in documents])
    proposal, envelope = proposed(messages)
    text = write_toml(proposal, queue="queue", envelope=envelope, origin="a test", explain=True)
    found = settings_of(proposal, envelope, "queue")
    assert "ann@example.org" not in text
    assert "alice@example.org" not in text
    mapping = examples.compile_offline(found, masks_of(found, examples.test_keyring()))
    for message, unit in zip(messages, mapping.decode_all(messages), strict=True):
        assert not isinstance(unit, PermanentFault), (unit.code, unit.detail, text)
        [row] = mapping.rows(["key"], [message], [unit])
        assert not isinstance(row, PermanentFault), (row.code, row.detail, text)
        rows = "".join(part.text for part in (row, *row.also))
        assert not [value for value in PERSONAL if value in rows], text
