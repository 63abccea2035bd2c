"""The breakages: one deliberate mistake each, and the tests that should notice it.

A breakage replaces one piece of text, which stands once in its file. Paths are relative to the
checkout.
"""

from __future__ import annotations

from typing import NamedTuple

PACKAGE = "src/sqs2pg"


class Breakage(NamedTuple):
    """One mistake in one place."""

    what: str
    """What it breaks, in words."""
    file: str
    before: str
    after: str
    tests: str
    """Modules below `tests`, separated by spaces."""

    @property
    def files(self) -> list[str]:
        """Return the tests' files, as pytest takes them."""
        return [f"tests/{name}.py" for name in self.tests.split()]


def _in(
    folder: str, *breakages: tuple[str, str, str, str, str], suffix: str = ".py"
) -> list[Breakage]:
    """Return the breakages of one folder: what, file without suffix, before, after, tests."""
    return [
        Breakage(what, f"{folder}/{name}{suffix}", before, after, tests)
        for what, name, before, after, tests in breakages
    ]


PIPELINE = _in(
    f"{PACKAGE}/pipeline",
    (
        "all queues with a backlog are received from at once",
        "pollers",
        "return not self._turn.held and self._buffer.backlog and not self._limit.is_set",
        "return False",
        "unit/pipeline/test_pollers",
    ),
    (
        "a turn is kept while the database is away",
        "pollers",
        """            if not self.gate.is_open:
                self._turn.end()
                await""",
        """            if not self.gate.is_open:
                await""",
        "unit/pipeline/test_pollers",
    ),
    (
        "the pause of another pipeline is read and not noted",
        "pause_watch",
        "            watch.note(pauses.get(number))\n",
        "            self.note(pauses.get(number))\n",
        "unit/pipeline/test_pause_watch",
    ),
    (
        "the end does not wait for deletes under way",
        "consumer",
        """                    self._idle.clear()
                await self._source.acknowledged()
""",
        """                    self._idle.clear()
""",
        "integration/test_consumer integration/test_signals faults/test_kills",
    ),
    (
        "messages that are not settled are deleted",
        "consumer",
        "self._source.acknowledge([message for message, o in each if o.settled])",
        "self._source.acknowledge([message for message, o in each])",
        "integration/test_isolation faults/test_leases",
    ),
    (
        "messages held at the end are not released",
        "consumer",
        "            await self._within(self._source.release(held), 5.0)",
        "            pass",
        "faults/test_kills integration/test_signals",
    ),
    (
        "receiving goes on while the database is away",
        "consumer",
        """        self.pollers.gate.close()
        self.liveness.paused = True""",
        """        self.liveness.paused = True""",
        "faults/test_leases",
    ),
    (
        "a drain ends although messages are in flight elsewhere",
        "consumer",
        "left = visible or delayed or in_flight > len(self.isolated())",
        "left = visible or delayed",
        "integration/test_consumer acceptance/test_operate",
    ),
    (
        "a drain ends although messages are delayed",
        "consumer",
        "left = visible or delayed or in_flight > len(self.isolated())",
        "left = visible or in_flight > len(self.isolated())",
        "integration/test_consumer acceptance/test_operate",
    ),
    (
        "a suspect is not tried alone",
        "poison",
        "parts += [[message] for message in together] if is_suspect else [together]",
        "parts += [together]",
        "unit/pipeline/test_poison",
    ),
    (
        "a suspect's marker stays after it was written",
        "poison",
        """        if outcome.settled:
            await sink.clear_suspect(key)
        else:""",
        """        if not outcome.settled:
            await sink.clear_suspect(key)
        else:""",
        "integration/test_delivery",
    ),
    (
        "a suspect is quarantined though the fault was the database's",
        "poison",
        "                if outcome.settled:  # else the marker must outlast this delivery, too",
        "                if True:",
        "integration/test_delivery",
    ),
    (
        "a suspect one delivery too late",
        "poison",
        "return message.attributes.approximate_receive_count >= self.receives",
        "return message.attributes.approximate_receive_count > self.receives",
        "unit/pipeline/test_poison",
    ),
    (
        "two batches of one message group at once",
        "buffer",
        "            (later if busy else batch).append(message)",
        "            batch.append(message)",
        "unit/pipeline/test_buffer",
    ),
    (
        "a message group stays busy for ever",
        "buffer",
        "            self._busy_groups -= {m.attributes.message_group_id for m in batch}",
        "            pass",
        "unit/pipeline/test_buffer",
    ),
    (
        "messages of a FIFO queue are written in the order of their arrival",
        "processor",
        "order = sorted(range(len(messages)), key=lambda i: messages[i].sequence)",
        "order = list(range(len(messages)))",
        "integration/test_consumer",
    ),
    (
        "what follows a released part is written before it",
        "processor",
        """        except TransientFault as fault:
            self.release(fault)
        return outcomes + [Outcome.RELEASED] * len(left)""",
        """        except TransientFault as fault:
            self.release(fault)
        return outcomes + [Outcome.WRITTEN] * len(left)""",
        "integration/test_parts integration/test_delivery",
    ),
    (
        "a message counts as committed before it is",
        "recent_keys",
        "if commit.has(entry):",
        "if commit:",
        "unit/pipeline/test_recent_keys",
    ),
    (
        "the progress of a backfill is not in its transaction",
        "backfill",
        "note = progress.move_statement(line, after)",
        'note = ""',
        "acceptance/test_backfill",
    ),
    (
        "lines left behind are forgotten",
        "backfill",
        "        await progress.leave(line, await self._processor.sink.connected())",
        "        await self._processor.sink.connected()",
        "acceptance/test_backfill",
    ),
    (
        "a connection that does not come about is a message's fault",
        "refusals",
        """    if code in _CONNECTING and not fault.table:
        return False
""",
        "",
        "integration/test_isolation",
    ),
    (
        "one refused message passes for all of them",
        "refusals",
        "ALIKE_MIN = 10\n",
        "ALIKE_MIN = 1\n",
        "unit/pipeline/test_isolation integration/test_isolation",
    ),
    (
        "an isolated message comes back at once",
        "isolation",
        "return int(min(AWAY_MAX_S, AWAY_FIRST_S * 2**doublings))",
        "return 0",
        "integration/test_isolation unit/pipeline/test_isolation",
    ),
    (
        "an object of any bucket is read",
        "object_source",
        "if any(one.bucket not in self._buckets for one in found.objects):",
        "if False:",
        "integration/test_s3_objects unit/mapping/test_s3_event",
    ),
    (
        "a replay takes entries that were replayed",
        "replay",
        "selection = msgspec.structs.replace(selection, open_only=True)",
        "selection = msgspec.structs.replace(selection, open_only=False)",
        "integration/test_quarantine",
    ),
    (
        "an amended entry stays open",
        "amend",
        "            await self._session.execute(_CLOSE, [anchor.sequence, number])\n",
        "",
        "integration/test_amend acceptance/test_pause",
    ),
    (
        "a mended body that is still bad closes the entry",
        "amend",
        "            if faults:\n",
        "            if False:\n",
        "integration/test_amend acceptance/test_pause",
    ),
)

