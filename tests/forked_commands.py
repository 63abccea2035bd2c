"""sqs2pg commands in processes of their own, without half a second of imports for each.

One process imports the whole package, once, and forks itself for each command. A command has what
a subprocess has: its own arguments, environment, folder, standard streams, signals and exit code.
It lacks the start of the interpreter, the imports, and the tear-down of the modules at the end. A
test about one of those uses `Shell.afresh`.

Run as a program, this file is that process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_REQUEST_BYTES_MAX = 200_000  # an environment and a command line; Linux sends no larger packet
_STATUS = struct.Struct("i")
_READ_BY_THE_INTERPRETER = ("PYTHON", "LD_", "TZ", "LC_", "LANG")
"""How variables begin that a process reads when it starts, so that a fork misses them."""


_ASK = """
import json, os, socket, struct, sys

answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
request = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ), ""]).encode()
requests = socket.socket(fileno=int(sys.argv[1]))
socket.send_fds(requests, [request], [0, 1, 2, theirs.fileno()])
theirs.close()
answer.recv(4)
[code] = struct.unpack("i", answer.recv(4))
sys.exit(code if code >= 0 else 128 - code)
"""


class ForkServer:
    """The process that has imported everything. `close` ends it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES_MAX * 2)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdin: str,
        timeout_s: float,
        text: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; the result is what `subprocess.run` would return.

        With `text` it is the Python text that runs with these arguments, as by `python -c`.
        """
        with contextlib.ExitStack() as stack:
            streams: list[IO[bytes]] = [
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            ]
            streams[0].write(stdin.encode())
            streams[0].seek(0)
            answer = self._begin(arguments, folder, environment, streams, text)
            command = ForkedCommand(arguments, answer)
            try:
                code = command.wait(timeout_s)
            except BaseException:
                command.kill()
                command.wait()
                raise
            said = []
            for stream in streams[1:]:
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess([*arguments], code, *said)

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
        text: str = "",
    ) -> ForkedCommand:
        """Start a command without input; a stream for which no file is given is a pipe.

        `text` is that of `run`.
        """
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(Path(os.devnull).open("rb"))
            streams: list[IO[Any]] = [nothing]
            pipes: list[IO[str] | None] = []
            for file in (stdout, stderr):
                end = None
                if file is None:
                    end, file = _pipe(stack)  # noqa: PLW2901
                streams.append(file)
                pipes.append(end)
            return ForkedCommand(
                arguments, self._begin(arguments, folder, environment, streams, text), *pipes
            )

    def _begin(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: Sequence[IO[Any]],
        text: str = "",
    ) -> socket.socket:
        """Ask for a command; return the socket on which its number and its end will be told."""
        answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = json.dumps([[*arguments], str(folder), {**environment}, text]).encode()
            files = [*(stream.fileno() for stream in streams), theirs.fileno()]
            socket.send_fds(self._socket, [request], files)
        return answer

    def program(self, folder: Path) -> int:
        """Write a program `sqs2pg` for shell scripts, which asks us for each command.

        Returns the number of the file that the scripts have to inherit.
        """
        asks = folder / "ask.py"
        asks.write_text(_ASK)
        program = folder / "sqs2pg"
        number = self._socket.fileno()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{asks}" {number} "$@"\n')
        program.chmod(0o755)
        return number

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=60)


class ForkedCommand(subprocess.Popen[str]):
    """A command that runs, with the methods of `subprocess.Popen`; its streams are text.

    It is no child of ours: its parent tells us how it ended. Until we have heard that, its number
    stays taken, so that a signal reaches no other process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        answer: socket.socket,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        # Not super().__init__, which starts a program.
        self.args = [*arguments]
        self.stdin, self.stdout, self.stderr = None, stdout, stderr
        self.returncode: Any = None
        self._answer = answer
        self._readers: list[_Reader] = []
        (self.pid,) = _STATUS.unpack(answer.recv(_STATUS.size))

    def __del__(self) -> None:
        self._answer.close()

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        if self.returncode is None:
            self._answer.settimeout(timeout)
            try:
                (self.returncode,) = _STATUS.unpack(self._answer.recv(_STATUS.size))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._answer.close()
        return int(self.returncode)

    def communicate(
        self,
        input: Any = None,  # noqa: A002  the name that the method of the base class has
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Read both streams to their ends and wait for the command.

        None stands for a stream that is no pipe. After a timeout it may be called again.
        """
        assert input is None, "it has no stdin"
        deadline = time.monotonic() + (threading.TIMEOUT_MAX / 2 if timeout is None else timeout)
        if not self._readers:
            self._readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(max(0.0, deadline - time.monotonic()))
        return self._readers[0].text, self._readers[1].text

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class _Reader(threading.Thread):
    """Reads a stream to its end and closes it."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.text: str | None = None
        self.start()

    def run(self) -> None:
        if self._stream is not None:
            with self._stream:
                self.text = self._stream.read()


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[str], IO[str]]:
    """Make a pipe; the stack closes only its second end, the one to write to."""
    end, start = os.pipe()
    return os.fdopen(end, encoding="utf-8"), stack.enter_context(os.fdopen(start, "w"))


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a fork of a process with our environment can stand for a process with this one."""
    return _of_the_interpreter(environment) == _of_the_interpreter(os.environ)


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_BY_THE_INTERPRETER)
    }


# -- in the process that forks ---------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Fork for each request until the tests are gone; return in the command's process only."""
    _import_everything()
    gc.collect()
    gc.freeze()  # a collection of a fork would copy every page
    commands: list[_Command] = []
    ready = select.poll()
    ready.register(requests, select.POLLIN)
    while True:
        waiting = {number for number, _ in ready.poll()}
        for command in [one for one in commands if one.waits_for in waiting]:
            ready.unregister(command.waits_for)
            if command.go_on():
                ready.register(command.waits_for, select.POLLIN)
            else:
                commands.remove(command)
        if requests.fileno() not in waiting:
            continue
        request, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
        if not request:
            sys.exit()
        if pid := os.fork():
            for file in files[:3]:
                os.close(file)  # a pipe ends when the command does
            command = _Command(pid, socket.socket(fileno=files[3]))
            commands.append(command)
            ready.register(command.waits_for, select.POLLIN)
            continue
        requests.close()
        for command in commands:
            command.forget()
        for number, file in enumerate(files[:3]):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        _become(*json.loads(request))


