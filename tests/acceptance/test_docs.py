"""The docs: every command in them is one of ours and parses; those that can run here do run.

Blocks of `console` hold commands after `$ `. A block marked `console run` is run, page by page, in
one folder, against embedded servers. Blocks of `toml` are settings and load.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sqs2pg.cli import COMMANDS, cli
from sqs2pg.fault_codes import FAULT_CODES, FaultRoute
from sqs2pg.mapping.examples import check_examples, compile_offline
from sqs2pg.mapping.examples import test_keyring as examples_keyring
from sqs2pg.runners.compile_plan import masks_of
from sqs2pg.settings import load
from tests.forked_commands import ForkServer
from tests.shell import Shell
from tests.unit.test_layers import LAYERS

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "generated" not in page.parts
]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```\s*$", re.MULTILINE | re.DOTALL)
SOURCE = "src/sqs2pg"
# Other programs that a page may call; they are not run here.
OTHERS = {"aws", "cat", "cut", "docker", "echo", "export", "git", "helm", "kubectl", "openssl"}
OTHERS |= {"pip", "printf", "psql", "python", "python3", "sam", "source", "tr", "."}
RUN_S_MAX = 300


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """(what follows the language, text) of each block of one language."""
    found = []
    for _, info, text in FENCE.findall(page.read_text()):
        words = info.split()
        if words[:1] == [language]:
            found.append((" ".join(words[1:]), text))
    return found


def commands(text: str) -> Iterator[str]:
    """The commands of a console block, continued lines joined, comments gone."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("$ "):
            yield line.lstrip().removeprefix("$ ").strip()


def parse_command(arguments: list[str]) -> None:
    """Parse a command line as ours. Raises click.ClickException."""
    command: click.Command = cli
    context = None
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command, parent=context)
        found = command.get_command(context, rest.pop(0))
        assert found is not None, arguments
        command = found
    command.make_context(command.name, rest, parent=context, resilient_parsing=False)


def fault_of(command: str) -> str:
    """Why a command of a page is wrong; empty if it is right."""
    words = shlex.split(command, comments=True)
    if "|" in words:  # each program of a pipe by itself
        parts = command.partition(" #")[0].split("|")
        return next(filter(None, map(fault_of, parts)), "")
    if re.match(r"[A-Z_0-9]+=\$\(", command):
        return ""  # a variable that another program fills
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words.pop(0)
    if not words:
        return ""
    if words[0] == "sqs2pg" or words[:3] == ["python", "-m", "sqs2pg"]:
        rest = words[1:] if words[0] == "sqs2pg" else words[3:]
        # Our command ends at a pipe or a redirection.
        end = next((i for i, word in enumerate(rest) if word in ("|", ">", "<", "&&", ";")), None)
        try:
            parse_command(rest[:end])
        except click.exceptions.Exit:
            return ""
        except (click.ClickException, AssertionError) as error:
            return f"{command}: {error}"
        return ""
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"{command}: no target {unknown}" if unknown else ""
    if (
        words[0] in ("python", "python3")
        and words[1] == "-m"
        and words[2] not in sys.stdlib_module_names
    ):
        module = ROOT / (words[2].replace(".", "/") + ".py")
        return "" if module.is_file() else f"{command}: no such module"
    if words[0] not in OTHERS:
        return f"{command}: {words[0]} is no program that the docs may call"
    gone = [
        word
        for word in words
        if re.match(r"(deploy|docs|tests|examples)/", word) and not (ROOT / word).exists()
    ]
    return f"{command}: no such file {gone}" if gone else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_docs_are_ours_and_parse(page: Path) -> None:
    faults = [
        fault
        for _, text in blocks(page, "console")
        for command in commands(text)
        if (fault := fault_of(command))
    ]
    assert faults == []


def unknown_names(text: str) -> set[str]:
    """The commands that a text names in the middle of a sentence and that do not exist."""
    return set(re.findall(r"`sqs2pg ([a-z][a-z-]*)", text)) - set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_named_in_sentences_exist(page: Path) -> None:
    assert unknown_names(page.read_text()) == set()


def test_a_wrong_name_in_a_sentence_would_be_noticed() -> None:
    assert unknown_names("run `sqs2pg halt` first, then `sqs2pg run --drain`") == {"halt"}


def test_a_wrong_command_would_be_noticed() -> None:
    assert fault_of("sqs2pg runn")
    assert fault_of("sqs2pg send --counts 3")
    assert fault_of("make demmo")
    assert fault_of("helm install x deploy/helm/nothing")
    assert fault_of("terraform apply")
    assert not fault_of("A=b sqs2pg send --count 3 | cat")


