"""When a pass over a target suffices, while others move its rows."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.vault.target_rows import PAGES_AT_ONCE, Leaf, TargetTables
from sqs2pg.vault.token_map import RecoverableColumn, TokenMap

COLUMN = RecoverableColumn('"t"', '"token"', "ip", {})


class Session:
    async def execute(self, *_: object) -> list[Any]:
        return []


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Apply a map to tables of so many pages; return what was done.

    `passes` and `counts` are how many old tokens each pass and each count in one snapshot find.
    """

    async def apply(pages: list[int], passes: list[int], counts: list[int]) -> list[str]:
        done: list[str] = []
        leaves = [Leaf(f'"t{at}"', size, indexed=False) for at, size in enumerate(pages)]

        async def tables(*_: object) -> TargetTables:
            return TargetTables(leaves, [], frozenset(), by_person=False)

        async def one_pass(*_: object) -> int:
            done.append("pass")
            return passes.pop(0) if len(passes) > 1 else passes[0]

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


async def test_a_pass_over_one_part_that_finds_nothing_is_the_last(applied: Any) -> None:
    assert await applied([1], [3, 0], []) == ["pass", "pass"]


@pytest.mark.parametrize("pages", [[3 * PAGES_AT_ONCE], [1, 1]])
async def test_after_a_pass_over_parts_a_count_in_one_snapshot_decides(
    pages: list[int], applied: Any
) -> None:
    done = await applied(pages, [0, 2, 0], [4, 0])
    assert done == ["pass", "count", "pass", "pass", "count"]


async def test_rows_that_others_keep_changing_end_it(applied: Any) -> None:
    with pytest.raises(TransientFault, match="kept being changed"):
        await applied([1], [1], [])
