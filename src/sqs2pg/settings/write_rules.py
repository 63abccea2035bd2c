"""Rules of `mode`, `key` and what belongs to them, of each target. Pure."""

from __future__ import annotations

from sqs2pg.errors import SettingsError, nearest
from sqs2pg.mask.registry import properties
from sqs2pg.settings import source_paths
from sqs2pg.settings.fields import SYSTEM, Field
from sqs2pg.settings.routes import Target
from sqs2pg.settings.sections import Settings
from sqs2pg.settings.staged_fields import NOT_ONE_FORM
from sqs2pg.settings.write_modes import APPEND

_OF_UPSERT = ("newer", "update", "keep_if_null", "delete_when", "retention_days")
_STAGED = "sqs2pg_"
"""What the names of columns begin with that are in the staging table alone."""
_NUMBERS = {
    "SentTimestamp": 'type = "bigint", or "timestamptz" with format = "epoch_ms"',
    "ApproximateFirstReceiveTimestamp": 'type = "bigint", or "timestamptz" with '
    'format = "epoch_ms"',
    "SequenceNumber": 'type = "numeric"',
}
"""Attributes of SQS that order versions, and the types in which they compare as numbers."""


def check_write_modes(settings: Settings) -> None:
    """Refuse a mode without what it needs, and what no mode uses.

    Raises SettingsError `write_mode`, and `bad_path` for `delete_when`.
    """
    if settings.routed and settings.sink.write != APPEND:
        raise SettingsError(
            "there are [[route]] tables, and sink has a mode, key or what belongs to them",
            code="write_mode",
            hint="with routes, set mode, key, newer and the like in each [[route]]",
        )
    for target in settings.targets:
        place = target.route or "sink"
        _check_mode(place, target)
        if target.write.key:
            _check_key(place, target)
        if target.write.keeps_state:
            _check_columns(place, target)
        if target.write.mode == "upsert":
            _check_upsert(place, target)
    _check_partition_key(settings)


def _check_mode(place: str, target: Target) -> None:
    write = target.write
    if write.keeps_state and not write.key:
        raise SettingsError(
            f'{place}.mode is "{write.mode}", and {place}.key names no column',
            code="write_mode",
            hint=f"set {place}.key to the columns that a row of {target.table} is known by, such "
            'as key = ["order_id"]; the table needs a unique index of them',
        )
    if write.digest and not write.key:
        raise SettingsError(
            f"{place}.digest is true, and {place}.key names no column",
            code="write_mode",
            hint=f"set {place}.key to the columns that a row of {target.table} is known by",
        )
    given = [name for name in _OF_UPSERT if getattr(write, name)]
    if given and write.mode != "upsert":
        raise SettingsError(
            f'{place}.{given[0]} has no effect with mode = "{write.mode}"',
            code="write_mode",
            hint=f'set {place}.mode to "upsert", or remove {given[0]}',
        )


def _check_columns(place: str, target: Target) -> None:
    for field in target.fields:
        if field.column.startswith(_STAGED):
            raise SettingsError(
                f"{place}: the column {field.column!r} has a name of those that rows of a state "
                "table are staged with",
                code="write_mode",
                hint=f"rename the column: in a state table none begins with {_STAGED}",
            )


def _check_key(place: str, target: Target) -> None:
    for column in target.write.key:
        field = _mapped(f"{place}.key", column, target)
        if target.write.key.count(column) > 1:
            raise SettingsError(
                f"{place}.key names the column {column!r} twice",
                code="write_mode",
                hint="name each column once",
            )
        if field.mask in ("redact", "nullify") or _is_random(field):
            raise SettingsError(
                f"{place}.key names {column!r}, and mask = {field.mask!r} does not give equal "
                "values equal masks",
                code="write_mode",
                hint='use mask = "pseudonymize" or "keep" for a key',
            )


def _is_random(field: Field) -> bool:
    found = properties(field.mask)
    return not (found.deterministic and found.joinable)


