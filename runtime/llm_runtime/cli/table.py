"""Tables of text that fit a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NAME_COLUMNS = 28
"""The most columns of a name if the last column's text needs room, too."""

LEAST_COLUMNS = 16
"""The fewest columns of a name, and of the last column's text. Other columns are left out first."""

_GAP = "  "

Row = Sequence[str]


class Column(NamedTuple):
    """One column: its head, of one or two lines, and its format."""

    head: str
    dispensable: int = 0
    """If a terminal is too narrow, columns are left out, those with the highest number first. A column with 0 is
    never left out.
    """
    words: bool = False
    """Whether cells are left-aligned, and cut off if there is no room. Only for the last column."""
    from_end: bool = False
    """Whether a name that is too long is cut off at its beginning instead of its end."""

    @property
    def name(self) -> str:
        """The head without its second line."""
        return " ".join(line for line in self.head.split("\n") if line.isupper())


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Return the lines, at most ``width`` wide. The names are in the first column. A last line lists the columns that
    were left out.
    """
    heads = [column.head.split("\n") for column in columns]
    widths = [max(map(len, (*heads[at], *(row[at] for row in rows)))) for at in range(len(columns))]
    least = [min(size, LEAST_COLUMNS) if columns[at].words else size for at, size in enumerate(widths)]
    shown = list(range(len(columns)))

    def room(sizes: Sequence[int]) -> int:
        """Return the columns that are left for the names."""
        return width - sum(len(_GAP) + sizes[at] for at in shown[1:])

    while room(least) < min(widths[0], LEAST_COLUMNS):
        most = max(shown, key=lambda at: columns[at].dispensable)
        if not columns[most].dispensable:
            break
        shown.remove(most)
    kept = min(widths[0], NAME_COLUMNS, max(room(least), LEAST_COLUMNS))
    widths[0] = max(kept, min(widths[0], room(widths)))
    lines = [*_heads([heads[at] for at in shown]), *([row[at] for at in shown] for row in rows)]
    text = [_line(line, [columns[at] for at in shown], [widths[at] for at in shown], width) for line in lines]
    if missing := [column.name for at, column in enumerate(columns) if at not in shown]:
        text.append(cut(f"({width} columns are too narrow for {', '.join(missing)})", width))
    return text


def _heads(heads: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the lines of the heads. The last lines of all heads are on one line."""
    deepest = max(map(len, heads))
    return [[([""] * deepest + list(head))[-deepest:][at] for head in heads] for at in range(deepest)]


def _line(cells: Row, columns: Sequence[Column], widths: Sequence[int], width: int) -> str:
    first = cut(cells[0], widths[0], from_end=columns[0].from_end).ljust(widths[0])
    others = (
        cell.ljust(size) if column.words else cell.rjust(size)
        for cell, column, size in zip(cells[1:], columns[1:], widths[1:], strict=True)
    )
    return cut(_GAP.join((first, *others)).rstrip(), width)


def cut(text: str, width: int, *, from_end: bool = False) -> str:
    """Return ``text``, at most ``width`` long; "…" replaces the part that was cut off."""
    if len(text) <= width:
        return text
    if width < 1:
        return ""
    return f"…{text[len(text) - width + 1 :]}" if from_end else f"{text[: width - 1]}…"
