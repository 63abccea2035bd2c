"""Layers: who may import what, read from the sources without importing them.

The rules are the design's (section 3). Each is shown below to fail on a tree that breaks it.
"""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import sqs2pg

PACKAGE = Path(sqs2pg.__file__).parent
US = "sqs2pg"

# Types and faults: nothing of ours below them.
GROUND = {"message", "errors"}

# Decoding, masking, the ledger's key and the keyring: values in, values out.
PURE = {*GROUND, "decode", "convert", "transform", "columns", "ledger", "mask", "mask.*"}
PURE |= {"vault.originals", "vault.envelope", "vault.whose", "vault.glimpse"}
PURE |= {"documents", "envelope", "envelope.*", "mapping", "native", "paths"}
PURE |= {"keys.derive", "keys.keyring", "keys.seal", "keys.self_test"}
# A list of what is allowed, so that no new way of doing I/O slips in. Names, where given, are all
# that may be used of a module.
PURE_MAY_IMPORT: dict[str, set[str] | None] = {
    "__future__": None,
    "_hashlib": {"HASH"},
    "backports": {"zstd"},
    "compression": {"zstd"},
    "sys": {"version_info"},
    "zlib": None,
    "base64": None,
    "binascii": None,
    "collections": None,
    "collections.abc": None,
    "cryptography": None,
    "dataclasses": None,
    "datetime": None,
    "decimal": None,
    "difflib": None,
    "contextlib": None,
    "enum": None,
    "ffx": {"FF1"},
    "functools": None,
    "hashlib": None,
    "hmac": None,
    "itertools": None,
    "math": None,
    "msgspec": None,
    "operator": None,
    "os": {"urandom"},
    "re": None,
    "string": None,
    "socket": {"AF_INET", "AF_INET6", "inet_ntop", "inet_pton"},
    "sqs2pg.settings": {
        *("ATTRIBUTE", "RECORD_INDEX", "attribute_key"),
        *("EnvelopeSettings", "Field", "Settings", "Target", "When"),
    },
    "types": None,
    "typing": None,
    "unicodedata": None,
    "uuid": None,
}
NARROW_IN = {"ffx": {"mask.fpe_ff1"}, "os": {"keys.seal"}, "socket": {"mask.*"}}
IO_CALLS = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}

# A library -> who knows it.
KNOWN_TO = {
    "botocore": {"source", "source.*", "keys.provider_kms", "keys.provider_secrets"},
    "boto3": {"source", "source.*"},
    "httptools": {"source", "source.*"},
    "ray": {"ray"},
    "opentelemetry": {"telemetry.*"},
    "psycopg": {
        *("database", "sink", "search", "migrate", "verify", "quarantine", "keybook"),
        *("audit", "maintenance", "replay", "roster", "targets"),
        *(
            "backfill",
            "partition",
            "vault.sealing",
            "vault.reference",
            "vault.reveal",
            "vault.forget",
        ),
        *("vault.rewrap", "vault.rekey"),
        "check.context",  # the doctor's questions
        "local.postgres",  # the embedded server asks itself whether it is up
    },
}
FRONT_DOORS = {"assembly", "aws_lambda", "ray", "ray_backfill", "cli", "cli.*"}

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


class Source(NamedTuple):
    name: str
    """Dotted, without the package's own name; the package itself is ""."""
    imports: list[Import]
    calls: set[str]


@functools.cache
def read(root: Path) -> list[Source]:
    """Return every module under the package folder `root`."""
    return [_source(root, file) for file in sorted(root.rglob("*.py"))]


def _source(root: Path, file: Path) -> Source:
    parts = file.relative_to(root).with_suffix("").parts
    package = parts[:-1]
    name = ".".join(package if parts[-1] == "__init__" else parts)
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
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
    """Whether a module is in a group; `a.*` stands for everything below a."""
    above = module.split(".")
    patterns = {".".join((*above[:depth], "*")) for depth in range(1, len(above))}
    return module in group or bool(patterns & group)


def is_of(target: str, module: str) -> bool:
    return target == module or target.startswith(module + ".")


def violations(root: Path) -> list[str]:
    """Return what breaks a rule, one line each: module, line, what is imported, the rule."""
    found = []
    for source in read(root):
        for imported in source.imports:
            found += [
                f"{source.name}:{imported.line} {imported.module}: {rule}"
                for rule in _broken_rules(source.name, imported)
            ]
        if within(source.name, PURE) and (calls := source.calls & IO_CALLS):
            found += [f"{source.name} {call}(): no I/O here" for call in sorted(calls)]
    return found


