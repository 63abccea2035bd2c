"""The compiler: settings, keys and the tables as they are, compiled to a plan.

Everything that processes messages uses it: the stream consumer, Lambda, backfill and replay.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import structs

from sqs2pg.errors import KeyFault, SettingsError, TransientFault
from sqs2pg.keys.derive import Secret, hkdf_sha256
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mapping.budget import budget_of
from sqs2pg.mapping.columns import Column, column_for
from sqs2pg.mapping.key_marks import mark_operators
from sqs2pg.mapping.ledger_key import EventKeys
from sqs2pg.mask.operator import Operator
from sqs2pg.mask.registry import compile_operator
from sqs2pg.native import extension, keep_memory
from sqs2pg.pipeline.key_rotation import Compiled
from sqs2pg.pipeline.large_payloads import Payloads
from sqs2pg.pipeline.plan import Columns, Plan
from sqs2pg.postgres.batch_transaction import SinkPlan
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.dead_letter_copy import sealer
from sqs2pg.postgres.key_registry import oldest_version, verify_fingerprints
from sqs2pg.postgres.migrate import target_tables
from sqs2pg.postgres.target_copy import TargetTable
from sqs2pg.runners.compile_subjects import subject_reader_of
from sqs2pg.runners.start_reads import Once, read_alone
from sqs2pg.settings import Settings, Target
from sqs2pg.settings.staged_fields import staged_fields, with_staged_fields
from sqs2pg.vault.holders import note_holders
from sqs2pg.vault.reference_key import reference_key

if TYPE_CHECKING:
    from sqs2pg.mapping.compile import MessageMapping
    from sqs2pg.mapping.encoder import Encoder
    from sqs2pg.pipeline.object_source import ObjectSource
    from sqs2pg.vault.seal import ValueSealer

logger = structlog.get_logger(__name__)


class PlanCompiler(msgspec.Struct, frozen=True):
    """What was read from the database for one pipeline: all that a plan needs, except the keys."""

    settings: Settings
    pipeline: int
    """The pipeline's number in the database."""
    targets: tuple[TargetTable, ...]
    columns: Columns
    """The targets' columns as they were at the start. A running processor reads them again."""
    dedupe: EventKeys | None
    fifo: bool = False
    archive: bool = False
    objects: ObjectSource | None = None

    def compile(self, keyring: Keyring, subject_key: bytes) -> Compiled:
        """Return the plan under the active keys of `keyring`, which was checked before.

        `subject_key` is what `vault.reference_key` returns for it.
        """
        settings = self.settings
        vault = vault_of(settings, keyring, subject_key)
        masks = masks_of(settings, keyring)
        plan = Plan(
            encoder=self._encoder(masks, self.columns, subject_key),
            payloads=payloads_of(settings),
            objects=self.objects,
            refresh=lambda session: self._refresh(session, masks, subject_key),
            columns=self.columns,
            seal=sealer(keyring, subject_reader_of(settings, subject_key), self._only_table()),
            fifo=self.fifo,
            dedupe=self.dedupe,
            budget=budget_of(settings),
        )
        sink_plan = SinkPlan(
            id=self.pipeline,
            targets=self.targets,
            key_version=keyring.active("pseudonym"),
            statement_timeout_s=settings.sink.statement_timeout_s,
            fifo=self.fifo,
            archive=self.archive,
            objects=self.objects is not None,
            dedupe=self.dedupe is not None,
        )
        return Compiled(keyring, plan, sink_plan, vault)

    def _only_table(self) -> str:
        return self.targets[0].name if len(self.targets) == 1 else ""

    def _encoder(
        self, masks: list[list[Operator | None]], columns: Columns, reference_key: bytes
    ) -> Encoder:
        # Not at the top: a start loads it while the database answers (`load_compiler`).
        from sqs2pg.mapping.compile_encoder import compile_encoder

        targets = list(zip(self.settings.targets, columns, strict=True))
        marks = [mark_operators(*target, reference_key) for target in targets]
        return compile_encoder(
            with_staged_fields(self.settings),
            [_with_staged(target, its_columns) for target, its_columns in targets],
            [[*of_fields, *of_key] for of_fields, of_key in zip(masks, marks, strict=True)],
            extension(),
            keying="lines" if self.archive else "undated" if self.fifo else "dated",
            dedupe=self.dedupe,
            clock=time.perf_counter,
        )

    async def _refresh(
        self, session: Session, masks: list[list[Operator | None]], reference_key: bytes
    ) -> tuple[Encoder, Columns, tuple[TargetTable, ...]]:
        """Compile the encoder against the tables as they are now.

        Raises TransientFault where they do not fit it. Somebody changes the database, or restarts
        with another mapping; the messages are held meanwhile.
        """
        settings = self.settings
        try:
            targets, columns = await target_tables(session, settings, narrowed=True)
            encoder = self._encoder(masks, columns, reference_key)
        except SettingsError as error:
            raise TransientFault(
                error.what,
                code=error.code,
                hint=error.hint,
                table=error.table or settings.table_names,
                column=error.column,
            ) from None
        logger.info("the target's columns were read again", table=settings.table_names)
        return encoder, columns, tuple(targets)

    async def compile_checked(self, session: Session, keyring: Keyring) -> Compiled:
        """Return the plan under the versions that are active in the database by now.

        Raises KeyFault where `keyring` does not have them or does not fit the record.
        """
        keyring = await verify_fingerprints(session, keyring)
        return self.compile(keyring, await reference_key(session, keyring))