RUNNERS = _in(
    f"{PACKAGE}/runners",
    (
        "Lambda: the later messages of a FIFO group overtake a failed one",
        "aws_lambda",
        "            if self._fifo and (group := message.attributes.message_group_id):\n",
        "            if False and (group := message.attributes.message_group_id):\n",
        "acceptance/test_aws_lambda",
    ),
    (
        "Lambda: a batch that failed whole is answered",
        "aws_lambda",
        "        if messages and len(failed) == len(messages):\n",
        "        if False:\n",
        "acceptance/test_aws_lambda",
    ),
    (
        "Lambda: a batch begins in the margin before the timeout",
        "aws_lambda",
        "return self._remaining_s() <= self._margin_s",
        "return False",
        "unit/runners/test_aws_lambda",
    ),
    (
        "a fleet shrinks at once",
        "autoscaler",
        "        return running - 1\n",
        "        return target\n",
        "unit/runners/test_autoscaler",
    ),
    (
        "a paused fleet counts as slow",
        "autoscaler",
        "        if load.paused:\n",
        "        if False:\n",
        "unit/runners/test_autoscaler",
    ),
    (
        "a reload forgets what was counted before it",
        "reload",
        "self._before = self._before.plus(await run)",
        "await run",
        "faults/test_reload",
    ),
    (
        "settings that come during a start are forgotten",
        "supervised",
        "        if self.settings is not settings:  # they came while it was opened\n",
        "        if False:\n",
        "unit/runners/test_supervised",
    ),
    (
        "a pipeline that fails ends the others of its process",
        "supervised",
        """            except Sqs2pgError as fault:
                if self._alone:
                    raise
""",
        """            except Sqs2pgError as fault:
                if True:
                    raise
""",
        "acceptance/test_pipelines",
    ),
)

