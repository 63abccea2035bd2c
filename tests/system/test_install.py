"""install.sh: silent if nothing is missing, else one apt call, or the packages to install.

`id` and `apt-get` are stand-ins, so that each branch runs for any user and nothing is installed.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).with_name("install.sh")
PACKAGES = SCRIPT.parents[2] / "deploy" / "apt" / "test-system.txt"
WORKS = 'case "$*" in *" install "*) echo "#!/bin/sh" > "$BIN/there"; chmod +x "$BIN/there";; esac'


@dataclass
class Machine:
    """A folder that comes first on the PATH; `install` is the script on a list of one package."""

    bin: Path

    def put(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def install(self, *, user: int = 0, apt: str = "") -> subprocess.CompletedProcess[str]:
        self.put("id", f"echo {user}")
        self.put("apt-get", f'echo "$*" >> "$BIN/../calls"; echo noise; {apt or WORKS}')
        packages = self.bin.parent / "list.txt"
        packages.write_text("# a comment\n\nthere-package there\n")
        return subprocess.run(
            [SCRIPT, packages],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}", "BIN": str(self.bin)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        path = self.bin.parent / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    (tmp_path / "bin").mkdir()
    return Machine(tmp_path / "bin")


def test_nothing_is_installed_or_printed_if_everything_is_there(machine: Machine) -> None:
    machine.put("there", "")
    done = machine.install(user=1000)
    assert (done.returncode, done.stdout, done.stderr, machine.calls) == (0, "", "", [])


def test_the_programs_of_the_real_list_are_there_now() -> None:
    done = subprocess.run([SCRIPT, PACKAGES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_root_installs_what_is_missing_once_and_without_apts_noise(machine: Machine) -> None:
    done = machine.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "installing there-package\n"
    update, install = machine.calls
    assert update.endswith(" update")
    assert install.endswith(" install -y --no-install-recommends there-package")
    assert machine.install().stdout == ""
    assert len(machine.calls) == 2


def test_a_list_that_cannot_be_updated_may_still_do(machine: Machine) -> None:
    done = machine.install(apt=f'case "$*" in *update) exit 100;; esac; {WORKS}')
    assert done.returncode == 0
    assert "noise" in done.stderr


@pytest.mark.parametrize(("user", "apt"), [(1000, ""), (0, "exit 100"), (0, "exit 0")])
def test_what_cannot_be_installed_is_named_with_the_command_that_does(
    machine: Machine, user: int, apt: str
) -> None:
    done = machine.install(user=user, apt=apt)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("error: ")
    assert error.endswith(": there-package")
    assert hint.startswith("hint: sudo apt-get install --no-install-recommends there-package")
    assert bool(machine.calls) == (user == 0)
