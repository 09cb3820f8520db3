"""Prices and costs: `CostCalculator`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol import prices
from llm_protocol.lifecycle import is_same_model
from llm_protocol.prices import Price, PriceTable, PriceTier, cost_of, price_of
from llm_protocol.response import Usage

TABLE = PriceTable(
    json.dumps(
        {
            "date": "2026-01-01",
            "source": "a test",
            "vendors": {
                "openai": [
                    {"names": ["small"], "prefixes": ["small-"], "price": {"input": 1, "output": 2}},
                    {"names": ["small-special"], "price": {"input": 9, "output": 9}},
                    {"names": ["odd"], "pattern": "(?=odd)(?=(?!.*-tts))", "price": {"input": 3}},
                    {"names": ["big-2025-01-01"], "price": {"input": 5, "output": 6}},
                ]
            },
        }
    ).encode()
)


def usage(**counts: Any) -> Usage:
    return Usage(**counts)


@pytest.mark.parametrize(
    ("kind", "model", "per_million"),
    [
        ("openai", "gpt-4o", (2.5, 10.0)),
        ("openai", "gpt-4o-2024-08-06", (2.5, 10.0)),
        ("anthropic", "claude-opus-4-5-20251101", (5.0, 25.0)),
        ("gemini", "models/gemini-2.5-pro", (1.25, 10.0)),
        ("cerebras", "gpt-oss-120b", (0.35, 0.75)),
        ("cohere", "command-a-03-2025", (2.5, 10.0)),
        ("cohere", "embed-v4.0", (0.12, None)),
    ],
)
def test_cost_calculator_knows_the_five_vendors(kind: str, model: str, per_million: Any) -> None:
    """`CostCalculator`: a model of each vendor, under the names that are in use."""
    price = price_of(kind, model)
    assert price is not None
    assert (price.input, price.output) == per_million


KNOWN = """
openai gpt-6-luna 0.1 0.5 0.01
openai gpt-6-sol 2 10 0.2
openai gpt-6-astra 10 50 1
openai gpt-6.1-terra 1 5 0.05
openai gpt-6.2-astra 8 40 0.4
openai gpt-6.2-sol 2 10 0.1
openai gpt-5.6-sol 4 20 0.4
openai gpt-5.6-terra 2 12 0.2
openai gpt-5.6-luna 0.2 1.2 0.02
openai gpt-4o-mini 0.15 0.6 0.075
anthropic claude-fable-5-1 10 50 0.25
anthropic claude-opus-5-5 4 20 0.2
anthropic claude-opus-5 5 25 0.5
anthropic claude-sonnet-5-5 2 10 0.1
anthropic claude-haiku-5-5 0.1 0.5 0.01
anthropic claude-haiku-4-5 1 5 0.1
gemini gemini-3.8-flash 0.75 3.75 0.075
gemini gemini-3.5-flash-lite 0.3 2.5 0.03
gemini gemini-4-hydrogen 1.5 7.5 0.075
cohere command-a-03-2025 2.5 10 -
cerebras gpt-oss-120b 0.35 0.75 -
"""
"""Prices of November 2026: developers.openai.com/api/docs/models, platform.claude.com/docs/en/models, ai.google.dev/
gemini-api/docs/pricing, cohere.com/pricing, cerebras.ai/pricing.
"""


@pytest.mark.parametrize("line", KNOWN.split("\n")[1:-1])
def test_twenty_prices_are_those_of_the_vendors_pages(line: str) -> None:
    kind, model, *known = line.split()
    price = price_of(kind, model)
    assert price is not None
    assert [price.input, price.output, price.cached] == [None if each == "-" else float(each) for each in known]


def test_a_long_prompt_for_haiku_costs_five_times_as_much() -> None:
    """platform.claude.com/docs/en/models/haiku-5-5/overview: from 100,000 tokens on."""
    for tokens, cost in ((100_000, 0.01), (100_001, 0.0500005)):
        assert cost_of("anthropic", "claude-haiku-5-5", usage(input_tokens=tokens)) == pytest.approx(cost)


def test_whose_price_counts_when_a_vendor_answers_with_another_model() -> None:
    """Gemini sends requests for 2.5 Pro to 3.8 Flash, at its price; snapshots and aliases are the model itself."""
    assert is_same_model("gemini-2.5-pro", "models/gemini-2.5-pro")
    assert is_same_model("gpt-4o-2024-08-06", "gpt-4o")
    assert is_same_model("", "anything")
    assert not is_same_model("gemini-3.8-flash", "gemini-2.5-pro")


@pytest.mark.parametrize(("days", "code"), [(0, 0), (30, 0), (31, 1)])
def test_a_table_older_than_thirty_days_is_warned_of(days: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "bin" / "make-prices"
    names: dict[str, Any] = {"__file__": str(path), "__name__": "make_prices"}
    exec(compile(path.read_text(), str(path), "exec"), names)  # an import would leave a cache file
    assert names["check"]({"date": "2026-11-01"}, date(2026, 11, 1) + timedelta(days)) == code
    assert ("run bin/make-prices" in capsys.readouterr().out) is bool(code)


def test_cost_calculator_prices_cached_and_written_tokens_as_such() -> None:
    price = Price(input=10, output=20, cached=1, cache_write=12)
    counted = usage(input_tokens=1000, cached_tokens=600, cache_write_tokens=100, output_tokens=50, reasoning_tokens=40)
    assert price.cost(counted) == pytest.approx((300 * 10 + 600 * 1 + 100 * 12 + 50 * 20) / 1e6)


def test_without_a_price_of_their_own_cached_tokens_cost_what_input_costs() -> None:
    assert Price(input=10, output=0).cost(usage(input_tokens=10, cached_tokens=5, cache_write_tokens=5)) == 1e-4


def test_a_long_prompt_costs_by_its_tier() -> None:
    price = Price(
        input=1, output=2, tiers=(PriceTier(above=100, input=3, output=4), PriceTier(above=200, input=5, output=6))
    )
    assert price.cost(usage(input_tokens=100, output_tokens=1)) == pytest.approx(102e-6)
    assert price.cost(usage(input_tokens=101, output_tokens=1)) == pytest.approx(307e-6)
    assert price.cost(usage(input_tokens=300, output_tokens=1)) == pytest.approx(1506e-6)


def test_pictures_cost_apart() -> None:
    price = Price(input=1, output=2, image_output=30)
    assert price.cost(usage(output_tokens=100, image_tokens=90)) == pytest.approx((10 * 2 + 90 * 30) / 1e6)


def test_pictures_that_are_shown_cost_apart() -> None:
    price = Price(input=5, output=40, image_input=10)
    assert price.cost(usage(input_tokens=100, image_input_tokens=80)) == pytest.approx((20 * 5 + 80 * 10) / 1e6)
    shown = price_of("openai", "gpt-image-1")
    assert shown is not None
    assert (shown.input, shown.image_input, shown.output) == (5.0, 10.0, 40.0)


def test_what_is_cached_for_an_hour_costs_twice_the_input() -> None:
    written = usage(input_tokens=1_000, cache_write_tokens=1_000, long_cache_write_tokens=400)
    price = price_of("anthropic", "claude-opus-5-5")
    assert price is not None
    assert cost_of("anthropic", "claude-opus-5-5", written) == pytest.approx((600 * 5.0 + 400 * 8.0) / 1e6)
    assert Price(input=4, output=0, cache_write=5).cost(written) == pytest.approx(1_000 * 5 / 1e6)


@pytest.mark.parametrize(
    ("kind", "model", "services", "factor"),
    [
        ("openai", "gpt-4o", ("flex",), 0.5),
        ("openai", "gpt-4o", ("fast",), 2.0),
        ("anthropic", "claude-opus-5-5", ("fast", "us"), 2.2),
        ("anthropic", "claude-opus-5-5", ("batch",), 0.5),
        ("openai", "gpt-4o", ("unheard of",), None),
        ("cohere", "command-a", ("any",), 1.0),
    ],
)
def test_ways_of_service_have_their_price(kind: str, model: str, services: Any, factor: float | None) -> None:
    plain = cost_of(kind, model, usage(input_tokens=1_000, output_tokens=100))
    assert plain is not None
    cost = cost_of(kind, model, usage(input_tokens=1_000, output_tokens=100, services=services))
    assert cost == (None if factor is None else pytest.approx(plain * factor))


def test_fast_opus_costs_what_the_vendor_says() -> None:
    cost = cost_of("anthropic", "claude-opus-5-5", usage(input_tokens=10**6, output_tokens=10**6, services=("fast",)))
    assert cost == pytest.approx(8.0 + 40.0)


@pytest.mark.parametrize(
    ("kind", "model", "price"),
    [
        ("anthropic", "claude-mythos-5-1", (10.0, 50.0)),
        ("anthropic", "claude-mythos-5-20260901", (10.0, 50.0)),
        ("anthropic", "claude-mythos-5-2", (8.0, 40.0)),
        ("gemini", "gemini-4-hydrogen", (1.5, 7.5)),
        ("gemini", "models/gemini-4-hydrogen-preview", (1.5, 7.5)),
        ("cohere", "command-a-reasoning-08-2025", (2.5, 10.0)),
    ],
)
def test_models_that_the_generated_table_lacks(kind: str, model: str, price: tuple[float, float]) -> None:
    found = price_of(kind, model)
    assert found is not None
    assert (found.input, found.output) == price


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("openai", "gpt-image-2.6-flare"),
        ("cohere", "command-a-plus-05-2026"),
        ("cohere", "command-a-vision-07-2025"),
        ("cohere", "north-mini-code"),
    ],
)
def test_what_no_source_tells_is_not_guessed(kind: str, model: str) -> None:
    assert price_of(kind, model) is None


def test_each_price_that_is_kept_by_hand_names_its_source() -> None:
    more = json.loads(Path(prices.__file__).with_name("prices_more.json").read_bytes())
    assert all(model["source"] for models in more["vendors"].values() for model in models)
    assert more["web_search_source"]


def test_what_openai_caches_for_twelve_hours_costs_twice_the_input() -> None:
    written = usage(input_tokens=1_000, cache_write_tokens=1_000, long_cache_write_tokens=400)
    assert cost_of("openai", "gpt-6-sol", written) == pytest.approx((600 * 2.5 + 400 * 4.0) / 1e6)


@pytest.mark.parametrize(("kind", "model"), [("openai", "gpt-4o"), ("anthropic", "claude-opus-5-5")])
def test_searching_the_web_costs_apart(kind: str, model: str) -> None:
    plain = cost_of(kind, model, usage(input_tokens=1_000, services=("fast",)))
    searched = cost_of(kind, model, usage(input_tokens=1_000, services=("fast",), web_searches=3))
    assert plain is not None
    assert searched == pytest.approx(plain + 0.03)
    assert cost_of("cohere", "command-a", usage(input_tokens=1_000, web_searches=1)) is None


def test_what_the_vendor_bills_is_what_counts() -> None:
    counted = Usage(input_tokens=1000, output_tokens=50, billed_input_tokens=10, billed_output_tokens=5)
    assert Price(input=1, output=2).cost(counted) == pytest.approx(20e-6)


def test_what_is_not_billed_costs_nothing_when_it_is_cached_either() -> None:
    """Cohere's own template is counted, and cached, and not billed: recorded/cohere/chat-stream-1.json."""
    counted = Usage(input_tokens=212, output_tokens=65, cached_tokens=208, billed_input_tokens=12)
    assert Price(input=2, output=0).cost(counted) == pytest.approx(12 * 2e-6)


