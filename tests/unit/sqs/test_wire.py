"""The bodies of batch calls, for any receipt handles."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqs2pg.sqs import wire

QUEUE = 'http://127.0.0.1:9324/000000000000/a"queue'
HANDLE = st.text(max_size=20) | st.text("AQEB+/=09", min_size=1, max_size=400)


@given(st.lists(HANDLE, min_size=1, max_size=10))
def test_a_delete_names_every_handle_in_order(handles: list[str]) -> None:
    assert json.loads(wire.write_delete(QUEUE, handles)) == {
        "QueueUrl": QUEUE,
        "Entries": [
            {"Id": str(index), "ReceiptHandle": handle} for index, handle in enumerate(handles)
        ],
    }


@pytest.mark.parametrize("count", [0, 11])
def test_a_delete_has_one_to_ten_entries(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        wire.write_delete(QUEUE, ["h"] * count)
