"""A model of a fleet: the cores, requests, dollars, WAL and databases that a message rate needs.

    python -m benchmarks.fleet_model --rate 1000000

Every assumption is a field of `Assumptions` with its source, and an option of the command. The
model only adds and multiplies; docs/discussions/scale.md lists what it leaves out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS_A_MONTH = 30 * 86_400


@dataclass(frozen=True)
class Assumptions:
    """Measured or assumed figures for one message, one core, one queue and one database."""

    consumer_us: float = 16.9
    """CPU of a consumer, µs per message. benchmarks/RESULTS.md, drain, one worker."""
    postgres_us: float = 8.1
    """CPU of PostgreSQL, µs per message. The same table."""
    wal_bytes: float = 293.0
    """WAL, bytes per row: ledger, row and their index entries. benchmarks/results/scale.json."""
    core_share: float = 0.6
    """Share of each core that is used on average; the rest is left for bursts and failovers."""
    messages_a_request: float = 9.0
    """Of at most ten per receive or delete; a busy fleet nearly fills its requests."""
    requests_of_leases: float = 0.02
    """Visibility changes per message: only if held longer than a third of its timeout."""
    dollars_a_million_requests: float = 0.40
    """SQS standard, us-east-1, up to 100 billion a month; FIFO 0.50. AWS price list, 2026."""
    dollars_a_core_hour: float = 0.0418
    """An ARM vCPU with 2 GiB on Fargate, us-east-1. AWS price list, 2026."""
    database_wal_bytes_s: float = 200e6
    """WAL that one database can write and ship, bytes/s, with a reserve for checkpoints."""
    database_rows_s: float = 250_000.0
    """Ledger rows per second that one database can insert at the right edge of the ledger's index,
    without the target's own indexes: an assumption, not measured here."""
    round_trip_s: float = 0.05
    """Seconds from a receive to the delete: poll, batch, commit."""
    in_flight_max: int = 120_000
    """Limit of messages in flight per standard queue. AWS SQS quotas."""
    consumer_rate: float = 45_000.0
    """Messages/s of one consumer with a core of its own."""


@dataclass(frozen=True)
class FleetNeeds:
    """What a rate of messages needs."""

    rate: float
    consumer_cores: float
    consumers: int
    postgres_cores: float
    databases: int
    wal_bytes_s: float
    requests_s: float
    in_flight: float
    queues: int
    dollars_a_million_messages: float
    dollars_a_month: float


def fleet(rate: float, a: Assumptions) -> FleetNeeds:
    """Return what `rate` messages per second need. Raises ValueError if it is not above 0."""
    if rate <= 0:
        raise ValueError("the rate must be above 0")
    consumer_cores = rate * a.consumer_us / 1e6 / a.core_share
    postgres_cores = rate * a.postgres_us / 1e6 / a.core_share
    requests_a_message = 2 / a.messages_a_request + a.requests_of_leases
    in_flight = rate * a.round_trip_s
    wal = rate * a.wal_bytes
    requests = requests_a_message * a.dollars_a_million_requests
    cores = (a.consumer_us / a.core_share) / 3600 * a.dollars_a_core_hour
    dollars = requests + cores
    return FleetNeeds(
        rate=rate,
        consumer_cores=round(consumer_cores, 2),
        consumers=math.ceil(rate / (a.consumer_rate * a.core_share)),
        postgres_cores=round(postgres_cores, 2),
        databases=max(math.ceil(wal / a.database_wal_bytes_s), math.ceil(rate / a.database_rows_s)),
        wal_bytes_s=wal,
        requests_s=round(rate * requests_a_message, 1),
        in_flight=in_flight,
        queues=math.ceil(in_flight / a.in_flight_max),
        dollars_a_million_messages=round(dollars, 4),
        dollars_a_month=round(dollars * rate * SECONDS_A_MONTH / 1e6, 2),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a rate needs, and the assumptions."""
    parser = argparse.ArgumentParser(prog="benchmarks.fleet_model", description=__doc__)
    parser.add_argument("--rate", type=float, default=1e6, help="messages per second (1000000)")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    for field in dataclasses.fields(Assumptions):
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, type=type(field.default), default=field.default)
    given = vars(parser.parse_args(arguments))
    rate, as_json = given.pop("rate"), given.pop("json")
    assumptions = Assumptions(**given)
    needs = fleet(rate, assumptions)
    if as_json:
        both = {**dataclasses.asdict(needs), "assumptions": dataclasses.asdict(assumptions)}
        print(json.dumps(both))
        return 0
    print(f"{rate:,.0f} messages per second need:")
    print(f"  {needs.consumer_cores:,.1f} cores of consumers, {needs.consumers:,} processes")
    print(f"  {needs.postgres_cores:,.1f} cores of PostgreSQL, in {needs.databases:,} databases")
    print(f"  {needs.wal_bytes_s / 1e6:,.0f} MB/s of WAL")
    print(f"  {needs.requests_s:,.0f} SQS requests per second, {needs.queues:,} queues")
    print(f"  ${needs.dollars_a_million_messages:.3f} per million messages without the databases")
    print("assuming:")
    for name, value in dataclasses.asdict(assumptions).items():
        print(f"  {name} = {value:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