def _broken_rules(name: str, imported: Import) -> Iterator[str]:
    targets = imported.targets()
    if within(name, GROUND) and any(is_of(target, US) for target in targets):
        yield "message and errors import nothing of ours"
    if within(name, PURE) and not _is_pure(name, imported):
        yield "no I/O here"
    for library, knowers in KNOWN_TO.items():
        if any(is_of(target, library) for target in targets) and not within(name, knowers):
            yield f"only {', '.join(sorted(knowers))} know {library}"
    if f"{US}.pipeline" in targets and not within(name, FRONT_DOORS):
        yield "only front doors know the pipeline"
    if any(is_of(t, f"{US}.cli") for t in targets) and not within(
        name, {"__main__", "cli", "cli.*"}
    ):
        yield "nothing but __main__ knows the command line"
    if targets & NOT_SHIPPED or imported.module.split(".")[0] in NOT_SHIPPED:
        yield "production code imports no tests, benchmarks or their tools"
    if imported.module.endswith("(…)") and name != "cli":
        yield "what is imported must be readable here; only cli loads its commands by name"


def _is_pure(name: str, imported: Import) -> bool:
    if (name, *imported.targets() - {US}) == ("native", f"{US}._native"):
        return True  # compiled from native/ of the checkout: bodies in, lines out
    if is_of(imported.module, US) and imported.module != f"{US}.settings":
        inside = imported.module.removeprefix(US).lstrip(".")
        below = (".".join(filter(None, (inside, one))) for one in imported.names)
        return within(inside, PURE) or (
            bool(imported.names) and all(within(b, PURE) for b in below)
        )
    listed = [known for known in PURE_MAY_IMPORT if is_of(imported.module, known)]
    if not listed:
        return False
    allowed = PURE_MAY_IMPORT[max(listed, key=len)]
    if allowed is None:
        return True
    narrow = within(name, NARROW_IN.get(imported.module, {name}))
    return narrow and bool(imported.used) and imported.used <= allowed


def test_every_module_keeps_to_its_layer():
    assert violations(PACKAGE) == []


def test_the_rules_are_about_modules_that_are_there():
    # A rule about a module that was renamed would hold for ever.
    names = {source.name for source in read(PACKAGE)}
    assert len(names) > 40
    for group in (PURE, FRONT_DOORS, *KNOWN_TO.values(), *NARROW_IN.values()):
        for name in group:
            base = name.removesuffix(".*")
            assert base in names, f"no module {base}"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("source.environment", "botocore.session"),
        ("source.connection", "httptools"),
        ("database", "psycopg"),
        ("assembly", "sqs2pg.pipeline"),
        ("transform", "sqs2pg.settings"),
        ("__main__", "sqs2pg.cli"),
        ("mask.canonical", "socket"),
        ("keys.seal", "os"),
        ("cli", "importlib.import_module(…)"),
    ],
)
def test_imports_that_are_there_are_seen(name: str, target: str):
    [source] = [source for source in read(PACKAGE) if source.name == name]
    assert target in {found for imported in source.imports for found in imported.targets()}


GOOD = {
    "__init__.py": "",
    "__main__.py": "from sqs2pg.cli import main",
    "message.py": "import msgspec\nfrom enum import Enum",
    "errors.py": "from enum import StrEnum",
    "settings.py": "import os\nfrom sqs2pg.errors import SettingsError",
    "decode.py": "import re\nfrom sqs2pg import errors\nfrom sqs2pg.settings import Field",
    "ledger.py": "from datetime import datetime\nfrom . import message\nfrom .errors import Stage",
    "database.py": "import psycopg\nfrom psycopg.conninfo import conninfo_to_dict\nopen('x')",
    "pipeline.py": "import asyncio\nfrom sqs2pg import message",
    "assembly.py": "from sqs2pg.pipeline import Consumer",
    "mask/__init__.py": "",
    "mask/canonical.py": "from socket import AF_INET, inet_pton\nfrom ..errors import Stage",
    "keys/__init__.py": "",
    "keys/seal.py": "import os\nos.urandom(1)",
    "source/__init__.py": "",
    "source/client.py": "import botocore.session, httptools, asyncio",
    "cli/__init__.py": "import importlib\nimportlib.import_module(f'sqs2pg.cli.{name}')",
    "cli/run.py": "from sqs2pg import pipeline\nfrom sqs2pg.cli import main",
}

