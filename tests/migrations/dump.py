"""Dump the schema of a release, with a little of everything in it.

    make release-dump        # python -m tests.migrations.dump

Run once for each release, before it is tagged: writes `releases/VERSION.sql` with the `pg_dump` of
the embedded PostgreSQL. The dump is committed and never made again, because it shows what a
database of that release looks like.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sqs2pg import __version__
from sqs2pg.cli.embedded import servers
from sqs2pg.cli.embedded.postgres_binaries import find_binaries
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings, load

RELEASES = Path(__file__).parent / "releases"
# One message written and one quarantined, as their batch left them.
CONTENT = """
INSERT INTO sqs2pg.key (series, version, fingerprint, active)
VALUES ('pseudonym', 1, 'ffffffffffffffff', true);
INSERT INTO user_logins (user_id, create_date) VALUES ('u1', '2020-01-01');
INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome)
SELECT '00000000-0000-7000-8000-000000000001', '00000000-0000-4000-8000-000000000001', id,
    'written' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome)
SELECT '00000000-0000-7000-8000-000000000002', '00000000-0000-4000-8000-000000000002', id,
    'quarantined' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts, sent_at, body,
    sealed_under)
SELECT '00000000-0000-7000-8000-000000000002', '00000000-0000-4000-8000-000000000002', id,
    'not_json', '', 1, '1970-01-01', '\\x00', 'pseudonym:1' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.tally (pipeline, written, quarantined, duplicate, target_rows)
SELECT id, 1, 1, 0, 1 FROM sqs2pg.pipeline;
"""


def settings_of(url: str) -> Settings:
    """Return the default settings, for a database."""
    return load(environ={}, overrides={"sink": {"dsn": url}}, discover=False)


async def bring_up(url: str) -> list[str]:
    """Migrate a database as the command does; return a line for each thing that was done."""
    settings = settings_of(url)
    session = await connect(settings)
    try:
        return await migrate(session, settings)
    finally:
        await session.close()


def dump(url: str, *options: str) -> str:
    """Return a database as SQL that psycopg can run, without the comments of `pg_dump`."""
    parts = conninfo_to_dict(url)
    done = subprocess.run(
        [find_binaries() / "pg_dump", "--no-owner", "--inserts", *options, "--dbname", url],
        env={"PGPASSWORD": str(parts["password"])},
        capture_output=True,
        text=True,
        check=True,
    )
    heads = r"--( (Name|TOC|Dumped|PostgreSQL|Data for).*)?"
    noise = rf"^({heads}|\\(un)?restrict .*|SET transaction_timeout.*)\n"
    text = re.sub(noise, "", done.stdout, flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n\n", text).strip() + "\n"


async def dump_release(url: str) -> str:
    """Migrate an empty database, put the content into it, and return its dump."""
    await bring_up(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CONTENT)
    return dump(url)


def write_release(folder: Path, version: str, text: str) -> Path:
    """Write the dump of a release; return its file. Raises FileExistsError where there is one."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{version}.sql"
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path


def main() -> None:
    """Write the dump of this version, unless there is one."""
    with servers(sqs=False) as local:
        text = asyncio.run(dump_release(local.database_url))
    try:
        print(write_release(RELEASES, __version__, text))
    except FileExistsError:
        sys.exit(
            f"error: releases/{__version__}.sql exists, and a dump is never made again\n"
            "hint: raise the version in pyproject.toml and src/sqs2pg/__init__.py first"
        )


if __name__ == "__main__":
    main()
