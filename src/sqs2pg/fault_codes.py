"""The fault codes: what each one means, and what to do.

A code is a quarantine reason, a metric label, a log field, or the code of a command's error. It
comes from this bounded set and never quotes a value. The page `docs/reference/faults` is made from
this table, and a test holds the table against every place in the sources that makes a fault.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class FaultRoute(StrEnum):
    """What happens to the message or the process."""

    QUARANTINE = "The message is quarantined"
    RETRY = "The messages are held and tried again"
    STOP = "The process stops, exit code 1"
    REFUSE = "The process does not start or go on, exit code 2"
    COUNT = "Counted or logged only"


_PRODUCER: Final = "Correct the producer; then replay."
_MAPPING: Final = "Correct the producer or the field's settings; then replay."
_ENVELOPE: Final = "Correct the producer or `[envelope]`; then replay."
_SETTING: Final = "Change the setting that the error names."
_COMMAND: Final = "Follow the hint and run the command again."
_ARGUMENT: Final = "Correct the argument; the hint shows its form."
_KEY_FILE: Final = "Restore the right key file, or correct what the hint names."
_NEW_KEY: Final = "Make a root with `sqs2pg keys init` or `keys rotate`."
_NETWORK: Final = "Check the network, `AWS_REGION` and `AWS_ENDPOINT_URL`."
_WAIT: Final = "None: sqs2pg tries again. If it continues, check that service."
_GRANT: Final = "Grant what `sqs2pg check --emit-iam` prints."
_EMBEDDED: Final = "Follow the hint. The log of the embedded server is kept."
_DOCTOR: Final = "Run `sqs2pg check`: it prints the ALTER or GRANT that is missing."
_RESTORE: Final = "Restore the schema from a backup, as the hint says."
_REPORT: Final = "This is a bug in sqs2pg: please report it with the line of the error."

FAULT_CODES: Final[dict[FaultRoute, dict[str, tuple[str, str]]]] = {
    FaultRoute.QUARANTINE: {
        "ambiguous_envelope": (
            "It is not clear which layers to remove.",
            "Set `envelope.layers`.",
        ),
        "archive_damaged": (
            "The S3 object is damaged or cut off. The detail names it, and the lines before.",
            "Put the whole object again: it is a new one.",
        ),
        "archive_format": (
            "The S3 object that a notification names is not of a layout that is read.",
            "Correct the producer, or `[envelope]` and the mapping; then replay.",
        ),
        "archive_line": ("A line of an S3 object is too long.", _PRODUCER),
        "bad_base64": ("The text is not base64 with its padding.", _MAPPING),
        "bad_boolean": ("The text is neither `true` nor `false`.", _MAPPING),
        "bad_date": ("The value is no date, or not in the format of its field.", _MAPPING),
        "bad_email": ("The text is not an email address.", _MAPPING),
        "bad_format": ("The text does not match the format of `fpe_ff1`.", _MAPPING),
        "bad_integer": ("The value is not a whole number.", _MAPPING),
        "bad_interval": (
            "The text is neither an ISO 8601 duration nor an interval as PostgreSQL writes it.",
            _MAPPING,
        ),
        "bad_ip": ("The text is not an IP address, or its prefix length is wrong.", _MAPPING),
        "bad_number": ("The text is not a number.", _MAPPING),
        "bad_phone": ("The text is not a phone number.", _MAPPING),
        "bad_timestamp": (
            "The value is no RFC 3339 timestamp, or not in its field's format.",
            _MAPPING,
        ),
        "bad_unicode": (
            "The text is not valid Unicode: a lone surrogate, or not UTF-8.",
            _PRODUCER,
        ),
        "bad_uuid": ("The text is not a UUID.", _MAPPING),
        "bad_version": ("The text is not one to three dotted numbers.", _MAPPING),
        "condition_failed": (
            "A route's `when` met a value that its expression does not take.",
            "Correct the producer, or let the expression expect the value; then replay.",
        ),
        "csv_fields": (
            "A CSV record has more or fewer fields than the header. The detail names the line.",
            "Correct the file; then backfill the corrected records.",
        ),
        "csv_quotes": (
            "The quotes of a CSV record are not those of RFC 4180. The detail names the line.",
            "Correct the file; then backfill the corrected records.",
        ),
        "decompressed_too_large": ("The body expands beyond its limit.", _ENVELOPE),
        "empty_field": ("A required field is an empty text.", _MAPPING),
        "expression_failed": (
            "A field's expression met a value that it does not take, such as null in join().",
            "Correct the producer, or let the expression expect the value; then replay.",
        ),
        "expression_too_costly": (
            "The expressions take too many steps for a message of this size, or make too much.",
            "Correct the producer, or simplify the expression; then replay.",
        ),
        "kills_worker": (
            "The worker crashed while it processed this message alone.",
            "Look at the body and at the worker's memory; replay one entry at a time.",
        ),
        "missing_field": ("A required field is missing or null.", _MAPPING),
        "nested_array": (
            "An element of an array is an array itself.",
            'Set `type = "jsonb"`, or `explode` the array; then replay.',
        ),
        "no_subject": ("The record has no person's id, which the vault seals by.", _MAPPING),
        "not_an_array": ("The value that `explode` names is not an array.", _MAPPING),
        "not_an_object": ("The body, or one of its records, is not a JSON object.", _PRODUCER),
        "not_base64": ("The body is not base64.", _ENVELOPE),
        "not_eventbridge": ("The body is not an EventBridge event.", _ENVELOPE),
        "not_gzip": ("The body is not gzip, or is cut off.", _ENVELOPE),
        "not_in_enum": (
            "The text is not a label of the column's enum.",
            "Correct the producer, or ALTER TYPE … ADD VALUE; then replay.",
        ),
        "not_in_map": ("The field's `map` has no such value, and no `otherwise`.", _MAPPING),
        "not_json": ("The body is not JSON.", _ENVELOPE),
        "not_s3_event": (
            "The body is not a notification of S3. The detail names what it lacks.",
            _ENVELOPE,
        ),
        "not_sns": ("The body is not an SNS notification.", _ENVELOPE),
        "not_zstd": ("The body is not zstd, or is cut off.", _ENVELOPE),
        "nul_character": (
            "The text contains a NUL character, which PostgreSQL cannot store.",
            _PRODUCER,
        ),
        "object_changed": ("The S3 object was replaced after the message was sent.", _PRODUCER),
        "object_replaced": (
            "The S3 object was replaced before all of it was read. The detail has the lines read.",
            "Keep versions in the bucket, or give each object a key of its own.",
        ),
        "odd_delivery": (
            "An attribute that SQS always sends is missing or out of range; the detail names it.",
            "Look at what stands between SQS and sqs2pg, such as an emulator; then replay.",
        ),
        "out_of_range": ("The number is too large or has too many digits.", _MAPPING),
        "payload_bucket": (
            "The message points to a bucket that is not in `envelope.s3_buckets`.",
            "Add the bucket if you trust it; then replay.",
        ),
        "payload_missing": ("The S3 object that the message points to does not exist.", _PRODUCER),
        "payload_too_large": ("The S3 object is larger than the limit.", _ENVELOPE),
        "rejected_by_database": (
            "PostgreSQL rejects this row. The detail names SQLSTATE and constraint or column.",
            "Correct the producer, or change the constraint; then replay.",
        ),
        "rows_too_large": (
            "The message's rows are together longer than twice `envelope.decompressed_bytes_max`.",
            "Map fewer long fields beside the array that `explode` names, or raise the limit.",
        ),
        "s3_no_content": (
            "The notification tells of no new content: an object was removed, or tagged.",
            'Send only `s3:ObjectCreated:*`, or set `envelope.s3_removed = "ignore"`.',
        ),
        "sns_confirmation": (
            "SNS asks to confirm a subscription.",
            "Open the URL in the body (`quarantine show ID --unseal`); then purge the entry.",
        ),
        "space_fields": (
            "A line of space-separated text does not have as many fields as are named.",
            "Correct `archive.columns` or the file; then backfill the corrected lines.",
        ),
        "space_quotes": (
            "A quoted field of space-separated text does not end. The detail names the line.",
            "Correct the file; then backfill the corrected lines.",
        ),
        "too_deep": ("The JSON has more than 256 objects and arrays inside each other.", _PRODUCER),
        "too_long": ("The text is longer than `length_max`, the column or the mask.", _MAPPING),
        "too_many_layers": ("The body has more layers than `auto` removes.", _ENVELOPE),
        "too_many_marks": ("The text has too many combining marks in a row.", _PRODUCER),
        "too_many_records": ("The message holds too many records.", _PRODUCER),
        "too_short": ("The text has too few digits or letters for `fpe_ff1`.", _MAPPING),
        "unknown_encoding": ("The attribute names an unknown content encoding.", _ENVELOPE),
        "unknown_field": ('A field has no mapping, and `unknown_fields = "quarantine"`.', _MAPPING),
        "unmatched": ("No route matches the record.", 'Add a route, or set `unmatched = "drop"`.'),
        "version_range": ("A part of the version is over 999, or the major over 2,146.", _MAPPING),
        "wrong_type": ("The value has another JSON type than its field.", _MAPPING),
    },
    FaultRoute.RETRY: {
        "aws_5xx": ("AWS answered with a server error.", _WAIT),
        "aws_clock_skew": ("The clock of this machine is wrong.", "Set the clock (NTP)."),
        "aws_connection": ("The connection to AWS closed before the answer.", _WAIT),
        "aws_dns": ("The endpoint's name does not resolve.", _NETWORK),
        "aws_expired_credentials": ("The credentials expired.", "Renew the session or role."),
        "aws_garbled_reply": ("The answer is not valid for SQS.", _NETWORK),
        "aws_over_limit": ("The queue has 120,000 messages in flight.", "Find who holds them."),
        "aws_oversize_reply": ("The answer is longer than SQS's limits.", _NETWORK),
        "aws_proxy": ("The proxy opened no tunnel.", "Check `HTTPS_PROXY` and the proxy."),
        "aws_throttled": ("AWS asks for fewer requests.", "Raise the quota, or run fewer pollers."),
        "aws_timeout": ("AWS did not answer in time.", _WAIT),
        "aws_tls": ("The TLS handshake failed.", _NETWORK),
        "aws_unreachable": ("The endpoint accepts no connection.", _NETWORK),
        "batch_released": (
            "The Lambda handler gives back every message of a batch.",
            "See the code that it logs before.",
        ),
        "cloudwatch_unavailable": (
            "CloudWatch did not answer; the queue's age is estimated.",
            _WAIT,
        ),
        "iam_token": (
            "There is no token for the database login.",
            "Check the AWS credentials and the region.",
        ),
        "object_claimed": (
            "Another worker reads the S3 object; the message waits for it.",
            "None: the message ends once the object does.",
        ),
        "object_interrupted": (
            "The worker stops, or the function's time is up, before the end of an S3 object.",
            "None: the next delivery goes on at the line after.",
        ),
        "otlp_unavailable": ("The OTLP collector did not answer.", "Check its address."),
        "postgres_08004": (
            "PostgreSQL or a pooler answers, and refuses the connection.",
            "See its log.",
        ),
        "postgres_53300": (
            "PostgreSQL or a pooler has no connection left.",
            "Raise its limit, or use fewer connections.",
        ),
        "postgres_57P03": ("PostgreSQL is starting, stopping or closed for maintenance.", _WAIT),
        "postgres_no_answer": ("PostgreSQL did not answer in time.", "Look for locks and load."),
        "postgres_…": (
            "PostgreSQL refused, or is away (08…, 57P…); the code ends in the SQLSTATE.",
            _WAIT,
        ),
        "rekey_followed": (
            "Other sessions keep changing the rows.",
            "Run `keys rekey` again later.",
        ),
        "s3_bad_credentials": (
            "S3 refuses the credentials.",
            "Renew the session or role; set the clock (NTP).",
        ),
        "s3_denied": ("S3 denies access to the object.", _GRANT),
        "s3_error": ("S3 answered with a server error.", _WAIT),
        "s3_refused": (
            "S3 refuses the object for another reason.",
            "Check its region and its encryption key.",
        ),
        "s3_unreachable": ("S3 cannot be reached.", _NETWORK),
        "subject_key_damaged": (
            "One person's data key does not open; their messages alone are isolated.",
            "Restore its row of `pii.subject_key`, or erase the person.",
        ),
        "subject_key_root": (
            "One person's data key names a root that was never in use.",
            "Restore its row of `pii.subject_key`, or erase the person.",
        ),
        "target_changed": ("The target table was altered; its columns are read again.", _DOCTOR),
    },
    FaultRoute.STOP: {
        "all_rejected": (
            "The database rejects every row of a batch for the same reason.",
            "Correct the table or the mapping. The messages stay on the queue.",
        ),
        "archive_damaged": ("The archive is damaged or cut off.", "Replace it; run it again."),
        "archive_format": (
            "The archive is not JSON lines. Nothing of it was written.",
            "Unpack or convert it; run it again.",
        ),
        "archive_line": ("A line is too long.", "Check that the file holds JSON lines."),
        "aws_access_denied": ("The role may not make this call.", _GRANT),
        "aws_bad_credentials": ("The access key or its secret is wrong.", "Correct them."),
        "aws_kms_refused": (
            "The queue's KMS key cannot be used.",
            "Grant `kms:Decrypt`; enable it.",
        ),
        "aws_proxy_refused": ("The proxy wants other credentials.", "Correct `HTTPS_PROXY`."),
        "aws_queue_missing": ("There is no such queue.", "Check `source.queue` and the region."),
        "aws_request_refused": (
            "SQS rejects the call.",
            "Check the endpoint and the queue's type.",
        ),
        "aws_tls_untrusted": ("The certificate is not trusted.", "Set `AWS_CA_BUNDLE`."),
        "backfill_twice": ("Another run is processing the archive.", "Let one of them finish."),
        "bench": ("The benchmark failed.", _COMMAND),
        "books_gone": ("The schema `sqs2pg` is gone, but `pii` exists.", _RESTORE),
        "bundle": ("The support bundle cannot be written.", _ARGUMENT),
        "bundle_secret": (
            "The support bundle would contain a secret. It was not written.",
            _REPORT,
        ),
        "certificate_unwritten": (
            "The certificate of an erasure that was done cannot be written.",
            "The audit has the acts; the output has the counts.",
        ),
        "chaos": ("`demo --chaos` ended before it killed the consumer.", _COMMAND),
        "database_newer": ("A newer version migrated this database.", "Upgrade sqs2pg."),
        "demo_recover": ("`demo --recover` revealed the wrong value.", _REPORT),
        "drain_timeout": ("The queue was not empty in time.", _COMMAND),
        "erased": ("This person was erased.", "Nothing: the values cannot be recovered."),
        "event_known": (
            "The mended body of `quarantine amend` is an event that was written already.",
            "Correct the event's id, or purge the entry.",
        ),
        "isolated_messages": (
            "`run --drain` left messages on the queue that PostgreSQL does not take.",
            "Correct the cause that the log names (`messages are isolated`); run it again.",
        ),
        "key_collision": (
            "Two messages have the same ledger key.",
            "Report it to the queue's vendor.",
        ),
        "lines_left": (
            "A backfill left lines behind that PostgreSQL does not take.",
            "Correct the cause that the log names (`a line is left behind`); run it again.",
        ),
        "local_start": ("An embedded server did not start.", _EMBEDDED),
        "local_stopped": ("An embedded server is not running.", _EMBEDDED),
        "mask_damaged": ("The token, its field or its key is wrong: it does not open.", _ARGUMENT),
        "migration_changed": (
            "A migration in the database differs from the one in this package.",
            "Upgrade sqs2pg. If an unreleased checkout made it: keep that checkout, or start anew.",
        ),
        "no_progress": (
            "One of several pipelines made no progress; it starts again alone.",
            "See what its last lines in the log say of queue and database.",
        ),
        "node_losses": (
            "Nodes ended over one archive.",
            "Look at their memory, or backfill without `--ray`.",
        ),
        "node_starts": ("No node starts a consumer.", "Install `sqs2pg[ray]` on every node."),
        "not_a_mask": ("The text is not a token that a key can open.", _ARGUMENT),
        "not_an_sqs_event": (
            "The event does not come from SQS.",
            "Connect the function to the queue.",
        ),
        "not_held": ("Nothing is held on the person.", "Give the id as messages have it."),
        "not_in_ledger": (
            "The ledger lacks the entry of a quarantined message.",
            "Run `sqs2pg verify`.",
        ),
        "not_sealed": (
            "The vault holds no value for this token or person.",
            "See `vault.enabled` and `recover`.",
        ),
        "nothing_to_accept": (
            "`verify --accept` found every table as the books say.",
            "Run `sqs2pg verify`: its own books' differences cannot be accepted.",
        ),
        "paused": (
            "`run --drain` on a pipeline that is paused.",
            "`sqs2pg resume`; then run the same command again.",
        ),
        "pipelines_failed": (
            "Some of several pipelines failed.",
            "See their own lines above; `/readyz` and the page name them, too.",
        ),
        "postgres_08P01": (
            "A pooler refuses a parameter, or is in statement mode.",
            "Follow the hint; see the pooler's settings.",
        ),
        "postgres_28000": ("PostgreSQL refused the login.", "Check the login and `pg_hba.conf`."),
        "postgres_3D000": ("The database does not exist.", "Create it, or correct its name."),
        "postgres_42501": ("This login lacks a right.", "Ask whom the hint names for it."),
        "postgres_tls": ("TLS with PostgreSQL failed.", "Check `sslmode` and `sslrootcert`."),
        "postgres_…": ("PostgreSQL refused; the code ends in the SQLSTATE.", _COMMAND),
        "rate_limited": (
            "The role's reveals of this hour are used up.",
            "Wait, or raise the limit.",
        ),
        "rows_hidden": (
            "A table cannot be counted: row-level security applies to the login.",
            "Verify with a login that has BYPASSRLS.",
        ),
        "s3_no_bucket": ("There is no such bucket.", "Check its name and `AWS_REGION`."),
        "schema_taken": (
            "A schema that sqs2pg did not make has the name it needs.",
            "Rename it, or use another database.",
        ),
        "sealed_body_damaged": ("The sealed body does not open.", "Check the keys in use."),
        "sealed_body_format": ("The sealed body has an unknown format.", "Use a newer sqs2pg."),
        "send_refused": ("SQS refused messages.", "Check their size and characters."),
        "status_no_tap": ("The pipeline shows no rows.", "Set `status.tap` and a token."),
        "status_refused": ("The address is not a status page.", _ARGUMENT),
        "status_token": ("The status address requires its token.", "Set `SQS2PG_STATUS__TOKEN`."),
        "status_unknown": ("The status page belongs to another version.", "Use the same version."),
        "status_unreachable": ("Nothing answers at the status address.", _ARGUMENT),
        "still_bad": (
            "The mended body of `quarantine amend` cannot become a row either.",
            "Mend what the error names; the entry stays as it was.",
        ),
        "stopped": ("The demo was stopped before its queue was empty.", "Run it again."),
        "table_of_another": (
            "A superuser would work on a table of another role.",
            "Let one plain role own the schema and the table.",
        ),
        "temporary_tables": (
            "The login may create no temporary table.",
            "Grant `TEMPORARY` on the database.",
        ),
        "too_many_lines": ("The archive has too many lines.", "Split it."),
        "unexpected": ("An unforeseen error.", _REPORT),
        "vault_gone": ("The schema `pii` is gone, but `sqs2pg` exists.", _RESTORE),
        "verify": ("The books do not balance.", "Run `sqs2pg verify`."),
        "worker_failed": ("A worker process failed.", "See the worker's own lines above."),
    },
    FaultRoute.REFUSE: {
        "ambiguous_envelope": ("A field reads a layer that `auto` removes.", _SETTING),
        "attribute_name": ("`attribute:` or `sqs:` names nothing.", _SETTING),
        "attribute_type": ("A value that comes with the message is of another type.", _SETTING),
        "bad_anchor": ("The anchor is not `SEQUENCE:HASH`.", _ARGUMENT),
        "bad_column": ("`--column` names no column.", _ARGUMENT),
        "bad_default": ("The default cannot be written to the column.", _SETTING),
        "bad_domain": ("The masking domain is empty, too long or not printable.", _SETTING),
        "bad_expression": (
            "An expression is not JMESPath, or could never succeed.",
            _SETTING,
        ),
        "bad_map": ("A value of `map` or `otherwise` cannot be written to the column.", _SETTING),
        "bad_path": ("The source is not a path to a value.", _SETTING),
        "bench_privilege": ("The login may not create a scratch database.", "Grant CREATEDB."),
        "body_unreadable": ("The mended body is no text, or cannot be read.", _ARGUMENT),
        "breaks_joins": (
            "A rotation would break joins.",
            "Recover the fields, or use `--break-joins`.",
        ),
        "certificate": ("The certificate cannot be made.", "Name a file that does not exist."),
        "conversion": ("Conversions of a field do not fit its type or each other.", _SETTING),
        "development_key": ("The development key is for loopback only.", _NEW_KEY),
        "domain_mixed": ("Two fields share a domain and would not join.", _SETTING),
        "dropped_and_mapped": ("A field is dropped and mapped.", _SETTING),
        "entry_closed": ("The quarantine entry was replayed already.", "None: it is written."),
        "envelope_attribute": ("A layer adds no such attribute.", _SETTING),
        "expression_and_source": ("A field has a source and an expression.", _SETTING),
        "expression_domain": ("A masked expression has no domain.", _SETTING),
        "expression_reads_masked": (
            "A field is kept, and its expression reads what another field masks.",
            _SETTING,
        ),
        "extra_missing": ("The mask needs an extra.", "Run `pip install 'sqs2pg[fpe]'`."),
        "file_exists": ("The file of an export exists already.", "Name another with `--file`."),
        "file_unwritable": ("The file of an export cannot be written.", _COMMAND),
        "kept_beside_mask": ("A value is masked in one column and kept in another.", _SETTING),
        "key_encoding": ("A root is not base64.", _NEW_KEY),
        "key_file_exists": (
            "The key file exists and is left as it is.",
            "Move it, or use `--file`.",
        ),
        "key_file_format": ("The file is not a key file.", _KEY_FILE),
        "key_file_not_set": ("No key file is given.", "Set `SQS2PG_KEYS__FILE`."),
        "key_file_permissions": ("Others can read the key file.", "Run the chmod of the hint."),
        "key_file_unreadable": ("The key file cannot be read.", _KEY_FILE),
        "key_file_unwritable": ("The key file cannot be written.", _KEY_FILE),
        "key_fingerprint": ("The root is not the one on record in the database.", _KEY_FILE),
        "key_folder": ("The folder of the development key cannot be made.", _COMMAND),
        "key_missing": ("A required root is missing.", _KEY_FILE),
        "key_short": ("A root is not 32 bytes long.", _NEW_KEY),
        "key_store_changed": (
            "Another process has changed the secret meanwhile.",
            "Run the same command again.",
        ),
        "key_twice": ("One version has two roots.", "Remove one of them."),
        "key_version": (
            "The database has another active key version.",
            "Restart, or run the command again.",
        ),
        "key_weak": ("A root is a pattern, not random bytes.", _NEW_KEY),
        "keys_equal": ("Two roots are equal.", _NEW_KEY),
        "kms_away": ("AWS KMS cannot be reached.", _NETWORK),
        "kms_key_not_set": ("No KMS key is named.", "Set `keys.kms_key`."),
        "kms_refused": (
            "AWS KMS refuses the call.",
            "Check the key's name, the region and the role.",
        ),
        "local_folder": ("The embedded server's user can reach no temporary folder.", _EMBEDDED),
        "local_missing": ("The embedded servers are missing.", "Install `sqs2pg[local]`."),
        "local_options": ("An option of the embedded PostgreSQL is wrong.", _EMBEDDED),
        "local_thread": ("Embedded servers must start on the main thread.", _EMBEDDED),
        "local_unreadable": ("The PostgreSQL programs cannot be read.", _EMBEDDED),
        "local_user": ("PostgreSQL does not run as root.", "Run as an ordinary user."),
        "mask_not_recoverable": ("`recover` does not work with this mask.", _SETTING),
        "mask_type": ("The mask gives text, but the field has another type.", _SETTING),
        "migrate": (
            "The database is not migrated for this version or pipeline.",
            "Run `sqs2pg migrate`.",
        ),
        "missing_extra": ("Telemetry needs an extra.", "Run `pip install 'sqs2pg[otel]'`."),
        "mixed_types": ("Two fields read one value as different types.", _SETTING),
        "no_digest": (
            "`verify --deep`, and no digest of a table is kept.",
            "Set `key` beside the table, without `digest = false`; migrate.",
        ),
        "no_entry": ("The quarantine has no such entry.", "See `sqs2pg quarantine list`."),
        "no_examples": ("The settings have no `[[example]]`.", "Write one."),
        "no_sample": (
            "The queue delivered no JSON object.",
            "Send messages, or use `--from-table`.",
        ),
        "no_subject_column": ("No column has the person's id.", "Map `vault.subject` to one."),
        "node_path": ("A node cannot read the archive.", "Use shared storage or S3."),
        "node_settings": ("A node has other settings.", "Give every node the same settings."),
        "not_a_token": ("The argument does not look like a token.", _ARGUMENT),
        "not_an_id": ("A line or the argument is no id.", "Correct it, or add `--exact`."),
        "not_confirmed": ("The command deletes permanently.", "Add `--yes`."),
        "not_of_body": ("The setting reads the body, and names what is beside it.", _SETTING),
        "operator_kind": ("The mask does not support this kind.", _SETTING),
        "partition_by": ("`sink.partition_by` is not set.", "Set it to a date column."),
        "partition_obstacle": (
            "The conversion would lose something.",
            "Drop it, convert, then recreate it.",
        ),
        "provider_keeps_none": (
            "The key provider cannot store a new root.",
            "Set the next variable.",
        ),
        "reversible_mask": ("The mask can be reversed.", "Use `pseudonymize`."),
        "secret_not_set": ("No secret is named.", "Set `keys.secret`."),
        "secretsmanager_away": ("Secrets Manager cannot be reached.", _NETWORK),
        "secretsmanager_refused": (
            "Secrets Manager refuses the call.",
            "Check name, region and role.",
        ),
        "self_test": ("The cryptographic libraries give wrong answers.", "Reinstall them."),
        "settings": ("A setting or argument is wrong.", _SETTING),
        "subject_column": ("An erased person could not be renamed in this column.", _SETTING),
        "subject_conversions": ("`vault.subject` has several conversions.", _SETTING),
        "subject_kinds": ("`vault.subject` has masks of several kinds.", _SETTING),
        "subject_map": ("`vault.subject` has a `map`.", _SETTING),
        "subject_truncated": ("`vault.subject` may be cut off.", "Remove `over_length`."),
        "subject_types": ("`vault.subject` has several types.", _SETTING),
        "system_attribute": (
            "`attribute:` names what SQS sets, or `sqs:` what it does not.",
            _SETTING,
        ),
        "tap_token": ("`status.tap` is on, and no token is set.", _SETTING),
        "target_changed": ("The pipeline's name belongs to another table.", "Set `name`; migrate."),
        "target_column": ("A column is missing or does not fit its field.", _DOCTOR),
        "target_digest": (
            "No digest can be kept of this kind of table.",
            "Remove `digest = true` beside it, or migrate as its owner.",
        ),
        "target_key": (
            "The key of a state table has no unique index, or lacks a partition column.",
            "Run `sqs2pg check`: it prints the CREATE UNIQUE INDEX.",
        ),
        "target_mode": (
            "The settings have another `mode` than the one on record for a filled table.",
            "Bring the table into that form; then run `sqs2pg migrate --change-mode`.",
        ),
        "target_policy": (
            "Row-level security applies to the login, and no policy admits an INSERT.",
            "Create a policy FOR INSERT, or let the login bypass row-level security.",
        ),
        "target_privilege": ("The role may not insert.", _DOCTOR),
        "target_rule": (
            "With the table's rules the books could not hold, or PostgreSQL merges no rows.",
            "Make each rule a trigger.",
        ),
        "target_table": (
            "The target does not exist or cannot take rows.",
            "Run `sqs2pg migrate`, or correct `sink.table`.",
        ),
        "too_few_values": ("The mask is unsafe for so few possible values.", "Use `pseudonymize`."),
        "unknown_format": ("A field's `format` is none, or cannot be read back.", _SETTING),
        "unknown_kind": ("There is no such `kind`.", _SETTING),
        "unknown_operator": ("There is no such mask.", _SETTING),
        "unknown_provider": ("There is no such key provider.", _SETTING),
        "unknown_setting": ("There is no such setting.", _SETTING),
        "unknown_timezone": ("There is no such time zone.", _SETTING),
        "vault_empty": (
            "The vault has not sealed anything yet.",
            "Run the pipeline with the vault on first.",
        ),
        "when_condition": ("The `when` of a route has no condition, or too many.", _SETTING),
        "write_mode": ("`mode` lacks what it needs, or has what it does not use.", _SETTING),
    },
    FaultRoute.COUNT: {
        "cut": (
            "A Lambda invocation ran out of time before its batch began.",
            "Raise its timeout.",
        ),
        "other": (
            "A code of AWS that is not listed, or one code too many to count.",
            "See the log.",
        ),
        "reading_timeout": ("A reading for the status page took too long.", _WAIT),
        "unexpected_…": (
            "A reading for the status page failed. The code ends in the error's type.",
            _REPORT,
        ),
    },
}


def remedy_of(code: str) -> str:
    """Return what to do about a fault code; "" for one that is not in the table."""
    for route in (FaultRoute.STOP, FaultRoute.REFUSE, FaultRoute.RETRY):
        for name, (_, remedy) in FAULT_CODES[route].items():
            if code == name or (name.endswith("…") and code.startswith(name[:-1])):
                return remedy
    return ""