BROKEN = [
    ("message.py", "from sqs2pg.errors import Stage", "nothing of ours"),
    ("message.py", "from . import errors", "nothing of ours"),
    ("errors.py", "import sqs2pg.message", "nothing of ours"),
    ("errors.py", "def f():\n    from sqs2pg import message", "nothing of ours"),
    ("errors.py", "import sqs2pg", "nothing of ours"),
    ("decode.py", "import asyncio", "no I/O"),
    ("decode.py", "import pathlib", "no I/O"),
    ("decode.py", "from pathlib import Path", "no I/O"),
    ("decode.py", "import os", "no I/O"),
    ("decode.py", "from os import urandom", "no I/O"),
    ("decode.py", "import socket\nsocket.inet_pton", "no I/O"),
    ("decode.py", "import urllib.request", "no I/O"),
    ("decode.py", "import some_new_library", "no I/O"),
    ("decode.py", "import structlog", "no I/O"),
    ("decode.py", "def f():\n    return open('x')", "no I/O"),
    ("decode.py", "print('x')", "no I/O"),
    ("decode.py", "from sqs2pg.settings import Field, load", "no I/O"),
    ("decode.py", "from sqs2pg import settings", "no I/O"),
    ("decode.py", "import sqs2pg.settings", "no I/O"),
    ("decode.py", "import sqs2pg.settings as s\ns.load()", "no I/O"),
    ("decode.py", "from sqs2pg import database", "no I/O"),
    ("decode.py", "from sqs2pg import message, database", "no I/O"),
    ("decode.py", "from . import database", "no I/O"),
    ("decode.py", "from .database import Session", "no I/O"),
    ("decode.py", "import importlib\nimportlib.import_module('sqs2pg.database')", "no I/O"),
    ("convert.py", "from os import environ", "no I/O"),
    ("columns.py", "import subprocess", "no I/O"),
    ("transform.py", "import time", "no I/O"),
    ("ledger.py", "import random", "no I/O"),
    ("mask/new.py", "import socket\nsocket.socket()", "no I/O"),
    ("mask/new.py", "from socket import inet_pton, create_connection", "no I/O"),
    ("mask/new.py", "from ..database import Session", "no I/O"),
    ("mask/new.py", "from socket import *", "no I/O"),
    ("keys/keyring.py", "import os\nos.urandom(1)", "no I/O"),
    ("keys/seal.py", "import os\nos.urandom(1)\nos.remove('x')", "no I/O"),
    ("keys/seal.py", "import os as o\no.remove('x')", "no I/O"),
    ("keys/derive.py", "from sqs2pg.keys import provider_file", "no I/O"),
    ("sending.py", "import botocore", "know botocore"),
    ("sending.py", "def f():\n    import botocore.session as s", "know botocore"),
    ("sending.py", "from botocore.session import Session", "know botocore"),
    ("cli/run.py", "from boto3 import client", "know boto3"),
    ("local.py", "import httptools", "know httptools"),
    ("sourcery.py", "import botocore", "know botocore"),
    ("pipeline.py", "from psycopg import sql", "know psycopg"),
    ("cli/keys.py", "import psycopg", "know psycopg"),
    ("cli/keys.py", "if True:\n    import psycopg.rows as rows", "know psycopg"),
    ("source/client.py", "import psycopg", "know psycopg"),
    ("process.py", "__import__('psycopg')", "know psycopg"),
    ("process.py", "import importlib\nimportlib.import_module('psycopg.rows')", "know psycopg"),
    ("process.py", "import importlib\nimportlib.import_module(name)", "must be readable"),
    ("process.py", "from sqs2pg.pipeline import Consumer", "front doors"),
    ("process.py", "from sqs2pg import pipeline", "front doors"),
    ("source/queue.py", "from .. import pipeline", "front doors"),
    ("source/queue.py", "from ..pipeline import Totals", "front doors"),
    ("sink.py", "import sqs2pg.pipeline", "front doors"),
    (
        "sink.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqs2pg.pipeline",
        "doors",
    ),
    ("assembly.py", "from sqs2pg.cli.options import json_option", "command line"),
    ("assembly.py", "from sqs2pg import cli", "command line"),
    ("local.py", "from .cli import main", "command line"),
    ("sink.py", "import tests.conftest", "no tests"),
    ("sink.py", "from tests import conftest", "no tests"),
    ("sink.py", "from benchmarks.queue_server import server", "no tests"),
    ("cli/run.py", "import pytest", "no tests"),
    ("cli/demo.py", "from hypothesis import given", "no tests"),
]


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / US / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root / US


def test_a_tree_that_keeps_the_rules_has_no_violation(tmp_path: Path):
    assert violations(plant(tmp_path, GOOD)) == []


@pytest.mark.parametrize(("name", "text", "rule"), BROKEN)
def test_a_tree_that_breaks_a_rule_has_one(tmp_path: Path, name: str, text: str, rule: str):
    found = violations(plant(tmp_path, {**GOOD, name: text}))
    module = name.removesuffix(".py").replace("/", ".")
    assert any(line.startswith(module) and rule in line for line in found), found
    assert all(line.startswith(module) for line in found)
