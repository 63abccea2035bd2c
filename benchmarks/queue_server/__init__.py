"""The queue server of the benchmarks and the soak, and the class that runs it from Python.

`QueueServer` compiles the C sources in this folder if they changed, and starts the server on a
free port of 127.0.0.1 as a child process that cannot outlive its parent. It also calls the control
endpoints. The server must never listen on another address, and its data is lost when it ends.
"""

from .server import BuildError, ManifestLine, QueueServer, build

__all__ = ["BuildError", "ManifestLine", "QueueServer", "build"]
