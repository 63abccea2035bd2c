"""`sqs2pg verify --deep` of several pipelines, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sqs2pg.cli.verify import verify
from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.postgres.verify import VerifyReport
from sqs2pg.settings import Settings


def test_one_without_a_digest_that_cannot_be_compared_hides_no_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def check(settings: Settings, *_: Any, deep: bool = False) -> VerifyReport:
        if settings.pipeline_name == "whole":
            return VerifyReport(3, 0, 0, [])
        if deep:
            raise SettingsError("no digest is kept", code="no_digest")
        raise FatalFault("the audit cannot be read", code="postgres_42501")

    for name in ("away", "whole"):
        (tmp_path / f"{name}.toml").write_text(f'[source]\nqueue = "{name}"\n')
    monkeypatch.delenv("SQS2PG_SOURCE__QUEUE", raising=False)
    monkeypatch.setattr("sqs2pg.cli.verify.check", check)
    with pytest.raises(FatalFault, match="1 pipeline failed: away"):
        verify.main(["--deep", "-c", str(tmp_path)], standalone_mode=False)
    told = capsys.readouterr().out
    assert "whole:\nwritten 3" in told
    assert "away:\nnot compared: postgres_42501" in told