def _check_upsert(place: str, target: Target) -> None:
    write = target.write
    for column in write.update:
        _mapped(f"{place}.update", column, target)
        if column in write.key:
            raise SettingsError(
                f"{place}.update names {column!r}, which is in {place}.key",
                code="write_mode",
                hint="a row is known by its key, which never changes: remove it from update",
            )
    if not target.updated_columns:
        raise SettingsError(
            f"every column of {target.table} that a field goes to is in {place}.key: an upsert "
            "has nothing to change",
            code="write_mode",
            hint='use mode = "ignore"',
        )
    if write.newer:
        _check_newer(place, target)
    elif write.retention_days:
        raise SettingsError(
            f"{place} has retention_days, and {place}.newer names no column",
            code="write_mode",
            hint=f"set {place}.newer to a column of dates or timestamps: its age counts",
        )
    if write.delete_when:
        _check_deletes(place, target)


def _check_newer(place: str, target: Target) -> None:
    newer = target.write.newer
    field = _mapped(f"{place}.newer", newer, target)
    if newer in target.write.key:
        raise SettingsError(
            f"{place}.newer names {newer!r}, which is in {place}.key",
            code="write_mode",
            hint="versions of one row have one key: name a column that rises, such as updated_at",
        )
    if field.mask != "keep":
        raise SettingsError(
            f"{place}.newer names {newer!r}, which is masked: masks have no order",
            code="write_mode",
            hint='name a column with mask = "keep"',
        )
    if field.first_source == target.subject:
        raise SettingsError(
            f"{place}.newer names {newer!r}, which has the person's id (vault.subject): an erasure "
            "replaces it by a random one",
            code="write_mode",
            hint="name a column that rises, such as updated_at",
        )
    if field.type == "jsonb" or field.type.endswith("[]"):
        raise SettingsError(
            f"{place}.newer names {newer!r}, and type = {field.type!r} has no order of versions",
            code="write_mode",
            hint='use a number, a "date" or a "timestamptz"',
        )
    for source in field.sources:
        types = _NUMBERS.get(source.removeprefix(SYSTEM))
        if source.startswith(SYSTEM) and types and field.type == "text":
            raise SettingsError(
                f"{place}.newer names {newer!r}, which has {source} as a text: 9 would be newer "
                "than 10",
                code="write_mode",
                hint=f"set {types} on the [[field]], and let the column be of that type",
            )


def _check_deletes(place: str, target: Target) -> None:
    when = target.write.delete_when
    if when and when.field:
        source_paths.compile_sources([when.field], target.explode)
    for column in target.write.key:
        field = _mapped(f"{place}.key", column, target)
        if field.type in NOT_ONE_FORM or field.type.endswith("[]"):
            raise SettingsError(
                f"{place}.delete_when: the key column {column!r} has type = {field.type!r}, of "
                "which equal values have several spellings, and a deleted row is remembered by one",
                code="write_mode",
                hint="with delete_when a key is of text, uuid, numbers, dates, timestamps, "
                "booleans or addresses",
            )
        if field.over_length == "truncate":
            raise SettingsError(
                f'{place}.delete_when: the key column {column!r} has over_length = "truncate": '
                "different keys may become one, and a deleted row is remembered by the whole",
                code="write_mode",
                hint="remove over_length, or let the column be longer",
            )


def _check_partition_key(settings: Settings) -> None:
    by, first = settings.sink.partition_by, settings.targets[0]
    if by and first.write.keeps_state and by not in first.write.key:
        raise SettingsError(
            f"{first.table} is partitioned by {by!r}, which is not in key",
            code="write_mode",
            hint=f"add {by!r} to key: a unique index of a partitioned table has the partition "
            "columns in it",
        )


def _mapped(setting: str, column: str, target: Target) -> Field:
    for field in target.fields:
        if field.column == column:
            return field
    # The name is not quoted: a value of the environment may be a misplaced secret.
    columns = [field.column for field in target.fields]
    near = nearest(column, columns)
    raise SettingsError(
        f"{setting} names a column of {target.table} that no field goes to",
        code="write_mode",
        hint=f"did you mean {near!r}?"
        if near
        else f"map a field to it, or name one of {', '.join(columns)}",
    )
