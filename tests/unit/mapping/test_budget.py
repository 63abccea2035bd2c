"""The budget: what a batch may hold at once."""

from __future__ import annotations

import pytest

from sqs2pg.mapping.budget import (
    BYTES_MIN,
    Budget,
    Meter,
    budget_of,
    may_grow,
    received_bytes_max,
)
from sqs2pg.settings import EnvelopeSettings, Field, Settings, SinkSettings, SourceSettings

MIB = 2**20


def settings(mib: int = 64, **sink: int) -> Settings:
    return Settings(source=SourceSettings(in_flight_bytes_max=mib * MIB), sink=SinkSettings(**sink))


def test_writers_share_half_of_what_may_be_in_flight() -> None:
    assert budget_of(settings())[:2] == (16 * MIB, 32_768)
    assert budget_of(settings(connections=16)).bytes_max == 2 * MIB
    assert budget_of(settings(1, connections=16)).bytes_max == BYTES_MIN
    # Messages that cannot grow are bounded by their number alone.
    assert budget_of(settings(1, batch_rows_max=50_000)).records_max == 50_000
    limit = EnvelopeSettings(decompressed_bytes_max=MIB)
    assert budget_of(Settings(envelope=limit)).text_max == 2 * MIB


@pytest.mark.parametrize(
    ("grows", "what"),
    [
        (False, Settings()),
        (False, Settings(envelope=EnvelopeSettings(layers=("sns", "eventbridge")))),
        (True, Settings(envelope=EnvelopeSettings(layers=("gzip",)))),
        (True, Settings(envelope=EnvelopeSettings(layers=("content_encoding",)))),
        (True, Settings(envelope=EnvelopeSettings(layers=("auto",)))),
        (True, Settings(envelope=EnvelopeSettings(layers=("s3",)))),
        (True, Settings(envelope=EnvelopeSettings(records="lines"))),
        (True, Settings(field=(Field(source="a[].b", column="b"),), explode="a")),
    ],
)
def test_where_messages_may_grow_half_is_for_what_is_received(grows: bool, what: Settings) -> None:
    assert may_grow(what) is grows
    assert received_bytes_max(what) == (32 if grows else 64) * MIB


def test_a_meter_is_full_with_the_unit_that_reaches_a_bound() -> None:
    meter = Meter(Budget(bytes_max=10), "")
    assert [meter.add(["abc"]), meter.add(["abcdef"]), meter.add(["a"])] == [False, False, True]
    meter = Meter(Budget(records_max=4), "")
    assert [meter.add(["a", "b", "c"]), meter.add(["d"])] == [False, True]
    meter = Meter(Budget(records_max=4), "{")
    assert [meter.add(["{{}"]), meter.add(["{"])] == [False, True]
    assert meter.spread == 3 * 3 + 2
    assert not Meter(Budget(), "{").add(["{" * 10_000])
