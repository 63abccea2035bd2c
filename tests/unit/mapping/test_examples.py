"""The examples of a settings file, and the project's worked examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.mapping import examples
from sqs2pg.runners.compile_plan import masks_of
from sqs2pg.settings import Settings, load

FOLDER = Path(__file__).parents[3] / "examples"
WORKED = sorted(path.name for path in FOLDER.iterdir())


def differences(settings: Settings) -> list[str]:
    masks = masks_of(settings, examples.test_keyring())
    mapping = examples.compile_offline(settings, masks)
    return [found.what for found in examples.check_examples(settings, mapping)]


def of(example: dict[str, Any], **tree: Any) -> list[str]:
    tree.setdefault(
        "field",
        [
            {"source": "id", "column": "id", "required": True},
            {"source": "n", "column": "n", "type": "numeric"},
            {"source": "ip", "column": "ip", "mask": "pseudonymize", "kind": "ip"},
            {"source": "all", "column": "all", "type": "jsonb"},
        ],
    )
    return differences(load(environ={}, overrides={**tree, "example": [example]}, discover=False))


def test_there_are_five_worked_examples() -> None:
    assert len(WORKED) >= 5


@pytest.mark.parametrize("name", WORKED)
def test_a_worked_example_does_what_it_says(name: str) -> None:
    settings = load(FOLDER / name / "sqs2pg.toml", {})
    assert settings.example
    assert any(one.fault for one in settings.example) or settings.unmatched == "drop"
    assert differences(settings) == []


GOOD = {"id": "x", "n": 1.5, "ip": "198.51.100.7", "all": {"a": [1]}}
ROW = {"id": "x", "n": 1.5, "ip": "masked", "all": {"a": [1]}}


def test_nothing_is_reported_if_the_result_is_as_expected() -> None:
    assert of({"input": GOOD, "row": ROW}) == []
    assert of({"input": json.dumps(GOOD), "rows": [ROW]}) == []
    assert of({"input": {"n": 1}, "fault": "missing_field"}) == []
    assert of({"input": {"n": 1}, "fault": "missing_field id"}) == []
    assert of({"input": "x", "fault": "not_json"}) == []


@pytest.mark.parametrize(
    ("example", "what"),
    [
        ({"input": GOOD, "row": {**ROW, "id": "y"}}, "column id: expected 'y', got 'x'"),
        ({"input": GOOD, "row": {**ROW, "n": 1.6}}, "column n: expected 1.6, got '1.5'"),
        ({"input": {**GOOD, "n": None}, "row": ROW}, "column n: expected 1.5, got NULL"),
        ({"input": {**GOOD, "ip": None}, "row": ROW}, "column ip: expected 'masked', got NULL"),
        (
            {"input": GOOD, "row": {"id": "x", "n": 1.5, "ip": "masked"}},
            "column all: expected NULL",
        ),
        ({"input": GOOD, "row": {**ROW, "all": {"a": [2]}}}, "column all: expected"),
        ({"input": GOOD, "rows": [ROW, ROW]}, "expected 2 rows, got 1"),
        ({"input": GOOD, "fault": "bad_ip"}, "expected fault bad_ip, got 1 rows"),
        ({"input": {}, "row": ROW}, "expected rows, got fault missing_field id"),
        ({"input": {}, "fault": "bad_ip"}, "expected fault bad_ip, got fault missing_field id"),
    ],
)
def test_a_difference_is_reported(example: dict[str, Any], what: str) -> None:
    [found] = of(example)
    assert found.startswith(what)


def test_a_token_may_be_compared_under_the_test_key() -> None:
    [told] = of({"input": GOOD, "row": {**ROW, "ip": "v1_0"}})
    token = told.rsplit("'", 2)[1]
    assert token.startswith("v1_")
    assert of({"input": GOOD, "row": {**ROW, "ip": token}}) == []
    assert of({"input": {**GOOD, "ip": "198.51.100.8"}, "row": {**ROW, "ip": token}}) != []


def test_an_example_that_asks_for_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="expects column 'idd'"):
        of({"input": GOOD, "row": {"idd": "x"}})
    with pytest.raises(SettingsError, match="expects a row of table 'other'"):
        of({"input": GOOD, "row": {**ROW, "@table": "other"}})
