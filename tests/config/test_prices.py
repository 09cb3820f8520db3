"""Prices of one's own: what they say, what they win over, and where they count."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from llm_protocol.prices import OwnPrice, OwnPrices, cost_of
from llm_protocol.response import Usage
from llm_runtime import Config, LLMProvider, Policy, Provider, Secret, open_runtime
from llm_runtime.config import ConfigError, parse
from llm_runtime.fake import FakeProvider
from llm_runtime.probes.findings import prices

USAGE = Usage(input_tokens=1000, output_tokens=500, cached_tokens=400, cache_write_tokens=100, reasoning_tokens=200)


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (OwnPrice(input=0, output=0), 0),
        (OwnPrice(input=1, output=2), 0.002),
        (OwnPrice(input=1, output=2, cached_input=0.5), 0.0018),
        (OwnPrice(input=1, output=2, cache_write=2), 0.0021),
        (OwnPrice(input=1, output=2, reasoning=3), 0.0022),
        (OwnPrice(input=1, output=2, request=0.01), 0.012),
    ],
)
def test_what_a_usage_costs(price: OwnPrice, dollars: float) -> None:
    assert price.cost(USAGE) == pytest.approx(dollars)
    assert price.cost(Usage(input_tokens=0, output_tokens=0)) == 0


def test_a_name_comes_before_a_glob_and_a_glob_fits_the_whole_name() -> None:
    cheap, dear = OwnPrice(input=1, output=1), OwnPrice(input=2, output=2)
    own = OwnPrices({"a/m-*": dear, "a/m-1": cheap})
    assert (own.find("a", "m-1"), own.find("a", "m-2")) == (cheap, dear)
    assert own.find("a", "x-m-2") is None
    assert own.find("b", "m-1") is None


SOURCE = """
[providers.a]
kind = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
models = ["m"]
"""


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('[prices."b/m"]\ninput = 1\noutput = 1', 'prices.b/m: there is no provider "b"; known providers: a'),
        ('[prices."m"]\ninput = 1\noutput = 1', 'write a price as [prices."PROVIDER/MODEL"]'),
        ('[prices."a/m"]\ninput = 1', "output"),
        ('[prices."a/m"]\ninput = -1\noutput = 1', "input"),
        ('[prices."a/m"]\ninput = 1\noutput = 1\ncached = 1', 'unknown key; did you mean "cached_input"?'),
    ],
)
def test_mistakes_are_told_where_they_are(entry: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse((SOURCE + entry).encode(), {})
    assert told in str(caught.value)


async def test_answers_budgets_and_check_go_by_them(autojump_clock: MockClock) -> None:
    kind = LLMProvider.OPENAI
    assert cost_of("openai", "gpt-6-luna", USAGE) is not None
    own = {"main/gpt-6-luna": OwnPrice(input=1000, output=1000), "main/mine": OwnPrice(input=0, output=0)}
    async with FakeProvider() as fake:
        models = ("gpt-6-luna", "mine")
        provider = Provider(kind=kind, base_url=fake.base_url(kind), api_key=Secret("any"), models=models)
        config = Config(providers={"main": provider}, prices=own)
        async with open_runtime(config) as rt:
            dear = await rt.chat("Hi.", model="main/gpt-6-luna")
            assert dear.usage is not None
            assert dear.cost == pytest.approx((dear.usage.input_tokens + dear.usage.output_tokens) / 1000)
            assert (await rt.chat("Hi.", model="main/mine")).cost == 0
            cheapest = await rt.chat(
                "Hi.", model="auto", policy=Policy(select="cheapest", candidates=("main/gpt-6-luna", "main/mine"))
            )
            assert cheapest.model == "mine"
    assert [check.detail for check in prices(config)] == ["known for 2 models"]
