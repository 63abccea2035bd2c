"""Layers: which folder may import which, read from the sources without importing them.

A folder imports from the layers below it and from itself, never from its own layer's other folders
and never from above. `LAYERS` lists all of them; each rule is shown below to fail on a tree that
breaks it.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import sqs2pg
from tests.syntax import nodes_of

PACKAGE = Path(sqs2pg.__file__).parent
US = "sqs2pg"

# From the bottom up. The package itself (its version) and `_native` (compiled from native/) lie
# below all of them.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "fault_codes", "lean_imports", "message", "native"}),
    frozenset({"keys"}),
    frozenset({"mask"}),
    frozenset({"settings"}),
    frozenset({"mapping", "telemetry"}),
    frozenset({"postgres", "sqs"}),
    frozenset({"status", "vault"}),
    frozenset({"pipeline"}),
    frozenset({"runners"}),
    frozenset({"aws_lambda", "cli"}),
    frozenset({"__main__"}),
)
LAYER = {part: height for height, parts in enumerate(LAYERS) for part in parts}
FOLDERS_MAX = 12
FILES_MAX = 6
"""At the top of the package, beside `__init__` and `__main__`."""

# Values in, values out: no file, no socket, no clock.
PURE = {"errors", "fault_codes", "message", "mapping.*", "mask.*"}
PURE |= {"keys.aead", "keys.derive", "keys.hmac_state", "keys.keyring", "keys.self_test"}
PURE |= {"settings.fields", "settings.mask_rules", "settings.source_paths", "settings.sections"}
PURE |= {"settings.expressions", "settings.expression_rules", "settings.routes"}
PURE |= {"settings.time_zones", "settings.write_modes", "settings.write_rules"}
PURE |= {"settings.process_sections", "settings.staged_fields", "settings.when"}
IMPURE = {"mask.brute_force"}
"""Beside pure ones: measures how fast this machine hashes."""
# A list of what is allowed, so that no new way of doing I/O slips in. Names, where given, are all
# that may be used of a module.
PURE_MAY_IMPORT: dict[str, set[str] | None] = {
    "__future__": None,
    "_hashlib": {"HASH"},
    "backports": {"zstd"},
    "base64": None,
    "binascii": None,
    "collections": None,
    "collections.abc": None,
    "compression": {"zstd"},
    "contextlib": None,
    "cryptography": None,
    "dataclasses": None,
    "datetime": None,
    "decimal": None,
    "difflib": None,
    "enum": None,
    "ffx": {"FF1"},
    "functools": None,
    "hashlib": None,
    "hmac": None,
    "io": {"BytesIO"},
    "itertools": None,
    "jmespath.exceptions": None,
    "jmespath.functions": {"REVERSE_TYPES_MAP", "Functions", "signature"},
    "jmespath.lexer": {"Lexer"},
    "jmespath.parser": {"Parser"},
    "jmespath.visitor": {"Options", "TreeInterpreter"},
    "json": None,
    "math": None,
    "msgspec": None,
    "operator": None,
    "os": {"urandom"},
    "re": None,
    "socket": {"AF_INET", "AF_INET6", "inet_ntop", "inet_pton"},
    "sqs2pg.settings": {
        *("ATTRIBUTE", "CONTENT_ENCODING", "RECORD_INDEX", "SYSTEM", "attribute_keys"),
        *("is_of_message", "read_of_message", "required_sources"),
        *("EnvelopeSettings", "Example", "Field", "Filter", "Settings", "Target", "When"),
        *("expressions", "source_paths"),
    },
    "string": None,
    "sys": {"version_info"},
    "types": None,
    "typing": None,
    "unicodedata": None,
    "uuid": None,
    "warnings": {"catch_warnings", "simplefilter"},
    "zlib": None,
    "zoneinfo": None,
}
NARROW_IN = {"ffx": {"mask.fpe_ff1"}, "os": {"keys.aead"}, "socket": {"mask.*"}}
NARROW_IN |= {"zoneinfo": {"settings.time_zones"}}  # reads the database of zones, at the start
IO_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

# A library -> the modules that may import it.
KNOWN_TO = {
    "botocore": {"sqs.*", "keys.provider_kms", "keys.provider_secrets"},
    "boto3": {"sqs.*"},
    "httptools": {"sqs.*"},
    "ray": {"runners.ray_fleet"},
    "opentelemetry": {"telemetry.*"},
    "psycopg": {
        "postgres.*",
        "cli.embedded.postgres_server",  # the embedded server asks itself whether it is up
    },
}

# Ours that are not in the wheel, and the tools of the dev group.
NOT_SHIPPED = {"tests", "benchmarks", "conftest", "pytest", "hypothesis", "trustme", "psycopg2"}


class Import(NamedTuple):
    """One import: `names` is empty for `import a.b`, `used` its attributes' names in the file."""

    module: str
    names: tuple[str, ...]
    used: frozenset[str]
    line: int

    def targets(self) -> set[str]:
        """Every module the statement may load: `from a import b` may load a.b."""
        return {self.module, *(f"{self.module}.{name}" for name in self.names)}

    def parts(self) -> set[str]:
        """The parts of the package that it imports from: names of folders and files at the top."""
        return {target.split(".")[1] for target in self.targets() if is_of(target, f"{US}.")} & {
            *LAYER
        }


