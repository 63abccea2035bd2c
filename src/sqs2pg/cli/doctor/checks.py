"""Every check of `sqs2pg check`, in the order they run."""

from __future__ import annotations

from sqs2pg.cli.doctor import (
    check_basics,
    check_keys,
    check_masking,
    check_pause,
    check_queue,
    check_reachability,
    check_server,
    check_server_log,
    check_target,
    check_unknown_fields,
    check_vault,
    check_writing,
)
from sqs2pg.cli.doctor.finding import DoctorCheck

# In this order: causes before consequences. Each has its own limit; none stops the others.
CHECKS = (
    DoctorCheck("settings", check_basics.check_settings),
    DoctorCheck("versions", check_basics.check_versions),
    DoctorCheck("keys", check_keys.check_keys),
    DoctorCheck("masking policy", check_masking.check_masking),
    DoctorCheck("queue", check_reachability.check_queue),
    DoctorCheck("queue attributes", check_queue.check_queue_attributes),
    DoctorCheck("queue permissions", check_queue.check_queue_permissions),
    DoctorCheck("database", check_reachability.check_database),
    DoctorCheck("server", check_server.check_server),
    DoctorCheck("database connections", check_server.check_connections),
    DoctorCheck("database log", check_server_log.check_server_log),
    DoctorCheck("schema", check_reachability.check_schema),
    DoctorCheck("pause", check_pause.check_pause),
    DoctorCheck("queue batch time", check_queue.check_batch_time),
    DoctorCheck("targets", check_target.check_targets),
    DoctorCheck("writing", check_writing.check_writing, limit_s=60),
    DoctorCheck("keys on record", check_keys.check_key_record),
    DoctorCheck("unknown fields", check_unknown_fields.check_unknown_fields),
    DoctorCheck("vault keys", check_vault.check_subject_keys),
)
