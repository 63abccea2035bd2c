from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.cli import init
from sqs2pg.errors import SettingsError
from sqs2pg.status.listener import published_address


def full(path: Path, text: str, **_: Any) -> int:
    """As Path.write_text on a disk that takes half of the text."""
    with path.open("w") as file:
        file.write(text[: len(text) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_an_address_is_there_while_its_worker_runs(tmp_path: Path) -> None:
    file = tmp_path / "worker"
    with published_address(file, "http://127.0.0.1:1234"):
        assert file.read_text() == "127.0.0.1:1234"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"), published_address(tmp_path / "a", "http://a:1"):
        pytest.fail("there is no address")
    with pytest.raises(SettingsError, match="No space"):
        init.write_whole(tmp_path / "sqs2pg.toml", "[sink]\n")
    assert list(tmp_path.iterdir()) == []