class Source(NamedTuple):
    name: str
    """Dotted, without the package's own name; the package itself is ""."""
    imports: list[Import]
    calls: set[str]

    @property
    def part(self) -> str:
        return self.name.split(".")[0]


@functools.cache
def read(root: Path) -> list[Source]:
    """Return every module under the package folder `root`."""
    return [_source(root, file) for file in sorted(root.rglob("*.py"))]


def _source(root: Path, file: Path) -> Source:
    parts = file.relative_to(root).with_suffix("").parts
    package = parts[:-1]
    name = ".".join(package if parts[-1] == "__init__" else parts)
    nodes = nodes_of(file)
    calls = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return Source(name, list(_imports(nodes, (US, *package))), calls)


def _imports(nodes: list[ast.AST], package: tuple[str, ...]) -> Iterator[Import]:
    used: dict[str, set[str]] = defaultdict(set)
    for node in nodes:
        if isinstance(node, ast.Attribute):
            used[_dotted(node.value)].add(node.attr)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names = frozenset(used[alias.asname or alias.name])
                yield Import(alias.name, (), names, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            taken = tuple(alias.name for alias in node.names)
            yield Import(module, taken, frozenset(taken), node.lineno)
        elif isinstance(node, ast.Call) and "import" in (called := _dotted(node.func)):
            match node.args:
                case [ast.Constant(value=str(module)), *_]:
                    pass
                case _:
                    module = f"{called}(…)"
            yield Import(module, (), frozenset(), node.lineno)


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` where an expression is that, else ""."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def within(module: str, group: set[str]) -> bool:
    """Whether a module is in a group; `a.*` stands for a and everything below it."""
    above = module.split(".")
    patterns = {".".join((*above[:depth], "*")) for depth in range(1, len(above) + 1)}
    return module in group or bool(patterns & group)


def is_of(target: str, module: str) -> bool:
    return target == module or target.startswith(module.rstrip(".") + ".")


def is_pure(module: str) -> bool:
    return within(module, PURE) and not any(is_of(module, impure) for impure in IMPURE)


def violations(root: Path) -> list[str]:
    """Return what breaks a rule, one line each: module, line, what is imported, the rule."""
    found = []
    for source in read(root):
        if source.name and source.part not in LAYER:
            found.append(f"{source.name}: in no layer")
            continue
        for imported in source.imports:
            found += [
                f"{source.name}:{imported.line} {imported.module}: {rule}"
                for rule in _broken_rules(source, imported)
            ]
        if is_pure(source.name) and (calls := source.calls & IO_CALLS):
            found += [f"{source.name} {call}(): no I/O here" for call in sorted(calls)]
    return found


def _broken_rules(source: Source, imported: Import) -> Iterator[str]:
    name, targets = source.name, imported.targets()
    for part in sorted(imported.parts() - {source.part}):
        if not name:
            yield "the package itself imports nothing of ours"
        elif LAYER[source.part] == 0:
            yield "the lowest layer imports nothing of ours"
        elif LAYER[part] >= LAYER[source.part]:
            yield f"{source.part} may import only from layers below it, and {part} is not"
    if is_pure(name) and not _is_pure_import(name, imported):
        yield "no I/O here"
    for library, knowers in KNOWN_TO.items():
        if any(is_of(target, library) for target in targets) and not within(name, knowers):
            yield f"only {', '.join(sorted(knowers))} know {library}"
    if targets & NOT_SHIPPED or imported.module.split(".")[0] in NOT_SHIPPED:
        yield "production code imports no tests, benchmarks or their tools"
    if imported.module.endswith("(…)") and name != "cli":
        yield "what is imported must be readable here; only cli loads its commands by name"


def _is_pure_import(name: str, imported: Import) -> bool:
    if is_of(imported.module, US) and (
        imported.module != f"{US}.settings" or name.startswith("settings.")
    ):
        inside = imported.module.removeprefix(US).lstrip(".")
        below = (".".join(filter(None, (inside, one))) for one in imported.names)
        return is_pure(inside) or (bool(imported.names) and all(is_pure(b) for b in below))
    listed = [known for known in PURE_MAY_IMPORT if is_of(imported.module, known)]
    if not listed:
        return False
    allowed = PURE_MAY_IMPORT[max(listed, key=len)]
    if allowed is None:
        return True
    narrow = within(name, NARROW_IN.get(imported.module, {name}))
    return narrow and bool(imported.used) and imported.used <= allowed


def circle(root: Path) -> list[str]:
    """Return the modules of one import circle, in its order; [] where there is none.

    An import inside a function counts, and so does one for annotations only: a reader follows
    those, too. `from a import b` is an arrow to a.b where that is a module, else to a.
    """
    sources = {f"{US}.{source.name}".rstrip("."): source for source in read(root)}
    arrows = {
        module: {
            target
            for imported in source.imports
            for target in _arrow_ends(imported, sources)
            if target != module
        }
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [str(module) for module in error.args[1]]
    return []


def _arrow_ends(imported: Import, known: dict[str, Source]) -> Iterator[str]:
    for name in imported.names or ("",):
        ends = (f"{imported.module}.{name}", imported.module)
        yield from [end for end in ends if end in known][:1]


def test_every_module_keeps_to_its_layer() -> None:
    assert violations(PACKAGE) == []


def test_no_import_goes_round_in_a_circle() -> None:
    assert circle(PACKAGE) == []


def test_the_top_of_the_package_is_read_at_a_glance() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert len(folders) <= FOLDERS_MAX
    assert len(files) <= FILES_MAX
    assert folders | files | {"__main__"} == set(LAYER)


def test_every_rule_names_a_module_that_exists() -> None:
    # A rule about a module that was renamed would hold for ever.
    names = {source.name for source in read(PACKAGE)}
    assert len(names) > 40
    for group in (PURE, IMPURE, *KNOWN_TO.values(), *NARROW_IN.values()):
        for name in group:
            base = name.removesuffix(".*")
            assert base in names, f"no module {base}"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("sqs.environment", "botocore.session"),
        ("sqs.connection", "httptools"),
        ("postgres.connection", "psycopg"),
        ("runners.pipeline", "sqs2pg.pipeline.consumer"),
        ("mapping.transform", "sqs2pg.settings"),
        ("__main__", "sqs2pg.cli"),
        ("mask.canonical", "socket"),
        ("keys.aead", "os"),
        ("cli", "importlib.import_module(…)"),
    ],
)
def test_imports_that_are_there_are_seen(name: str, target: str) -> None:
    [source] = [source for source in read(PACKAGE) if source.name == name]
    assert target in {found for imported in source.imports for found in imported.targets()}


GOOD = {
    "__init__.py": "",
    "__main__.py": "from sqs2pg.cli import main",
    "message.py": "import msgspec\nfrom enum import Enum",
    "errors.py": "from enum import StrEnum",
    "native.py": "import os\nfrom sqs2pg import _native",
    "keys/__init__.py": "",
    "keys/aead.py": "import os\nos.urandom(1)",
    "mask/__init__.py": "",
    "mask/canonical.py": "from socket import AF_INET, inet_pton\nfrom ..errors import Stage",
    "settings/__init__.py": "import os\nfrom sqs2pg.errors import SettingsError",
    "mapping/__init__.py": "",
    "mapping/decode.py": "import re\nfrom sqs2pg import errors\nfrom sqs2pg.settings import Field",
    "mapping/ledger_key.py": "from datetime import datetime\nfrom ..message import Message",
    "telemetry/log.py": "import structlog\nopen('x')",
    "postgres/connection.py": "import psycopg\nfrom psycopg.conninfo import conninfo_to_dict",
    "sqs/__init__.py": "",
    "sqs/client.py": "import botocore.session, httptools, asyncio",
    "vault/seal.py": "from sqs2pg.postgres.connection import Session",
    "pipeline/consumer.py": "import asyncio\nfrom sqs2pg import message",
    "runners/assembly.py": "from sqs2pg.pipeline.consumer import Consumer",
    "aws_lambda.py": "from sqs2pg.runners.pipeline import Pipeline",
    "cli/__init__.py": "import importlib\nimportlib.import_module(f'sqs2pg.cli.{name}')",
    "cli/run.py": "from sqs2pg.pipeline import consumer\nfrom sqs2pg.cli import main",
}

BROKEN = [
    ("message.py", "from sqs2pg.errors import Stage", "lowest layer"),
    ("message.py", "from . import errors", "lowest layer"),
    ("errors.py", "import sqs2pg.message", "lowest layer"),
    ("errors.py", "def f():\n    from sqs2pg import message", "lowest layer"),
    ("native.py", "from sqs2pg.keys import aead", "lowest layer"),
    ("__init__.py", "from sqs2pg.errors import Stage", "package itself"),
    ("archive.py", "", "in no layer"),
    ("source/queue.py", "", "in no layer"),
    ("keys/aead.py", "from sqs2pg.mask import canonical", "mask is not"),
    ("mask/canonical.py", "from ..settings import Field", "settings is not"),
    ("settings/__init__.py", "from sqs2pg.mapping.decode import decode", "mapping is not"),
    ("mapping/decode.py", "import sqs2pg.telemetry.log", "telemetry is not"),
    ("telemetry/log.py", "from sqs2pg.mapping import decode", "mapping is not"),
    ("sqs/client.py", "from sqs2pg.postgres.connection import Session", "postgres is not"),
    ("postgres/connection.py", "from sqs2pg.vault.seal import ValueSealer", "vault is not"),
    ("vault/seal.py", "from .. import pipeline", "pipeline is not"),
    ("vault/seal.py", "from ..pipeline import consumer", "pipeline is not"),
    (
        "vault/seal.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqs2pg.pipeline.consumer",
        "pipeline is not",
    ),
    ("pipeline/consumer.py", "from sqs2pg.runners.pipeline import Pipeline", "runners is not"),
    ("runners/assembly.py", "from sqs2pg.cli.options import json_option", "cli is not"),
    ("runners/assembly.py", "from sqs2pg import cli", "cli is not"),
    ("aws_lambda.py", "from .cli import main", "cli is not"),
    ("cli/run.py", "import sqs2pg.__main__", "__main__ is not"),
    ("mapping/decode.py", "import asyncio", "no I/O"),
    ("mapping/decode.py", "import pathlib", "no I/O"),
    ("mapping/decode.py", "from pathlib import Path", "no I/O"),
    ("mapping/decode.py", "import os", "no I/O"),
    ("mapping/decode.py", "from os import urandom", "no I/O"),
    ("mapping/decode.py", "import socket\nsocket.inet_pton", "no I/O"),
    ("mapping/decode.py", "import urllib.request", "no I/O"),
    ("mapping/decode.py", "import some_new_library", "no I/O"),
    ("mapping/decode.py", "import structlog", "no I/O"),
    ("mapping/decode.py", "def f():\n    return open('x')", "no I/O"),
    ("mapping/decode.py", "print('x')", "no I/O"),
    ("mapping/decode.py", "from sqs2pg.settings import Field, load", "no I/O"),
    ("mapping/decode.py", "from sqs2pg import settings", "no I/O"),
    ("mapping/decode.py", "import sqs2pg.settings", "no I/O"),
    ("mapping/decode.py", "import sqs2pg.settings as s\ns.load()", "no I/O"),
    ("mapping/decode.py", "from sqs2pg import native", "no I/O"),
    ("mapping/decode.py", "from sqs2pg import message, native", "no I/O"),
    ("mapping/decode.py", "from .. import native", "no I/O"),
    ("mapping/decode.py", "import importlib\nimportlib.import_module('sqs2pg.native')", "no I/O"),
    ("mapping/convert.py", "from os import environ", "no I/O"),
    ("mapping/columns.py", "import subprocess", "no I/O"),
    ("mapping/transform.py", "import time", "no I/O"),
    ("mapping/ledger_key.py", "import random", "no I/O"),
    ("mask/new.py", "import socket\nsocket.socket()", "no I/O"),
    ("mask/new.py", "from socket import inet_pton, create_connection", "no I/O"),
    ("mask/new.py", "from socket import *", "no I/O"),
    ("mask/new.py", "from sqs2pg.mask.brute_force import rate", "no I/O"),
    ("keys/keyring.py", "import os\nos.urandom(1)", "no I/O"),
    ("keys/aead.py", "import os\nos.urandom(1)\nos.remove('x')", "no I/O"),
    ("keys/aead.py", "import os as o\no.remove('x')", "no I/O"),
    ("keys/derive.py", "from sqs2pg.keys import provider_file", "no I/O"),
    ("telemetry/log.py", "import botocore", "know botocore"),
    ("telemetry/log.py", "def f():\n    import botocore.session as s", "know botocore"),
    ("telemetry/log.py", "from botocore.session import Session", "know botocore"),
    ("cli/run.py", "from boto3 import client", "know boto3"),
    ("cli/embedded/child.py", "import httptools", "know httptools"),
    ("pipeline/consumer.py", "from psycopg import sql", "know psycopg"),
    ("cli/keys.py", "import psycopg", "know psycopg"),
    ("cli/keys.py", "if True:\n    import psycopg.rows as rows", "know psycopg"),
    ("sqs/client.py", "import psycopg", "know psycopg"),
    ("pipeline/processor.py", "__import__('psycopg')", "know psycopg"),
    (
        "pipeline/processor.py",
        "import importlib\nimportlib.import_module('psycopg.rows')",
        "know psycopg",
    ),
    (
        "pipeline/processor.py",
        "import importlib\nimportlib.import_module(name)",
        "must be readable",
    ),
    ("postgres/sink.py", "import tests.conftest", "no tests"),
    ("postgres/sink.py", "from tests import conftest", "no tests"),
    ("postgres/sink.py", "from benchmarks.queue_server import server", "no tests"),
    ("cli/run.py", "import pytest", "no tests"),
    ("cli/demo.py", "from hypothesis import given", "no tests"),
]


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / US / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root / US


def test_a_tree_that_keeps_the_rules_has_no_violation(tmp_path: Path) -> None:
    root = plant(tmp_path, GOOD)
    assert violations(root) == []
    assert circle(root) == []


@pytest.mark.parametrize(("name", "text", "rule"), BROKEN)
def test_a_broken_rule_is_reported_with_its_module(
    tmp_path: Path, name: str, text: str, rule: str
) -> None:
    found = violations(plant(tmp_path, {**GOOD, name: text}))
    module = name.removesuffix(".py").removesuffix("__init__").replace("/", ".").rstrip(".")
    assert any(line.startswith(module) and rule in line for line in found), found
    assert all(line.startswith(module) for line in found)


@pytest.mark.parametrize(
    "files",
    [
        {"sqs/client.py": "from sqs2pg.sqs.queue import Q", "sqs/queue.py": "from . import client"},
        {
            "mask/a.py": "def f():\n    from sqs2pg.mask import b",
            "mask/b.py": "import sqs2pg.mask.a",
        },
        {
            "settings/__init__.py": "from sqs2pg.settings.fields import Field",
            "settings/fields.py": "from sqs2pg.settings import load",
        },
    ],
)
def test_circular_imports_are_reported(tmp_path: Path, files: dict[str, str]) -> None:
    found = circle(plant(tmp_path, {**GOOD, **files}))
    assert {f"{US}/{name}" for name in files} <= {
        f"{module.replace('.', '/')}.py".replace("settings.py", "settings/__init__.py")
        for module in found
    }