async def compile_plan(
    session: Session,
    settings: Settings,
    keyring: Keyring,
    pipeline: int,
    *,
    is_fifo: Callable[[], Awaitable[bool]] | None = None,
    archive: bool = False,
    once: Once = read_alone,
) -> tuple[PlanCompiler, Compiled]:
    """Read the tables and the record of keys; return the compiler and its first plan.

    `once` reads what other pipelines that start now read, too.

    `is_fifo` is asked last, so that a wrong key or table is reported before the queue. Without it
    the messages come from no FIFO queue. `archive`: they come from no queue at all, and may be
    years old. Raises SettingsError where the tables do not fit the mapping, and KeyFault.
    """
    targets, columns = await target_tables(session, settings)

    async def checked() -> tuple[Keyring, Secret]:
        active = await verify_fingerprints(session, keyring)
        return active, await reference_key(session, active)

    keyring, subject_key = await once(("checked keys", settings.keys), checked)
    await note_holders(session, settings, targets)
    compiler = PlanCompiler(
        settings,
        pipeline,
        tuple(targets),
        columns,
        dedupe=await dedupe_of(session, settings, keyring, pipeline),
        fifo=await is_fifo() if is_fifo else False,
        archive=archive,
        objects=None if archive else objects_of(settings),
    )
    return compiler, compiler.compile(keyring, subject_key)


def load_compiler() -> None:
    """Begin to load what compiles the mapping, in a thread: the database is asked meanwhile."""
    if "sqs2pg.mapping.compile_encoder" not in sys.modules:
        threading.Thread(target=_load_compiler, name="load", daemon=True).start()


def _load_compiler() -> None:
    import sqs2pg.mapping.compile_encoder  # noqa: F401


def _with_staged(target: Target, columns: Sequence[Column]) -> list[Column]:
    """Return a target's columns with those that are staged besides.

    What deletes a row has no more than its key and version: the table says what a row must have.
    """
    write = target.write
    deletes = write.delete_when is not None
    return [
        *(
            structs.replace(column, nullable=True)
            if deletes and column.name not in write.key
            else column
            for column in columns
        ),
        *map(column_for, staged_fields(target)),
    ]


async def read_mapping(
    session: Session, settings: Settings, masks: Sequence[Sequence[Operator | None]]
) -> MessageMapping:
    """Compile the mapping alone against the tables as they are now.

    Raises SettingsError where the tables do not fit the mapping.
    """
    from sqs2pg.mapping.compile import compile_mapping

    _, columns = await target_tables(session, settings)
    return compile_mapping(settings, columns, masks)


def masks_of(settings: Settings, keyring: Keyring) -> list[list[Operator | None]]:
    """Return each field's operator, compiled, by target, in the order of fields; None keeps."""
    return [
        [
            None
            if field.mask == "keep" and field.kind == "text"
            else compile_operator(
                field.mask,
                kind=field.mask_kind,
                domain=field.domain or field.name,
                keyring=keyring,
            )
            for field in target.fields
        ]
        for target in settings.targets
    ]


async def dedupe_of(
    session: Session, settings: Settings, keyring: Keyring, pipeline: int
) -> EventKeys | None:
    """Return the function from an event's name to its ledger key; None without `ledger.dedupe_key`.

    It uses the oldest pseudonym root on record, not the active one: neither a rotation nor the
    removal of a root may make old events new. Raises KeyFault `key_missing`
    where the keyring does not hold that root.
    """
    if not settings.ledger.dedupe_key:
        return None
    version = await oldest_version(session, "pseudonym")
    if version not in keyring.versions("pseudonym"):
        raise KeyFault(
            f"the database's oldest pseudonym root, version {version}, is not in the keyring: "
            "ledger.dedupe_key needs it, or every event it knows would be written again",
            code="key_missing",
            hint="put that version back into the key file or environment of this process; with "
            "ledger.dedupe_key it stays there for good",
        )
    secret = hkdf_sha256(keyring.root("pseudonym", version), b"sqs2pg/1/dedupe")
    return EventKeys(secret, pipeline)


def vault_of(settings: Settings, keyring: Keyring, subject_key: bytes) -> ValueSealer | None:
    """Return what seals values for the vault; None if it is off."""
    if not settings.vault.enabled:
        return None
    from sqs2pg.vault.seal import ValueSealer  # only here: most pipelines have no vault

    return ValueSealer(keyring, subject_key)


def objects_of(settings: Settings) -> ObjectSource | None:
    """Return what reads the objects that messages notify of; None if no message does."""
    if not settings.envelope.has_objects:
        return None
    from sqs2pg.pipeline.archive_batches import AHEAD, lines_at_once
    from sqs2pg.pipeline.object_reader import ChunkSize
    from sqs2pg.pipeline.object_source import ObjectSource
    from sqs2pg.runners.archive_form import archive_form
    from sqs2pg.sqs.s3 import ObjectStore  # loads botocore

    keep_memory()
    # Each writer has one chunk in hand, AHEAD that are ready, and one that is made.
    bytes_max = budget_of(settings).bytes_max // (AHEAD + 2)
    chunk = ChunkSize(lines_at_once(settings.sink.batch_rows_max), bytes_max)
    return ObjectSource(ObjectStore(), settings.envelope, chunk, archive_form(settings))


def payloads_of(settings: Settings) -> Payloads | None:
    """Return what fetches the bodies that messages point to; None if no message can."""
    if not settings.envelope.has_pointers:
        return None
    from sqs2pg.sqs.s3 import ObjectStore  # loads botocore

    return Payloads(ObjectStore(), settings.envelope, budget_of(settings).bytes_max)
