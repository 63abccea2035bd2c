"""Document expressions: the expressions of a mapping, evaluated on the documents of a batch.

Part of the usual way of `decode.py`. It only accepts: a message whose expression fails is
left to `documents.py`. No I/O here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.document_batch import WRONG, Batch, Column, Expanded
from sqs2pg.mapping.documents import NORMALIZERS, sources_of
from sqs2pg.mapping.expression_views import StepBudget, Viewer, views
from sqs2pg.mapping.lazy_expressions import evaluators
from sqs2pg.settings import Target, source_paths
from sqs2pg.settings.expression_rules import reads_element

_KEPT_CHARACTERS_MAX = 4 * 2**20
"""Of documents whose decoded values are kept while a batch is read: the others are decoded again by
each target that looks at them, and so never fill the memory together."""


class BatchViews:
    """What expressions see of the documents of one batch, and what they may still cost."""

    def __init__(self, viewer: Viewer, batch: Batch) -> None:
        self._view = viewer.view
        self._batch = batch
        self._seen: dict[int, Any] = {}
        self._left = _KEPT_CHARACTERS_MAX
        sizes: Counter[int] = Counter()
        for message, text in zip(batch.messages, batch.texts, strict=True):
            sizes[message] += len(text)
        self._budgets = {message: StepBudget(size) for message, size in sizes.items()}

    def at(self, position: int) -> tuple[Any, StepBudget]:
        """Return the document at a position, and the budget of its message."""
        budget = self._budgets[self._batch.messages[position]]
        if position in self._seen:
            return self._seen[position], budget
        text = self._batch.texts[position]
        document = self._view(text)
        self._left -= len(text)
        if self._left >= 0:
            self._seen[position] = document
        return document, budget


class TargetExpressions:
    """The expressions of one target's fields."""

    def __init__(self, target: Target) -> None:
        self._evaluate = evaluators(
            [
                (source.name, source.expression, NORMALIZERS[source.kind])
                for source in sources_of(target)
                if source.expression
            ]
        )
        explode = source_paths.explode_steps(target.explode)
        self._narrowed = explode if reads_element(target) else ()

    def columns(self, seen: BatchViews | None, its: Expanded) -> dict[str, Column]:
        """Return the texts of each expression, by the name of its source; WRONG where it fails."""
        if seen is None or not self._evaluate:
            return {}
        columns: dict[str, list[str | PermanentFault | None]] = {n: [] for n in self._evaluate}
        each = [(evaluate, columns[name].append) for name, evaluate in self._evaluate.items()]
        for document, budget in self._records(seen, its.documents):
            for evaluate, add in each:
                try:
                    add(evaluate(document, budget))
                except PermanentFault:
                    add(WRONG)
        return dict(columns)

    def _records(
        self, seen: BatchViews, positions: Sequence[int]
    ) -> Iterator[tuple[Any, StepBudget]]:
        if not self._narrowed:
            yield from map(seen.at, positions)
            return
        for position, group in groupby(positions):
            document, budget = seen.at(position)
            try:
                found = list(views(document, self._narrowed, budget))
            except PermanentFault:  # nothing is left of the budget: every expression fails
                found = [None for _ in group]
            for view in found:
                yield view, budget