class _Command:
    """A child of this process, and the socket of whoever wants to know how it ends."""

    def __init__(self, pid: int, answer: socket.socket) -> None:
        self._pid, self._answer = pid, answer
        self._process: int | None = os.pidfd_open(pid)
        self._tell(pid)

    @property
    def waits_for(self) -> int:
        """The file that is ready when there is something to do."""
        return self._answer.fileno() if self._process is None else self._process

    def go_on(self) -> bool:
        """Tell how it ended; or, once that was heard, let go of its number and return False."""
        if self._process is None:
            os.waitpid(self._pid, 0)
            self._answer.close()
            return False
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        exited = ended.si_code == os.CLD_EXITED
        self._tell(ended.si_status if exited else -ended.si_status)
        os.close(self._process)
        self._process = None
        return True

    def forget(self) -> None:
        """Close its files, in the process of another command."""
        self._answer.close()
        if self._process is not None:
            os.close(self._process)

    def _tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # nobody wants to know any more
            self._answer.send(_STATUS.pack(number))


def _become(arguments: list[str], folder: str, environment: dict[str, Any], text: str) -> None:
    """Run the command, or the Python text, and leave as an interpreter would.

    Only its tear-down of the modules is missing.
    """
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    from sqs2pg.cli import main

    code: object = 1
    try:
        if text:
            sys.argv = ["-c", *arguments]
            exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = ["sqs2pg", *arguments]
            main(arguments)
        code = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001  as the interpreter ends with it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        # What the end of the interpreter does; os._exit does not.
        threading._shutdown()  # noqa: SLF001  Python has no public name for it
        atexit._run_exitfuncs()  # noqa: SLF001  Python has no public name for it
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # closed
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _import_everything() -> None:
    import sqs2pg

    for module in pkgutil.walk_packages(sqs2pg.__path__, "sqs2pg."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    import encodings.idna  # noqa: F401  imported by the first host name

    with contextlib.suppress(ImportError):
        import uvloop  # noqa: F401  imported by `run`
    from sqs2pg.settings import load

    load(environ={}, discover=False)  # what is compiled for the first settings serves all
    if sys.platform == "linux":
        [_only] = Path("/proc/self/task").iterdir()  # a fork would lose other threads


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
