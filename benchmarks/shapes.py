"""Mappings side by side: how fast other shapes of messages are than the built-in one.

Each shape is a mapping and the bodies for it: generated logins, or the message of one of
`examples/`. Shapes take turns, with the native executor and without. A shape's share is the median
of its ratios to the built-in one of the same turn.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable
from pathlib import Path

from sqs2pg.settings import load

from .contenders import Contender, Launch, RunTarget
from .contenders import pipeline as ours
from .measure import Backlog, Run, drain
from .rig import Rig, Stand, run_command
from .workloads import ResultSection, SuitePlan

Tell = Callable[[str], None]

_LOGIN = {
    "user_id": "required = true\nlength_max = 128",
    "device_type": "length_max = 32",
    "ip": 'mask = "pseudonymize"\nkind = "ip"',
    "device_id": 'mask = "pseudonymize"',
    "locale": "length_max = 32",
    "app_version": 'type = "version"',
    "create_date": 'type = "date"\ndefault = "sent_date"',
}
_NOTE = "Gr%s aus K%sln, wie an jedem Tag, an dem niemand etwas anderes schreibt"
_LINES = [{"sku": f"A-{n}", "quantity": n, "price": 19.5} for n in (1, 2, 3)]


@dataclasses.dataclass(frozen=True)
class Shape:
    """A mapping, and bodies for it: a template of the queue server's fill."""

    name: str
    title: str
    template: str = ""
    mapping: str = ""
    """TOML; empty: the built-in mapping."""
    rows: int = 1
    """Rows of one message."""
    target: str = ""
    """The table that its rows go to; empty: one of its own."""

    @property
    def table(self) -> str:
        """The table that its rows go to."""
        return self.target or (f"shape_{self.name}" if self.mapping else "user_logins")


def login_fields(prefix: str = "", **more: str) -> str:
    """Return the login's fields as TOML, found under `prefix`; `more`: further sources."""
    return _as_toml({f"{prefix}{name}": options for name, options in _LOGIN.items()} | more)


def _as_toml(fields: dict[str, str]) -> str:
    return "".join(
        f'[[field]]\nsource = "{source}"\ncolumn = "{source.rpartition(".")[2]}"\n{options}\n'
        for source, options in fields.items()
    )


_NOTED = login_fields(note="")
_FEW = _as_toml({name: _LOGIN[name] for name in ("user_id", "ip", "device_id")})
_SNS = json.dumps(
    {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:logins",
        "Message": "MESSAGE",
        "Timestamp": "2026-05-02T00:54:06.655Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService.pem",
    }
)
_LOGINS: tuple[Shape, ...] = (
    Shape("login", "login, built-in"),
    Shape(
        "number",
        "login and a whole number",
        '{"attempts": 17, @',
        login_fields(attempts='type = "integer"'),
    ),
    Shape(
        "conversions",
        "epoch times, quoted numbers, a lookup",
        '{"at": 1767225600123, "seen": "1767225600", "attempts": "17", "score": "12.50", '
        '"state": 2, @',
        _FEW
        + _as_toml(
            {
                "at": 'type = "timestamptz"\nformat = "epoch_ms"',
                "seen": 'type = "timestamptz"\nformat = "epoch_s"',
                "attempts": 'type = "integer"\nfrom = "text"',
                "score": 'type = "numeric"\nfrom = "text"',
                "state": 'map = { 0 = "off", 1 = "on", 2 = "fault" }\notherwise = "unknown"',
            }
        ),
    ),
    Shape(
        "expression",
        "login and an expression",
        '{"region": "eu-1", "attempts": 17, @',
        login_fields() + '[[field]]\ncolumn = "place"\n'
        "expression = \"join('-', [region, to_string(attempts)])\"\n",
    ),
    Shape(
        "nested", "nested login", '{"v": 1, "event": {"login": $}}', login_fields("event.login.")
    ),
    Shape(
        "sns",
        "nested, in SNS",
        _SNS.replace("MESSAGE", '{\\"v\\": 1, \\"event\\": {\\"login\\": %}}'),
        '[envelope]\nlayers = ["sns"]\n' + login_fields("event.login."),
    ),
    Shape(
        "order",
        "order of three lines",
        f'{{"buyer": $, "lines": {json.dumps(_LINES)}}}',
        'explode = "lines"\n'
        '[[field]]\nsource = "buyer.user_id"\ncolumn = "user_id"\nrequired = true\n'
        '[[field]]\nsource = "buyer.ip"\ncolumn = "ip"\nmask = "pseudonymize"\nkind = "ip"\n'
        '[[field]]\nsource = "lines[].sku"\ncolumn = "sku"\nrequired = true\nlength_max = 40\n'
        '[[field]]\nsource = "lines[].quantity"\ncolumn = "quantity"\ntype = "integer"\n'
        '[[field]]\nsource = "lines[].price"\ncolumn = "price"\ntype = "numeric"\n'
        '[[field]]\ncolumn = "line"\ntype = "integer"\ndefault = "record_index"\n',
        rows=3,
    ),
    Shape("ascii", "login and ASCII text", f'{{"note": "{_NOTE % ("ue", "oe")}", @', _NOTED),
    Shape("accents", "login and accented text", f'{{"note": "{_NOTE % ("üß", "ö")}", @', _NOTED),
    Shape(
        "escapes",
        "the same, escaped",
        f'{{"note": {json.dumps(_NOTE % ("üß", "ö"))}, @',
        _NOTED,
    ),
)
EXAMPLES = Path(__file__).parents[1] / "examples"