SUBJECT = '\n[[field]]\nsource = "user_id"\ncolumn = "user_id"\nrequired = true\n'
"""What a fragment of a mapping lacks to load: the vault's subject."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_in_the_docs_load(page: Path, tmp_path: Path) -> None:
    for index, (_, text) in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{index}.toml"
        fragment = "[[field]]" in text and 'source = "user_id"' not in text
        file.write_text(text + SUBJECT if fragment else text)
        settings = load(file, {})
        if settings.example and "field]]" in text:
            file.write_text(text)
            settings = load(file, {})
            mapping = compile_offline(settings, masks_of(settings, examples_keyring()))
            assert list(check_examples(settings, mapping)) == []


FILE = re.compile(r"`([a-z_]+/(?:\w+/)*\w+\.(?:py|c|sql|sh))`")


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_files_that_the_docs_name_are_there(page: Path) -> None:
    named = FILE.findall(page.read_text())
    gone = [
        name for name in named if not any((ROOT / below / name).is_file() for below in ("", SOURCE))
    ]
    assert gone == []


def words_of_the_program() -> list[str]:
    """Every text constant of the package, those inside f-strings too."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / SOURCE).rglob("*.py")]
    return [
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def missing_words(quotes: list[str], words: list[str]) -> list[str]:
    """Parts of quotes, between ellipses, that occur in no text of the program."""
    parts = [part.strip() for quote in quotes for part in quote.split("…")]
    return [part for part in parts if part and not any(part in text for text in words)]


def test_the_messages_that_troubleshooting_quotes_are_those_of_the_program() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    symptoms = "\n".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))
    quotes = [quote for quote in re.findall(r"`([^`]+)`", symptoms) if " " in quote]
    assert len(quotes) > 10
    words = words_of_the_program()
    assert missing_words(quotes, words) == []
    assert missing_words(["there is … pseudonym root kay"], words) == ["pseudonym root kay"]


def test_the_codes_that_troubleshooting_names_are_those_of_the_table() -> None:
    known = {code for codes in FAULT_CODES.values() for code in codes}
    text = (ROOT / "docs/troubleshooting.md").read_text()
    first, *_ = text.partition("## What `sqs2pg check` finds")
    named = re.findall(r"^\| (.*?) \|", first, re.MULTILINE)
    codes = {code for row in named for code in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", row)}
    assert len(codes) > 20
    assert codes <= known


def test_install_lists_the_extras_that_there_are() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    section = (ROOT / "docs/install.md").read_text().partition("## Extras")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == extras.keys()


def test_contributing_shows_the_layers_that_the_test_enforces() -> None:
    rows = re.findall(r"^\| \d+ \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    layers = [{name.removesuffix(".py") for name in re.findall(r"`(\w+)", row)} for row in rows]
    assert layers == [set(layer) for layer in LAYERS if layer != {"__main__"}]


def test_the_readme_is_short_and_shows_the_five_hops_in_order() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") < 150
    hops = re.findall(r"^\d\. \*\*(\w+)\*\*: .*`\w+/\w+\.py`", text, re.MULTILINE)
    assert hops == ["receive", "decode", "mask", "write", "acknowledge"]


def test_every_decision_has_a_status_and_a_date_and_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "index.md").read_text()
    decisions = sorted(folder.glob("0*.md"))
    assert len(decisions) > 20
    for decision in decisions:
        text = decision.read_text()
        [(number, title)] = re.findall(r"\A# (\d{4}) (.+)$", text, re.MULTILINE)
        [status] = re.findall(r"^- Status: (accepted|replaced)\b", text, re.MULTILINE)
        [date] = re.findall(r"^- Date: (\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
        assert f"| [{number}]({decision.name}) | {title} | {status} | {date} |" in index


RUNNING = [page for page in PAGES if any("run" in mark for mark, _ in blocks(page, "console"))]


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_marked_as_runnable_run(
    page: Path, shell: Shell, forks: ForkServer, tmp_path: Path
) -> None:
    lines = [
        command
        for mark, text in blocks(page, "console")
        if "run" in mark
        for command in commands(text)
    ]
    assert lines
    script = tmp_path / "page.sh"
    script.write_text("set -euo pipefail\n" + "\n".join(lines) + "\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    done = subprocess.run(
        ["bash", str(script)],
        cwd=tmp_path,
        pass_fds=[forks.program(programs)],
        env=shell.environment
        | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SQS2PG_SOURCE__DRAIN_SETTLE_S": "0.5",
        },
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_generated_reference_names_everything_there_is(tmp_path: Path) -> None:
    """Made in a process of its own, as `make docs` makes it."""
    code = "import sys; from pathlib import Path; from docs.generate import write_all;"
    code += " write_all(Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        check=True,
        timeout=RUN_S_MAX,
    )
    pages = {page.stem: page.read_text() for page in tmp_path.glob("*.md")}
    assert set(pages) == {"settings", "commands", "metrics", "faults", "tables"}
    from sqs2pg.telemetry.metrics import Metrics

    assert all(f"## sqs2pg {name}\n" in pages["commands"] for name in COMMANDS)
    for family in Metrics().registry.collect():
        assert f"`{family.name}" in pages["metrics"]
    for variable in ("SQS2PG_SINK__TABLE", "SQS2PG_SHUTDOWN_GRACE_S", "SQS2PG_RAY__CATCH_UP_S"):
        assert f"`{variable}`" in pages["settings"]
    for table in ("delivery", "quarantine", "tally", "key", "audit", "migration"):
        assert f"## sqs2pg.{table}\n" in pages["tables"]
    for route, codes in FAULT_CODES.items():
        assert f"## {route}\n" in pages["faults"]
        assert all(f"| `{code}` |" in pages["faults"] for code in codes)
    reasons = (tmp_path / "quarantine-reasons.inc").read_text()
    assert reasons.count("\n| `") == len(FAULT_CODES[FaultRoute.QUARANTINE])
    included = "{include} generated/quarantine-reasons.inc"
    assert included in (ROOT / "docs/reference/quarantine.md").read_text()
    assert "sqs2pg_ingest" in pages["tables"]
