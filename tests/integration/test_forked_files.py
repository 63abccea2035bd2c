"""Files in forked processes: nothing that fails, dies or is left out goes unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = {
    "test_good": "def test_a(): pass\ndef test_b(tmp_path): assert not [*tmp_path.iterdir()]",
    "test_bad": """
import pytest

@pytest.fixture
def refuses(): raise ValueError
@pytest.fixture
def fails_late():
    yield
    raise ValueError

def test_a(): assert not 'what is shown'
def test_b(refuses): pass
def test_c(fails_late): pass
@pytest.mark.skip(reason="not here")
def test_d(): pass
""",
    "test_deadly": "import os\ndef test_a(): os._exit(7)\ndef test_b(): pass",
    "test_broken": "raise OSError('not to be imported')",
}


def run(folder: Path, *arguments: str, files: dict[str, str]) -> tuple[int, list[str]]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.forked_files", "--forks", "2", "-rA"]
    command += ["-p", "no:cacheprovider", "-p", "no:randomly", "--import-mode", "importlib"]
    done = subprocess.run(
        [*command, *arguments, "--rootdir", str(folder), str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.replace(os.path.relpath(folder, ROOT), "").splitlines()


def test_all_that_is_not_well_is_shown(tmp_path: Path) -> None:
    code, lines = run(tmp_path, files=FILES)
    assert code == 1
    shown = {" ".join(line.split(" - ")[0].split()[:2]) for line in lines}
    assert shown >= {"FAILED /test_bad.py::test_a", "FAILED /test_deadly.py::test_a"}
    assert shown >= {"ERROR /test_bad.py::test_b", "ERROR /test_bad.py::test_c"}
    assert shown >= {"ERROR /test_broken.py", "SKIPPED [1]", "PASSED /test_bad.py::test_c"}
    assert any("what is shown" in line for line in lines)
    assert any("exit code 7" in line and "test_deadly.py::test_a" in line for line in lines)
    assert "2 failed, " in lines[-1]
    assert "1 skipped, 3 errors" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "summary"),
    [
        (["-k", "test_good"], 0, "2 passed, 4 deselected in"),
        (["-k", "nothing"], 5, "6 deselected in"),
        (["-x", "-k", "test_bad"], 1, "1 failed"),
    ],
)
def test_what_was_asked_for_is_run(
    tmp_path: Path, arguments: list[str], code: int, summary: str
) -> None:
    sound = {name: FILES[name] for name in ("test_good", "test_bad")}
    ended, lines = run(tmp_path, *arguments, files=sound)
    assert summary in lines[-1]
    assert ended == code