def test_an_unknown_price_is_none_and_never_zero() -> None:
    """`CostCalculator`: unknown models, vendors, usage, and tokens that have no price."""
    counted = usage(input_tokens=5, output_tokens=5)
    assert cost_of("openai", "no-such-model", counted) is None
    assert cost_of("local", "smollm2", counted) is None
    assert cost_of("openai", "gpt-4o", None) is None
    assert cost_of("cohere", "embed-v4.0", counted) is None
    assert cost_of("cohere", "embed-v4.0", usage(input_tokens=5)) == pytest.approx(0.6e-6)


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("small", 1),
        ("SMALL-2", 1),
        ("small-special", 9),
        ("small-special-20250101", 1),
        ("vendor/small", 1),
        ("models/big-2025-01-01", 5),
        ("odd-one", 3),
        ("odd-one-tts", None),
        ("odd-latest", 3),
        ("big", None),
        ("", None),
    ],
)
def test_names_are_matched_with_sense(model: str, found: float | None) -> None:
    """Exact names win over prefixes; a prefix before "/", the case and a date at the end do not matter."""
    price = TABLE.price_of("openai", model)
    assert (price.input if price else None) == found


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_name_gets_an_answer(model: str, kind: str) -> None:
    assert TABLE.price_of(kind, model) is TABLE.price_of(kind, model)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "MAX_REMEMBERED", 3)
    for at in range(10):
        TABLE.price_of("openai", f"m{at}")
    assert len(TABLE._remembered) <= 3


def test_the_shipped_table_is_whole() -> None:
    table = prices.shipped()
    assert date.fromisoformat(table.date) >= date(2026, 11, 1)
    for entries in table._vendors.values():
        assert entries
        for entry in entries:
            assert entry.price.input or entry.price.output
            assert [tier.above for tier in entry.price.tiers] == sorted(tier.above for tier in entry.price.tiers)


def test_importing_costs_nothing_until_first_use() -> None:
    """The table is not read, nor compiled, by the import."""
    code = "import llm_protocol.prices as p; assert p._table is None; p.price_of('openai', 'x'); assert p._table"
    subprocess.run([sys.executable, "-c", code], check=True)
