"""The docs site: Sphinx with MyST. `make docs` builds it strictly: a broken link is an error.

`docs/generate.py` makes the pages under `reference/generated/` from the code at each build;
they are not committed. Links that leave `docs/` go to the repository, and must exist.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "src"))

from sqs2pg import __version__  # noqa: E402

project = "sqs2pg"
author = "the sqs2pg authors"
version = release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
root_doc = "index"
html_theme = "furo"
html_title = "sqs2pg"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "https://github.com/sqs2pg/sqs2pg/",
    "source_branch": "main",
    "source_directory": "docs/",
}
nitpicky = True
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
# Pygments has no lexer for some languages, and some examples are not whole files.
suppress_warnings = ["misc.highlighting_failure", "toc.not_included"]
REPOSITORY = "https://github.com/sqs2pg/sqs2pg/blob/main/"
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_ignore = [r"http://127\.0\.0\.1.*", REPOSITORY + ".*"]

_LINK = re.compile(r"\]\((\.\.?/[^)#\s]*|[\w./-]+\.\w+)(#[^)\s]*)?\)")


def _point_outside(_app: Any, name: str, source: list[str]) -> None:
    """Turn relative links out of docs/ into links to the repository; report broken ones."""
    page = HERE / f"{name}.md"

    def target(match: re.Match[str]) -> str:
        path = (page.parent / match[1]).resolve()
        if path.is_relative_to(HERE):
            return match[0]
        if not path.is_relative_to(ROOT) or not path.exists():
            from sphinx.util import logging

            logging.getLogger(__name__).warning("no such file: %s", match[1], location=name)
            return match[0]
        return f"]({REPOSITORY}{path.relative_to(ROOT)}{match[2] or ''})"

    source[0] = _LINK.sub(target, source[0])


def setup(app: Any) -> None:
    """Generate the reference before the sources are read."""
    # In a process of its own, because the package sets up logging for itself.
    command = [sys.executable, "-m", "docs.generate"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  our own
    app.connect("source-read", _point_outside)
