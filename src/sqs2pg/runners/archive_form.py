"""How the archives of a mapping are read, by its settings: for backfill and for samples."""

from __future__ import annotations

from sqs2pg.mapping.conversions import json_kind
from sqs2pg.pipeline.archive_reader import ArchiveForm
from sqs2pg.settings import Settings
from sqs2pg.settings.expression_rules import names_of, syntaxes
from sqs2pg.settings.routes import conditions


def archive_form(settings: Settings) -> ArchiveForm:
    """Return what settings say about archives; what only the mapping can tell is left out."""
    return ArchiveForm(
        settings.archive.format,
        kinds=_kinds(settings),
        columns=settings.archive.columns,
        reads=_top_names(settings),
        document_bytes_max=settings.envelope.s3_bytes_max,
    )


def _kinds(settings: Settings) -> dict[str, str]:
    """Return what fields take in JSON, by the names that a column can have."""
    kinds: dict[str, str] = {}
    for target in settings.targets:
        for field in target.fields:
            for source in field.sources:
                kinds.setdefault(source, json_kind(field))
    for source in settings.dropped:
        kinds.setdefault(source, "string")
    for syntax in syntaxes(settings.targets, settings.filters):
        for name in syntax.top_names or ():
            kinds.setdefault(name, "string")
    return kinds


def _top_names(settings: Settings) -> frozenset[str]:
    """Return the names at the top of a document that the mapping reads."""
    targets = settings.targets
    sources = [source for target in targets for f in target.fields for source in f.body_sources]
    sources += settings.dropped
    sources += [target.explode for target in targets if target.explode]
    sources += [when.field for when, _ in conditions(targets, settings.filters) if when.field]
    names = {str(names[0]) for source in sources if (names := names_of(source))}
    for syntax in syntaxes(targets, settings.filters):
        names |= syntax.top_names or set()
    return frozenset(names)
