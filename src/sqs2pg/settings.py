"""Settings: one TOML file plus the environment, parsed and cross-checked once, then frozen.

Order of precedence, highest first: `SQS2PG_<SECTION>__<KEY>` in the environment (`SQS2PG_<KEY>`
for a key outside any section), the TOML file, the default. An unknown key is an error that names
the nearest known one. Names end in their units: `_s` seconds, `_ms` milliseconds, `_days`,
`_bytes`, `_rows`.

AWS settings are not here: credentials, region and endpoint come from the standard AWS
environment and files. No value of a secret ever appears in `repr` or in an error.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sqs2pg import paths
from sqs2pg.errors import SettingsError
from sqs2pg.hash_rate import cost_to_reverse
from sqs2pg.mask.rules import DROP, check_fields

DEFAULT_FILE = Path("sqs2pg.toml")
ENVIRONMENT_PREFIX = "SQS2PG_"
CONFIG_VARIABLE = "SQS2PG_CONFIG"

Positive = Annotated[int, Meta(ge=1)]
# The end of a pattern in Python and in JSON Schema alike: `$` alone lets a newline follow.
_END = r"$(?!\n)"
# A column or table name reaches SQL only quoted; the bound is PostgreSQL's NAMEDATALEN.
_NO_NUL = rf"^[^\x00]*{_END}"
Name = Annotated[str, Meta(min_length=1, max_length=63, pattern=_NO_NUL)]
_JSON_NAME = rf'^[^"\\\x00-\x1f]*{_END}'  # what msgspec takes as the name of a field

FieldType = Literal[
    "text",
    "integer",
    "bigint",
    "numeric",
    "double",
    "boolean",
    "date",
    "timestamptz",
    "uuid",
    "inet",
    "jsonb",
    "version",
    "major",
]
Kind = Literal["ip", "text", "email", "phone", "uuid"]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One table of the settings file."""


class Source(Section, frozen=True):
    """`[source]`: the queue."""

    queue: Annotated[str, Meta(min_length=1, description="name, URL or ARN")] = "login-queue"
    visibility_timeout_s: Annotated[
        int,
        Meta(ge=2, le=43_200, description="asked for with every receive; leases renew at a third"),
    ] = 60
    wait_time_s: Annotated[int, Meta(ge=0, le=20, description="long poll; AWS allows 20")] = 20
    receivers_max: Annotated[
        int, Meta(ge=1, le=256, description="long polls in flight at the most, a worker")
    ] = 128
    max_receives: Annotated[
        int,
        Meta(
            ge=0,
            description="deliveries before it is tried alone; 0: maxReceiveCount - 1",
        ),
    ] = 0
    in_flight_messages_max: Annotated[int, Meta(ge=10, le=120_000)] = 20_000
    in_flight_bytes_max: Annotated[int, Meta(ge=2**20)] = 64 * 2**20
    drain_settle_s: (
        Annotated[
            float,
            Meta(
                ge=0,
                le=3600,
                description="quiet time that ends --drain; default 60, or 1 on loopback",
            ),
        ]
        | None
    ) = None


class SinkSettings(Section, frozen=True):
    """`[sink]`: the database and the target table."""

    dsn: Annotated[
        str, Meta(description="libpq connection string or URL; else DATABASE_URL, else PG*")
    ] = ""
    table: Annotated[
        str, Meta(min_length=1, pattern=_NO_NUL, description="table or schema.table")
    ] = "user_logins"
    partition_by: Annotated[
        str,
        Meta(max_length=63, pattern=_NO_NUL, description="a date column: a new table's partitions"),
    ] = ""
    partition_every: Literal["month", "day"] = "month"
    partitions_ahead: Annotated[
        int, Meta(ge=1, le=100, description="attached before their time comes")
    ] = 3
    partition_retention_days: Annotated[
        int, Meta(ge=0, le=36_500, description="older partitions are dropped; 0: none is")
    ] = 0
    connections: Annotated[int, Meta(ge=1, le=16, description="batches in flight at once")] = 2
    batch_rows_max: Annotated[int, Meta(ge=1, le=50_000)] = 2_000
    linger_ms: Annotated[
        int, Meta(ge=0, le=10_000, description="longest wait for a batch to fill")
    ] = 20
    statement_timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    connect_timeout_s: Annotated[int, Meta(ge=1, le=300)] = 10
    iam_auth: Annotated[
        bool,
        Meta(
            description="log in with a token of AWS IAM in place of a password (RDS, Aurora, RDS "
            "Proxy); host, port and user come from the connection string; needs sslmode=require"
        ),
    ] = False

    def __repr__(self) -> str:
        return f"SinkSettings({self.table})"  # the dsn may hold a password

    def __rich_repr__(self) -> Any:
        yield self.table


