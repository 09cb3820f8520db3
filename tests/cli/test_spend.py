"""The table that ``llm-runtime spend`` prints."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from llm_actors.store.ledger import SpendRow
from llm_actors.store.tier import StoreTier
from llm_runtime.cli import main
from llm_runtime.cli.spend import _as_table
from llm_runtime.config import store_file


def row(name: str, **more: object) -> SpendRow:
    counts = dict.fromkeys(SpendRow.__struct_fields__[1:], 0)
    return msgspec.convert({"name": name, **counts, **more}, SpendRow)


def test_the_path_of_the_ledger_may_have_any_characters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is part of a URI for SQLite."""
    folder = tmp_path / "100%25 off? #1"
    tier = StoreTier(str(folder / "store.db"), max_bytes=10_000_000, ttl_s=1e6)
    tier.open()
    tier.close()
    (tmp_path / "c.toml").write_text(f"[store]\npath = '{folder}/store.db'\n")
    assert main(["spend", "--config", str(tmp_path / "c.toml")]) == 0
    assert capfd.readouterr().out.startswith("key ")


def test_a_state_folder_that_is_not_utf_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/\udcff")
    tier = StoreTier(store_file(None, os.environ), max_bytes=10_000_000, ttl_s=1e6)
    tier.open()
    tier.close()
    assert main(["spend"]) == 0
    assert capfd.readouterr().out.startswith("key ")


def test_without_a_home_folder_there_is_no_path(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert main(["spend"]) == 2
    assert capfd.readouterr().err == "llm-runtime: store: there is no home folder: set XDG_STATE_HOME\n"


def test_ctrl_c_while_the_arguments_are_read_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_runtime.cli.command.parse", interrupted)
    assert main(["spend"]) == 130


def test_a_cost_that_is_not_known_tiny_or_nothing_is_told_apart() -> None:
    rows = [
        row("free", calls=2, input_tokens=5, output_tokens=7),
        row("tiny", calls=1, input_tokens=10, output_tokens=20, cached_tokens=3, cost=0.00000125),
        row("unpriced", calls=1, unpriced=1, unknown=1),
    ]
    assert _as_table(rows, "key").splitlines() == [
        "key       attempts  failed  tokens in  out  cached      cost",
        "free             2       0          5    7       0   $0.0000",
        "tiny             1       0         10   20       3  <$0.0001",
        "unpriced         1       0          0    0       0         –",
        "total            4       0         15   27       3  <$0.0001",
        "1 attempt has no known price and is not in the cost",
        "1 attempt has an unknown end: the cost includes the amount reserved for it",
    ]
    assert "2 attempts have no known price and are not in the cost" in _as_table([row("x", unpriced=2)], "key")
