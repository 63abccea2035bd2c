"""Libraries that are loaded in part: what was left out is there as soon as it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def _in_a_fresh_process(code: str, **environment: str) -> Any:
    """Return what `found` is after the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(found))"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_prometheus_client_has_all_its_names() -> None:
    found = _in_a_fresh_process("""
import sqs2pg.telemetry.lean_prometheus
import prometheus_client
before = "http.server" in sys.modules
text = prometheus_client.generate_latest(prometheus_client.CollectorRegistry())
names = [name for name in prometheus_client.__all__ if not hasattr(prometheus_client, name)]
strange = hasattr(prometheus_client, "socket")
from prometheus_client import exposition
same = exposition.generate_latest is prometheus_client.generate_latest
found = [before, text.decode(), names, strange, same]
""")
    assert found == [False, "", [], False, True]


def test_psycopg_knows_its_version_and_can_look_for_libpq() -> None:
    found = _in_a_fresh_process("""
import sqs2pg.postgres
before = [name for name in ("importlib.metadata", "ctypes") if name in sys.modules]
import psycopg, psycopg.pq.misc
stand_in = psycopg.pq.misc.ctypes
looks = callable(stand_in.util.find_library)
from importlib import metadata
import ctypes
same = stand_in.CDLL is ctypes.CDLL
found = [psycopg.__version__, metadata.version("psycopg"), before, looks, same]
""")
    version = metadata.version("psycopg")
    assert found == [version, version, [], True, True]


def test_psycopg_knows_ranges_and_loads_their_classes_on_demand() -> None:
    found = _in_a_fresh_process("""
import sqs2pg.postgres
before = [name for name in sys.modules if name.startswith("psycopg.types.") and "range" in name]
import psycopg
oids = [psycopg.adapters.types[name].oid for name in ("int4range", "tstzmultirange")]
from psycopg.types.range import Range
from psycopg.types.multirange import Multirange
found = [before, oids, str(Range(1, 5)), len(Multirange([Range(1, 5)]))]
""")
    assert found == [[], [3904, 4534], "[1, 5)", 1]


def test_psycopg_asks_for_the_version_of_what_is_in_no_folder() -> None:
    found = _in_a_fresh_process("""
import contextlib, os
os.scandir = lambda _: contextlib.nullcontext([])
import sqs2pg.postgres, psycopg
found = psycopg.__version__
""")
    assert found == metadata.version("psycopg")


def test_structlog_draws_with_its_own_renderer_where_nothing_is_set_up() -> None:
    found = _in_a_fresh_process("""
import sqs2pg.telemetry.lean_structlog
import structlog
before = [name for name in ("structlog.dev", "rich") if name in sys.modules]
import io, contextlib
with contextlib.redirect_stdout(io.StringIO()) as said:
    structlog.get_logger().info("a line", count=1)
from structlog import dev
found = [before, "a line" in said.getvalue(), dev.__name__, hasattr(structlog, "nothing")]
""")
    assert found == [[], True, "structlog.dev", False]


def test_a_driver_that_needs_more_than_the_stand_ins_have_is_imported_whole(tmp_path: Path) -> None:
    types = tmp_path / "psycopg" / "types"
    types.mkdir(parents=True)
    (types.parent / "__init__.py").write_text("from psycopg.types.range import AnotherName\n")
    (types / "__init__.py").touch()
    (types / "range.py").write_text("AnotherName = 'there'\n")
    found = _in_a_fresh_process(
        """
import sqs2pg.postgres, psycopg
found = psycopg.AnotherName
""",
        PYTHONPATH=str(tmp_path),
    )
    assert found == "there"


def test_a_library_that_uses_what_a_stand_in_only_names_is_imported_whole(tmp_path: Path) -> None:
    library = tmp_path / "some_library"
    library.mkdir()
    (library / "__init__.py").write_text("from some_library.rare import LIMIT\nTWICE = 2 * LIMIT\n")
    (library / "rare.py").write_text("LIMIT = 4\n")
    found = _in_a_fresh_process(
        """
from sqs2pg.lean_imports import StandIn, lean
rare = StandIn("some_library.rare")
rare.LIMIT = None
with lean("some_library", rare):
    import some_library
stopped = "some_library" not in sys.modules
import some_library
found = [stopped, some_library.TWICE, sys.modules["some_library.rare"] is not rare]
""",
        PYTHONPATH=str(tmp_path),
    )
    assert found == [True, 8, True]


def test_a_module_that_is_loaded_already_has_no_stand_in() -> None:
    found = _in_a_fresh_process("""
import ctypes, structlog.dev
before = sys.modules["ctypes"], sys.modules["structlog.dev"]
import sqs2pg.postgres, sqs2pg.telemetry.lean_structlog
found = before == (sys.modules["ctypes"], sys.modules["structlog.dev"])
""")
    assert found is True
