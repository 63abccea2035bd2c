"""The queue server of the benchmarks and the soak, and how to run it from Python.

`QueueServer` compiles the C sources beside this file when they changed, starts the server on a
free port of 127.0.0.1 as a child that cannot outlive its parent, and talks to its control
endpoints. It must never listen elsewhere, and its data ends with it.
"""

from .server import BuildError, ManifestLine, QueueServer, build

__all__ = ["BuildError", "ManifestLine", "QueueServer", "build"]
