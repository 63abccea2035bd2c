"""Expressions: JMESPath texts of the settings, checked at the start, and which paths they read.

What would fail for every message is refused here: a syntax error, an unknown function, a wrong
number of arguments, a constant of a type that a function does not take. `mapping/expression.py`
evaluates what is left. No I/O here.

What an expression reads is known from its tree alone, so it is known before any message comes. It
is rather too much than too little: a value that is passed to a function, compared or returned is
read with all that is below it, and so is an array whose elements are walked, and an object whose
names are not given (`*`).
"""

from __future__ import annotations

import functools
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import msgspec

from sqs2pg.errors import SettingsError, nearest
from sqs2pg.settings.fields import ATTRIBUTE, SYSTEM
from sqs2pg.settings.source_paths import EACH, Step

CHARACTERS_MAX = 4096
"""Of an expression. A longer one is a program, and belongs to the producer or to a view."""
DEPTH_MAX = 100
"""Most parts of an expression inside each other. Each takes up to three frames of the
interpreter, which has 1,000 (`sys.setrecursionlimit`)."""

Path = tuple[Step, ...]
"""From the top of the document; EACH for any element of an array."""
Names = tuple[str, ...]
"""A path without its arrays."""
Node = dict[str, Any]

_SYNTAX_HINT = (
    "JMESPath has texts in single quotes ('a'), numbers and other JSON in backticks (`10`); "
    "see https://jmespath.org/specification.html"
)
_BODY_HINT = (
    "an expression reads the body alone: what SQS or the producer says beside it is the source or "
    "the default of a field of its own"
)
_OF_MESSAGE = re.compile(rf"(?<![\"'`\w])({ATTRIBUTE}|{SYSTEM})")
_OPENING = {"lparen", "lbracket", "lbrace", "filter"}
_CLOSING = {"rparen", "rbracket", "rbrace"}
_GIVES_ITS_ARGUMENTS = frozenset(
    {
        *("not_null", "to_array", "to_number", "to_string", "reverse", "sort", "sort_by"),
        *("max", "max_by", "min", "min_by", "merge", "values"),
    }
)
"""Functions whose result is, or contains, one of their arguments as it stands."""


class Syntax(msgspec.Struct, frozen=True):
    """A parsed expression."""

    text: str
    tree: Node
    named: frozenset[Path]
    """The paths that it names, each with all that is below it; () is the whole document."""
    reads: frozenset[Names]
    """The paths whose values, with all that is below them, may decide the result."""
    present: frozenset[Path]
    """The paths that matter only by having a value or none, as in `user.{id: id}`."""
    gives: frozenset[Names]
    """The paths whose value, as it stands, may be the result."""

    @property
    def top_names(self) -> frozenset[str] | None:
        """The members of the document that it reads; None: any."""
        if () in self.reads:
            return None
        return frozenset(path[0] for path in (*self.reads, *map(_names, self.present)))

    def tells_of(self, path: Names) -> bool:
        """Whether the result may tell something of the value at a path, or of a part of it."""
        whole = (names[: len(path)] for names in map(_names, self.present))
        return path in whole or any(overlap(names, path) for names in self.reads)


def parse(text: str, where: str) -> Syntax:
    """Return the parsed expression. `where` names its place in an error.

    Raises SettingsError `bad_expression`, with the position of what is wrong.
    """
    syntax = _parsed(text)
    if isinstance(syntax, _Refusal):
        raise SettingsError(
            f"{where}: {syntax.what}", code="bad_expression", hint=syntax.hint or _SYNTAX_HINT
        )
    return syntax


def overlap(one: Names, other: Names) -> bool:
    """Whether the value at one path is, holds or is inside the value at the other."""
    return all(a == b for a, b in zip(one, other, strict=False))