class Field(Section, frozen=True):
    """`[[field]]`: one field of the message and the column it goes to."""

    column: Name = ""
    source: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=256,
            pattern=_JSON_NAME,
            description="a path such as user.address.city or items[0].sku; $ is the whole record; "
            "without it every row has the default",
        ),
    ] = ""
    type: FieldType = "text"
    required: bool = False
    default: Annotated[
        str | int | float | bool | None,
        Meta(
            description="a constant, or sent_date, sent_time, message_id, record_index, "
            "attribute:NAME"
        ),
    ] = None
    mask: Annotated[
        str,
        Meta(
            description="the operator that masks the value; `drop`: known, counted, and written "
            "nowhere, so without a column"
        ),
    ] = "keep"
    domain: str = ""
    kind: Kind = "text"
    recover: bool = False
    possible_values: Annotated[
        Positive | None,
        Meta(description="how many values it can have; else known from `kind`. For check --attack"),
    ] = None
    length_max: Positive | None = None
    over_length: Annotated[
        Literal["quarantine", "truncate"],
        Meta(description="what becomes of a text longer than length_max or its column"),
    ] = "quarantine"

    @property
    def name(self) -> str:
        """What faults and errors call it: its source, or its column where it has none."""
        return self.source or self.column


# In JSON Schema's words: a column, unless it is dropped.
_COLUMN_UNLESS_DROPPED = Meta(
    extra_json_schema={
        "if": {"properties": {"mask": {"const": DROP}}, "required": ["mask"]},
        "else": {"required": ["column"]},
    }
)
Declared = Annotated[Field, _COLUMN_UNLESS_DROPPED]


class When(Section, frozen=True):
    """`when` of a route: a field of the record and what it must be; all that is given must hold."""

    field: Annotated[str, Meta(min_length=1, max_length=256, pattern=_JSON_NAME)]
    equals: str | int | float | bool | None = None
    any_of: tuple[str | int | float | bool, ...] = ()
    exists: bool | None = None


class Route(Section, frozen=True):
    """`[[route]]`: the records that go to one table. Each goes wherever its `when` holds."""

    table: Annotated[str, Meta(min_length=1, pattern=_NO_NUL, description="table or schema.table")]
    when: Annotated[
        When | None, Meta(description="without it: the records that no route with one took")
    ] = None
    explode: Annotated[
        str, Meta(max_length=256, pattern=_JSON_NAME, description="an array; a row an element")
    ] = ""
    field: tuple[Declared, ...] = ()


class Target(msgspec.Struct, frozen=True):
    """One table and what goes there, whichever way the settings say it."""

    table: str
    fields: tuple[Field, ...]
    explode: str = ""
    when: When | None = None


class Index(Section, frozen=True):
    """`[[index]]`: an index of a target, built by `migrate` without holding up writers."""

    columns: Annotated[tuple[Name, ...], Meta(min_length=1)]
    method: Literal["btree", "brin"] = "btree"
    table: Annotated[str, Meta(description="else the first target")] = ""
    name: Annotated[str, Meta(max_length=63)] = ""


class Example(Section, frozen=True):
    """`[[example]]`: a message, and the rows or the fault that the mapping must make of it."""

    input: Annotated[
        str | dict[str, Any], Meta(description="the body: a table for JSON, or the text itself")
    ]
    name: str = ""
    row: Annotated[
        dict[str, Any], Meta(description='its row; "masked" for any mask; left out: NULL')
    ] = {}
    rows: Annotated[
        tuple[dict[str, Any], ...], Meta(description='several rows; "@table" names a route\'s')
    ] = ()
    fault: Annotated[str, Meta(description="the code it is set aside with")] = ""
    attributes: dict[str, str] = {}
    payload: Annotated[str | None, Meta(description="the S3 object that the body points to")] = None
    sent_at: datetime | None = None
    message_id: str = ""


