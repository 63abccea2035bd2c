"""The page's files: the vendored ones are as published, and nothing is inline or from elsewhere."""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pytest

from sqs2pg.status.server import CONTENT_POLICY, find_asset

STATIC = resources.files("sqs2pg.status") / "static"
PUBLISHED = {  # of the npm package uplot 1.6.32; decision 0021
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    "uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
}
OURS = [file.name for file in STATIC.iterdir() if file.name not in PUBLISHED]
PAGES = [name for name in OURS if name.endswith(".html")]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_vendored_file_is_the_published_one(name: str) -> None:
    assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == PUBLISHED[name]


@pytest.mark.parametrize("name", OURS)
def test_assets_refer_to_no_other_site(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    text = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//cdn|@import|url\(", text)
    assert "innerHTML" not in text
    assert "eval(" not in text


@pytest.mark.parametrize("name", PAGES)
def test_pages_have_no_inline_script_or_style(name: str) -> None:
    text = (STATIC / name).read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text)
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', text):
        assert find_asset(path), f"{path} is served"


def test_the_policy_allows_nothing_inline() -> None:
    assert "unsafe" not in CONTENT_POLICY
    assert "default-src 'none'" in CONTENT_POLICY


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/", "/static/none.js", "/static/uPlot.LICENSE.txt"]
)
def test_no_other_file_is_served(path: str) -> None:
    assert find_asset(path) is None
