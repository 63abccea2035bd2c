from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.keys import provider_file
from sqs2pg.keys.provider_development import load_or_create, refuse_development_key


def test_the_key_is_made_once_and_stays(tmp_path: Path) -> None:
    folder = tmp_path / ".sqs2pg"
    first, second = load_or_create(folder), load_or_create(folder)
    assert first.root("pseudonym", 1) == second.root("pseudonym", 1)
    assert first.development
    assert second.development
    assert second.provider == "development"
    assert stat.S_IMODE((folder / "dev.keys").stat().st_mode) == 0o600


def test_the_second_of_two_concurrent_starts_takes_the_first_one_s_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_or_create(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda _path: False)  # the first is not there yet
    assert load_or_create(tmp_path).root("vault", 1) == first.root("vault", 1)


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "dev.keys").symlink_to(tmp_path / "no" / "where")
    with pytest.raises(KeyFault):
        load_or_create(tmp_path)


LOOPBACK = [
    "",
    "localhost",
    "LocalHost",
    "localhost:5432",
    "127.0.0.1",
    "127.0.0.1:4566",
    "127.8.9.10",
    "::1",
    "[::1]",
    "[::1]:5432",
    "::ffff:127.0.0.1",
    "/var/run/postgresql",
    "/tmp/a:b",
    "@abstract",
    "http://localhost:4566",
    "http://127.0.0.1:4566/000000000000/login-queue",
    "https://[::1]:8443",
]
ELSEWHERE = [
    "10.0.0.1",
    "0.0.0.0",
    "::",
    "128.0.0.1",
    "2130706433",
    "127.1",
    "::ffff:10.0.0.1",
    "db.example.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "sqs.eu-west-1.amazonaws.com:443",
    "https://sqs.eu-west-1.amazonaws.com",
    "http://127.0.0.1@db.example.com/",
    "http://",
    "http://[::1",
    "postgresql:///logins?host=db.example.com",
    "postgresql://localhost/logins",
    "host=127.0.0.1",
    "127.0.0.1,10.0.0.1",
    " ",
    ":5432",
    "[]",
]


@pytest.mark.parametrize("endpoint", LOOPBACK)
def test_loopback_is_accepted(endpoint: str) -> None:
    refuse_development_key(["127.0.0.1", endpoint], allow=False)


@pytest.mark.parametrize("endpoint", ELSEWHERE)
def test_anything_else_is_refused_unless_allowed(endpoint: str) -> None:
    with pytest.raises(KeyFault) as caught:
        refuse_development_key(["127.0.0.1", endpoint], allow=False)
    assert caught.value.code == "development_key"
    assert "keys.allow_development" in caught.value.hint
    refuse_development_key(["127.0.0.1", endpoint], allow=True)


def test_no_password_in_an_endpoint_is_quoted() -> None:
    for endpoint in ("https://user:hunter2@db.example.com", "host=db password=hunter2"):
        with pytest.raises(KeyFault) as caught:
            refuse_development_key([endpoint], allow=False)
        assert "hunter2" not in caught.value.what + caught.value.hint


def test_the_file_is_an_ordinary_key_file(tmp_path: Path) -> None:
    load_or_create(tmp_path)
    assert provider_file.load(tmp_path / "dev.keys").development
