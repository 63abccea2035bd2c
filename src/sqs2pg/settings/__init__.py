"""Settings: one TOML file plus the environment, parsed and cross-checked once, then frozen.

Order of precedence, highest first: `SQS2PG_<SECTION>__<KEY>` in the environment (`SQS2PG_<KEY>`
for a key outside any section), the TOML file, the default. An unknown key is an error that names
the nearest known one. Names end in their units: `_s` seconds, `_ms` milliseconds, `_days`,
`_bytes`, `_rows`.

AWS settings are not here: credentials, region and endpoint come from the standard AWS
environment and files. No value of a secret ever appears in `repr` or in an error.
"""

from __future__ import annotations

from sqs2pg.settings.fields import (
    ATTRIBUTE,
    CONTENT_ENCODING,
    POINTER_SIZES,
    RECORD_INDEX,
    SYSTEM,
    USER_LOGINS,
    EnvelopeSettings,
    Example,
    Field,
    Index,
    attribute_keys,
    is_of_message,
    read_of_message,
    required_sources,
)
from sqs2pg.settings.load import CONFIG_VARIABLE, DEFAULT_FILE, ENVIRONMENT_PREFIX, load
from sqs2pg.settings.pipelines import (
    PROCESS,
    Unusable,
    chosen,
    is_several,
    load_named,
    load_pipeline,
    load_pipelines,
    pick,
)
from sqs2pg.settings.process_sections import (
    CONNECTIONS_MAX,
    DEFAULT_BIND,
    IN_FLIGHT_BYTES_MAX,
    ProcessSettings,
    StatusSettings,
    TelemetrySettings,
)
from sqs2pg.settings.routes import Filter, Target
from sqs2pg.settings.rules import cross_check
from sqs2pg.settings.sections import (
    ArchiveFormat,
    LedgerSettings,
    Settings,
    SinkSettings,
    SourceSettings,
    write_limit_s,
)
from sqs2pg.settings.when import When

__all__ = [
    "ATTRIBUTE",
    "CONFIG_VARIABLE",
    "CONNECTIONS_MAX",
    "CONTENT_ENCODING",
    "DEFAULT_BIND",
    "DEFAULT_FILE",
    "ENVIRONMENT_PREFIX",
    "IN_FLIGHT_BYTES_MAX",
    "POINTER_SIZES",
    "PROCESS",
    "RECORD_INDEX",
    "SYSTEM",
    "USER_LOGINS",
    "ArchiveFormat",
    "EnvelopeSettings",
    "Example",
    "Field",
    "Filter",
    "Index",
    "LedgerSettings",
    "ProcessSettings",
    "Settings",
    "SinkSettings",
    "SourceSettings",
    "StatusSettings",
    "Target",
    "TelemetrySettings",
    "Unusable",
    "When",
    "attribute_keys",
    "chosen",
    "cross_check",
    "is_of_message",
    "is_several",
    "load",
    "load_named",
    "load_pipeline",
    "load_pipelines",
    "pick",
    "read_of_message",
    "required_sources",
    "write_limit_s",
]
