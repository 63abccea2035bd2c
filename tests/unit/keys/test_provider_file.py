from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.keys import key_file, provider_file
from sqs2pg.keys.providers import add_root

ROOT = base64.b64encode(hashlib.sha256(b"one").digest()).decode()
OTHER = base64.b64encode(hashlib.sha256(b"two").digest()).decode()


def write(path: Path, content: Any, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def valid(**over: Any) -> dict[str, Any]:
    return {"format": "sqs2pg-keys/1", "pseudonym": {"1": ROOT}, "vault": {"1": OTHER}, **over}


def test_a_made_file_gives_the_keys_it_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = provider_file.create(path)
    read = provider_file.load(path)
    for series in ("pseudonym", "vault"):
        assert read.root(series, 1) == made.root(series, 1)
    assert read.root("pseudonym", 1) != read.root("vault", 1)
    assert (read.provider, read.development) == ("file", False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_every_made_file_has_keys_of_its_own(tmp_path: Path) -> None:
    one, two = provider_file.create(tmp_path / "1"), provider_file.create(tmp_path / "2")
    assert one.root("pseudonym", 1) != two.root("pseudonym", 1)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_made_file_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        provider_file.create(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_create_never_replaces_a_file(tmp_path: Path) -> None:
    there = write(tmp_path / "keys", "something")
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    for path in (there, dangling, tmp_path / "folder"):
        with pytest.raises(KeyFault) as caught:
            provider_file.create(path)
        assert caught.value.code == "key_file_exists"
    assert there.read_text() == "something"
    assert not (tmp_path / "nowhere").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"keys", "link", "folder"}


def test_of_several_concurrent_creates_exactly_one_succeeds(tmp_path: Path) -> None:
    path, barrier, faults = tmp_path / "keys", threading.Barrier(8), []

    def make() -> None:
        barrier.wait()
        try:
            provider_file.create(path)
        except KeyFault as fault:
            faults.append(fault.code)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == ["key_file_exists"] * 7
    assert provider_file.load(path).versions("pseudonym") == (1,)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as caught:
        provider_file.create(tmp_path / "no" / "keys")
    assert caught.value.code == "key_file_unwritable"
    assert str(tmp_path) in caught.value.what


def test_versions_the_vault_and_the_development_mark_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", valid(pseudonym={"2": ROOT, "10": OTHER}, vault={}))
    ring = provider_file.load(path)
    assert ring.versions("pseudonym") == (2, 10)
    assert ring.versions("vault") == ()
    marked = provider_file.load(write(tmp_path / "dev", valid(development=True)))
    assert (marked.provider, marked.development) == ("development", True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o610, 0o601, 0o620, 0o666, 0o777])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "keys", valid(), mode)
    with pytest.raises(KeyFault) as caught:
        provider_file.load(path)
    assert caught.value.code == "key_file_permissions"
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o400)
    assert provider_file.load(path).active("pseudonym") == 1


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "keys", valid())
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(KeyFault) as caught:
        provider_file.load(path)
    assert caught.value.code == "key_file_permissions"
    assert "another user" in caught.value.what


def test_a_link_is_followed_and_its_target_checked(tmp_path: Path) -> None:
    target, link = write(tmp_path / "target", valid()), tmp_path / "link"
    link.symlink_to(target)
    assert provider_file.load(link).active("vault") == 1
    target.chmod(0o644)
    with pytest.raises(KeyFault) as caught:
        provider_file.load(link)
    assert caught.value.code == "key_file_permissions"


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    for name in ("fifo", "folder"):
        with pytest.raises(KeyFault) as caught:
            provider_file.load(tmp_path / name)
        assert caught.value.code == "key_file_format"


def test_a_missing_file_is_reported_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as caught:
        provider_file.load(tmp_path / "keys")
    assert caught.value.code == "key_missing"
    assert f"sqs2pg keys init --file {tmp_path / 'keys'}" in caught.value.hint


