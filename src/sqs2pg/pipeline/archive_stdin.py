"""Standard input as an archive: it is copied to a file that has no name, then read like any other.

Exactly once needs to know the content before the first line is written: a pipe has no name that is
the same at the next run, so its SHA-256 is its identity. The same content again goes on where the
run before ended, and content that was finished, as a file or over a pipe, is skipped. The file is
gone with the process, however that ends: it holds what the pipe held.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from typing import IO

from sqs2pg.errors import SettingsError

NAME = "-"
"""What stands for standard input among the paths, and in `sqs2pg.backfill`."""
_PIECE = 2**20


class Spool:
    """The whole of standard input."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Read a stream to its end. Blocking. Raises SettingsError where the disk is full."""
        digest = hashlib.sha256()
        self.size = 0
        # Open as long as the process is: nothing else may delete it, for it has no name.
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                self.size += len(piece)
                self.file.write(piece)
            self.file.flush()
        except OSError as error:
            self.file.close()
            raise SettingsError(
                f"standard input cannot be copied to {tempfile.gettempdir()}: {error.strerror}",
                hint="set TMPDIR to a folder with room for all of it, or give files",
            ) from None
        self.digest = f"sha256:{digest.hexdigest()}"

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes from the start."""
        at = 0
        while piece := os.pread(self.file.fileno(), _PIECE, at):
            yield piece
            at += len(piece)

    def close(self) -> None:
        """Delete the copy."""
        self.file.close()

    def __repr__(self) -> str:
        return f"Spool({self.size} bytes)"
