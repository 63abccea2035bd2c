"""Expressions: JMESPath evaluated on a document, within bounds.

Loads jmespath: mappings without an expression do without it. What an expression sees, and what it
may cost, is in `expression_views.py`.

Promises: a value, or a PermanentFault with a code; no exception of the library gets out, because
those hold values. No I/O here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jmespath.exceptions import JMESPathError

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.expression_views import STEPS_FREE, Evaluate, StepBudget
from sqs2pg.mapping.jmespath_interpreter import Interpreter, TooCostlyError
from sqs2pg.mapping.json_slices import string
from sqs2pg.settings import expressions

_FAULTS = (JMESPathError, TypeError, ArithmeticError, ValueError)
"""What jmespath raises where a function or a comparison gets a value that it does not take."""


class Expression:
    """A compiled expression."""

    def __init__(self, text: str, *, of_when: bool = False) -> None:
        """`of_when`: it is the `when` of a route, whose faults have a code of their own: one is
        never false, because a filter would then drop the record.

        Raises SettingsError `bad_expression`.
        """
        self._tree = expressions.parse(text, "the expression").tree
        self._idle = [Interpreter()]
        self._of_when = of_when

    def holds(self, document: Any, budget: StepBudget) -> bool:
        """Return whether the result is true in JMESPath: not false, null, or empty.

        Raises PermanentFault.
        """
        return self._run(document, budget, Interpreter.is_true)  # type: ignore[no-any-return]

    def json(self, document: Any, budget: StepBudget) -> str | None:
        """Return the result as JSON text; None where it is null. Raises as `holds`."""
        return self._run(document, budget, Interpreter.json)  # type: ignore[no-any-return]

    def string(self, document: Any, budget: StepBudget) -> str | None:
        """As `json`, but return a string as it is. Raises `wrong_type` for other values, too."""
        return self._run(document, budget, Interpreter.string)  # type: ignore[no-any-return]

    def _run(
        self, document: Any, budget: StepBudget, finish: Callable[[Interpreter, Any], Any]
    ) -> Any:
        try:
            interpreter = self._idle.pop()
        except IndexError:  # another thread encodes, too
            interpreter = Interpreter()
        interpreter.left = budget.left + STEPS_FREE
        try:
            return finish(interpreter, interpreter.visit(self._tree, document))
        except TooCostlyError:
            code = "expression_too_costly"
        except RecursionError:  # the caller's stack is nearly full
            code = "expression_too_costly"
        except PermanentFault as fault:
            code = fault.code
        except _FAULTS:
            code = "condition_failed" if self._of_when else "expression_failed"
        finally:
            budget.left = min(budget.left, interpreter.left)  # what failed counts, too
            self._idle.append(interpreter)
        # Raised here, so that the fault has no `__context__`: those exceptions hold values.
        raise PermanentFault(code)


def evaluator(text: str, normalize: Callable[[str], str]) -> Evaluate:
    """Return the function that evaluates a field's expression.

    `normalize` makes the text that the field wants of the result, as it does of a slice of a
    document; it may raise PermanentFault, as the function does.
    """
    expression = Expression(text)
    if normalize is string:
        return expression.string

    def evaluate(document: Any, budget: StepBudget) -> str | None:
        found = expression.json(document, budget)
        return None if found is None else normalize(found)

    return evaluate
