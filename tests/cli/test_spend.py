"""The table that ``llm-runtime spend`` prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from llm_actors.store.ledger import SpendRow
from llm_actors.store.tier import StoreTier
from llm_runtime.cli.main import main
from llm_runtime.cli.spend import _as_table


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
        "1 attempt has an unknown end: the amount reserved for it counts",
    ]
    assert "2 attempts have no known price and are not in the cost" in _as_table([row("x", unpriced=2)], "key")
