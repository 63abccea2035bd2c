"""Made-up mappings, and messages for them: good ones, nearly good ones and hostile ones.

Everything is drawn from a `random.Random`; Hypothesis has one that it can shrink, and a long run
takes Python's own, which is faster.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

from sqs2pg.mapping.columns import Column, column_for
from sqs2pg.mapping.field_types import ARRAY, FIELD_TYPES
from sqs2pg.mask.registry import properties
from sqs2pg.message import Message, MessageAttribute, SystemAttributes
from sqs2pg.settings import (
    EnvelopeSettings,
    Field,
    LedgerSettings,
    Settings,
    SinkSettings,
    When,
    source_paths,
)
from sqs2pg.settings.mask_rules import MASKABLE, MASKABLE_ARRAYS
from sqs2pg.settings.routes import Route
from sqs2pg.settings.staged_fields import with_staged_fields

SENT_MS = 1_795_384_388_351
_NAMES = ("a", "b", "c", "id", "kind", "naïve", "x y")
_MASKS = (
    *("pseudonymize", "pseudonymize", "sha256", "redact", "nullify", "keep", "truncate_ip"),
    "partial",
)
_LAYERS: tuple[tuple[str, ...], ...] = (
    *[()] * 6, ("sns",), ("sns",), ("eventbridge",), ("s3",), ("sns", "eventbridge"), ("s3", "sns"),
    ("auto",),
)  # fmt: skip
_EXPLODED = ("items", "a.items", "c[0].items[]", "items")
_TEXTS = (
    "", "x", "plain text", "café", "日本語", "a\tb", "line\nbreak", 'quo"te', "back\\slash", "\\N",
    "\x7f", "e\u0301", "\U0001f600", "\u2028", "x" * 40, "\u017f", "\u00a0", "İ", "a\x1fb", "null",
    "NULL", "a,b", "{}", "\u0345", "ΑΣ", "한국어", "Ω", "ẞ", "\u0958", "đặng", "/", "\b\f\r",
)  # fmt: skip
_VALUES: Mapping[str, tuple[Any, ...]] = {
    "integer": (0, 7, -1, 2**31 - 1, -(2**31), 32767, 12),
    "bigint": (0, 1_795_384_388_351, -(10**17), 10**18 - 1, 5),
    "boolean": (True, False),
    "date": ("2026-11-22", "2024-02-29", "2026-11-22T23:30:00-02:00", "0001-01-01"),
    "uuid": ("424CDD21-063A-43A7-B91B-7CA1A833AFAE", "424cdd21-063a-43a7-b91b-7ca1a833afae"),
    "inet": ("10.0.0.1", "192.0.2.0/24", "10.0.0.0/08"),
    "version": ("2.3.0", "1", "0.10", "2146.999.999", "007.1"),
    "major": ("2.3.0", "1", "12.10000.3"),
    "timestamptz": (
        "2026-03-01T12:00:00.25+01:00", "2026-03-01 12:00:00Z", "2024-02-29t23:59:59.1234567z",
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-00:00", "2026-01-01T00:30:00+05:45",
        "2000-02-29T23:59:59.999999-23:59",
    ),
    "bytea": ("", "AP8=", "+/+/", "-_-_", "aGVsbG8gd29ybGQ=", "AA=="),
    "interval": ("P1DT2H", "1 day 02:00:00", "PT0.5S"),
    "ip": ("199.172.111.135", "0.0.0.0", "255.255.255.255"),
    "email": ("Ada@Example.ORG", "a+b@c", "x@y@z.example"),
    "phone": ("+49 30 1234", "(555) 123-4567", "0049/30.1"),
}  # fmt: skip
_NUMBERS = (
    "0", "7", "-7", "1.50", "0.25", "-0.5", "19.90", "0.000001", "0.0000001", "123456789012345678",
    "10.5", "100.0", "1e5", "-0", "-0.0", "0.0", "0.0000000", "1E-3", "12345678901234567890",
    "1.7976931348623157e308", "1e400", "0.1", "3.14159265358979", "2.5e-9", "9007199254740993",
    "0.30000000000000004", "1e22", "1e16", "123456.789e3", "5e-324", "0e0",
)  # fmt: skip
_ODD: tuple[Any, ...] = (
    None, "", "odd", 5, -0.5, True, [], {}, [1, {"a": None}], {"a": 1, "b": {"c": [2]}},
    "::1", "::ffff:1.2.3.4", "01.2.3.4", "1.2.3.4 ", "300.1.1.1", "2023-02-29", "2024-13-01",
    "2026-12-31T23:59:60Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00", "10000-01-01",
    "2026-01-01T00:00:00+24:00", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+00:01",
    "1.2.3.4.5", "1.", "2147.0", "1.1000", "10.0.0.1/33", "10.0.0.1/", "not@", "@x", "a b@c",
    "{424cdd21-063a-43a7-b91b-7ca1a833afae}", "urn:uuid:424cdd21-063a-43a7-b91b-7ca1a833afae",
    "424cdd21063a43a7b91b7ca1a833afae", "4" * 16, "+", "a\u0300\u0301", "\ud800", "a\x00b", 2**31,
    2**63, -(2**63) - 1, "x" * 300, "é@example.org", "\u00a0555", "true", "7",
)  # fmt: skip
_FORMATS = ("epoch_s", "epoch_ms", "epoch_us", "epoch_ms", "rfc3339", "iso8601")
_MAP_KEYS = (
    "x",
    "plain text",
    "",
    "7",
    "-7",
    "1.50",
    "true",
    "false",
    "café",
    "odd",
    "a\tb",
    "null",
)
_EPOCHS: tuple[Any, ...] = (
    0, 1, -1, 1_795_384_388, 1_795_384_388_351, 1_795_384_388_351_123, "1795384388351", "0", "-1",
    "007", "+7", "1795384388.25", "-0.5", "-0.0000001", "0.1234567", "1.7e12", "1e400", "-", "1.",
    ".5", -62_135_596_800, -62_135_596_801, 253_402_300_799, 253_402_300_800, 10**17, 10**18, "-0",
    10**19, "-62135596800000000", "253402300799999999", "999999999999", "9999999999999", "0.0",
    "-1.000000",
)  # fmt: skip
_SPELLED = ("2026-03-01T12:00:00+0100", "20260301T120000Z", "2026-W09-7", "2026-03-01T12:00",
            "0001-01-01T00:00:00+01:00", "9999-12-31T23:30:00-01:00")  # fmt: skip
_HOSTILE = ('"', "\\", "{", "}", "[", "]", ",", ":", "null", "0", ".", " ", "", "\\u", "\\ud83d",
            "\x00", "\x1f", "é", "e9", "-", "\ufeff", "\n")  # fmt: skip

_SELDOM = tuple(
    name for name in FIELD_TYPES if name.endswith("[]") or name in ("bytea", "interval")
)
_OFTEN = tuple(name for name in FIELD_TYPES if name not in _SELDOM)
_SELDOM_SHARE = 0.04
"""Of types that the C code leaves to Python."""


class Token(str):
    """JSON as it stands."""

    __slots__ = ()


class MadeUp:
    """A mapping and its columns."""

    def __init__(self, draw: Random) -> None:
        self._draw = draw
        routed = draw.random() < 0.25
        self._types: dict[str, str] = {}
        self._converted: dict[str, dict[str, Any]] = {}
        self._layers = draw.choice(_LAYERS)
        envelope = EnvelopeSettings(
            layers=self._layers,
            records=draw.choice(("one", "one", "one", "array", "lines", "auto")),
        )
        common: dict[str, Any] = {
            "envelope": envelope,
            "unknown_fields": draw.choice(("drop", "drop", "quarantine")),
            "unmatched": draw.choice(("quarantine", "drop")),
            "sink": SinkSettings(table="t0"),
            "ledger": LedgerSettings(
                dedupe_key=draw.choice(("", "", "", "", "id", "kind", "a.kind", "name"))
            ),
        }
        if routed:
            routes = tuple(self._route(number) for number in range(draw.randint(1, 3)))
            if all(route.when for route in routes) and draw.random() < 0.2:
                routes += (Route(drop=True),)
            self.settings = Settings(route=routes + self._filters(), **common)
        else:
            explode = draw.choice(_EXPLODED) if draw.random() < 0.4 else ""
            fields = self._fields(explode)
            self.settings = Settings(field=fields, explode=explode, route=self._filters(), **common)
        if draw.random() < 0.25:
            self.settings = self._deleting(self.settings)
        self.columns = [
            [self._column(field) for field in target.fields] for target in self.settings.targets
        ]

    def _route(self, number: int) -> Route:
        draw = self._draw
        explode = draw.choice(_EXPLODED) if draw.random() < 0.3 else ""
        when = self._when() if draw.random() < 0.8 else None
        return Route(table=f"t{number}", when=when, explode=explode, field=self._fields(explode))

    def _when(self) -> When:
        draw = self._draw
        return When(
            field=draw.choice(("kind", "kind", "a.kind", "id", "items")),
            equals=draw.choice((None, "x", 7, True, 1.5, "café")),
            any_of=draw.choice(((), ("x", "odd"), (7, 5, 0), (False, 0))),
            exists=draw.choice((None, None, True, False)),
        )

    def _filters(self) -> tuple[Route, ...]:
        if self._draw.random() < 0.85:
            return ()
        return tuple(Route(drop=True, when=self._when()) for _ in range(self._draw.randint(1, 2)))

    def _deleting(self, made: Settings) -> Settings:
        """Return the settings with `delete_when` where a target has a column that may be a key."""
        target = self._draw.choice(made.targets)
        keys = [
            field.column
            for field in target.fields
            if field.type in MASKABLE and field.over_length != "truncate"
        ]
        when = self._when()
        if not keys or not (when.equals is not None or when.any_of or when.exists is not None):
            return made
        write = {"mode": "upsert", "key": (keys[0],), "delete_when": when}
        if not target.route:
            sink = msgspec.structs.replace(made.sink, **write)
            return with_staged_fields(msgspec.structs.replace(made, sink=sink))
        routes = tuple(
            msgspec.structs.replace(route, **write) if route.table == target.table else route
            for route in made.route
        )
        return with_staged_fields(msgspec.structs.replace(made, route=routes))

    def _fields(self, explode: str) -> tuple[Field, ...]:
        draw = self._draw
        fields = tuple(self._field(f"c{i}", explode) for i in range(draw.randint(1, 5)))
        if draw.random() < 0.15:
            names = dict.fromkeys(self._path("") for _ in range(draw.randint(1, 2)))
            free = names.keys() - {source for field in fields for source in field.sources}
            return fields + tuple(Field(source=name, mask="drop") for name in sorted(free))
        return fields

    def _path(self, explode: str) -> str:
        draw = self._draw
        path = ""
        if explode and draw.random() < 0.6:
            path = explode.removesuffix("[]") + "[]"
            if draw.random() < 0.1:
                return path
        for _ in range(draw.choice((1, 1, 1, 2, 2, 3))):
            name = draw.choice(_NAMES)
            if path and draw.random() < 0.15:
                path += f"[{draw.randint(0, 2)}]" if draw.random() < 0.97 else "[-1]"
            elif " " in name:
                path += f"['{name}']"
            else:
                path += f".{name}" if path else name
        return path

    def _field(self, column: str, explode: str) -> Field:
        draw = self._draw
        types = _SELDOM if draw.random() < _SELDOM_SHARE else _OFTEN
        type_ = draw.choice(types) if draw.random() < 0.7 else "text"
        source = self._path(explode) if draw.random() < 0.9 else ""
        if source and draw.random() < 0.98:  # two types of one value are mostly an error
            type_ = self._types.setdefault(source, type_)
        if type_ == "jsonb" and draw.random() < 0.1:
            source = "$"
        mask, kind = "keep", "text"
        if draw.random() < (0.4 if type_ in (*MASKABLE, *MASKABLE_ARRAYS) else 0.05):
            mask = draw.choice(_MASKS)
            kind = draw.choice(properties(mask).kinds)
        mixed = kind == "ip" and mask in ("pseudonymize", "sha256") and draw.random() < 0.1
        conversions = self._conversions(type_) if draw.random() < 0.4 else {}
        if source and draw.random() < 0.97:  # two kinds of one value are mostly an error
            conversions = self._converted.setdefault(source, conversions)
        if source and draw.random() < 0.1:
            source = (source, *(self._path(explode) for _ in range(draw.randint(1, 2))))
        if mixed and not conversions.get("map"):
            conversions = {**conversions, "otherwise": "text"}
        return Field(
            **conversions,
            source=source,
            column=column,
            type=type_,
            mask=mask,
            kind=kind,
            required=draw.random() < 0.15,
            default=self._default(type_, source) if draw.random() < 0.35 or not source else None,
            length_max=draw.choice((None, None, None, 3, 12, 64)),
            over_length=draw.choice(("quarantine", "truncate")),
        )

    def _conversions(self, type_: str) -> dict[str, Any]:
        """Return settings of a field that fit its type, mostly."""
        draw = self._draw
        made: dict[str, Any] = {}
        if draw.random() < 0.6:
            made["from_"] = "text"
        if type_ in ("date", "timestamptz") and draw.random() < 0.7:
            made["format"] = draw.choice(_FORMATS)
            if made["format"] == "iso8601" and draw.random() < 0.3:
                made["timezone"] = "Europe/Berlin"
        texts = type_ not in ("integer", "bigint", "numeric", "double", "boolean", "jsonb")
        if texts or made.get("from_"):
            made["trim"] = draw.random() < 0.4
            made[draw.choice(("lower", "upper"))] = draw.random() < 0.3
            made["empty"] = draw.choice(("keep", "null"))
        if type_ != "jsonb" and draw.random() < 0.35:
            constants = ["7", 7, "1"] if type_ not in ("text", "boolean") else ["x", "é", "", True]
            constants = ["true", False] if type_ == "boolean" else constants
            constants = ["2026-01-01"] if type_ in ("date", "timestamptz") else constants
            keys = draw.sample(_MAP_KEYS, draw.randint(1, 5))
            made["map"] = {key: draw.choice(constants) for key in keys}
            made["otherwise"] = draw.choice(
                (None, "quarantine", "keep", "keep", "null", constants[0])
            )
        return made

    def _default(self, type_: str, source: str) -> Any:
        if self._draw.random() < 0.3:
            said = {
                "text": ["sent_date", "sent_time", "message_id"],
                "date": ["sent_date", "sent_date", "sent_time"],
                "timestamptz": ["sent_time"],
                "bigint": ["sent_time"],
                "uuid": ["message_id"],
            }.get(type_, [])
            layers = self._layers
            said += ["attribute:sns.Timestamp", "attribute:sns.Subject"] if "sns" in layers else []
            said += ["attribute:eventbridge.id"] if "eventbridge" in layers else []
            if type_ in ("text", "integer", "bigint", "numeric", "double") and not source:
                said += ["record_index", "record_index"]
            # With an envelope around it, an attribute of its own leaves a mapping to Python.
            if source or set(layers) <= {"s3"}:
                said += ["attribute:tenant", "attribute:s3.key"]
            return self._draw.choice(said or [None])
        if type_ == "jsonb":
            return self._draw.choice(("[]", '{"a": 1}'))
        value = self.value(Field(column="x", type=type_))
        if isinstance(value, list):
            return self.write(value)
        return str(value).lower() if isinstance(value, (Token, bool)) else value

    def _column(self, field: Field) -> Column:
        draw = self._draw
        if field.column.startswith("sqs2pg_"):  # it is staged
            return column_for(field)
        plain = column_for(field).type
        name = plain
        array = ARRAY if plain.startswith(ARRAY) else ""
        if draw.random() < 0.25:
            name = array + draw.choice(("text", "varchar", "varchar", "varchar", "int2"))
        length = draw.choice((None, 8, 36)) if name.endswith("varchar") else None
        labels = ("x", "plain text", "") if draw.random() < 0.01 else None
        return Column(field.column, name, length, nullable=draw.random() < 0.85, labels=labels)

    def value(self, field: Field) -> Any:
        """Return a value that the field usually takes."""
        draw = self._draw
        made = self._plain_value(field)
        if field.format and draw.random() < 0.9:
            epoch = field.format.startswith("epoch")
            made = draw.choice(_EPOCHS) if epoch else draw.choice((made, *_SPELLED))
            if isinstance(made, str) and epoch and draw.random() < 0.3:
                made = Token(made)
        if field.from_ and draw.random() < 0.5 and not isinstance(made, dict | list):
            made = str(made).lower() if isinstance(made, bool) else str(made)
        if field.map and draw.random() < 0.5:
            made = draw.choice(_MAP_KEYS)
        if field.edits_text and isinstance(made, str) and draw.random() < 0.3:
            made = (
                draw.choice(("", " ", "\t", "\x1f", "\u00a0")) + made + draw.choice((" ", "\n", ""))
            )
        if field.edits_text and isinstance(made, str) and draw.random() < 0.3:
            made = made.swapcase()
        return made

    def _plain_value(self, field: Field) -> Any:
        draw = self._draw
        kind = field.kind if field.mask != "keep" or field.kind != "text" else "text"
        if field.type.endswith("[]"):
            element = msgspec.structs.replace(field, type=FIELD_TYPES[field.type].element)
            odd = draw.choice(_ODD) if draw.random() < 0.05 else None
            some = [self.value(element) for _ in range(draw.choice((0, 1, 1, 2, 5)))]
            return [*some, odd] if draw.random() < 0.2 else some
        if field.type in ("numeric", "double"):
            return Token(draw.choice(_NUMBERS[:12] if draw.random() < 0.8 else _NUMBERS))
        if field.type == "jsonb":
            return draw.choice((*_ODD[6:10], "text", Token("1.50"), {"n": "é", "m": Token("2.0")}))
        if field.mask == "truncate_ip":
            kind = "ip"
        return draw.choice(_VALUES.get(kind if field.type == "text" else field.type, _TEXTS))

    def body(self) -> str:
        """Return the body of a message for the mapping, with its envelope."""
        draw = self._draw
        records = self.settings.envelope.records
        several = {"one": 1, "auto": draw.choice((1, 1, 2, 3))}.get(records, draw.randint(0, 3))
        documents = [self.write(self._document()) for _ in range(several)]
        if records == "lines" or (records == "auto" and several > 1 and draw.random() < 0.3):
            text = "\n".join(documents) + draw.choice(("", "\n", "\n \n"))
        elif records == "array" or several > 1:
            text = f"[{','.join(documents)}]"
        else:
            text = documents[0]
        text = self.damaged(text, 0.12)
        for layer in reversed(self.settings.envelope.layers):
            text = self.damaged(self._wrapped(layer, text), 0.04)
        return text

    def _wrapped(self, layer: str, text: str) -> str:
        draw = self._draw
        odd = draw.random() < 0.1
        if layer == "sns":
            names: dict[str, Any] = {
                "Type": "Notification" if not odd else draw.choice(("SubscriptionConfirmation", 1)),
                "MessageId": draw.choice((draw.randbytes(4).hex(), 7)),
                "TopicArn": "arn:aws:sns:eu-central-1:1:orders",
                "Subject": draw.choice((None, "2026-01-01", "é")),
                "Message": text,
                "Timestamp": "2026-05-02T00:54:06.655Z",
            }
            if draw.random() < 0.3:
                name = draw.choice(("tenant", "sns.Timestamp", "sns.Subject"))
                names["MessageAttributes"] = {name: {"Type": "String", "Value": "2026-01-01"}}
        elif layer == "eventbridge":
            names = dict.fromkeys(("version", "detail-type", "account", "region"), "x")
            names |= {"id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "source": draw.choice(("s", 1))}
            names |= {"time": "2017-12-22T18:43:48Z", "resources": [], "detail": Token(text)}
        else:
            return text
        if draw.random() < 0.06:
            del names[draw.choice(tuple(names))]
        return self.write(names)

    def _document(self) -> Any:
        draw = self._draw
        if draw.random() < 0.02:
            return draw.choice(_ODD)
        document: dict[str, Any] = {}
        for target in self.settings.targets:
            fields = [field for field in target.fields if field.source]
            for field in draw.sample(fields, len(fields)):
                for source in field.sources:
                    if len(field.sources) == 1 or draw.random() < 0.5:
                        one = msgspec.structs.replace(field, source=source)
                        self._put(document, one, target.explode)
            if target.explode and draw.random() < 0.9:
                self._set(
                    document, source_paths.parse(target.explode.removesuffix("[]")), [], keep=True
                )
            for when in (target.when, target.write.delete_when):
                if when is not None and draw.random() < 0.9:
                    wanted = [*when.any_of, when.equals, "x", 7]
                    steps = source_paths.parse(when.field)
                    self._set(document, steps, draw.choice(wanted), keep=True)
        for one in self.settings.filters:
            if draw.random() < 0.5:
                wanted = [*one.when.any_of, one.when.equals, "x", 7]
                steps = source_paths.parse(one.when.field)
                self._set(document, steps, draw.choice(wanted), keep=True)
        for _ in range(draw.choice((0, 0, 1, 3))):
            document.setdefault(
                draw.choice((*_NAMES, "more", "other")), copy.deepcopy(draw.choice(_ODD))
            )
        return document

    def _put(self, document: dict[str, Any], field: Field, explode: str) -> None:
        draw = self._draw
        if draw.random() < 0.12:
            return
        steps = source_paths.parse(field.source)
        if None in steps:
            array = explode.removesuffix("[]")
            at = steps.index(None)
            rows = self._set(document, source_paths.parse(array), [], keep=True)
            if not isinstance(rows, list):
                return
            while len(rows) < 3 and (not rows or draw.random() < 0.5):
                rows.append({})
            for row in rows:
                if isinstance(row, dict) and draw.random() < 0.9 and steps[at + 1 :]:
                    self._set(row, steps[at + 1 :], self._any_value(field))
        elif steps:
            self._set(document, steps, self._any_value(field))

    def _any_value(self, field: Field) -> Any:
        odd = self._draw.random()
        if odd < 0.06:
            return Token(self._draw.choice(_NUMBERS)) if odd < 0.02 else self._draw.choice(_ODD)
        return self.value(field)

    def _set(self, tree: Any, steps: Sequence[Any], value: Any, *, keep: bool = False) -> Any:
        """Put a value at a path, making what leads there; `keep`: not over one that is there."""
        for number, step in enumerate(steps):
            last = number == len(steps) - 1
            new = copy.deepcopy(value) if last else [] if isinstance(steps[number + 1], int) else {}
            if isinstance(step, int) and isinstance(tree, list):
                while not -len(tree) <= step < len(tree):
                    tree.append(None)
                if (last and not keep) or tree[step] is None:
                    tree[step] = new
                tree = tree[step]
            elif isinstance(step, str) and isinstance(tree, dict):
                if (last and not keep) or tree.get(step) is None:
                    tree[step] = new
                tree = tree[step]
            else:
                return None
        return tree

    def write(self, value: Any) -> str:
        """Return a value as JSON, in one of the ways that it can be written."""
        draw = self._draw
        if isinstance(value, Token):
            return str(value)
        space = draw.choice(("", "", "", " ", "\n", "\r\t"))
        if isinstance(value, dict):
            pairs = list(value.items())
            if pairs and draw.random() < 0.02:
                pairs.append((pairs[0][0], draw.choice(_ODD)))
            inside = [f"{self._quoted(k)}{space}:{space}{self.write(v)}" for k, v in pairs]
            return f"{{{space}{f',{space}'.join(inside)}{space}}}"
        if isinstance(value, list):
            return f"[{space}{','.join(map(self.write, value))}{space}]"
        return self._quoted(value) if isinstance(value, str) else json.dumps(value)

    def _quoted(self, text: str) -> str:
        way = self._draw.random()
        if way < 0.03 and text and all(c < "\ud800" for c in text):
            return '"' + "".join(f"\\u{ord(c):04X}" for c in text) + '"'
        if way < 0.05 and "/" in text:
            return json.dumps(text).replace("/", "\\/")
        return json.dumps(text, ensure_ascii=way < 0.5)

    def damaged(self, text: str, share: float) -> str:
        """Return the text, seldom changed at a few places."""
        draw = self._draw
        if draw.random() < share:
            for _ in range(draw.randint(1, 2)):
                at = draw.randint(0, len(text))
                text = text[:at] + draw.choice(_HOSTILE) + text[at + draw.randint(0, 2) :]
        return text

    def message(self) -> Message:
        """Return a message for the mapping."""
        draw = self._draw
        digits = draw.randbytes(16).hex()
        name = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
        if draw.random() < 0.008:
            name = draw.choice(("m", "a\tb\\", "\N{DIGIT ONE}é", "nul\x00", "x" * 36))
        attributes = None
        if draw.random() < 0.3:
            text = draw.choice(("v", "2026-01-01", "", "Zoë\t\\", "nul\0", "x" * 300))
            said = MessageAttribute("String", text)
            if draw.random() < 0.2:
                said = MessageAttribute("Binary", None, "AAEC")
            attributes = {draw.choice(("tenant", "sns.Subject", "s3.key")): said}
        sent_ms = draw.choice((SENT_MS,) * 200 + (0, 1, -1, 253_402_300_799_999))
        return Message(name, "-", self.body(), SystemAttributes(sent_ms), attributes)


def check_many(check: Callable[[Random, Counter[str]], None], messages: int) -> Counter[str]:
    """Check made-up mappings until so many messages were seen; name the seed of one that fails."""
    seen: Counter[str] = Counter()
    seed = 0
    while seen["messages"] < messages:
        seed += 1
        try:
            check(Random(seed), seen)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return seen
