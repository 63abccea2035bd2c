"""The grants on the targets: what ingest and analysts need there, from the settings alone."""

from __future__ import annotations

from collections.abc import Iterator

from sqs2pg.postgres.identifiers import quote_identifier, quote_literal, quote_table
from sqs2pg.settings import Settings, Target

_TEMPORARY = """DO $temporary$
BEGIN
    IF {staged} AND EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'sqs2pg_ingest') THEN
        IF NOT has_database_privilege('sqs2pg_ingest', current_database(), 'TEMPORARY') THEN
            EXECUTE format(
                'GRANT TEMPORARY ON DATABASE %I TO sqs2pg_ingest', current_database());
        END IF;
    END IF;
END
$temporary$"""
# Of the tables that no COPY writes for some role, or for any (`write_path.py`).
_STAGED = """EXISTS (
        SELECT FROM pg_catalog.pg_class c WHERE c.oid IN ({tables})
        AND (c.relrowsecurity OR c.relkind = 'f' OR EXISTS (
            SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '3')))"""


def target_grants(settings: Settings) -> list[str]:
    """Return the grants on the targets: ingest adds rows, analysts read them.

    Of a state table ingest also reads the key, and reads and updates the columns that a newer row
    changes: PostgreSQL wants SELECT on them for ON CONFLICT. The last word of each is the role.
    """
    schemas = dict.fromkeys(t.table.partition(".")[0] for t in settings.targets if "." in t.table)
    schemas.pop("public", None)  # everybody may use it by default
    return [
        f"GRANT USAGE ON SCHEMA {quote_table(schema)} TO {role}"
        for schema in schemas
        for role in ("sqs2pg_ingest", "sqs2pg_analyst")
    ] + [
        f"GRANT {privilege} ON {quote_table(target.table)} TO {role}"
        for target in settings.targets
        for privilege, role in (
            *((right, "sqs2pg_ingest") for right in _of_ingest(target)),
            ("SELECT", "sqs2pg_analyst"),
        )
    ]


def temporary_grant(settings: Settings) -> str:
    """Return what lets ingest make temporary tables, where rows of any target are staged in one.

    Every role may, unless somebody revoked it.
    """
    tables = ", ".join(
        f"pg_catalog.to_regclass({quote_literal(quote_table(target.table))})"
        for target in settings.targets
    )
    keeps_state = any(target.write.keeps_state for target in settings.targets)
    return _TEMPORARY.replace(
        "{staged}", "true" if keeps_state else _STAGED.replace("{tables}", tables)
    )


def _of_ingest(target: Target) -> Iterator[str]:
    yield "INSERT"
    write = target.write
    if not write.keeps_state:
        return
    updated = target.updated_columns if write.mode == "upsert" else ()
    read = {*write.key, *updated}
    columns = [field.column for field in target.fields]
    yield f"SELECT ({', '.join(quote_identifier(name) for name in columns if name in read)})"
    if updated:
        yield f"UPDATE ({', '.join(map(quote_identifier, updated))})"
    if write.delete_when:
        yield "DELETE"
