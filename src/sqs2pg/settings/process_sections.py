"""The sections that say how a process runs: `Settings` has them beside those of its pipeline.

Frozen, with their defaults. Several pipelines of one process have the same status, telemetry, log
and process. No I/O.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta

from sqs2pg.settings.fields import END, Section

_PORT = r"([1-5]?[0-9]{1,4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
"""0 to 65535."""

DEFAULT_BIND = "127.0.0.1:9465"
"""Where the status is served if `status.bind` is not set."""


class StatusSettings(Section, frozen=True):
    """`[status]`: metrics, health and the status page over HTTP."""

    bind: Annotated[
        Annotated[str, Meta(pattern=rf"^(|.+:{_PORT}){END}")] | None,
        Meta(
            description="host:port of the status page, /metrics, /livez and /readyz; empty: off; "
            f"port 0: any; default {DEFAULT_BIND}, or any port where that is taken; off loopback "
            "all but /livez and /readyz need the token",
        ),
    ] = None
    token: Annotated[
        str, Meta(description="if set, required as `Authorization: Bearer …` or in a form")
    ] = ""
    token_file: Annotated[str, Meta(description="a file that holds the token")] = ""
    hosts: Annotated[
        str,
        Meta(description="host names that requests may use besides localhost; comma-separated"),
    ] = ""
    tap: Annotated[
        bool,
        Meta(
            description="show a sample of the masked rows, as they are written, on the page and to "
            "`sqs2pg tap`; needs a token"
        ),
    ] = False
    poll_s: Annotated[
        float,
        Meta(
            ge=0.1,
            le=600,
            description="time between readings of queue depth, database head-room and the fleet; "
            "up to a minute between those of an empty queue",
        ),
    ] = 10.0
    cloudwatch: Annotated[
        Literal["auto", "off"],
        Meta(description="auto: ask CloudWatch for the oldest message's age, where allowed"),
    ] = "auto"

    def __repr__(self) -> str:
        return f"StatusSettings({self.address})"  # the token is a secret

    def __rich_repr__(self) -> Any:
        yield self.address

    @property
    def address(self) -> str:
        """Where the status is to be served; empty: nowhere."""
        return DEFAULT_BIND if self.bind is None else self.bind


class AwsLambdaSettings(Section, frozen=True):
    """`[aws_lambda]`: the Lambda handler."""

    margin_s: Annotated[
        float,
        Meta(
            ge=2,
            le=120,
            description="time before the function's timeout when no more work is started",
        ),
    ] = 3.0


class RaySettings(Section, frozen=True):
    """`[ray]`: the consumers of `run --ray`, and the processes of `backfill --ray`."""

    consumers_min: Annotated[
        int, Meta(ge=0, le=10_000, description="also the most, if consumers_max is lower")
    ] = 1
    consumers_max: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="PostgreSQL needs room for this many times sink.connections; a backfill "
            "needs two connections for each",
        ),
    ] = 8
    catch_up_s: Annotated[
        float,
        Meta(
            ge=1,
            le=86_400,
            description="the fleet grows until the backlog can be done in this time at the "
            "measured rate, and shrinks after a quiet time of this length",
        ),
    ] = 60.0
    cpus: Annotated[
        float, Meta(ge=0.1, le=64, description="CPUs that a consumer asks Ray for; it uses one")
    ] = 1.0
    every_s: Annotated[
        float, Meta(ge=0.1, le=300, description="time between checks of the fleet")
    ] = 2.0


class TelemetrySettings(Section, frozen=True):
    """`[telemetry]`: what is sent elsewhere. All of it is off by default."""

    traces: Annotated[
        bool, Meta(description="OpenTelemetry spans, one per batch; needs the extra otel")
    ] = False
    metrics: Annotated[
        bool, Meta(description="metrics by OTLP, besides /metrics; needs the extra otel")
    ] = False
    endpoint: Annotated[
        str,
        Meta(description="OTLP collector over HTTP; default: OTEL_EXPORTER_OTLP_ENDPOINT"),
    ] = ""
    emf: Annotated[
        bool,
        Meta(
            description="in the Lambda handler: one line of CloudWatch's embedded metric format on"
            " stdout per invocation; no effect elsewhere"
        ),
    ] = False
    every_s: Annotated[float, Meta(ge=1, le=3600, description="between exports of metrics")] = 60.0


class LogSettings(Section, frozen=True):
    """`[log]`: the log of the process, on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="the least that is logged; the option -v sets debug"),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        Meta(description="auto: text on a terminal, else one JSON object per line"),
    ] = "auto"


CONNECTIONS_MAX = 20
"""Connections to databases that one process has at most for batches, unless it is set."""
IN_FLIGHT_BYTES_MAX = 256 * 2**20


class ProcessSettings(Section, frozen=True):
    """`[process]`: what all pipelines of one process share."""

    connections_max: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000,
            description="connections for batches, of all pipelines of a process; 2 more per "
            f"database for readings. 0: {CONNECTIONS_MAX}, or the largest sink.connections",
        ),
    ] = 0
    in_flight_bytes_max: Annotated[
        int,
        Meta(
            ge=0,
            description="bodies held, and 1 KiB more per message, of all pipelines of a process; "
            "half of it is shared out evenly, so that none can take it all. 0: 256 MiB, or the "
            "largest source.in_flight_bytes_max",
        ),
    ] = 0
    receivers_max: Annotated[
        int,
        Meta(ge=1, le=10_000, description="long polls in flight, of all pipelines of a process"),
    ] = 256
