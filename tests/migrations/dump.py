"""Dump the schema as each migration left it, with a little of everything in it.

    python -m tests.migrations.dump            # for versions that have no dump yet

A dump is committed and never made again: it is what a database of that time looks like. Written by
the `pg_dump` of the embedded PostgreSQL.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.embedded import servers
from sqs2pg.cli.embedded.postgres_binaries import find_binaries
from sqs2pg.postgres.migrate import Migration, migrations

FOLDER = Path(__file__).parent
TARGET = "CREATE TABLE user_logins (user_id varchar(128), device_type varchar(32), masked_ip"
TARGET += " varchar(256), masked_device_id varchar(256), locale varchar(32), app_version integer,"
TARGET += " create_date date)"
# One message written and one quarantined, as a batch of that time left them; kept to columns that
# every version has.
CONTENT = """
INSERT INTO sqs2pg.pipeline (name, target, baseline_rows)
VALUES ('user_logins', 'public.user_logins', 0);
INSERT INTO sqs2pg.key (series, version, fingerprint, active)
VALUES ('pseudonym', 1, 'ffffffffffffffff', true);
INSERT INTO user_logins (user_id, create_date) VALUES ('u1', '2020-01-01');
INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome)
SELECT '00000000-0000-7000-8000-000000000001', 'm1', id, 'written' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.delivery (key, message_id, pipeline, outcome)
SELECT '00000000-0000-7000-8000-000000000002', 'm2', id, 'quarantined' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.quarantine (key, message_id, pipeline, reason, detail, attempts, sent_at, body,
    sealed_under)
SELECT '00000000-0000-7000-8000-000000000002', 'm2', id, 'not_json', '', 1, '1970-01-01', '\\x00',
    'pseudonym:1' FROM sqs2pg.pipeline;
INSERT INTO sqs2pg.tally (pipeline, written, quarantined, duplicate, target_rows)
SELECT id, 1, 1, 0, 1 FROM sqs2pg.pipeline;
"""


def file_of(version: int) -> Path:
    """Return where the dump of a version is kept."""
    return FOLDER / f"schema_{version:04}.sql"


def apply(connection: psycopg.Connection[tuple[object, ...]], some: list[Migration]) -> None:
    """Apply migrations as `migrate` does, and record them."""
    for migration in some:
        connection.execute(migration.text.encode())
        connection.execute(
            "INSERT INTO sqs2pg.migration (version, name, checksum) VALUES (%s, %s, %s)",
            [migration.version, migration.name, migration.checksum],
        )


def dump(url: str) -> str:
    """Return a database as SQL, without what changes from run to run."""
    parts = conninfo_to_dict(url)
    done = subprocess.run(
        [find_binaries() / "pg_dump", "--no-owner", "--inserts", "--dbname", url],
        env={"PGPASSWORD": str(parts["password"])},
        capture_output=True,
        text=True,
        check=True,
    )
    heads = r"--( (Name|TOC|Dumped|PostgreSQL|Data for).*)?"
    noise = rf"^({heads}|\\(un)?restrict .*|SET transaction_timeout.*)\n"
    text = re.sub(noise, "", done.stdout, flags=re.MULTILINE)
    return re.sub(r"\n{2,}", "\n\n", text).strip() + "\n"


def main() -> None:
    """Make the dumps that are missing."""
    every = migrations()
    with servers(sqs=False) as local, psycopg.connect(local.database_url, autocommit=True) as admin:
        for count in range(1, len(every) + 1):
            path = file_of(every[count - 1].version)
            if path.is_file():
                continue
            name = f"at_{every[count - 1].version:04}"
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            url = local.database_url.rpartition("/")[0] + f"/{name}"
            with psycopg.connect(url) as connection:
                connection.execute(TARGET)
                apply(connection, every[:count])
                connection.execute(CONTENT)
            path.write_text(dump(url))
            print(path)


if __name__ == "__main__":
    main()
