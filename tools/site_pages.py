"""A hook of mkdocs: the pages that lie outside docs/ join the site, and links lead to them there.

On a code host a link names the file in the repository, ``../docker/README.md``; in the site that
file is the page ``docker.md``.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "docker/label-studio-ml/README.md": "label_studio_ml.md",
}
"""Files of the repository outside docs/, and the pages that they become."""

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
_ROLE = re.compile(r":(?:class|func|meth|mod):<code>~?(?:[\w.]*\.)?(\w+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in PAGES.items():
        content = (ROOT / source).read_text("utf-8")
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links within the repository lead to pages and files of the site."""
    sources = {name: source for source, name in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(link: re.Match[str]) -> str:
        target = normpath(f"{dirname(source)}/{link[1]}".lstrip("/"))
        return PAGES.get(target, relpath(target, "docs"))

    return _LINK.sub(rewritten, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show names that docstrings mark for Sphinx, such as :class:`Store`, as code alone."""
    return _ROLE.sub(r"<code>\1</code>", html)
