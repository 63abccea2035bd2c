"""When a pass over a target suffices, while others move its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.vault.target_rows import Leaf, TargetTables
from sqs2pg.vault.token_map import PASSES_MAX, RecoverableColumn, TokenMap

COLUMN = RecoverableColumn('"t"', '"token"', "ip", {})


class Session:
    async def execute(self, *_: object) -> list[Any]:
        return []

    @asynccontextmanager
    async def transaction(self, *_: object) -> AsyncIterator[None]:
        yield


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Apply a map; return what was done.

    `counts` are how many old tokens each count in one snapshot finds, and `attached` the partitions
    before and after each pass.
    """

    async def apply(counts: list[int], attached: str) -> list[str]:
        done: list[str] = []
        moments = iter(attached)

        async def tables(*_: object) -> TargetTables:
            found = frozenset({(1, next(moments))})
            return TargetTables([Leaf('"t"', 1, indexed=False)], [], found, by_person=False)

        async def one_pass(*_: object, **__: object) -> int:
            done.append("pass")
            return 0

        async def count(*_: object) -> int:
            done.append("count")
            return counts.pop(0)

        monkeypatch.setattr(TokenMap, "_target_tables", tables)
        monkeypatch.setattr(TokenMap, "_pass", one_pass)
        monkeypatch.setattr(TokenMap, "_mapped", count)
        none = cast("Any", None)
        made = TokenMap([cast("Any", Session())], "v2_", [COLUMN], [], none, none)
        await made.apply(left=False)
        return done

    return apply


@pytest.mark.parametrize(
    ("counts", "attached", "passes"),
    [
        ([0], "aa", 1),
        ([3, 0], "aaa", 2),  # others moved rows during the first pass
        ([0, 0], "abbb", 2),  # or attached a partition
    ],
)
async def test_a_pass_is_the_last_if_a_count_of_the_same_tables_finds_nothing(
    counts: list[int], attached: str, passes: int, applied: Any
) -> None:
    assert await applied(counts, attached) == ["pass", "count"] * passes


async def test_rows_that_others_keep_changing_end_it(applied: Any) -> None:
    with pytest.raises(TransientFault, match="kept being changed"):
        await applied([1] * PASSES_MAX, "a" * 2 * PASSES_MAX)