class EnvelopeSettings(Section, frozen=True):
    """`[envelope]`: what the records of a message are wrapped in."""

    layers: Annotated[
        tuple[
            Literal[
                "auto",
                "s3",
                "sns",
                "eventbridge",
                "content_encoding",
                "base64",
                "gzip",
                "zstd",
            ],
            ...,
        ],
        Meta(description="what to take off, outermost first; auto: what is surely there"),
    ] = ()
    records: Annotated[
        Literal["one", "array", "lines", "auto"],
        Meta(description="a message is one JSON document, an array of them, or a line each"),
    ] = "one"
    content_encoding_attribute: Annotated[
        str, Meta(min_length=1, max_length=256, description="message attribute: gzip, zstd, base64")
    ] = "Content-Encoding"
    decompressed_bytes_max: Annotated[int, Meta(ge=1024, le=2**31 - 1)] = 64 * 2**20
    s3_bytes_max: Annotated[
        int, Meta(ge=1024, le=2**31 - 1, description="of one object that a message points to")
    ] = 64 * 2**20
    s3_delete: Annotated[
        bool, Meta(description="delete the object once its rows are committed")
    ] = False

    @property
    def has_pointers(self) -> bool:
        """Whether bodies may be in S3."""
        return bool({"auto", "s3"} & set(self.layers))


class Keys(Section, frozen=True):
    """`[keys]`: where the key roots come from."""

    provider: Annotated[
        Literal["auto", "file", "environment", "aws-kms", "secrets-manager", "development"],
        Meta(description="auto: the file if set, else the environment, else a development key"),
    ] = "auto"
    file: Annotated[str, Meta(description="of provider file: the roots; of aws-kms: wrapped")] = ""
    kms_key: Annotated[
        str, Meta(description="of provider aws-kms: the id, ARN or alias/NAME that wraps new roots")
    ] = ""
    secret: Annotated[
        str, Meta(description="of provider secrets-manager: the secret's name or ARN")
    ] = ""
    allow_development: bool = False


class Vault(Section, frozen=True):
    """`[vault]`: recovery of masked values. Off by default: keep no more than needed."""

    enabled: bool = False
    subject: str = "user_id"
    reveals_per_hour_max: Annotated[
        int,
        Meta(ge=0, le=2**31 - 1, description="values a login may reveal; `migrate` sets it"),
    ] = 1_000


class Quarantine(Section, frozen=True):
    """`[quarantine]`: messages set aside."""

    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 30


class Ledger(Section, frozen=True):
    """`[ledger]`: the record of deliveries."""

    retention_days: Annotated[
        int,
        Meta(
            ge=15,
            le=3650,
            description="day partitions kept; longer than SQS can keep a message (14 days)",
        ),
    ] = 30
    dedupe_key: Annotated[
        str,
        Meta(
            max_length=256,
            pattern=_JSON_NAME,
            description="a body field that names the event; covers a producer's retry",
        ),
    ] = ""


class Status(Section, frozen=True):
    """`[status]`: metrics, health and the status page over HTTP."""

    bind: Annotated[
        str,
        Meta(
            pattern=rf"^(|.+:[0-9]{{1,5}}){_END}",
            description="host:port of the status page, /metrics, /livez and /readyz; empty: off; "
            "port 0: any; off loopback all but /livez and /readyz want the token",
        ),
    ] = "127.0.0.1:9465"
    token: Annotated[
        str, Meta(description="asked for where it is set: `Authorization: Bearer …`, or a form")
    ] = ""
    token_file: Annotated[str, Meta(description="a file that holds the token")] = ""
    hosts: Annotated[
        str,
        Meta(description="names this address is asked for by, beside localhost; comma-separated"),
    ] = ""
    poll_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="between readings of queue depth, database head-room and the fleet",
        ),
    ] = 10.0
    cloudwatch: Annotated[
        Literal["auto", "off"],
        Meta(description="ask CloudWatch for the age of the oldest message, where that is allowed"),
    ] = "auto"

    def __repr__(self) -> str:
        return f"Status({self.bind})"  # the token is a secret

    def __rich_repr__(self) -> Any:
        yield self.bind


class AwsLambda(Section, frozen=True):
    """`[aws_lambda]`: the Lambda handler."""

    margin_s: Annotated[
        float,
        Meta(
            ge=2,
            le=120,
            description="before the function's timeout: nothing more is started from then on",
        ),
    ] = 3.0