SQS = _in(
    f"{PACKAGE}/sqs",
    (
        "a delete that failed is not tried again",
        "deleter",
        "            if not failure.sender_fault\n",
        "            if False\n",
        "unit/sqs/test_deleter faults/test_queue_faults",
    ),
    (
        "eleven messages in one delete request",
        "deleter",
        (
            "if settled and len(settled[-1]) < BATCH_MAX:\n            start = BATCH_MAX - "
            "len(settled[-1])"
        ),
        (
            "if settled and len(settled[-1]) <= BATCH_MAX:\n            start = BATCH_MAX + 1 - "
            "len(settled[-1])"
        ),
        "unit/sqs/test_deleter",
    ),
    (
        "leases are extended when they are over",
        "queue",
        "for lease in self._leases.due(time.monotonic() + timeout_s * 2 / 3):",
        "for lease in self._leases.due(time.monotonic()):",
        "faults/test_leases",
    ),
    (
        "a lease is not extended",
        "queue",
        "self.queue_url, handles, max(0, min(timeout_s, left_s))",
        "self.queue_url, handles, 0",
        "faults/test_leases",
    ),
    (
        "messages that are released stay invisible",
        "queue",
        "await asyncio.gather(*map(make_visible, batches))",
        "await asyncio.sleep(0)",
        "faults/test_kills integration/test_signals",
    ),
    (
        "the budget of bytes bounds nothing",
        "queue",
        "            and size <= self._settings.in_flight_bytes_max\n",
        "",
        "faults/test_leases integration/test_consumer integration/test_parts",
    ),
    (
        "an answer without counts is an empty queue",
        "queue",
        "visible, in_flight, delayed = read_counts(answer, _COUNTS)",
        "visible, in_flight, delayed = [int(answer.get(name, 0)) for name in _COUNTS]",
        "integration/test_consumer",
    ),
    (
        "a character beyond ASCII counts as one byte",
        "leases",
        "size = len(body) if body.isascii() else 4 * len(body)",
        "size = len(body)",
        "unit/sqs/test_leases",
    ),
    (
        "a message that comes again keeps its old handle",
        "leases",
        "                kept.receipt_handle = message.receipt_handle\n",
        "",
        "unit/sqs/test_leases",
    ),
    (
        "a redelivery is counted twice in the budget",
        "leases",
        "                self.release([message])\n                kept =",
        "                kept =",
        "unit/sqs/test_leases",
    ),
    (
        "leases are looked for in any order",
        "leases",
        "        self.by_expiry = {lease: None} | self.by_expiry",
        "        self.by_expiry = self.by_expiry | {lease: None}",
        "unit/sqs/test_leases faults/test_queue_faults",
    ),
    (
        "a throttle is not retried",
        "retries",
        '    "aws_throttled",\n    "aws_timeout",',
        '    "aws_timeout",',
        "unit/sqs/test_retries integration/sqs/test_client",
    ),
    (
        "one attempt too many",
        "retries",
        "if attempt >= self._settings.attempts_max:",
        "if attempt > self._settings.attempts_max:",
        "unit/sqs/test_retries",
    ),
    (
        "an answer of AWS is quoted",
        "errors",
        'return text if _PLAIN.fullmatch(text) else "Unknown"',
        "return text",
        "unit/sqs/test_errors",
    ),
    (
        "denied access is taken for a fault that passes",
        "errors",
        '    (_DENIED, "aws_access_denied",',
        '    (frozenset(), "aws_access_denied",',
        "unit/sqs/test_errors",
    ),
    (
        "a signature is kept for the next second",
        "signer",
        """        if second != self._second:
            self._states = self._begin_second(second)
            self._second = second""",
        """        if self._second < 0:
            self._states = self._begin_second(second)
            self._second = second""",
        "unit/sqs/test_signer",
    ),
    (
        "the session token is not signed",
        "signer",
        """        if signer.keys.token:
            headers["x-amz-security-token"] = signer.keys.token
""",
        "",
        "unit/sqs/test_signer",
    ),
    (
        "a date of the year 10000 is read",
        "odd_deliveries",
        "if message.attributes.sent_timestamp > latest_ms:",
        "if False:",
        "unit/sqs/test_odd_deliveries integration/test_odd_deliveries",
    ),
    (
        "a message without a body is an empty one",
        "odd_deliveries",
        'odd.append("Body")',
        "pass",
        "unit/sqs/test_odd_deliveries integration/test_odd_deliveries",
    ),
)