class _Refusal(Exception):
    """What is wrong with an expression, wherever it stands."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__()
        self.what = what
        self.hint = hint


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Syntax | _Refusal:
    # The settings are read and compiled several times: what is known of a text is kept.
    try:
        tree, tokens = _tree(text)
        _check_calls(text, tokens)
        for depth, node in _nodes(tree):
            _check_node(node, depth)
    except _Refusal as refusal:
        return refusal.with_traceback(None)
    reads = _Reads()
    gives = reads.follow(tree, frozenset({()}))
    reads.use(gives)
    return Syntax(
        text,
        tree,
        frozenset(reads.named),
        frozenset(map(_names, reads.named | reads.walked)),
        frozenset(reads.present),
        frozenset(map(_names, gives)),
    )


def _tree(text: str) -> tuple[Node, list[Node]]:
    """Return an expression's tree and its tokens."""
    if len(text) > CHARACTERS_MAX:
        raise _Refusal(
            f"the expression has {len(text):,} characters; the most is {CHARACTERS_MAX:,}",
            "make it shorter, or compute the value in a view of the table",
        )
    # Only here: most mappings have no expression.
    from jmespath.exceptions import IncompleteExpressionError, JMESPathError, ParseError
    from jmespath.lexer import Lexer
    from jmespath.parser import Parser

    try:
        with warnings.catch_warnings():  # of `a` for a text, which the AWS CLI takes, too
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            return Parser().parse(text).parsed, list(Lexer().tokenize(text))
    except IncompleteExpressionError:
        raise _too_early(text) from None
    except ParseError as error:
        at = error.lex_position
        if at >= len(text):
            raise _too_early(text) from None
        hint = _BODY_HINT if _OF_MESSAGE.search(text) else ""
        raise _Refusal(f"the expression has a syntax error{_place(text, at)}", hint) from None
    except JMESPathError:
        raise _Refusal("the expression is empty") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # an index of thousands of digits
        raise _Refusal("the expression has a number that is too long") from None


def _place(text: str, at: int) -> str:
    rest = text[at:].split(maxsplit=1)
    near = f", at {rest[0][:20]!r}" if rest else ""
    return f" at character {at + 1}{near}"


def _too_early(text: str) -> _Refusal:
    return _Refusal(
        f"the expression ends too early, after character {len(text)}: something is missing"
    )


def _too_deep() -> _Refusal:
    return _Refusal(
        f"the expression is nested too deeply; the most is {DEPTH_MAX} parts inside each other",
        "split it into several fields, or make it simpler",
    )


