"""Who a message or a row is about, compiled from the settings.

For the quarantine, which keeps each body under its person's reference, and for the commands that
erase a person or give old rows new tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqs2pg.errors import PermanentFault
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.fast_path_masks import compile_pseudonym
from sqs2pg.mapping.subject import SubjectReader, stored_form, subject_reader, subject_sources
from sqs2pg.mask.registry import compile_operator
from sqs2pg.message import Message, SystemAttributes
from sqs2pg.postgres.identifiers import quote_table
from sqs2pg.settings import Field, Settings
from sqs2pg.vault.crypto import subject_references

if TYPE_CHECKING:
    from sqs2pg.vault.target_rows import PersonColumns
    from sqs2pg.vault.token_map import RecoverableColumn


def person_columns_of(
    settings: Settings, keyring: Keyring, reference_key: bytes | None = None
) -> list[PersonColumns]:
    """Return where people's rows are: every target of the mapping.

    An erasure needs the `reference_key`, by which it remembers rows that it deletes. Raises
    SettingsError.
    """
    from sqs2pg.vault.target_rows import person_columns  # of commands, not of a pipeline

    return [
        person_columns(target, keyring, reference_key, named=position > 0)
        for position, target in enumerate(settings.targets)
    ]


def recoverable_columns(settings: Settings, keyring: Keyring) -> list[RecoverableColumn]:
    """Return every target's columns of pseudonyms whose values the vault keeps."""
    from sqs2pg.mapping.column_cells import masked
    from sqs2pg.vault.token_map import RecoverableColumn  # of commands, not of a pipeline

    rings = {v: keyring.with_active("pseudonym", v) for v in keyring.versions("pseudonym")}
    active = keyring.active("pseudonym")

    def column(table: str, field: Field) -> RecoverableColumn:
        domain = field.domain or field.name
        operators = {
            version: compile_operator(field.mask, kind=field.mask_kind, domain=domain, keyring=ring)
            for version, ring in rings.items()
        }
        masks = {version: masked(field, one.mask) for version, one in operators.items()}
        pseudonym = compile_pseudonym(field, operators[active])
        return RecoverableColumn(quote_table(table), field.column, field.name, masks, pseudonym)

    return [
        column(target.table, field)
        for target in settings.targets
        for field in target.fields
        if field.recover and field.mask == "pseudonymize"
    ]


def references_of(settings: Settings, reference_key: bytes) -> Callable[[str], str]:
    """Return the function from a person's id, as messages or the target have it, to the person's
    reference. It raises PermanentFault for an id that could not have been stored.
    """
    reference = subject_references(reference_key)
    named = stored_form(settings.fields, settings.vault.subject)
    return lambda name: reference(named(name))


def subject_reader_of(settings: Settings, reference_key: bytes) -> SubjectReader:
    """Return the function from a body to the reference of the person it is about.

    It returns None where the body's records do not all name the same person.
    """
    settings = settings.of_units
    sources = subject_sources(settings.fields, settings.vault.subject)
    find = subject_reader(references_of(settings, reference_key), *sources)
    if not settings.envelope.layers and settings.envelope.records == "one":
        return find
    from sqs2pg.mapping.envelope import Envelope

    envelope = Envelope(settings.envelope)

    def inside(body: str) -> str | None:
        try:
            opened = envelope.open(Message("", "", body, SystemAttributes(0)))
        except PermanentFault:
            return find(body)
        found = set(map(find, opened.records.texts))
        return found.pop() if len(found) == 1 else None

    return inside