def _example(folder: Path) -> Shape:
    """Return the shape of an example: its mapping, and the first message that has rows."""
    text = (folder / "sqs2pg.toml").read_text(encoding="utf-8")
    settings = load(folder / "sqs2pg.toml", environ={})
    given = next(e for e in settings.example if not e.fault and e.payload is None)
    body = given.input if isinstance(given.input, str) else json.dumps(given.input)
    first = settings.targets[0].table
    rows = given.rows or (given.row,)
    return Shape(
        folder.name,
        f"example {folder.name}",
        # Where a fill would put a login, the body has the character's escape.
        "".join(f"\\u{ord(c):04x}" if c in "$%@" else c for c in body),
        text.partition("[[example]]")[0],
        sum(row.get("@table", first) == first for row in rows),
        settings.targets[0].table.removeprefix("public."),
    )


def _repeats(folder: Path) -> bool:
    """Whether an example's one message, sent many times, is as many rows."""
    settings = load(folder / "sqs2pg.toml", environ={})
    keeps_state = any(target.write.keeps_state for target in settings.targets)
    return not settings.ledger.dedupe_key and not keeps_state


_FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
SHAPES = (*_LOGINS, *map(_example, filter(_repeats, _FOLDERS)))
TWINS = {"accents": "ascii", "escapes": "ascii"}
"""Shapes that are compared with another one than the built-in, too."""
TRIAL = 20_000


def contenders() -> list[tuple[Shape, Contender]]:
    """Return each shape with the native extension and without it."""
    return [(shape, _contender(shape, native)) for native in ("1", "0") for shape in SHAPES]


def name_of(shape: str, native: str) -> str:
    """Return the name of a shape's runs."""
    return f"{shape}-native" if native == "1" else f"{shape}-python"


def _contender(shape: Shape, native: str) -> Contender:
    def launch(target: RunTarget) -> Launch:
        return Launch(
            ours.command("run", "--drain", settings=settings_file(shape, target.folder)),
            ours.environment(target) | {"SQS2PG_NATIVE": native},
        )

    return Contender(name_of(shape.name, native), shape.title, shape.title, TRIAL, launch)


def settings_file(shape: Shape, folder: Path) -> Path:
    """Write the settings of a shape's mapping into a folder; return the file."""
    file = folder / shape.name / "sqs2pg.toml"  # whose pipeline has the table's name
    file.parent.mkdir(exist_ok=True)
    if shape.target:
        file.write_text(shape.mapping, encoding="utf-8")
        return file
    head, table = (
        (shape.mapping, f'[sink]\ntable = "{shape.table}"\n') if shape.mapping else ("", "")
    )
    top, bracket, rest = head.partition("[")
    file.write_text(f"{top}{table}{bracket}{rest}", encoding="utf-8")
    return file


def run(rig: Rig, plan: SuitePlan, tell: Tell) -> ResultSection:
    """Drain every shape in turns. Raises BenchmarkError if a drain fails."""
    section = ResultSection(
        "mappings",
        "Mappings",
        "other shapes of the same logins, with the native extension and without, in turns",
    )
    sizes: dict[str, int] = {}
    for turn in range(plan.runs):
        for shape, contender in contenders():
            if contender.name not in sizes:
                trial = _drain(rig, shape, contender, max(10, round(TRIAL * plan.share)), plan)
                sizes[contender.name] = max(10, round(trial.rate * plan.seconds))
            done = _drain(rig, shape, contender, sizes[contender.name], plan)
            section.runs.append(done)
            tell(f"mappings {turn + 1}/{plan.runs} {contender.name}: {done.rate:,.0f} messages/s")
    return section


def _drain(rig: Rig, shape: Shape, contender: Contender, messages: int, plan: SuitePlan) -> Run:
    with rig.stand() as stand:
        if shape.mapping:
            _migrate(stand, shape)
        backlog = Backlog(messages, template=shape.template, table=shape.table, rows=shape.rows)
        return drain(stand, contender, backlog, plan.limit_s)


def _migrate(stand: Stand, shape: Shape) -> None:
    run_command(stand.target, "migrate", settings=settings_file(shape, stand.target.folder))


def shares(section: ResultSection, shape: str, native: str, to: str) -> list[float]:
    """Return the ratios of a shape's rate to that of `to`, turn by turn."""
    pairs = zip(section.of(name_of(shape, native)), section.of(to), strict=False)
    return [one.rate / other.rate for one, other in pairs]


def says(section: ResultSection) -> list[str]:
    """Return a sentence on each shape that has a twin."""
    titles = {shape.name: shape.title for shape in SHAPES}
    return [
        f"{titles[shape].capitalize()}: {statistics.median(found):.2f} of the ASCII twin."
        for shape, twin in TWINS.items()
        if (found := shares(section, shape, "1", name_of(twin, "1")))
    ]