TWICE = f'{{"format": "sqs2pg-keys/1", "pseudonym": {{"1": "{ROOT}", "1": "{OTHER}"}}}}'
MALFORMED: list[tuple[str, Any]] = [
    ("key_file_format", ""),
    ("key_file_format", ROOT),
    ("key_file_format", f'{{"pseudonym": "{ROOT}"'),
    ("key_file_format", "[" * 100_000),
    ("key_file_format", [ROOT]),
    ("key_file_format", TWICE),
    ("key_file_format", valid(format="sqs2pg-keys/2")),
    ("key_file_format", {"pseudonym": {"1": ROOT}}),
    ("key_file_format", valid(valut={})),
    ("key_file_format", valid(pseudonym=ROOT)),
    ("key_file_format", valid(pseudonym={"01": ROOT})),
    ("key_file_format", valid(pseudonym={"0": ROOT})),
    ("key_file_format", valid(pseudonym={"\u0661": ROOT})),
    ("key_file_format", valid(pseudonym={"10000": ROOT})),
    ("key_file_format", valid(pseudonym={ROOT: "1"})),
    ("key_file_format", valid(pseudonym={"1": 7})),
    ("key_file_format", valid(pseudonym={"1": None})),
    ("key_file_format", valid(vault=None)),
    ("key_file_format", valid(development="no")),
    ("key_file_format", " " * 300_000),
    ("key_encoding", valid(pseudonym={"1": ROOT[:-3] + "!!="})),
    ("key_short", valid(pseudonym={"1": ROOT[:40]})),
    ("key_missing", valid(pseudonym={})),
    ("key_missing", {"format": "sqs2pg-keys/1"}),
    ("keys_equal", valid(vault={"1": ROOT})),
]


@pytest.mark.parametrize(("code", "content"), MALFORMED)
def test_a_malformed_file_is_refused_without_quoting_it(
    tmp_path: Path, code: str, content: Any
) -> None:
    path = write(tmp_path / "keys", content)
    with pytest.raises(KeyFault) as caught:
        provider_file.load(path)
    fault = caught.value
    assert fault.code == code
    assert fault.hint
    shown = "".join(traceback.format_exception(fault)) + fault.hint
    assert ROOT[:12] not in shown
    assert OTHER[:12] not in shown
    # JSONDecodeError.doc is the whole file, and a context keeps it alive.
    assert fault.__context__ is None


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(hashlib.sha256(b"x").digest())
    path.chmod(0o600)
    with pytest.raises(KeyFault) as caught:
        provider_file.load(path)
    assert caught.value.code == "key_file_format"
    assert caught.value.__context__ is None


ADD = """
import sys
from pathlib import Path
from sqs2pg.keys import provider_file
sys.stdin.readline()
for version in range(*map(int, sys.argv[2:])):
    provider_file.add(Path(sys.argv[1]), "pseudonym", version)
"""


def test_processes_that_add_at_once_lose_no_root(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    provider_file.create(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, name, str(first), str(first + 40)], stdin=subprocess.PIPE
        )
        for name, first in ((path, 2), (link, 42), (path, 82))
    ]
    for adder in adders:
        assert adder.stdin
        adder.stdin.write(b"\n")
        adder.stdin.close()
    assert [adder.wait(60) for adder in adders] == [0, 0, 0]
    assert provider_file.load(path).versions("pseudonym") == tuple(range(1, 122))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys", "link"]


def test_a_file_that_another_process_keeps_locked_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    provider_file.create(path)
    before = path.read_bytes()
    monkeypatch.setattr(key_file, "LOCK_WAIT_S", 0.05)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(KeyFault, match="another process") as caught:
            provider_file.add(path, "vault", 2)
    assert caught.value.code == "key_file_unwritable"
    assert path.read_bytes() == before
    provider_file.add(path, "vault", 2)


def test_a_full_disk_leaves_no_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys"
    provider_file.create(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for work in (
        lambda: provider_file.add(path, "vault", 2),
        lambda: provider_file.create(tmp_path / "other"),
    ):
        with pytest.raises(KeyFault, match="No space left") as caught:
            work()
        assert caught.value.code == "key_file_unwritable"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("version", [0, 10_000])
def test_a_root_that_no_command_could_read_again_is_not_added(tmp_path: Path, version: int) -> None:
    path = tmp_path / "keys"
    provider_file.create(path)
    before = path.read_bytes()
    with pytest.raises(KeyFault) as refused:
        add_root("file", "pseudonym", version, file=path)
    assert refused.value.code == "key_version"
    with pytest.raises(KeyFault) as read_back:
        provider_file.add(path, "pseudonym", version)
    assert read_back.value.code == "key_file_format"
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_nothing_is_added_to_a_file_that_no_command_can_read(tmp_path: Path) -> None:
    path = write(tmp_path / "keys", valid(vault={"10000": OTHER}))
    before = path.read_bytes()
    with pytest.raises(KeyFault) as caught:
        provider_file.add(path, "pseudonym", 2)
    assert caught.value.code == "key_file_format"
    assert path.read_bytes() == before
