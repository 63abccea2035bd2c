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
import signal
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
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; the result is what `subprocess.run` would return."""
        with contextlib.ExitStack() as stack:
            streams: list[IO[bytes]] = [
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            ]
            streams[0].write(stdin.encode())
            streams[0].seek(0)
            answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(answer)
            with theirs:
                request = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
                files = [*(stream.fileno() for stream in streams), theirs.fileno()]
                socket.send_fds(self._socket, [request], files)
            code = _await_end(answer, [*arguments], timeout_s)
            said = []
            for stream in streams[1:]:
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess([*arguments], code, *said)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=60)


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a fork of a process with our environment can stand for a process with this one."""
    return _of_the_interpreter(environment) == _of_the_interpreter(os.environ)


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_BY_THE_INTERPRETER)
    }


def _await_end(answer: socket.socket, arguments: list[str], timeout_s: float) -> int:
    """Return the exit code, negative for a signal; kill the command where it takes too long."""
    deadline = time.monotonic() + timeout_s
    (pid,) = _STATUS.unpack(answer.recv(_STATUS.size))
    answer.settimeout(max(0.0, deadline - time.monotonic()))
    try:
        (code,) = _STATUS.unpack(answer.recv(_STATUS.size))
    except BaseException as error:
        os.kill(pid, signal.SIGKILL)
        if isinstance(error, TimeoutError):
            raise subprocess.TimeoutExpired(arguments, timeout_s) from None
        raise
    return int(code)


# -- in the process that forks ---------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Fork for each request until the tests are gone; return in the command's process only."""
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the end of these
    gc.collect()
    gc.freeze()  # a collection of a fork would copy every page
    while True:
        request, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
        if not request:
            sys.exit()
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.close()
    with socket.socket(fileno=files.pop()) as answer:
        if pid := os.fork():
            answer.send(_STATUS.pack(pid))
            _, status = os.waitpid(pid, 0)
            answer.send(_STATUS.pack(os.waitstatus_to_exitcode(status)))
            os._exit(0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    arguments, folder, environment = json.loads(request)
    _become(arguments, folder, environment)


def _become(arguments: list[str], folder: str, environment: dict[str, Any]) -> None:
    """Run the command and leave as `python -m sqs2pg` would, but for the tear-down of modules."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["sqs2pg", *arguments]
    from sqs2pg.cli import main

    code: object = 1
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
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
    if sys.platform == "linux":
        [_only] = Path("/proc/self/task").iterdir()  # a fork would lose other threads


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