POSTGRES = _in(
    f"{PACKAGE}/postgres",
    (
        "an unknown error is a row's fault",
        "sqlstate",
        (
            "        return DatabaseFault(Verdict.BAD_ROW, state, place, line, table)\n    return "
            "DatabaseFault(Verdict.TRANSIENT, state, place, table=table)"
        ),
        (
            "        return DatabaseFault(Verdict.BAD_ROW, state, place, line, table)\n    return "
            "DatabaseFault(Verdict.BAD_ROW, state, place, table=table)"
        ),
        "unit/test_sqlstates integration/test_delivery",
    ),
    (
        "class 40, a deadlock, is a row's fault",
        "sqlstate",
        "        family in _ROW_CLASSES\n",
        '        family in (*_ROW_CLASSES, "40")\n',
        "unit/test_sqlstates faults/test_database_faults",
    ),
    (
        "a missing partition is a row's fault",
        "sqlstate",
        (
            'if state == "23514" and diag.table_name and not (diag.constraint_name or '
            "diag.datatype_name):"
        ),
        "if False:",
        "integration/test_isolation",
    ),
    (
        "a duplicate in the ledger is a row's fault",
        "sqlstate",
        'if state == "23505" and (diag.table_name or "").startswith("delivery"):',
        "if False:",
        "integration/test_delivery",
    ),
    (
        "the error's text is in the fault",
        "sqlstate",
        'f"PostgreSQL refused (SQLSTATE {fault.detail}{about})"',
        'f"PostgreSQL refused (SQLSTATE {fault.detail}{about}): {error}"',
        "unit/test_sqlstates acceptance/test_errors acceptance/test_canary",
    ),
    (
        "two messages of one key are one",
        "ledger",
        "if held and not self._dedupe:",
        "if False:",
        "integration/test_identity",
    ),
    (
        "ledger lines are entered out of order",
        "ledger",
        "            text = merged(text, sorted(lines))",
        '            text = text + b"".join(lines)',
        "integration/test_delivery",
    ),
    (
        "keys are claimed in any order",
        "ledger",
        "        entries.sort(key=_by_key)\n",
        "",
        "properties/test_ledger faults/test_database_faults integration/test_delivery",
    ),
    (
        "a rejected message stays written in the ledger",
        "slow_path",
        "        await strategy.put_back(session, rejected.keys())",
        "        pass",
        "integration/test_delivery",
    ),
    (
        "the vault seals what was rejected",
        "slow_path",
        "chosen = {row.message_id for row in written}",
        "chosen = {row.message_id for row in taken}",
        "integration/test_vault_sealing",
    ),
    (
        "the row before the bad one is rejected",
        "reject_search",
        "self._rejected[index] = (self._rows[index], fault)",
        "self._rejected[index] = (self._rows[index - 1], fault)",
        "integration/test_reject_search",
    ),
    (
        "all rows are rejected for some that lie apart",
        "reject_search",
        "            and max(found) == SAME_FAULT_MAX - 1\n",
        "",
        "integration/test_reject_search integration/test_delivery",
    ),
    (
        "rows that the table suppresses are lost",
        "sink",
        """            if not await self._targets.copy(self.session, encoded.targets):
                await transaction.rollback()
                return SUPPRESSED
""",
        """            await self._targets.copy(self.session, encoded.targets)
""",
        "integration/test_delivery integration/test_reject_search integration/test_write_path",
    ),
    (
        "a deferred constraint fails in COMMIT",
        "slow_path",
        "    await session.execute(CONSTRAIN)\n",
        "",
        "integration/test_reject_search integration/test_delivery integration/test_targets",
    ),
    (
        "quarantined messages are not in the quarantine",
        "sink",
        "            await copy_dead_letters(self.session, dead, self._plan.id)\n",
        "",
        "integration/test_bodies integration/test_delivery integration/test_dropped",
    ),
    (
        "a write that hangs is waited for without end",
        "sink",
        "await self.limited(work, write_limit_s(self._plan.statement_timeout_s))",
        "await work",
        "integration/test_stalls faults/test_hung_database",
    ),
    (
        "a batch is not entered in the tally",
        "sink",
        "await transaction.commit(*filter(None, (first, self.note)), entry)",
        "await transaction.commit(*filter(None, (first, self.note)))",
        "integration/test_verify integration/test_delivery",
    ),
    (
        "rows are written under an old key version",
        "batch_transaction",
        "if (active or 0) != self._plan.key_version:",
        "if False:",
        "integration/test_key_rotation",
    ),
    (
        "commits are not durable",
        "connection",
        "WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END",
        "WHEN 'remote_apply' THEN 'remote_apply' ELSE 'off' END",
        "integration/test_delivery",
    ),
    (
        "a failed body is committed",
        "connection",
        """        except Exception:
            await transaction.rollback()
            raise""",
        """        except Exception:
            await transaction.commit()
            raise""",
        "integration/test_transactions",
    ),
    (
        "a cancelled session is used again",
        "connection",
        """        except BaseException:
            await self.close()
            raise

    @asynccontextmanager
    async def _checked""",
        """        except BaseException:
            raise

    @asynccontextmanager
    async def _checked""",
        "integration/test_transactions",
    ),
    (
        "verify does not count the quarantine",
        "verify",
        '    compare("quarantine rows without their ledger entry", only_quarantine, 0)\n',
        "",
        "integration/test_verify",
    ),
    (
        "verify believes any ledger key",
        "verify",
        """        compare("ledger entries whose key is not their message's", forged, 0)""",
        "        del forged",
        "integration/test_verify integration/test_identity",
    ),
    (
        "upkeep drops nothing",
        "partitions",
        """    while await _count(session, "SELECT sqs2pg.drop_period(%s)", target) is not None:
        done.dropped += 1
""",
        "",
        "acceptance/test_partition integration/test_upkeep_bounds",
    ),
    (
        "a body is opened before the act is on record",
        "quarantine",
        """    await audit.record(
        session,
        "unseal",""",
        """    await session.execute("SELECT 1")
    (lambda *a, **k: None)(
        session,
        "unseal",""",
        "integration/test_quarantine",
    ),
    (
        "the quarantine has no detail",
        "dead_letter_copy",
        "in (reason, detail, table)",
        'in (reason, "", table)',
        "integration/test_delivery",
    ),
    (
        "another root may take a version's place",
        "key_registry",
        "if ours is not None and ours != fingerprint:",
        "if False:",
        "integration/test_key_rotation integration/test_quarantine acceptance/test_keys",
    ),
    (
        "an older version overwrites a newer one",
        "state_table",
        """return f"\\n    WHERE {self._is_newer('excluded', 't')}" if self.newer else \"\"""",
        'return ""',
        "integration/test_state_tables properties/test_state_tables",
    ),
    (
        "an older version brings a deleted row back",
        "tombstones",
        'f" AND ({is_later(version, gone)}) IS NOT TRUE)"',
        'f" AND ({is_later(version, gone)}) IS NULL)"',
        "integration/test_state_tables properties/test_state_tables",
    ),
    (
        "an object that another worker reads is claimed",
        "object_claims",
        "WHERE b.finished_at IS NULL AND (b.claimed_by = excluded.claimed_by OR NOT {CLAIMED})",
        "WHERE b.finished_at IS NULL",
        "integration/test_s3_objects integration/test_object_leases",
    ),
    (
        "an object that was read is read again",
        "object_claims",
        "WHERE b.finished_at IS NULL AND (b.claimed_by = excluded.claimed_by OR NOT {CLAIMED})",
        "WHERE b.claimed_by = excluded.claimed_by OR NOT {CLAIMED}",
        "integration/test_s3_objects acceptance/test_s3_events",
    ),
    (
        "the tap keeps rows that nobody watches",
        "tap",
        "return time.monotonic() < self._watched_until",
        "return True",
        "unit/test_tap acceptance/test_tap",
    ),
)