class Ray(Section, frozen=True):
    """`[ray]`: the fleet of `run --ray`."""

    consumers_min: Annotated[
        int, Meta(ge=0, le=10_000, description="also the most, where consumers_max is below it")
    ] = 1
    consumers_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="times sink.connections: what PostgreSQL must have room for",
        ),
    ] = 8
    catch_up_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="the fleet grows until the backlog is worked off in this time, at the "
            "measured rate; and shrinks after so long a quiet",
        ),
    ] = 60.0
    cpus: Annotated[
        float, Meta(ge=0.1, le=64, description="what one consumer asks Ray for; it uses one")
    ] = 1.0
    every_s: Annotated[float, Meta(ge=0.1, le=300, description="between looks at the fleet")] = 2.0


class Telemetry(Section, frozen=True):
    """`[telemetry]`: what is sent to others. All of it is off by default."""

    traces: Annotated[
        bool, Meta(description="OpenTelemetry spans, one a batch; wants the extra otel")
    ] = False
    metrics: Annotated[
        bool, Meta(description="metrics by OTLP, beside /metrics; wants the extra otel")
    ] = False
    endpoint: Annotated[
        str,
        Meta(description="of the OTLP collector over HTTP; else OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] = ""
    emf: Annotated[
        bool, Meta(description="CloudWatch's embedded metric format, a line on stdout")
    ] = False
    every_s: Annotated[
        float, Meta(ge=1, le=3600, description="between exports of metrics, and EMF lines")
    ] = 60.0


class Settings(Section, frozen=True):
    """Everything one pipeline needs to know, frozen at start."""

    name: Annotated[
        str,
        Meta(
            max_length=63,
            pattern=rf"^[A-Za-z0-9_.-]*{_END}",
            description="the pipeline's name in the books and metrics; default: the target table's",
        ),
    ] = ""
    unknown_fields: Literal["drop", "quarantine"] = "drop"
    i_accept_reversible: bool = False
    shutdown_grace_s: Annotated[
        float,
        Meta(ge=0, le=900, description="from SIGTERM to exit; Kubernetes grants 30 s by default"),
    ] = 25.0
    source: Source = Source()
    envelope: EnvelopeSettings = EnvelopeSettings()
    sink: SinkSettings = SinkSettings()
    keys: Keys = Keys()
    vault: Vault = Vault()
    quarantine: Quarantine = Quarantine()
    ledger: Ledger = Ledger()
    status: Status = Status()
    telemetry: Telemetry = Telemetry()
    aws_lambda: AwsLambda = AwsLambda()
    ray: Ray = Ray()
    explode: Annotated[
        str, Meta(max_length=256, pattern=_JSON_NAME, description="an array; a row an element")
    ] = ""
    unmatched: Annotated[
        Literal["quarantine", "drop"], Meta(description="records that no [[route]] takes")
    ] = "quarantine"
    field: tuple[Declared, ...] = ()
    route: tuple[Route, ...] = ()
    example: tuple[Example, ...] = ()
    index: tuple[Index, ...] = ()

    @property
    def pipeline_name(self) -> str:
        """The name this pipeline is registered under."""
        return self.name or self.targets[0].table

    @property
    def targets(self) -> tuple[Target, ...]:
        """The tables that rows go to: one, or as many as there are routes."""
        if self.route:
            return tuple(Target(r.table, _mapped(r.field), r.explode, r.when) for r in self.route)
        return (Target(self.sink.table, _mapped(self.field) or USER_LOGINS, self.explode),)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Sources that are declared, and go nowhere."""
        declared = (*self.field, *(field for route in self.route for field in route.field))
        return tuple(dict.fromkeys(field.source for field in declared if field.mask == DROP))

    @property
    def table_names(self) -> str:
        """The tables that rows go to, in words."""
        return ", ".join(target.table for target in self.targets)

    @property
    def message_attributes(self) -> tuple[str, ...]:
        """The message attributes that the mapping reads, to ask for with every receive."""
        defaults = [f.default for f in self.fields if isinstance(f.default, str)]
        names = [d.removeprefix(ATTRIBUTE) for d in defaults if d.startswith(ATTRIBUTE)]
        names = [name for name in names if not name.startswith(ENVELOPE_ATTRIBUTES)]
        if self.envelope.has_pointers:
            names += POINTER_SIZES
        if {"auto", "content_encoding"} & set(self.envelope.layers):
            names.append(self.envelope.content_encoding_attribute)
        return tuple(dict.fromkeys(names))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mapping's fields, of all targets: configured, or the built-in `user_logins` ones."""
        return tuple(field for target in self.targets for field in target.fields)


def _mapped(fields: Iterable[Field]) -> tuple[Field, ...]:
    return tuple(field for field in fields if field.mask != DROP)


POINTER_SIZES = ("ExtendedPayloadSize", "SQSLargePayloadSize")
"""Message attributes in which the S3 extended clients put the payload's size in bytes."""
ENVELOPE_ATTRIBUTES = ("sns.", "eventbridge.", "s3.")
"""How the names of what an envelope says begin; no message attributes of SQS."""
ATTRIBUTE = "attribute:"
"""How a default names a message attribute."""
RECORD_INDEX = "\x00record_index"
_NOWHERE = "\x00nowhere"


def attribute_key(field: Field) -> str:
    """Return what a field's attribute of a record is found under: its source, or a stand-in."""
    return field.source or (RECORD_INDEX if field.default == "record_index" else _NOWHERE)


USER_LOGINS: tuple[Field, ...] = (
    Field(source="user_id", column="user_id", required=True, length_max=128),
    Field(source="device_type", column="device_type", length_max=32),
    Field(
        source="ip",
        column="masked_ip",
        mask="pseudonymize",
        kind="ip",
        recover=True,
        length_max=256,
    ),
    Field(
        source="device_id",
        column="masked_device_id",
        mask="pseudonymize",
        recover=True,
        possible_values=10**9,  # NNN-NN-NNNN
        length_max=256,
    ),
    Field(source="locale", column="locale", length_max=32),
    Field(source="app_version", column="app_version", type="version"),
    Field(source="create_date", column="create_date", type="date", default="sent_date"),
)
"""The built-in mapping, and the target table its users already have (design, section 1)."""


def load(
    file: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    overrides: Mapping[str, Any] | None = None,
    discover: bool = True,
) -> Settings:
    """Return the effective settings.

    `file` is `-c FILE`; without it `SQS2PG_CONFIG`, then `sqs2pg.toml` in the current folder if
    there is one. `overrides` are nested values set by a command's own options and win over all.

    Without `discover` no file is looked for: only `file`, `environ` and `overrides` count.
    Raises SettingsError (exit code 2) naming the file or variable, the key and the remedy.
    """
    path = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if path is None and discover and DEFAULT_FILE.is_file():
        path = DEFAULT_FILE
    tree = _read(path) if path else {}
    origin = str(path) if path else "the settings"
    _check_names(tree, Settings, origin, ())
    variables, variable_tree = _from_environment(environ)
    _merge(tree, variable_tree)
    _merge(tree, overrides or {})
    _split_lists(tree)
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise _explain(error, origin, variables) from None
    _check_columns(settings, origin)
    cross_check(settings)
    return settings


def cross_check(settings: Settings) -> None:
    """Refuse settings that are each valid but do not fit together."""
    check_fields(
        settings.fields, accept_reversible=settings.i_accept_reversible, cost=cost_to_reverse
    )
    _check_routes(settings)
    _check_envelope(settings)
    _check_dropped(settings)
    for target in settings.targets:
        columns = [field.column for field in target.fields]
        for column in columns:
            if columns.count(column) > 1:
                raise SettingsError(
                    f"two fields go to the column {column!r}",
                    hint="give each [[field]] a column of its own",
                )
        for field in target.fields:
            _check_field(field)
        paths.compile_sources(
            [field.source for field in target.fields if field.source], target.explode
        )
    if settings.vault.enabled and settings.vault.subject not in {f.source for f in settings.fields}:
        raise SettingsError(
            f"vault.subject names {settings.vault.subject!r}, which is not the source of any field",
            hint="set vault.subject to the source of a mapped field, such as user_id",
        )


def _check_envelope(settings: Settings) -> None:
    layers = settings.envelope.layers
    if "auto" not in layers:
        return
    if len(layers) > 1:
        raise SettingsError(
            'envelope.layers has "auto" and others', hint='either declare them, or "auto" alone'
        )
    marks = {"TopicArn", "Message", "detail", "detail-type"}
    for field in settings.fields:
        if field.source and paths.parse(field.source)[:1] and paths.parse(field.source)[0] in marks:
            raise SettingsError(
                f'field {field.source!r} reads an envelope that layers = "auto" would take off',
                code="ambiguous_envelope",
                hint="declare envelope.layers, or read what is inside: attribute:sns.TopicArn and "
                "attribute:eventbridge.detail-type have what the envelope says",
            )


def _check_columns(settings: Settings, origin: str) -> None:
    lists = {"": settings.field} | {
        f"route[{number}].": route.field for number, route in enumerate(settings.route)
    }
    for place, fields in lists.items():
        for number, field in enumerate(fields):
            if not field.column and field.mask != DROP:
                raise SettingsError(
                    f"setting {place}field[{number}] in {origin}: Object missing required field "
                    "`column`",
                    hint='name the column it goes to, or set mask = "drop" if it is not needed',
                )


def _check_routes(settings: Settings) -> None:
    if not settings.route:
        return
    if settings.field or settings.explode:
        raise SettingsError(
            "there are both [[route]] and fields outside of them",
            hint="with routes every field belongs to one: [[route.field]], and `explode` too",
        )
    tables = [route.table for route in settings.route]
    for route in settings.route:
        if not route.field:
            raise SettingsError(
                f"the route to {route.table!r} has no fields", hint="give it [[route.field]]"
            )
        if tables.count(route.table) > 1:
            raise SettingsError(
                f"two routes go to the table {route.table!r}",
                hint="one route may take several values: when = {field = …, any_of = […]}",
            )
        when = route.when
        if when and when.equals is None and not when.any_of and when.exists is None:
            raise SettingsError(
                f"`when` of the route to {route.table!r} asks for nothing",
                hint="add equals, any_of or exists",
            )


def _check_dropped(settings: Settings) -> None:
    declared = (*settings.field, *(field for route in settings.route for field in route.field))
    for field in declared:
        if field.mask != DROP:
            continue
        if not field.source or field != Field(source=field.source, mask=DROP):
            raise SettingsError(
                f'field {field.name!r}: mask = "drop" stands with a source alone',
                hint="it is written nowhere: remove the other keys, or give it another mask",
            )
        for other in settings.fields:
            if other.source and paths.contains(field.source, other.source):
                raise SettingsError(
                    f"field {field.source!r} is dropped, and {other.source!r} goes to a column",
                    code="dropped_and_mapped",
                    hint="remove one of the two",
                )


def _check_field(field: Field) -> None:
    where = f"field {field.name!r}"
    if not field.source and field.default is None:
        raise SettingsError(
            f"the field of column {field.column!r} has neither source nor default",
            hint="give it a source, or a default for every row",
        )
    if field.over_length == "truncate" and (field.type != "text" or field.mask != "keep"):
        raise SettingsError(
            f'{where}: over_length = "truncate" is for text that is kept as it is',
            hint="a cut mask or number would be another one: remove over_length",
        )
    if field.default is not None and field.required:
        raise SettingsError(
            f"{where} is required and has a default", hint="remove `required` or `default`"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise SettingsError(
            f"settings file {path} does not exist", hint="give another with -c FILE, or create it"
        ) from None
    except tomllib.TOMLDecodeError as error:
        # The parser's message quotes the text around the fault, which may be a password.
        place = re.search(r"at line \d+, column \d+", str(error))
        raise SettingsError(
            f"settings file {path} is not valid TOML {place[0] if place else ''}".rstrip(),
            hint="see https://toml.io for the syntax",
        ) from None
    except RecursionError:
        raise SettingsError(
            f"settings file {path} is nested too deeply", hint="settings are two levels deep"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(
            f"settings file {path} cannot be read: {reason}",
            hint="check the path and its permissions",
        ) from None


@functools.cache
def _sections() -> dict[str, type[msgspec.Struct]]:
    return {
        info.name: info.type.cls
        for info in _info(Settings)
        if isinstance(info.type, msgspec.inspect.StructType)
    }


@functools.cache
def _info(section: type[msgspec.Struct]) -> tuple[msgspec.inspect.Field, ...]:
    described = msgspec.inspect.type_info(section)
    assert isinstance(described, msgspec.inspect.StructType)
    return described.fields


# Read straight from the environment by the key provider or the loader, never part of the file.
_ROOTS = ("pseudonym_root", "vault_root")
_NOT_SETTINGS = re.compile(r"^SQS2PG_(CONFIG|NATIVE|KEYS__(PSEUDONYM|VAULT)_ROOT(_V\d+)?)$")


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the variable that gives each setting, by its dotted name, and the settings' tree."""
    variables: dict[str, str] = {}
    tree: dict[str, Any] = {}
    sections = _sections()
    owner: type[msgspec.Struct]
    for variable, value in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or _NOT_SETTINGS.match(variable):
            continue
        parts = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if len(parts) == 1:
            target, owner, prefix = tree, Settings, ENVIRONMENT_PREFIX
            names = ["config", *(f"{section}__…" for section in sections)]
        elif len(parts) == 2 and parts[0] in sections:
            target, owner = tree.setdefault(parts[0], {}), sections[parts[0]]
            prefix = f"{ENVIRONMENT_PREFIX}{parts[0].upper()}__"
            names = list(_ROOTS) if parts[0] == "keys" else []
        else:
            raise _unknown(variable, ENVIRONMENT_PREFIX, [f"{s.upper()}__…" for s in sections])
        known = [i.name for i in _info(owner) if i.name not in sections and _items(i.type) is None]
        if parts[-1] not in known:
            raise _unknown(variable, prefix, [name.upper() for name in (*known, *names)])
        target[parts[-1]] = value
        variables[".".join(parts)] = variable
    return variables, tree


def _split_lists(tree: dict[str, Any]) -> None:
    """Take a text for a list of words, at commas: in the environment there is nothing else."""
    for section, kind in _sections().items():
        values = tree.get(section)
        if not isinstance(values, dict):
            continue
        for info in _info(kind):
            value, type_ = values.get(info.name), info.type
            if isinstance(type_, msgspec.inspect.Metadata):
                type_ = type_.type
            if isinstance(type_, msgspec.inspect.VarTupleType) and isinstance(value, str):
                values[info.name] = [word.strip() for word in value.split(",") if word.strip()]


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if not isinstance(value, Mapping):
            base[key] = value
        elif isinstance(inner := base.setdefault(key, {}), dict):
            _merge(inner, value)
        # else: the file has a value where a section belongs, and is told so when it is converted


def _check_names(
    tree: Mapping[str, Any], section: type[msgspec.Struct], origin: str, at: tuple[str, ...]
) -> None:
    known = {info.name: info.type for info in _info(section)}
    prefix = "".join(f"{part}." for part in at)
    for key, value in tree.items():
        if key not in known:
            raise _unknown(prefix + key, prefix, list(known), origin)
        inner = known[key]
        if isinstance(inner, msgspec.inspect.UnionType):
            [*structs] = [t for t in inner.types if isinstance(t, msgspec.inspect.StructType)]
            inner = structs[0] if structs else inner
        if isinstance(inner, msgspec.inspect.StructType) and isinstance(value, Mapping):
            _check_names(value, inner.cls, origin, (*at, key))
        elif (items := _items(inner)) and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    _check_names(item, items, origin, (*at, f"{key}[{index}]"))


def _items(kind: msgspec.inspect.Type) -> type[msgspec.Struct] | None:
    """The struct that a list of tables consists of; None where it is no such list."""
    if not isinstance(kind, msgspec.inspect.VarTupleType):
        return None
    item = kind.item_type
    if isinstance(item, msgspec.inspect.Metadata):
        item = item.type
    return item.cls if isinstance(item, msgspec.inspect.StructType) else None


def _unknown(
    key: str, prefix: str, known: list[str], origin: str = "the environment"
) -> SettingsError:
    # Compared without the prefix they share, which would make any two names look alike.
    near = difflib.get_close_matches(key.removeprefix(prefix), known, n=1, cutoff=0.5)
    hint = (
        f"did you mean {prefix}{near[0]}?"
        if near
        else f"known: {', '.join(prefix + name for name in sorted(known))}"
    )
    return SettingsError(f"unknown setting {key} in {origin}", code="unknown_setting", hint=hint)


def _explain(
    error: msgspec.ValidationError, origin: str, variables: Mapping[str, str]
) -> SettingsError:
    # msgspec says "Expected `int` >= 2 - at `$.source.visibility_timeout_s`"; for enumerations
    # it quotes the wrong value, which may be a misplaced secret: keep the place and the rule.
    text = str(error)
    match = re.search(r"at `\$\.?([^`]*)`", text)
    place = match[1] if match else "?"
    rule = (
        "is not one of the allowed values"
        if "Invalid enum value" in text
        else text.split(" - at ", 1)[0]
    )
    named = variables.get(place.partition("[")[0], origin)
    return SettingsError(
        f"setting {place} in {named}: {rule}",
        hint="`sqs2pg config schema` lists every key, its type and range",
    )
