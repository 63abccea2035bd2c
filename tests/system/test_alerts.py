"""The alert rules by Prometheus' own tool: they parse, and each fires and clears when it should."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import require

pytestmark = pytest.mark.system

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


@pytest.mark.parametrize(
    "command", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")]
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    promtool = require(shutil.which("promtool"))
    done = subprocess.run(
        [promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout
    assert "WARNING" not in done.stdout + done.stderr
