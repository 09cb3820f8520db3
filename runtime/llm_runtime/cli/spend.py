"""``llm-runtime spend``: show what was spent, from the ledger in the store's file or from a running daemon."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from urllib.parse import quote, urlencode

import msgspec
import trio

from llm_actors.store.ledger import SpendRow, spend
from llm_runtime.cli.daemon_client import daemon_client, decoded
from llm_runtime.cli.logs import start_logging
from llm_runtime.cli.setup import Daemon, daemon
from llm_runtime.cli.terminal import leaf, print_out
from llm_runtime.config import ConfigError, store_file
from llm_runtime.probes.report import counted
from llm_runtime.server.operations import parse_since

LEAST_DOLLARS = 0.0001
"""The smallest cost in US dollars that is shown. Of a smaller cost, only "less than" this amount is shown."""


class _Told(msgspec.Struct):
    data: list[SpendRow]


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Print the sums, and return the exit code. Raises `LLMClientError` or `ConfigError`."""
    start_logging(arguments.log_level, arguments.log_format)
    try:
        since = parse_since(arguments.since or "")
    except ValueError:
        raise ConfigError("--since must be a day or time such as 2026-01-31 or 2026-01-31T12:00:00Z (UTC)") from None
    running = daemon(arguments.url, arguments.config, environ, arguments.ca_file)
    try:
        rows = _read(arguments, since, environ) if running is None else trio.run(_rows, running, arguments)
    except BaseExceptionGroup as group:
        raise leaf(group) from None
    show = _as_csv if arguments.csv else _as_json if arguments.json else _as_table
    print_out(show(rows, arguments.by))
    return 0


def _read(arguments: argparse.Namespace, since: float, environ: Mapping[str, str]) -> list[SpendRow]:
    import sqlite3

    path = store_file(arguments.config, environ)
    if not os.path.exists(path):
        raise ConfigError(
            f"there is no ledger at {path}: give the daemon's configuration with --config, or add [store] to it"
        )
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True, timeout=5.0)) as db:
            return spend(db, arguments.by, since=since)
    except sqlite3.Error as exc:
        raise ConfigError(f"the ledger at {path} cannot be read: {exc}") from None


async def _rows(running: Daemon, arguments: argparse.Namespace) -> list[SpendRow]:
    query = urlencode({"by": arguments.by, "since": arguments.since or ""})
    async with daemon_client(running) as client:
        return decoded(await client.get(f"/runtime/spend?{query}"), _Told).data


def _as_json(rows: Sequence[SpendRow], by: str) -> str:
    return msgspec.json.format(msgspec.json.encode({"by": by, "data": rows})).decode()


def _as_csv(rows: Sequence[SpendRow], by: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = SpendRow.__struct_fields__
    writer.writerow([by, *fields[1:]])
    writer.writerows([getattr(row, field) for field in fields] for row in rows)
    return out.getvalue().rstrip("\n")


def _as_table(rows: Sequence[SpendRow], by: str) -> str:
    head = (by, "attempts", "failed", "tokens in", "out", "cached", "cost")
    lines = [head, *((row.name or "-", *_cells([row])) for row in rows)]
    lines.append(("total", *_cells(rows)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    shown = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    notes = []
    if unpriced := sum(row.unpriced for row in rows):
        have, are = ("has", "is") if unpriced == 1 else ("have", "are")
        notes.append(f"{counted(unpriced, 'attempt')} {have} no known price and {are} not in the cost")
    if unknown := sum(row.unknown for row in rows):
        have, them = ("has", "it") if unknown == 1 else ("have", "them")
        notes.append(
            f"{counted(unknown, 'attempt')} {have} an unknown end: the cost includes the amount reserved for {them}"
        )
    return "\n".join([*(line.rstrip() for line in shown), *notes])


def _cells(rows: Sequence[SpendRow]) -> tuple[str, ...]:
    """Return the sums of these rows, formatted."""
    fields = ("calls", "failed", "input_tokens", "output_tokens", "cached_tokens")
    counts = [sum(getattr(row, field) for row in rows) for field in fields]
    cost, unpriced = sum(row.cost for row in rows), sum(row.unpriced for row in rows)
    return (*map(str, counts), _dollars(cost, is_known=bool(cost) or not unpriced))


def _dollars(cost: float, *, is_known: bool) -> str:
    if not is_known:
        return "–"
    return f"${cost:.4f}" if not 0 < cost < LEAST_DOLLARS else f"<${LEAST_DOLLARS}"
