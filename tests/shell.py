"""sqs2pg as its users run it: a process in a folder, with an environment and an identity."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sqs2pg.cli.embedded.child_process import reserve_port
from tests.forked_commands import ForkServer, fits

RUN_S_MAX = 300  # one command, on a busy machine


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> Any:
        """The last line of stdout, as JSON."""
        return json.loads(self.out.strip().splitlines()[-1])


@dataclass
class Shell:
    """One user's shell: folder, environment, interpreter, and an identity that may not be ours."""

    folder: Path
    environment: dict[str, str]
    python: str = sys.executable
    identity: dict[str, Any] = field(default_factory=dict)
    transcript: list[str] = field(default_factory=list)
    """Everything that was printed, for searches."""
    forks: ForkServer | None = None
    """Forks the commands; without it each starts an interpreter."""

    def __call__(
        self, *arguments: str, code: int | None = 0, stdin: str = "", **environment: str
    ) -> Ended:
        """Run sqs2pg to its end and check the exit code, unless it is None."""
        variables = self.environment | environment
        if self.forks is None or not self._may_fork(variables):
            return self.afresh(*arguments, code=code, stdin=stdin, **environment)
        done = self.forks.run(
            arguments,
            folder=self.folder,
            environment=variables,
            stdin=stdin,
            timeout_s=RUN_S_MAX,
        )
        return self._ended(done, code)

    def afresh(
        self, *arguments: str, code: int | None = 0, stdin: str = "", **environment: str
    ) -> Ended:
        """Run sqs2pg as `__call__` does, in an interpreter that is started for it."""
        done = subprocess.run(
            [self.python, "-m", "sqs2pg", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
            **self.identity,
        )
        return self._ended(done, code)

    def _ended(self, done: subprocess.CompletedProcess[str], code: int | None) -> Ended:
        self.transcript += [done.stdout, done.stderr]
        ended = Ended(done.returncode, done.stdout, done.stderr)
        assert code is None or ended.code == code, f"exit {ended.code}\n{ended.out}\n{ended.err}"
        return ended

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A command that runs; killed at the end of the block if it still does."""
        process = self.start(*arguments, **environment)
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=RUN_S_MAX)

    def start(
        self, *arguments: str, log: IO[str] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """Start a command; its stdout and stderr go to `log` or are pipes. The caller ends it."""
        variables = self.environment | environment
        if self.forks is not None and self._may_fork(variables):
            return self.forks.start(
                arguments, folder=self.folder, environment=variables, stdout=log, stderr=log
            )
        return subprocess.Popen(
            [self.python, "-m", "sqs2pg", *arguments],
            cwd=self.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            text=True,
            **self.identity,
        )

    def _may_fork(self, variables: Mapping[str, str]) -> bool:
        """Whether a fork of ours can stand for a process of this user with these variables."""
        return not self.identity and self.python == sys.executable and fits(variables)

    @contextmanager
    def serving(self, *arguments: str, **environment: str) -> Iterator[str]:
        """`run` with a status server, at the address that is yielded; SIGTERM must end it well.

        Its environment stays that of the shell, so that other commands find address and token.
        What it printed is the end of the transcript.
        """
        with reserve_port() as hold:
            address = f"127.0.0.1:{hold.getsockname()[1]}"
            self.environment |= {"SQS2PG_STATUS__BIND": address} | environment
            with self.running("run", *arguments) as process:
                yield f"http://{address}"
                process.terminate()
                printed = process.communicate(timeout=60)
                self.transcript += printed
                assert process.returncode == 0, printed

    def error(self, *arguments: str, code: int, **environment: str) -> str:
        """Run a command that must fail with one error and one hint; return both as two lines."""
        ended = self(*arguments, code=code, **environment)
        return told_error(ended.err)


def told_error(said: str) -> str:
    """Return the one error on stderr and its hint as two lines, `error: …` and `hint: …`.

    It is these lines, or, of a command that a supervisor starts, one line of JSON.
    """
    assert "Traceback" not in said
    lines = [x for x in said.splitlines() if x.startswith(("error:", "hint:"))]
    for line in said.splitlines():
        if line.startswith("{") and (event := json.loads(line))["level"] == "error":
            assert event.keys() >= {"timestamp", "code", "event", "hint"}, line
            lines += [f"error: {event['event']}", f"hint: {event['hint']}"]
    assert [x.split(":")[0] for x in lines] == ["error", "hint"], said
    return "\n".join(lines)


def bare_environment() -> dict[str, str]:
    """Return this process's environment less everything that points anywhere.

    SQS2PG_NATIVE stays: it chooses the executor of a whole suite. A start that fails does so at
    once.
    """
    return {"SQS2PG_START_TIMEOUT_S": "0"} | {
        name: value
        for name, value in os.environ.items()
        if name == "SQS2PG_NATIVE"
        or (not name.startswith(("AWS_", "PG", "SQS2PG_")) and name != "DATABASE_URL")
    }