def _nodes(tree: Node) -> Iterator[tuple[int, Node]]:
    """Yield each node with its depth."""
    waiting = [(1, tree)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        if node["type"] != "slice":  # its children are numbers
            waiting += [(depth + 1, child) for child in node["children"]]


def _check_node(node: Node, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise _too_deep()
    if node["type"] == "slice" and node["children"][2] == 0:
        raise _Refusal("the expression has a slice with step 0", "a step is not 0: [::2], [::-1]")
    if node["type"] in ("literal", "field", "key_val_pair"):
        _check_literal(node["value"])


def _check_literal(value: Any) -> None:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, float) and not math.isfinite(one):
            raise _Refusal("the expression has a number that no 64-bit float can hold")
        elif isinstance(one, str) and any("\ud800" <= character < "\ue000" for character in one):
            raise _Refusal("the expression has a text or a name with a lone surrogate")


def _check_calls(text: str, tokens: Sequence[Node]) -> None:
    """Refuse calls that would fail for every message."""
    wanted: set[int] = set()
    for index, token in enumerate(tokens[:-1]):
        if token["type"] == "unquoted_identifier" and tokens[index + 1]["type"] == "lparen":
            wanted |= _check_call(text, token, _arguments(tokens, index + 2))
    for token in tokens:
        if token["type"] == "expref" and token["start"] not in wanted:
            raise _Refusal(
                f"the expression has an & where no function takes one{_place(text, token['start'])}"
            )


def _arguments(tokens: Sequence[Node], first: int) -> list[list[Node]]:
    """Return the arguments of a call as their tokens; `first` is after the bracket."""
    depth, arguments = 0, [[]]  # type: tuple[int, list[list[Node]]]
    for token in tokens[first:]:
        kind = token["type"]
        if kind in _CLOSING:
            depth -= 1
            if depth < 0:
                break
        if kind == "comma" and depth == 0:
            arguments.append([])
            continue
        depth += kind in _OPENING
        arguments[-1].append(token)
    return [] if arguments == [[]] else arguments


def _check_call(text: str, name: Node, arguments: Sequence[Sequence[Node]]) -> set[int]:
    """Refuse a wrong call; return the positions of its expressions that start with &."""
    from jmespath.functions import REVERSE_TYPES_MAP, Functions

    known = Functions.FUNCTION_TABLE
    called, at = name["value"], _place(text, name["start"])
    if called not in known:
        near = nearest(called, known)
        raise _Refusal(
            f"the expression calls an unknown function {called!r}{at}",
            f"did you mean {near}()?" if near else f"known: {', '.join(sorted(known))}",
        )
    signature = known[called]["signature"]
    variadic = bool(signature and signature[-1].get("variadic"))
    if len(arguments) != len(signature) and not (variadic and len(arguments) > len(signature)):
        least = "at least " if variadic else ""
        raise _Refusal(
            f"the expression calls {called}() with {_arguments_text(len(arguments))}{at}",
            f"{called}() takes {least}{_arguments_text(len(signature))}",
        )
    found: set[int] = set()
    # zip: a variadic function's other arguments are of any type
    for number, (tokens, declared) in enumerate(zip(arguments, signature, strict=False), 1):
        types = declared["types"]
        is_expression = bool(tokens) and tokens[0]["type"] == "expref"
        literal = tokens[0]["value"] if _is_literal(tokens) else None
        takes = [one for kind in types for one in REVERSE_TYPES_MAP[kind.partition("-")[0]]]
        fits = not types or not _is_literal(tokens) or type(literal).__name__ in takes
        if is_expression != ("expref" in types) or not fits:
            of = "an expression such as &name" if "expref" in types else " or ".join(types)
            raise _Refusal(
                f"the expression calls {called}() with a wrong argument {number}{at}",
                f"argument {number} of {called}() is {of or 'a value'}",
            )
        if is_expression:
            found.add(tokens[0]["start"])
    return found


def _arguments_text(count: int) -> str:
    return f"{count} argument" + ("" if count == 1 else "s")


def _is_literal(tokens: Sequence[Node]) -> bool:
    return len(tokens) == 1 and tokens[0]["type"] == "literal"


class _Reads:
    """Follows an expression through its tree, and notes what it reads."""

    def __init__(self) -> None:
        self.named: set[Path] = set()
        self.walked: set[Path] = set()
        """Arrays whose elements are walked."""
        self.present: set[Path] = set()

    def use(self, paths: Iterable[Path]) -> None:
        """Note that the values at some paths are read as a whole."""
        self.named.update(paths)

    def follow(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        """Return the paths that a part of the expression may stand for, from where it starts.

        A value that is made, such as a number of a function, has no path: what it is made of is
        noted as read.
        """
        follow = getattr(self, f"_{node['type']}", None)
        if follow is None:
            _unknown(node)
        found: frozenset[Path] = follow(node, at)
        return found

    def _current(self, _node: Node, at: frozenset[Path]) -> frozenset[Path]:
        return at

    _identity = _current
    _slice = _current

    def _field(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        return frozenset((*path, node["value"]) for path in at)

    def _index(self, _node: Node, at: frozenset[Path]) -> frozenset[Path]:
        return _elements(at)

    def _literal(self, _node: Node, _at: frozenset[Path]) -> frozenset[Path]:
        return frozenset()

    def _subexpression(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        for child in node["children"]:
            at = self.follow(child, at)
        return at

    _index_expression = _subexpression
    _pipe = _subexpression

    def _flatten(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        found = self.follow(node["children"][0], at)
        self.walked.update(found)
        return found

    def _projection(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        base, each = node["children"][:2]
        found = self.follow(base, at)
        self.walked.update(found)
        return self.follow(each, _elements(found))

    def _filter_projection(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        base, each, condition = node["children"]
        found = self.follow(base, at)
        self.walked.update(found)
        self.use(self.follow(condition, _elements(found)))
        return self.follow(each, _elements(found))

    def _value_projection(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        base, each = node["children"]
        self.use(self.follow(base, at))
        return self.follow(each, frozenset())

    def _used(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        for child in node["children"]:
            self.use(self.follow(child, at))
        return frozenset()

    _comparator = _used
    _not_expression = _used
    _key_val_pair = _used

    def _multi_select_list(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        self.present.update(at - {()})  # of null it makes null
        return self._used(node, at)

    _multi_select_dict = _multi_select_list

    def _or_expression(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        left, right = (self.follow(child, at) for child in node["children"])
        self.use(left)  # whether it is empty decides
        return left | right

    _and_expression = _or_expression

    def _expref(self, node: Node, _at: frozenset[Path]) -> frozenset[Path]:
        # It starts at the elements of an array that the same call is given, and so reads whole.
        return self._used(node, frozenset())

    def _function_expression(self, node: Node, at: frozenset[Path]) -> frozenset[Path]:
        found = frozenset[Path]().union(*(self.follow(child, at) for child in node["children"]))
        self.use(found)
        return found if node["value"] in _GIVES_ITS_ARGUMENTS else frozenset()


def _elements(paths: Iterable[Path]) -> frozenset[Path]:
    return frozenset((*path, EACH) for path in paths)


def _names(path: Path) -> Names:
    return tuple(step for step in path if isinstance(step, str))


def _unknown(node: Node) -> NoReturn:
    # A newer jmespath may have more: what is not known here must not pass a check for masks.
    raise _Refusal(f"the expression has a part that sqs2pg does not know: {node['type']}")
