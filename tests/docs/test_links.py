"""Relative links in all Markdown files lead to a file that exists, and their anchors to a heading of it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
IGNORED = (".venv", "node_modules", "site-packages")
PAGES = sorted(path for path in ROOT.rglob("*.md") if not any(part in IGNORED for part in path.relative_to(ROOT).parts))


class Link(NamedTuple):
    """A relative link: its line on the page, the path before the ``#``, and the anchor after it."""

    line: int
    path: str
    anchor: str


def prose(page: Path) -> str:
    """Return the text of a page, with empty lines in place of fenced blocks."""
    fenced = re.compile(r"^ *(```|~~~).*?^ *\1[^\n]*$", re.DOTALL | re.MULTILINE)
    return fenced.sub(lambda block: "\n" * block[0].count("\n"), page.read_text())


def links(text: str) -> list[Link]:
    """Return the relative links of a text, also those of ``[name]: target`` lines."""
    plain = re.sub(r"`[^`\n]+`", lambda code: code[0].replace("](", "]_"), text)
    found = re.finditer(r"\]\(<?([^)>\s]+)>?[^)\n]*\)|^ {0,3}\[[^\]]+\]: +(\S+)", plain, re.MULTILINE)
    targets = [(plain.count("\n", 0, each.start()) + 1, each[1] or each[2]) for each in found]
    return [
        Link(line, unquote(path), unquote(anchor))
        for line, target in targets
        if not re.match(r"[a-z][a-z+.-]*:", target)
        for path, _, anchor in [target.partition("#")]
    ]


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    shown = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", shown.replace("`", "")).replace(" ", "-")


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page; of headings with the same text, each after the first is numbered."""
    found: set[str] = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", prose(page)))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), re.MULTILINE):
        name = slug(heading)
        later = (f"{name}-{number}" for number in range(1, 1_000))
        found.add(name if name not in found else next(each for each in later if each not in found))
    return found


def broken(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere, each with its line."""
    problems: list[str] = []
    for link in links(prose(page)):
        target = (page.parent / link.path).resolve() if link.path else page
        if not target.exists():
            problems.append(f"{link.line}: {link.path} does not exist")
        elif link.anchor and target.suffix == ".md" and link.anchor not in anchors(target):
            problems.append(f"{link.line}: {target.name} has no heading for #{link.anchor}")
    return problems


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_every_page_is_checked() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(listed.stdout.splitlines()) <= {str(page.relative_to(ROOT)) for page in PAGES}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# `An` option, and *more*\n\n## Twice\n\n## Twice\n\n```\n# a comment\n```\n")
    page.write_text(
        "# Here\n\n[a](other.md#an-option-and-more) [b](other.md#twice-1) [c](#here) [d](https://example.com/#x)\n"
        "`[code](nowhere.md)` [e](gone.md)\n```\n[block](gone.md)\n```\n"
        "[f](other.md#twice-2) [g](#there)\n[h](other.md#a-comment)\n\n[ref]: lost.md\n"
    )
    assert broken(page) == [
        "4: gone.md does not exist",
        "8: other.md has no heading for #twice-2",
        "8: page.md has no heading for #there",
        "9: other.md has no heading for #a-comment",
        "11: lost.md does not exist",
    ]
