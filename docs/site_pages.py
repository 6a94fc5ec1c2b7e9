"""MkDocs hook: the site is made of the repository as it lies.

The folder of pages is docs/. README.md, SECURITY.md, CHANGELOG.md and the files that operators copy lie
beside it, where they are looked for, and pages link to them by relative paths. Here they become part of
the site: README.md is its first page, and each link is made anew from where the page is in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md")
FOLDERS = ("deploy", "policies", "tests/cases")
FILES = ("LICENSE", "tests/bench/delivery.svg")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to and what lies outside of docs/."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    for path in (*(ROOT / name for name in (*PAGES, *FILES)), *found):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, _place(name), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Make each relative link lead to where its target is in the site."""
    own = page.file.src_uri
    lies_at = next((name for name in PAGES if _place(name) == own), f"docs/{own}")

    def place(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(lies_at), link[1]))
        return f"]({posixpath.relpath(_place(target), posixpath.dirname(own) or '.')}{link[2] or ''})"

    return LINK.sub(place, markdown)


def _place(name: str) -> str:
    """Where a file of the repository is in the site."""
    return "index.md" if name == "README.md" else name.removeprefix("docs/")
