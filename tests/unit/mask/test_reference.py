"""Masks computed by following docs/reference/masking.md: its info strings, sizes and alphabets.

What is needed is read from the page itself, so that a page that says something else fails here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from sqs2pg.keys import provider_file
from sqs2pg.keys.keyring import Keyring
from sqs2pg.mask.registry import OPERATORS, compile_operator

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "reference" / "masking.md").read_text()
VECTORS = Path(__file__).parents[2] / "vectors"


def vectors(name: str, part: str) -> list[dict[str, Any]]:
    return json.loads((VECTORS / name).read_text())[part]


PSEUDONYMS = vectors("pseudonym.json", "vectors")
ROOTS: dict[str, str] = json.loads((VECTORS / "pseudonym.json").read_text())["roots"]


def documented_key(purpose: str, root: bytes, domain: str) -> bytes:
    """The page's table "Derived keys": the info string and the length of a purpose."""
    table = PAGE.partition("## Derived keys")[2].partition("\n## ")[0]
    [row] = [line for line in table.splitlines() if line.startswith("|") and purpose in line]
    _, _, _, info, length, _ = (cell.strip() for cell in row.split("|"))
    operator = purpose.strip("`")
    text = info.strip("`").replace("<operator>", operator).replace("<domain>", domain)
    special = re.search(rf"(\d+) for `{operator}`", length)
    wanted = int(special[1]) if special else int(re.match(r"\d+", length)[0])  # type: ignore[index]
    extracted = hmac.digest(bytes(32), root, "sha256")
    key, block, counter = b"", b"", 0
    while len(key) < wanted:
        counter += 1
        block = hmac.digest(extracted, block + text.encode() + bytes([counter]), "sha256")
        key += block
    return key[:wanted]


@pytest.mark.parametrize("vector", PSEUDONYMS, ids=lambda v: f"{v['kind']}-{ascii(v['token'])[:9]}")
def test_the_page_s_derivation_gives_the_tokens(vector: dict[str, Any]) -> None:
    domain = unicodedata.normalize("NFC", vector["domain"])
    key = documented_key("tokens of a domain", bytes.fromhex(ROOTS[str(vector["version"])]), domain)
    [canonical] = {
        v["canonical"]
        for v in vectors("canonical.json", "vectors")
        if all(v.get(key) == vector.get(key) for key in ("kind", "otherwise", "value"))
        and "canonical" in v
    } or {None}
    if canonical is None:  # only the vectors of tokens have a value
        canonical = unicodedata.normalize("NFC", vector["value"]).encode().hex()
    mac = hmac.digest(key, bytes.fromhex(canonical), "sha256")
    assert "lower-case hex of mac[0:16]" in PAGE
    assert vector["token"] == f"v{vector['version']}_{mac[:16].hex()}"


@pytest.mark.parametrize("operator", ["encrypt", "encrypt_deterministic", "fpe_ff1"])
def test_the_page_s_table_gives_the_operators_keys(operator: str) -> None:
    found = [v for v in vectors("derivation.json", "vectors") if v["purpose"] == operator]
    assert found
    for vector in found:
        root, domain = bytes.fromhex(vector["root"]), vector["domain"]
        assert documented_key(f"`{operator}`", root, domain).hex() == vector["key"]


def test_the_page_says_of_each_operator_what_it_declares() -> None:
    for name in OPERATORS:
        [row, *_] = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip(" *") for cell in row.split("|")[2:-1]]
        declared = OPERATORS[name].properties
        said = [cell.split(",")[0].strip("*").startswith(("yes", "it is")) for cell in cells[:5]]
        assert said == [
            declared.deterministic,
            declared.reversible,
            declared.joinable,
            declared.format_preserving,
            declared.recoverable,
        ], name


def test_the_page_names_every_kind_fault_and_vector() -> None:
    for kind in ("ip", "text", "email", "phone", "uuid"):
        assert f"| `{kind}` |" in PAGE
    faults = {v["fault"] for v in vectors("canonical.json", "vectors") if "fault" in v}
    faults |= {v["fault"] for v in vectors("operators.json", "vectors") if "fault" in v}
    assert [fault for fault in sorted(faults) if f"`{fault}`" not in PAGE] == []
    assert [p.name for p in VECTORS.glob("*.json") if p.name not in PAGE] == []


def test_the_howto_s_script_pairs_hashes_with_pseudonyms(tmp_path: Path) -> None:
    page = (DOCS / "howto" / "move-from-sha256.md").read_text()
    [script] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert "range(10**9)" in script
    provider_file.create(tmp_path / "keys")
    values = ["593-47-5928", "593-47-5931", "000-00-0007"]
    hashes = [hashlib.sha256(value.encode()).hexdigest() for value in values]
    (tmp_path / "hashes.txt").write_text("\n".join(hashes))
    done = subprocess.run(
        [
            *(sys.executable, "-c", script.replace("range(10**9)", "range(593475900, 593476000)")),
            *(tmp_path / "keys", tmp_path / "hashes.txt"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    ring: Keyring = provider_file.load(tmp_path / "keys")
    mask = compile_operator("pseudonymize", kind="text", domain="device_id", keyring=ring).mask
    expected = [f"{hashes[n]}\t{mask(values[n])}" for n in (0, 1)]
    assert done.stdout.splitlines() == expected


@pytest.mark.system
def test_the_page_s_openssl_commands_give_the_page_s_token() -> None:
    [block] = re.findall(r"```console\n(\$ ROOT=.*?)```", PAGE, re.DOTALL)
    lines = block.splitlines()
    commands = "\n".join(line.removeprefix("$ ") for line in lines[:-1])
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == lines[-1]
