"""The page of fault codes that the status server ships."""

from __future__ import annotations

import json
import re

from sqs2pg.fault_codes import FAULT_CODES
from sqs2pg.status.fault_pages import fault_meanings, fault_page

CODES = {code for codes in FAULT_CODES.values() for code in codes}


def test_every_code_has_one_place_that_links_lead_to() -> None:
    page = fault_page().decode()
    places = re.findall(r'<tr id="([^"]+)">', page)
    assert len(places) == len(set(places))
    assert set(places) == CODES
    for route, codes in FAULT_CODES.items():
        assert route.value in page
        assert all(f"<code>{code}</code>" in page for code in codes)


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    page = fault_page().decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|https?://", page)
    assert "`" not in page


def test_every_code_has_its_meaning_for_the_other_pages() -> None:
    meanings = json.loads(fault_meanings())
    assert meanings.keys() == CODES
    assert all(text.endswith((".", "…")) for text in meanings.values())
