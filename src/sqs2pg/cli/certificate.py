"""The certificate of an erasure: what was erased, where and when, and what remains.

Two files of the same content, JSON and text. They are made before anybody is erased, so that a path
that cannot be written is refused in time, and removed where the erasure fails.

Must never do: name a person, in clear, by reference or by random id, or repeat the reason, which
may. The audit's anchor leads whoever may read the audit to all of these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqs2pg import __version__
from sqs2pg.cli.erasure_report import remains
from sqs2pg.cli.options import counted
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.vault.erase import Erased

FORMAT = "sqs2pg/1/certificate of erasure"


def paths(file: Path) -> tuple[Path, Path]:
    """Return where the JSON and the text go. One of them is `file` itself."""
    if file.suffix == ".txt":
        return file.with_suffix(".json"), file
    return file, file.with_suffix(".txt") if file.suffix == ".json" else Path(f"{file}.txt")


@contextmanager
def reserved(file: Path | None) -> Iterator[None]:
    """Make both files, empty and readable by us alone; remove them where the body raises.

    Raises SettingsError where one is there already or cannot be made.
    """
    made: list[Path] = []
    try:
        for path in paths(file) if file else ():
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            except OSError as error:
                raise SettingsError(
                    f"the certificate {path} cannot be made ({os.strerror(error.errno or 0)}); "
                    "nobody was erased",
                    code="certificate",
                    hint="name a file that does not exist, in a folder that you may write to",
                ) from None
            made.append(path)
        yield
    except BaseException:
        for path in made:
            with suppress(OSError):
                path.unlink()
        raise


def write(
    file: Path, report: Erased, settings: Settings, database: str, began_at: datetime
) -> None:
    """Write the certificate of a run to both files. Raises FatalFault."""
    content = contents(report, settings, database, began_at)
    as_json, as_text = paths(file)
    try:
        as_json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        as_text.write_text(text(content), encoding="utf-8")
    except OSError as error:
        raise FatalFault(
            f"the certificate cannot be written ({os.strerror(error.errno or 0)}), though the "
            f"erasure was done and recorded: {report.anchor}",
            code="certificate_unwritten",
            hint="make room; the audit has the acts, and the command's output the counts",
        ) from None


def contents(
    report: Erased, settings: Settings, database: str, began_at: datetime
) -> dict[str, Any]:
    """Return the certificate as a JSON object. `database` is its name and the server's version."""
    return {
        "format": FORMAT,
        "sqs2pg": __version__,
        "pipeline": settings.pipeline_name,
        "database": database,
        "began_at": began_at.isoformat(timespec="seconds"),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "complete": not (report.rows_left or report.came_back),
        "people": {
            "asked_for": report.subjects,
            "found": report.found,
            "not_found": report.not_found,
        },
        "erased": report.totals,
        "rows_by_table": {
            table: {
                "rows": rows,
                "done": "deleted" if table in report.tables_deleted else "cleared",
            }
            for table, rows in report.tables.items()
        },
        "rows_left": report.rows_left,
        "came_back": report.came_back,
        "remains": remains(report, settings),
        "audit": {"first_act": report.first_act, "anchor": report.anchor},
    }


def text(content: dict[str, Any]) -> str:
    """Return the certificate for people to read."""
    people, erased, audit = content["people"], content["erased"], content["audit"]
    complete = "complete" if content["complete"] else "NOT COMPLETE: run the command again"
    lines = [
        "Certificate of erasure",
        "",
        f"Pipeline {content['pipeline']}, {content['database']}, by sqs2pg {content['sqs2pg']}",
        f"From {content['began_at']} to {content['ended_at']}: {complete}",
        (
            f"People asked for: {people['asked_for']:,}; found: {people['found']:,}; "
            f"not found: {people['not_found']:,}"
        ),
        "",
        "What was erased, earlier runs of the same erasures included:",
        f"- {counted(erased['keys'], 'data key')} destroyed",
        f"- {counted(erased['values'], 'sealed value')} removed",
        f"- {counted(erased['bodies'], 'quarantined body', 'quarantined bodies')} removed",
        f"- {counted(erased['rows'], 'row')} of the targets cleared or deleted",
        "",
        "Where, in this run:",
        *(
            f"- {table}: {counted(done['rows'], 'row')} {done['done']}"
            for table, done in content["rows_by_table"].items()
        ),
    ]
    if not content["complete"]:
        lines += [
            "",
            (
                f"Added meanwhile: {counted(content['rows_left'], 'row')}, and new keys of "
                f"{counted(content['came_back'], 'person', 'people')}"
            ),
        ]
    lines += [
        "",
        "What remains, and where:",
        *(f"- {line}" for line in content["remains"]),
        "",
        f"On record in the audit from act {audit['first_act']} to the anchor {audit['anchor']}",
        "Check it: sqs2pg verify --audit --anchor ANCHOR",
    ]
    return "\n".join(lines) + "\n"
