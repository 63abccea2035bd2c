"""Every fault code with its meaning and what to do, as a page and as JSON for the other pages.

They come from the table that the documentation's own page is made from, so they are right for this
version and need no network.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape

import msgspec

from sqs2pg.fault_codes import FAULT_CODES

_CODE = re.compile(r"`([^`]+)`")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Fault codes · sqs2pg</title>
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/app.css">
<script src="/static/theme.js"></script>
</head>
<body>
<header>
  <div class="brand">
    <img src="/static/favicon.svg" alt="" width="30" height="30">
    <div><p><a href="/">Status</a></p><h1>Fault codes</h1></div>
  </div>
  <button type="button" id="theme" class="quiet" aria-label="Colours: same as the system">◐ auto</button>
</header>
<main id="main">
"""  # noqa: E501  HTML
_TABLE = """<section class="card full fault-codes" aria-labelledby="route-{number}">
<h2 id="route-{number}">{route}</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="route-{number}"><table>
<thead><tr><th scope="col">code</th><th scope="col">means</th><th scope="col">do</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>
</section>
"""
_ROW = '<tr id="{code}"><td><code>{code}</code></td><td>{meaning}</td><td>{remedy}</td></tr>'


@cache
def fault_page() -> bytes:
    """Return the page, HTML in UTF-8. Each code's row has the code as its id."""
    seen: set[str] = set()
    tables = []
    for number, (route, codes) in enumerate(FAULT_CODES.items()):
        rows = []
        for code, (meaning, remedy) in codes.items():
            row = _ROW.format(code=escape(code), meaning=_marked(meaning), remedy=_marked(remedy))
            # A code may have several routes; a link leads to its first one.
            rows.append(row.replace(f' id="{escape(code)}"', "", 1) if code in seen else row)
            seen.add(code)
        tables.append(_TABLE.format(number=number, route=route.value, rows="\n".join(rows)))
    return f"{_PAGE}{''.join(tables)}</main>\n</body>\n</html>\n".encode()


@cache
def fault_meanings() -> bytes:
    """Return what each code means in one sentence, as a JSON object by code."""
    meanings: dict[str, str] = {}
    for codes in FAULT_CODES.values():
        for code, (meaning, _) in codes.items():
            meanings.setdefault(code, meaning.replace("`", ""))
    return msgspec.json.encode(meanings)


def _marked(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text))
