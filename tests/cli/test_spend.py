"""The table that ``llm-runtime spend`` prints."""

from __future__ import annotations

import msgspec

from llm_actors.store.ledger import SpendRow
from llm_runtime.cli.spend import _as_table


def row(name: str, **more: object) -> SpendRow:
    counts = dict.fromkeys(SpendRow.__struct_fields__[1:], 0)
    return msgspec.convert({"name": name, **counts, **more}, SpendRow)


def test_a_cost_that_is_not_known_tiny_or_nothing_is_told_apart() -> None:
    rows = [
        row("free", calls=2, input_tokens=5, output_tokens=7),
        row("tiny", calls=1, input_tokens=10, output_tokens=20, cached_tokens=3, cost=0.00000125),
        row("unpriced", calls=1, unpriced=1, unknown=1),
    ]
    assert _as_table(rows, "key").splitlines() == [
        "key       calls  failed  tokens in  out  cached      cost",
        "free          2       0          5    7       0   $0.0000",
        "tiny          1       0         10   20       3  <$0.0001",
        "unpriced      1       0          0    0       0         –",
        "total         4       0         15   27       3  <$0.0001",
        "1 call has no known price and is not in the cost",
        "1 call has an unknown end: the amount reserved for it counts",
    ]
    assert "2 calls have no known price and are not in the cost" in _as_table([row("x", unpriced=2)], "key")
