"""The sections of a pipeline's settings, and the whole: `Settings`. Frozen, with their defaults.

Names end in their units: `_s` seconds, `_ms` milliseconds, `_days`, `_bytes`. No I/O.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sqs2pg.message import ALWAYS_ASKED
from sqs2pg.settings.fields import (
    ATTRIBUTE,
    CONTENT_ENCODING,
    DROP,
    END,
    ENVELOPE_ATTRIBUTES,
    JSON_NAME,
    NO_NUL,
    POINTER_SIZES,
    SYSTEM,
    USER_LOGINS,
    Declared,
    EnvelopeSettings,
    Example,
    Field,
    Index,
    Section,
    read_of_message,
)
from sqs2pg.settings.process_sections import (
    AwsLambdaSettings,
    LogSettings,
    ProcessSettings,
    RaySettings,
    StatusSettings,
    TelemetrySettings,
)
from sqs2pg.settings.routes import DeclaredRoute, Filter, Route, Target
from sqs2pg.settings.write_modes import APPEND, WriteMode


class SourceSettings(Section, frozen=True):
    """`[source]`: the queue."""

    queue: Annotated[str, Meta(min_length=1, description="name, URL or ARN")] = "login-queue"
    visibility_timeout_s: Annotated[
        int,
        Meta(ge=2, le=43_200, description="of every receive; leases are renewed after a third"),
    ] = 60
    wait_time_s: Annotated[int, Meta(ge=0, le=20, description="long poll; AWS allows 20")] = 20
    receivers_max: Annotated[
        int, Meta(ge=1, le=256, description="most long polls in flight, per worker")
    ] = 128
    max_receives: Annotated[
        int,
        Meta(
            ge=0,
            description="deliveries after which a message is tried alone; 0: maxReceiveCount - 1",
        ),
    ] = 0
    messages_per_second_max: Annotated[
        Annotated[float, Meta(ge=0.1, le=1_000_000)] | None,
        Meta(
            description="most messages received per second, evenly, redeliveries too; per worker "
            "process: with --workers 4 the whole is four times as much; default: no limit"
        ),
    ] = None
    in_flight_messages_max: Annotated[int, Meta(ge=10, le=120_000)] = 20_000
    in_flight_bytes_max: Annotated[
        int,
        Meta(
            ge=2**20,
            description="bodies held; half of it is for what they expand to, by compression, "
            "arrays or explode, which also bounds a transaction",
        ),
    ] = 64 * 2**20
    drain_settle_s: Annotated[
        Annotated[float, Meta(ge=0, le=3600)] | None,
        Meta(description="quiet time after which --drain ends; default 60, or 1 on loopback"),
    ] = None


class SinkSettings(WriteMode, frozen=True):
    """`[sink]`: the database and the target table."""

    dsn: Annotated[
        str,
        Meta(
            description="libpq connection string or URL, whose application_name, connect_timeout "
            "and keepalives win over ours; default: DATABASE_URL, then PG*"
        ),
    ] = ""
    table: Annotated[
        str, Meta(min_length=1, pattern=NO_NUL, description="table or schema.table")
    ] = "user_logins"
    partition_by: Annotated[
        str,
        Meta(
            max_length=63,
            pattern=NO_NUL,
            description="the date column that partitions a new table",
        ),
    ] = ""
    partition_every: Literal["month", "day"] = "month"
    partitions_ahead: Annotated[
        int, Meta(ge=1, le=100, description="partitions attached in advance")
    ] = 3
    partition_retention_days: Annotated[
        int,
        Meta(
            ge=0,
            le=36_500,
            description="older partitions and rows are dropped; 0: none. `migrate` records it",
        ),
    ] = 0
    tombstone_retention_days: Annotated[
        int,
        Meta(
            ge=1,
            le=36_500,
            description="how long the version of a deleted row is kept, so that an older one does "
            "not bring it back. `migrate` records it",
        ),
    ] = 30
    connections: Annotated[int, Meta(ge=1, le=16, description="batches in flight at once")] = 2
    batch_rows_max: Annotated[int, Meta(ge=1, le=50_000)] = 4_000
    linger_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=10_000,
            description="longest wait for a batch to fill up; five times as long while the queue "
            "has a backlog, and until its turn where several of a process have one",
        ),
    ] = 20
    statement_timeout_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    iam_auth: Annotated[
        bool,
        Meta(
            description="log in with a token of AWS IAM instead of a password (RDS, Aurora, RDS "
            "Proxy), one per host; host, port and user come from the connection string; needs "
            "sslmode=require"
        ),
    ] = False

    def __repr__(self) -> str:
        return f"SinkSettings({self.table})"  # the dsn may hold a password

    def __rich_repr__(self) -> Any:
        yield self.table


def write_limit_s(statement_timeout_s: int) -> float:
    """Return how long one attempt to write a batch may take, in seconds."""
    return 2.0 * statement_timeout_s + 30


class KeysSettings(Section, frozen=True):
    """`[keys]`: where the key roots come from."""

    provider: Annotated[
        Literal["auto", "file", "environment", "aws-kms", "secrets-manager", "development"],
        Meta(description="auto: the file if set, then the environment, then a development key"),
    ] = "auto"
    file: Annotated[
        str, Meta(description="provider file: the roots; provider aws-kms: the wrapped roots")
    ] = ""
    kms_key: Annotated[
        str, Meta(description="provider aws-kms: id, ARN or alias/NAME of the key that wraps roots")
    ] = ""
    secret: Annotated[
        str, Meta(description="provider secrets-manager: the secret's name or ARN")
    ] = ""
    allow_development: bool = False


class VaultSettings(Section, frozen=True):
    """`[vault]`: recovery of masked values. Off by default: keep no more than needed."""

    enabled: bool = False
    subject: str = "user_id"
    reveals_per_hour_max: Annotated[
        int,
        Meta(
            ge=0,
            le=2**31 - 1,
            description="values that one database login may reveal; `migrate` sets it",
        ),
    ] = 1_000
    people_per_hour_max: Annotated[
        int,
        Meta(
            ge=0,
            le=2**31 - 1,
            description="people of whom one database login may reveal all; `migrate` sets it",
        ),
    ] = 10


class QuarantineSettings(Section, frozen=True):
    """`[quarantine]`: messages that could not become rows."""

    retention_days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="how long a message is kept, replayed or not; `migrate` records it",
        ),
    ] = 30


class LedgerSettings(Section, frozen=True):
    """`[ledger]`: the record of deliveries."""

    retention_days: Annotated[
        int,
        Meta(
            ge=15,
            le=3650,
            description="day partitions to keep; more than SQS keeps a message (14 days). "
            "`migrate` records it",
        ),
    ] = 30
    dedupe_key: Annotated[
        str,
        Meta(
            max_length=256,
            pattern=JSON_NAME,
            description="a body field with the event's id; a producer's retry is a duplicate then",
        ),
    ] = ""


ArchiveFormat = Literal["auto", "json", "csv", "parquet", "space"]


class ArchiveSettings(Section, frozen=True):
    """`[archive]`: what cannot be told from the bytes of archives and of objects in S3."""

    format: Annotated[
        ArchiveFormat,
        Meta(
            description="auto: by the first bytes, CSV by its name; space: fields separated by "
            "spaces, as in VPC flow logs and the access logs of load balancers"
        ),
    ] = "auto"
    columns: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=256, pattern=JSON_NAME)], ...],
        Meta(
            description="names of the columns of csv and space, in order, where the first line "
            "does not have them; with space, NAME:NAME divides a field at its last colon"
        ),
    ] = ()


class Settings(Section, frozen=True):
    """Everything one pipeline needs to know, frozen at start."""

    name: Annotated[
        str,
        Meta(
            max_length=63,
            pattern=rf"^[A-Za-z0-9_.-]*{END}",
            description="the pipeline's name in tables and metrics; default: that of its file, or "
            "of the target table for sqs2pg.toml and without a file",
        ),
    ] = ""
    unknown_fields: Literal["drop", "quarantine"] = "drop"
    report_unknown: Annotated[
        bool,
        Meta(
            description="record the names of fields that messages have and no field names, for "
            "`check` and the status page; without it only how many there are of each type"
        ),
    ] = False
    i_accept_reversible: bool = False
    shutdown_grace_s: Annotated[
        float,
        Meta(ge=0, le=900, description="from SIGTERM to exit; Kubernetes allows 30 s by default"),
    ] = 25.0
    start_timeout_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="how long `run` tries to start while database or queue is away",
        ),
    ] = 30.0
    quarantine_share_max: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="the pipeline pauses itself when a larger share of what came lately was "
            "quarantined, 0 to 1; 1: never. `sqs2pg resume` ends the pause",
        ),
    ] = 1.0
    quarantine_share_messages_min: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="quarantine_share_max is not applied to fewer messages than these",
        ),
    ] = 20
    source: SourceSettings = SourceSettings()
    envelope: EnvelopeSettings = EnvelopeSettings()
    sink: SinkSettings = SinkSettings()
    keys: KeysSettings = KeysSettings()
    vault: VaultSettings = VaultSettings()
    quarantine: QuarantineSettings = QuarantineSettings()
    ledger: LedgerSettings = LedgerSettings()
    status: StatusSettings = StatusSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    log: LogSettings = LogSettings()
    process: ProcessSettings = ProcessSettings()
    aws_lambda: AwsLambdaSettings = AwsLambdaSettings()
    ray: RaySettings = RaySettings()
    archive: ArchiveSettings = ArchiveSettings()
    explode: Annotated[
        str, Meta(max_length=256, pattern=JSON_NAME, description="an array; a row an element")
    ] = ""
    unmatched: Annotated[
        Literal["quarantine", "drop"],
        Meta(description="for records that no [[route]] takes"),
    ] = "quarantine"
    field: tuple[Declared, ...] = ()
    route: tuple[DeclaredRoute, ...] = ()
    example: tuple[Example, ...] = ()
    index: tuple[Index, ...] = ()

    @property
    def pipeline_name(self) -> str:
        """The name this pipeline is registered under."""
        return self.name or self.targets[0].table

    @property
    def of_units(self) -> "Settings":
        """These settings as they are for units: what is around a notification is not theirs."""
        return msgspec.structs.replace(self, envelope=self.envelope.of_units)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The tables that rows go to: one, or one per route."""
        about = self.vault.subject, self.vault.enabled
        if self.routed:
            return tuple(
                Target(r.table, _mapped(r.field, r), r.explode, r.when, place, r.write, *about)
                for place, r in self._routes
                if not r.drop
            )
        fields = _mapped(self.field or USER_LOGINS, self.sink) or USER_LOGINS
        return (Target(self.sink.table, fields, self.explode, None, "", self.sink.write, *about),)

    @property
    def routed(self) -> bool:
        """Whether routes say which records go to which table."""
        return not all(route.drop for route in self.route)

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The routes that drop what their `when` takes."""
        return tuple(
            Filter(route.when, place)
            for place, route in self._routes
            if route.drop and route.when is not None
        )

    @property
    def drops_unmatched(self) -> bool:
        """Whether records that no route takes are dropped, not quarantined."""
        return self.unmatched == "drop" or any(r.drop and r.when is None for r in self.route)

    @property
    def _routes(self) -> Iterable[tuple[str, Route]]:
        return ((f"route[{number}]", route) for number, route in enumerate(self.route))

    @property
    def dropped(self) -> tuple[str, ...]:
        """Sources of the fields with mask = "drop", which go to no column."""
        declared = (*self.field, *(field for route in self.route for field in route.field))
        return tuple(
            dict.fromkeys(
                source for field in declared if field.mask == DROP for source in field.sources
            )
        )

    @property
    def table_names(self) -> str:
        """The tables that rows go to, as one text."""
        return ", ".join(target.table for target in self.targets)

    @property
    def message_attributes(self) -> tuple[str, ...]:
        """The message attributes that the mapping reads; every receive asks for them.

        Those that SQS sets, and that the pipeline itself does not need, are among them as sqs:NAME.
        """
        read = [name for field in self.fields for name in read_of_message(field)]
        names = [name.removeprefix(ATTRIBUTE) for name in read if name.startswith(ATTRIBUTE)]
        names = [name for name in names if not name.startswith(ENVELOPE_ATTRIBUTES)]
        asked = {SYSTEM + name for name in (*ALWAYS_ASKED, "MessageId")}
        names += [name for name in read if name.startswith(SYSTEM) and name not in asked]
        if self.envelope.has_pointers:
            names += POINTER_SIZES
        if {"auto", "content_encoding"} & set(self.envelope.layers):
            names.append(CONTENT_ENCODING)
        return tuple(dict.fromkeys(names))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The mapping's fields, of all targets: configured, or the built-in `user_logins` ones."""
        return tuple(field for target in self.targets for field in target.fields)


def _mapped(fields: Iterable[Field], write: WriteMode = APPEND) -> tuple[Field, ...]:
    """Return the fields that go to a column.

    Those of a state table's key are required, or have a default.
    """
    return tuple(
        msgspec.structs.replace(field, required=True)
        if write.keeps_state and field.column in write.key and field.default is None
        else field
        for field in fields
        if field.mask != DROP
    )
