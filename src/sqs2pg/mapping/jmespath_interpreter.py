"""The interpreter of expressions: jmespath's own, within bounds.

It counts the steps that it takes and the size of what it makes. Where jmespath takes Python's
meaning of a value for JSON's (1 equals true, "nan" is a number), JSON's counts here. No I/O here.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any

from jmespath.functions import Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.expression_views import DIGITS_MAX
from sqs2pg.mapping.json_slices import DEPTH_MAX

CHARACTERS_MAX = 2**20
"""Of a text that an expression makes, and of its result as JSON: as long as an SQS message."""
_CHARACTERS_A_STEP = 8
_COMPARED_A_STEP = 1024
"""Comparing or searching texts is that much faster than making them."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\Z")
_WHOLE = re.compile(r"[+-]?[0-9]+\Z")


class TooCostlyError(Exception):
    """The steps are spent, or a text or result is too large."""


class Interpreter(TreeInterpreter):  # type: ignore[misc]
    """jmespath's interpreter, counting its steps."""

    def __init__(self) -> None:
        super().__init__(Options(custom_functions=_Functions(self)))
        self.left = 0
        self._visits: dict[str, Callable[..., Any]] = {
            name.removeprefix("visit_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("visit_")
        }

    def spend(self, steps: int) -> None:
        """Take steps off the budget."""
        self.left -= steps
        if self.left < 0:
            raise TooCostlyError

    def visit(self, node: Any, value: Any) -> Any:
        """Evaluate one part of the expression on a value."""
        self.left -= 1
        if self.left < 0:
            raise TooCostlyError
        return self._visits[node["type"]](node, value)

    def visit_comparator(self, node: Any, value: Any) -> Any:
        """Compare as JSON does. An order of a text and a number has no meaning: it fails."""
        left, right = (self.visit(child, value) for child in node["children"])
        name = node["value"]
        if name in ("eq", "ne"):
            return self.same(left, right) is (name == "eq")
        if not (_is_ordered(left) and _is_ordered(right)):
            return None
        if isinstance(left, str):
            self.spend(len(left) // _COMPARED_A_STEP)
        return self.COMPARATOR_FUNC[name](left, right)

    def visit_flatten(self, node: Any, value: Any) -> Any:
        """Join the arrays in an array."""
        base = self.visit(node["children"][0], value)
        if not isinstance(base, list):
            return None
        self.spend(len(base) + sum(len(one) for one in base if isinstance(one, list)))
        merged: list[Any] = []
        for one in base:
            merged += one if isinstance(one, list) else [one]
        return merged

    def visit_slice(self, node: Any, value: Any) -> Any:
        """Return a part of an array."""
        if isinstance(value, list):
            self.spend(len(value))
        return super().visit_slice(node, value)

    def same(self, one: Any, other: Any) -> bool:
        """Whether two values are equal in JSON: 1 is 1.0, and no boolean."""
        pairs = [(one, other)]
        while pairs:
            self.spend(1)
            left, right = pairs.pop()
            if isinstance(left, list):
                if not isinstance(right, list) or len(left) != len(right):
                    return False
                pairs += zip(left, right, strict=True)
            elif isinstance(left, dict):
                if not isinstance(right, dict) or left.keys() != right.keys():
                    return False
                pairs += ((value, right[name]) for name, value in left.items())
            elif isinstance(left, bool) or isinstance(right, bool):
                if left is not right:
                    return False
            else:
                if isinstance(left, str):
                    self.spend(len(left) // _COMPARED_A_STEP)
                if left != right:
                    return False
        return True

    def made(self, characters: int) -> None:
        """Bound a text before it is made."""
        if characters > CHARACTERS_MAX:
            raise TooCostlyError
        self.spend(characters // _CHARACTERS_A_STEP)

    def json(self, value: Any) -> str | None:
        """Return a result as JSON text; None for null."""
        if value is None:
            return None
        if isinstance(value, str):
            self.made(len(value))
        elif isinstance(value, bool):
            return "true" if value else "false"
        elif isinstance(value, int | float):
            return _number_text(value)
        else:
            self._measure(value)
        return json.dumps(value, ensure_ascii=False, check_circular=False, separators=(",", ":"))

    def string(self, value: Any) -> str | None:
        """Return a result that must be a string; None for null."""
        if value is None:
            return None
        if not isinstance(value, str):
            raise PermanentFault("wrong_type")
        self.made(len(value))
        return value

    def is_true(self, value: Any) -> bool:
        """Whether a value is true in JMESPath."""
        return not self._is_false(value)

    def _measure(self, value: Any) -> None:
        """Bound a value before it becomes JSON text. One value may stand in it many times."""
        characters = 0
        waiting: list[tuple[Any, int]] = [(value, 1)]
        while waiting:
            self.spend(1)
            one, depth = waiting.pop()
            if isinstance(one, str):
                characters += len(one)
            elif isinstance(one, list | dict):
                if depth > DEPTH_MAX:
                    raise TooCostlyError
                self.spend(len(one))
                if isinstance(one, dict):
                    characters += sum(map(len, one))
                waiting += ((inner, depth + 1) for inner in _inside(one))
            elif isinstance(one, float):
                _number_text(one)
            characters += 1
            if characters > CHARACTERS_MAX:
                raise TooCostlyError
        self.made(characters)


class _Functions(Functions):  # type: ignore[misc]
    """jmespath's functions, counting what they handle."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def call_function(self, function_name: str, resolved_args: list[Any]) -> Any:
        """Call a function after counting its arguments."""
        for value in resolved_args:
            if isinstance(value, str):
                self._interpreter.spend(len(value) // _COMPARED_A_STEP)
            elif isinstance(value, list | dict):
                self._interpreter.spend(len(value))
        function, fits = _quick_checks()[function_name]
        if len(fits) == len(resolved_args) and all(map(_fits, fits, resolved_args)):
            return function(self, *resolved_args)
        return super().call_function(function_name, resolved_args)  # which says what is wrong

    @signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]
    def _func_join(self, separator: str, array: list[str]) -> str:
        self._interpreter.made(len(separator) * len(array) + sum(map(len, array)))
        return separator.join(array)

    @signature({"types": ["array", "string"]})  # type: ignore[untyped-decorator]
    def _func_reverse(self, arg: Any) -> Any:
        if isinstance(arg, str):
            self._interpreter.made(len(arg))
        return arg[::-1]

    @signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_to_string(self, arg: Any) -> str:
        if isinstance(arg, str):
            return arg
        return self._interpreter.json(arg) or "null"

    @signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_to_number(self, arg: Any) -> int | float | None:
        if isinstance(arg, int | float) and not isinstance(arg, bool):
            return arg
        if not isinstance(arg, str) or len(arg) > DIGITS_MAX or not _NUMBER.match(arg):
            return None
        return int(arg) if _WHOLE.match(arg) else float(arg)

    @signature({"types": ["object"], "variadic": True})  # type: ignore[untyped-decorator]
    def _func_merge(self, *arguments: dict[str, Any]) -> dict[str, Any]:
        if not all(isinstance(one, dict) for one in arguments):  # jmespath looks at the first only
            raise TypeError
        return {name: value for one in arguments for name, value in one.items()}

    @signature({"types": ["array", "string"]}, {"types": []})  # type: ignore[untyped-decorator]
    def _func_contains(self, subject: Any, search: Any) -> bool:
        if isinstance(subject, str):
            return search in subject
        return any(self._interpreter.same(one, search) for one in subject)


_TYPES: dict[str, frozenset[type]] = {
    "boolean": frozenset({bool}),
    "array": frozenset({list}),
    "object": frozenset({dict}),
    "null": frozenset({type(None)}),
    "string": frozenset({str}),
    "number": frozenset({int, float}),
}
_Fits = tuple[frozenset[type] | None, frozenset[type] | None]
"""The types of an argument, and of an array's elements; None: any."""


@functools.cache
def _quick_checks() -> dict[str, tuple[Callable[..., Any], list[_Fits]]]:
    """Return each function with what its arguments usually are. They may be other things, too."""
    return {
        name: (one["function"], [_usual(argument["types"]) for argument in one["signature"]])
        for name, one in _Functions.FUNCTION_TABLE.items()
    }


def _usual(types: list[str]) -> _Fits:
    if not types:
        return None, None
    outer, _, inner = types[0].partition("-")
    if inner:
        return _TYPES[outer], _TYPES[inner]
    return frozenset[type]().union(*(_TYPES.get(name, ()) for name in types)), None


def _fits(usual: _Fits, value: Any) -> bool:
    outer, inner = usual
    if outer is not None and type(value) not in outer:
        return False
    return inner is None or inner.issuperset(map(type, value))


def _inside(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _is_ordered(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _number_text(value: float) -> str:
    """Return a number as JSON. Raises PermanentFault `out_of_range` where JSON has none for it."""
    if not isinstance(value, int) and not math.isfinite(value):
        raise PermanentFault("out_of_range")
    return repr(value)