MAPPING = _in(
    f"{PACKAGE}/mapping",
    (
        "a tab in a text is not escaped",
        "copy_text",
        r"""{"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}""",
        r"""{"\\": r"\\", "\n": r"\n", "\r": r"\r"}""",
        "unit/mapping/test_columns properties/test_transform properties/test_native_mappings",
    ),
    (
        "a backslash in a text is not escaped",
        "copy_text",
        r'''{"\\": r"\\", "\n"''',
        r'''{"\n"''',
        "unit/mapping/test_columns properties/test_transform",
    ),
    (
        "a part of 1000 in a version",
        "convert",
        "if minor > PART_MAX or patch > PART_MAX:",
        "if minor > PART_MAX + 1 or patch > PART_MAX + 1:",
        "unit/mapping/test_convert",
    ),
    (
        "the day of a timestamp is its local one",
        "convert",
        "    utc = local.astimezone(UTC)\n",
        "    utc = local.replace(tzinfo=UTC)\n",
        "unit/mapping/test_convert",
    ),
    (
        "2**31 is an integer",
        "convert",
        "if not -bound <= number < bound:",
        "if not -bound <= number <= bound:",
        "unit/mapping/test_convert",
    ),
    (
        "jsonb with a NUL",
        "convert",
        "if _JSON_NUL.search(value):",
        "if False:",
        "unit/mapping/test_convert unit/mapping/test_conversions integration/test_column_types",
    ),
    (
        "a body may decompress to any size",
        "envelope/compression",
        "            if size > bytes_max:\n",
        "            if False:\n",
        "unit/mapping/test_envelope integration/test_envelopes",
    ),
    (
        "what follows the first gzip member is ignored",
        "envelope/compression",
        "        if at == len(packed):\n            return whole.getvalue()",
        "        return whole.getvalue()",
        "unit/mapping/test_envelope",
    ),
    (
        "a batch has no bound of bytes",
        "budget",
        "return (0 < budget.bytes_max <= self._bytes) or (0 < budget.records_max <= self._records)",
        "return 0 < budget.records_max <= self._records",
        "unit/mapping/test_budget integration/test_parts",
    ),
    (
        "the ledger's key takes the tail of any id",
        "ledger_key",
        "tail = message_id[15:] if _UUID_4.match(message_id) else _hashed_tail(message_id)",
        "tail = message_id[15:]",
        "unit/mapping/test_ledger_key integration/test_identity",
    ),
    (
        "an event's key depends on no pipeline",
        "ledger_key",
        'self.prefix = f"{pipeline}\\0".encode()',
        'self.prefix = b""',
        (
            "unit/mapping/test_ledger_key integration/test_two_pipelines "
            "properties/test_native_mappings"
        ),
    ),
    (
        "lines of one archive share their keys with another's",
        "ledger_key",
        'return hashlib.sha256(f"{pipeline}\\0{digest}".encode()).hexdigest()',
        'return hashlib.sha256(f"{pipeline}".encode()).hexdigest()',
        "unit/mapping/test_ledger_key acceptance/test_backfill integration/test_identity",
    ),
    (
        "a text that the map lacks is kept",
        "conversions",
        "        return _not_in_map\n",
        "        return None\n",
        "unit/mapping/test_conversions",
    ),
    (
        "a text is looked for in the map before its case is changed",
        "conversions",
        "        found = known.get(text)\n",
        "        found = known.get(value)\n",
        "unit/mapping/test_conversions",
    ),
)

