"""Compile expressions, loading jmespath with the first one: most mappings have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqs2pg.mapping.expression import Expression
    from sqs2pg.mapping.expression_views import Evaluate


def condition_of(text: str) -> Expression:
    """Return the compiled expression of a `when`. Raises SettingsError `bad_expression`."""
    from sqs2pg.mapping.expression import Expression

    return Expression(text, of_when=True)


def evaluators(
    sources: Sequence[tuple[str, str, Callable[[str], str]]],
) -> dict[str, Evaluate]:
    """Return what evaluates each source that is an expression, by the source's name.

    Such a source is its name, its expression, and what makes the text that the field wants. Raises
    SettingsError `bad_expression`.
    """
    if not sources:
        return {}
    from sqs2pg.mapping.expression import evaluator

    return {name: evaluator(text, normalize) for name, text, normalize in sources}
