"""What the command line says of itself: bare, its version, and completion in a shell."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sqs2pg.cli import COMMANDS
from tests.shell import Shell

SHELLS = ("bash", "zsh", "fish")


@pytest.mark.parametrize("words", [(), ("keys",), ("quarantine",)])
def test_a_group_alone_shows_its_help(bare_shell: Shell, words: tuple[str, ...]) -> None:
    alone = bare_shell(*words)
    assert alone.out == bare_shell(*words, "--help").out
    assert alone.err == ""


def test_the_version_is_one_line_and_more_on_demand(bare_shell: Shell) -> None:
    [line] = bare_shell("--version").out.splitlines()
    first, *more = bare_shell("--version", "-v").out.splitlines()
    assert first == line
    assert {"Python", "native", "psycopg"} <= {one.split()[0] for one in more}
    without = bare_shell("--version", "-v", SQS2PG_NATIVE="0").out
    assert re.search(r"^native extension (none|not in use)$", without, re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_commands_and_options(bare_shell: Shell, shell: str) -> None:
    def completed(words: str, place: int) -> str:
        # bash gives the number of the word, zsh the same, fish the word itself.
        last = words.split()[place] if shell == "fish" else str(place)
        return bare_shell(
            _SQS2PG_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD=last
        ).out

    assert "quarantine" in completed("sqs2pg quar", 1)
    assert "--drain" in completed("sqs2pg run --dr", 2)
    assert "rotate" in completed("sqs2pg keys rot", 2)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_that_a_shell_loads_is_one(bare_shell: Shell, shell: str) -> None:
    script = bare_shell(_SQS2PG_COMPLETE=f"{shell}_source").out
    assert f"_SQS2PG_COMPLETE={shell}_complete" in script


def test_bash_completes_after_loading_the_script(bare_shell: Shell, tmp_path: Path) -> None:
    """Not only what click answers: the script, loaded by a real bash."""
    script = tmp_path / "completion.bash"
    script.write_text(bare_shell(_SQS2PG_COMPLETE="bash_source").out)
    command = tmp_path / "sqs2pg"
    command.write_text(f'#!/bin/sh\nexec "{bare_shell.python}" -m sqs2pg "$@"\n')
    command.chmod(0o755)
    asked = (
        f'. "{script}"; COMP_WORDS=(sqs2pg ver); COMP_CWORD=1; '
        f'_sqs2pg_completion "{command}" ver sqs2pg; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "-c", asked],
        env=bare_shell.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == [name for name in COMMANDS if name.startswith("ver")]