MASK = _in(
    f"{PACKAGE}/mask",
    (
        "an IPv4-mapped address has a token of its own",
        "canonical",
        "return address[12:] if address.startswith(_IPV4_MAPPED) else address",
        "return address",
        "unit/mask/test_canonical",
    ),
    (
        "a text is masked as it is spelt",
        "canonical",
        'return unicodedata.normalize("NFC", value).encode()',
        "return value.encode()",
        "unit/mask/test_canonical",
    ),
    (
        "the case of an address counts",
        "canonical",
        "        form = value.lower()\n",
        "        form = value\n",
        "unit/mask/test_canonical unit/mask/test_vectors unit/mask/test_operators",
    ),
    (
        "a phone number of 16 digits",
        "canonical",
        "if 1 <= len(digits) <= PHONE_DIGITS_MAX:",
        "if 1 <= len(digits) <= PHONE_DIGITS_MAX + 1:",
        "unit/mask/test_canonical unit/mask/test_vectors unit/mask/test_operators",
    ),
    (
        "a truncated address keeps its last octet",
        "truncate_ip",
        "IPV4_BYTES = 3\n",
        "IPV4_BYTES = 4\n",
        "unit/mask/test_canonical unit/mask/test_vectors unit/mask/test_operators",
    ),
    (
        "partial shows a character too many",
        "partial",
        "return min(SHOWN_MAX, len(value) * 2 // 5)",
        "return min(SHOWN_MAX, len(value) * 3 // 5)",
        "unit/mask/test_canonical unit/mask/test_vectors unit/mask/test_operators",
    ),
    (
        "a text of four bytes is an address's form",
        "canonical",
        "return form + _NO_TEXT if len(form) in (4, 16) else form",
        "return form",
        "unit/mask/test_ip_or_text",
    ),
)

KEYS = _in(
    f"{PACKAGE}/keys",
    (
        "the associated data are not bound to the value",
        "aead",
        "return FORMAT_PLAIN + nonce + self._cipher.encrypt(nonce, plaintext, FORMAT_PLAIN + aad)",
        'return FORMAT_PLAIN + nonce + self._cipher.encrypt(nonce, plaintext, b"")',
        "unit/keys/test_aead unit/vault/test_crypto",
    ),
    (
        "two lists of fields give the same bytes",
        "aead",
        'return b"".join(len(field).to_bytes(4, "big") + field for field in fields)',
        'return b"".join(fields)',
        "unit/keys/test_aead",
    ),
    (
        "a nonce is used twice",
        "aead",
        "nonce = self._first_half(1) + (last or os.urandom(12))",
        "nonce = self._first_half(1) + (last or bytes(12))",
        "unit/keys/test_aead unit/vault/test_crypto",
    ),
    (
        "a key file that others can read is taken",
        "key_file",
        "if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):",
        "if status.st_mode & stat.S_IRWXO:",
        "unit/keys/test_provider_file",
    ),
    (
        "two processes add to a key file at once",
        "key_file",
        "            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "            pass",
        "unit/keys/test_provider_file integration/test_key_stores",
    ),
    (
        "a key file is replaced before it was read back",
        "key_file",
        "            read_back(new)\n",
        "",
        "unit/keys/test_provider_file integration/test_key_stores",
    ),
    (
        "a failed addition leaves a file",
        "key_file",
        """        except BaseException:
            new.unlink(missing_ok=True)
            raise
        _sync_folder(target)""",
        """        except BaseException:
            raise
        _sync_folder(target)""",
        "unit/keys/test_provider_file",
    ),
    (
        "a pattern is taken for a key",
        "keyring",
        "if len(set(root)) < _DISTINCT_BYTES_MIN:",
        "if False:",
        "unit/keys/test_keyring",
    ),
    (
        "one key in two series",
        "keyring",
        "        if root in seen:\n",
        "        if False:\n",
        "unit/keys/test_keyring",
    ),
    (
        "the lowest version is the active one",
        "keyring",
        "active = {s: max(self.versions(s)) for s in SERIES if self.versions(s)}",
        "active = {s: min(self.versions(s)) for s in SERIES if self.versions(s)}",
        "unit/keys/test_keyring",
    ),
)

