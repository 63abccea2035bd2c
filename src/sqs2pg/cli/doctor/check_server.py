"""Checks of the database server: durable commits, clock, TLS and free connections."""

from __future__ import annotations

import ssl
import time

from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, fail, ok, warn
from sqs2pg.keys.loopback import is_loopback
from sqs2pg.postgres.connection import APPLICATION_NAME
from sqs2pg.postgres.dsn import describe, dsn_options, hosts, resolve_dsn

SKEW_S_MAX = 60.0
"""The ledger's days and `sent_date` are in UTC; AWS refuses requests five minutes off."""

_STATE = """SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
       current_setting('synchronous_commit'), current_setting('fsync'),
       current_setting('full_page_writes'),
       current_setting('max_connections')::int
           - current_setting('superuser_reserved_connections')::int,
       extract(epoch FROM clock_timestamp())::float8"""
_CONNECTIONS = """SELECT count(*) FILTER (WHERE backend_type = 'client backend'),
       (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user),
       count(*) FILTER (WHERE usename = current_user)
FROM pg_catalog.pg_stat_activity"""
_TLS = "SELECT ssl, version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()"


async def check_server(context: Context) -> list[Finding]:
    """Report whether writes are durable, the clocks agree, and the connection is encrypted."""
    [(standby, read_only, sync, fsync, pages, _, server_s)] = await context.query(_STATE)
    findings = []
    if standby or read_only:
        what = "a standby" if standby else "read-only (default_transaction_read_only)"
        findings.append(
            fail(
                "database writes",
                f"the server is {what}",
                "connect to the primary: target_session_attrs=read-write",
            )
        )
    if fsync == "off" or pages == "off":
        off = "fsync" if fsync == "off" else "full_page_writes"
        findings.append(
            warn(
                "database durability",
                f"{off} is off: a crash of the server may lose what was acknowledged",
                f"set {off} = on; good only for tests",
            )
        )
    else:
        findings.append(
            ok(
                "database durability",
                f"fsync is on; synchronous_commit is {sync}, and every batch sets on or stronger",
            )
        )
    findings.append(_clock(server_s))
    findings.append(await _tls(context))
    return findings


def _clock(server_s: float) -> Finding:
    skew_s = server_s - time.time()
    if abs(skew_s) > SKEW_S_MAX:
        return fail(
            "clock",
            f"this machine's clock and the database's differ by {abs(skew_s):,.0f} s",
            "synchronise both (NTP): AWS refuses requests that are five minutes off",
        )
    return ok("clock", f"within {abs(skew_s):.1f} s of the database's")


async def _tls(context: Context) -> Finding:
    where = describe(resolve_dsn(context.settings.sink.dsn))
    [(encrypted, version)] = await context.query(_TLS) or [(False, None)]
    if encrypted:
        return ok("database TLS", f"{version} to {where}")
    names = hosts(resolve_dsn(context.settings.sink.dsn))
    if all(not name or name.startswith("/") or is_loopback(name) for name in names):
        return ok("database TLS", "not used, on loopback or a local socket")
    return warn(
        "database TLS",
        f"rows go unencrypted to {where}",
        f"set sslmode=verify-full and sslrootcert ({ssl.get_default_verify_paths().cafile})",
    )


async def check_connections(context: Context) -> Finding:
    """Whether there is room for the pipeline's connections, and whether a pooler is in between."""
    name = "database connections"
    settings = context.settings
    wanted = settings.sink.connections + 2  # one for upkeep, one for a command
    [(used, role_limit, of_role)] = await context.query(_CONNECTIONS)
    [(*_, limit, _now)] = await context.query(_STATE)
    pooled = await _pooler(context)
    between = f"; {pooled}" if pooled else ""
    free = limit - used
    if role_limit is not None and role_limit >= 0:
        free = min(free, role_limit - of_role)
    if free < wanted:
        return warn(
            name,
            f"{free} are free, a worker takes up to {wanted}{between}",
            "raise max_connections or the role's limit, lower sink.connections, or put PgBouncer "
            "between",
        )
    return ok(name, f"{free} of {limit} are free, a worker takes up to {wanted}{between}")


async def _pooler(context: Context) -> str:
    """Return what the session shows of a pooler: in transaction mode another server process may
    answer each statement, and the session's own settings are lost.
    """
    pids = {(await context.query("SELECT pg_backend_pid()"))[0][0] for _ in range(4)}
    [(application,)] = await context.query("SELECT current_setting('application_name')")
    if len(pids) > 1:
        return "a pooler in transaction mode is in between, which is fine"
    options = dsn_options(resolve_dsn(context.settings.sink.dsn))
    ours = options.get("application_name", APPLICATION_NAME)
    changed = application != ours and "service" not in options  # whose file may name sessions
    return "a pooler seems to be in between" if changed else ""