VAULT = _in(
    f"{PACKAGE}/vault",
    (
        "an original is bound to no person",
        "crypto",
        (
            'return _value_field(field) + len(name).to_bytes(4, "big") + name + _REFERENCE_LENGTH'
            " + bare"
        ),
        'return _value_field(field) + len(name).to_bytes(4, "big") + name + _REFERENCE_LENGTH',
        "unit/vault/test_crypto",
    ),
    (
        "a data key is bound to no generation",
        "crypto",
        "return _DATA_KEY + bytes.fromhex(subject) + _generation(generation)",
        "return _DATA_KEY + bytes.fromhex(subject) + _generation(0)",
        "unit/vault/test_crypto",
    ),
    (
        "a worker knows values of a person who was erased",
        "seal",
        """            self._known.clear()
            self._data_keys.clear()
""",
        """            self._data_keys.clear()
""",
        (
            "integration/test_vault_rotation integration/test_vault_sealing acceptance/test_forget "
            "acceptance/test_vault integration/test_vault_state_tables"
        ),
    ),
    (
        "what was stored before an erasure counts as stored after it",
        "seal",
        "        if stored.epoch != self._epoch:\n            return\n",
        "",
        "unit/vault/test_seal",
    ),
    (
        "an erasure tells no worker",
        "erase",
        "            if keys or values:\n                await execute(_NEXT_EPOCH)\n",
        "",
        "integration/test_vault_rotation",
    ),
    (
        "an erasure works beside moves of rows",
        "erase",
        "lock=_ALONE",
        'lock=""',
        "integration/test_vault_rotation integration/test_erasure_moves",
    ),
    (
        "an erasure leaves the sealed values",
        "erase",
        "            [(values,)] = await execute(_REMOVE_VALUES)\n",
        "            values = 0\n",
        "acceptance/test_forget",
    ),
    (
        "an erasure leaves the quarantined bodies",
        "erase",
        "            [(bodies,)] = await execute(_REMOVE_BODIES)\n",
        "            bodies = 0\n",
        "acceptance/test_forget",
    ),
    (
        "a rekey compares each value of a person with each",
        "rekey",
        """ AND (EXISTS (
        SELECT FROM pii.value o WHERE o.subject = v.subject AND o.field = v.field
        AND o.token_hash = m.new_hash)) IS FALSE""",
        """ AND NOT EXISTS (
        SELECT FROM pii.value o WHERE o.subject = v.subject AND o.field = v.field
        AND o.token_hash = m.new_hash)""",
        "integration/test_vault_rotation",
    ),
    (
        "a row of which one token is not in the map keeps the other",
        "token_map",
        "[(others,)] = await session.execute(_change(leaf, part, columns, mixed))\n",
        "others = 0\n",
        "integration/test_vault_rotation",
    ),
    (
        "a damaged data key ends a rewrap",
        "rewrap_keys",
        """            except SubjectKeyFault as fault:
                faults.append(fault)
                continue""",
        """            except SubjectKeyFault:
                raise""",
        "integration/test_damaged_keys",
    ),
    (
        "the reference key stays under the old root",
        "rewrap",
        "                await session.execute(_REFERENCE_UPDATE, [again, active])\n",
        "                del again\n",
        "integration/test_vault_rotation",
    ),
)

STATUS = _in(
    f"{PACKAGE}/status",
    (
        "a request from another site is answered",
        "access",
        "if origin is not None and urlsplit(origin).netloc.lower() != host.lower():",
        "if False:",
        "unit/status/test_access",
    ),
    (
        "any Host is ours",
        "access",
        "            if host and not self._is_ours(host):\n",
        "            if False:\n",
        "unit/status/test_access",
    ),
    (
        "the metrics are open off loopback",
        "access",
        "return not self._loopback and not self.token",
        "return False",
        "unit/status/test_access unit/status/test_server",
    ),
)

TELEMETRY = _in(
    f"{PACKAGE}/telemetry",
    (
        "any field may be in the log",
        "log",
        "return {key: value for key, value in event.items() if key in ALLOWED}",
        "return event",
        "unit/telemetry/test_log",
    ),
    (
        "the text of a library's log line is in the log",
        "log",
        'log(level, "library log line, text withheld", logger=record.name)',
        "log(level, record.getMessage(), logger=record.name)",
        "unit/telemetry/test_log",
    ),
    (
        "a process that writes is not alive",
        "liveness",
        "ok=(polls_go_on and (writes_go_on or not writing)) or now - self.settled <= MARGIN_S",
        "ok=(polls_go_on and (writes_go_on or not writing))",
        "unit/telemetry/test_liveness",
    ),
    (
        "a paused process is not alive",
        "liveness",
        "poll_s <= self._poll_max_s or self.paused or writes_go_on",
        "poll_s <= self._poll_max_s or writes_go_on",
        "unit/telemetry/test_liveness",
    ),
)

SETTINGS = _in(
    f"{PACKAGE}/settings",
    (
        "an index names one element only",
        "source_paths",
        "return step if isinstance(step, str) else EACH",
        "return step",
        (
            "unit/settings/test_source_paths unit/settings/test_expressions "
            "unit/settings/test_mask_rules"
        ),
    ),
    (
        "[] where nothing is exploded",
        "source_paths",
        "if depth >= len(ends) or steps[: ends[depth]] != whole[: ends[depth]]:",
        "if False:",
        "unit/settings/test_source_paths unit/mapping/test_compile",
    ),
    (
        "lower and upper together",
        "conversion_rules",
        "    if field.lower and field.upper:\n",
        "    if False:\n",
        "unit/mapping/test_conversions unit/settings/test_settings",
    ),
    (
        "an attribute that SQS does not set",
        "message_rules",
        "    if name not in _SYSTEM_SOURCES:\n",
        "    if False:\n",
        "integration/test_message_attributes unit/settings/test_settings",
    ),
)

CLI = _in(
    f"{PACKAGE}/cli",
    (
        "a support bundle shows a secret",
        "redaction",
        "return value if fixed or name in _ALWAYS_SHOWN else SET",
        "return value",
        "acceptance/test_operate",
    ),
    (
        "a mended body of any size is read",
        "quarantine_amend",
        "if not content or len(content) > most:",
        "if not content:",
        "acceptance/test_pause",
    ),
    (
        "control characters of a message reach the terminal",
        "options",
        "        c if c.isprintable() else c.encode",
        "        c if True else c.encode",
        "unit/test_command_options",
    ),
)

SCHEMA = _in(
    f"{PACKAGE}/postgres/sql/migrations",
    (
        "a period goes a day too early",
        "0001_initial",
        "WHERE upper::date <= (now() AT TIME ZONE 'UTC')::date - how.retention_days",
        "WHERE upper::date <= (now() AT TIME ZONE 'UTC')::date - how.retention_days + 1",
        "acceptance/test_partition integration/test_upkeep_bounds",
    ),
    (
        "a day of the ledger goes whatever the retention",
        "0001_initial",
        "IF (day < sqs2pg.ledger_keeps_from()) IS NOT TRUE THEN",
        "IF day IS NULL THEN",
        "integration/test_upkeep_bounds properties/test_ledger",
    ),
    (
        "an erasure and a batch at once",
        "0001_initial",
        "LOCK TABLE pii.erasure_lock IN EXCLUSIVE MODE;",
        "LOCK TABLE pii.erasure_lock IN ROW SHARE MODE;",
        "integration/test_vault_rotation integration/test_erasure_moves",
    ),
    (
        "an act hides who did it",
        "0001_initial",
        "session_user::text, act, subject, reason, ticket];",
        "''::text, act, subject, reason, ticket];",
        "integration/test_audit",
    ),
    (
        "a reveal returns more than was asked for",
        "0001_initial",
        "     LIMIT asked.most;\nEND\n$$;\n\n-- Ask for everything",
        "     ;\nEND\n$$;\n\n-- Ask for everything",
        "acceptance/test_vault integration/test_vault_roles",
    ),
    suffix=".sql",
)

NATIVE = _in(
    "native",
    (
        "the native ledger takes a backslash as it is",
        "ledger",
        " || at[i] == '\\\\')",
        ")",
        "properties/test_ledger_copy",
    ),
    (
        "the native reader takes half of a surrogate pair",
        "json",
        "    if (*character > 0xdbff ||",
        "    if (",
        "properties/test_native",
    ),
    (
        "the native reader takes a NUL",
        "json",
        "if (*character == 0) {",
        "if (0) {",
        "properties/test_native",
    ),
    (
        "a native phone number of 16 digits",
        "mask",
        "PHONE_DIGITS_MAX = 15,",
        "PHONE_DIGITS_MAX = 16,",
        "properties/test_native_mappings properties/test_native unit/mapping/test_fast_path",
    ),
    (
        "the native case of an address counts",
        "mask",
        "(uint8_t)(c >= 'A' && c <= 'Z' ? c + 32 : c)",
        "(uint8_t)c",
        "properties/test_native_mappings properties/test_native unit/mapping/test_fast_path",
    ),
    suffix=".c",
)

BREAKAGES = [
    *PIPELINE,
    *RUNNERS,
    *SQS,
    *POSTGRES,
    *MAPPING,
    *MASK,
    *KEYS,
    *VAULT,
    *STATUS,
    *TELEMETRY,
    *SETTINGS,
    *CLI,
    *SCHEMA,
    *NATIVE,
]
