"""A vendor's words come without keys, and its numbers only where they can be true."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio.testing

from llm_actors.provider import list_models
from llm_protocol.codec.json import decode_json, encode_json
from llm_protocol.events import Failed, Finished, Started, UsageReported
from llm_protocol.failures import Failure
from llm_protocol.response import MOST_TOKENS, Usage, is_plausible
from llm_protocol.secret import redact, redact_name
from support.peer import Peer, raw, reply, sse
from support.upstream import CANARY, END, JSON, Asked, chunk, upstream, whole, word

KEY = "sk-proj-abcdefgh12345678"
"""Not ours; a vendor that confuses its callers says another's."""


def failure(asked: Asked) -> Failure:
    assert asked.outcome is not None
    assert isinstance(asked.outcome.end, Failed)
    return asked.outcome.end.failure


@pytest.mark.parametrize("key", [CANARY, KEY])
async def test_no_word_of_an_error_holds_a_key(key: str, autojump_clock: trio.testing.MockClock) -> None:
    error = {"message": f"bad {key}", "type": f"type {key}", "code": f"code {key}", "param": f"param {key}"}
    async with Peer(reply(json.dumps({"error": error}).encode(), status=400, headers=JSON)) as peer:
        async with upstream(peer) as provider:
            found = failure(await provider.ask())

    assert key not in repr(found)
    assert found.param == "param [redacted]"


@pytest.mark.parametrize("key", [CANARY, KEY])
async def test_no_name_in_an_answer_holds_a_key(key: str, autojump_clock: trio.testing.MockClock) -> None:
    start = json.loads(chunk({"content": "x"})) | {"model": f"model {key}", "id": f"id {key}"}
    async with Peer(sse(json.dumps(start), chunk(finish=f"because {key}"), "[DONE]")) as peer:
        async with upstream(peer) as provider:
            asked = await provider.ask()

    [started] = [event for event in asked.events if isinstance(event, Started)]
    assert (started.model, started.upstream_id) == ("model [redacted]", "id [redacted]")
    assert key not in repr(asked.outcome)


def test_an_id_may_be_as_long_as_a_key() -> None:
    ident = "chatcmpl-0123456789abcdef0123456789abcdef"
    assert redact_name(ident) == ident
    assert redact(ident) == "chatcmpl-[redacted]"


async def test_our_address_of_the_vendor_is_not_told(autojump_clock: trio.testing.MockClock) -> None:
    async with Peer(raw(b"nonsense\r\n\r\n")) as peer, upstream(peer) as provider:
        found = failure(await provider.ask())

    assert "api.test" not in repr(found)
    assert found.message.startswith("fake: ")


HUGE = "9" * 400
NUMBERS = ["-1", "0", str(MOST_TOKENS), str(MOST_TOKENS + 1), HUGE, "-" + HUGE, "1e999", "-1e999", "1e-999", "7.0"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
async def test_any_count_of_tokens_is_survived(
    number: str, stream: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """400 digits were an internal error. A count that cannot be true is none."""
    usage = f'{{"prompt_tokens":{number},"completion_tokens":{number}}}'
    body = whole()[: whole().index(b'"usage"')] + f'"usage":{usage}}}'.encode()
    last = f'{{"id":"c1","model":"m","choices":[],"usage":{usage}}}'
    script = sse(word("x"), END[0], last, END[1]) if stream else reply(body, headers=JSON)
    async with Peer(script) as peer, upstream(peer) as provider:
        asked = await provider.ask(stream=stream)

    assert asked.outcome is not None
    told = [event.usage for event in asked.events if isinstance(event, UsageReported)]
    assert all(map(is_plausible, told))
    if isinstance(asked.outcome.end, Finished):
        assert len(told) == (0 <= float(number[:300]) <= MOST_TOKENS)


def test_the_most_tokens_and_one_more() -> None:
    for field in ("input_tokens", "output_tokens", "cached_tokens", "billed_input_tokens"):
        for count, expected in ((MOST_TOKENS, True), (MOST_TOKENS + 1, False), (0, True), (-1, False)):
            assert is_plausible(msgspec.structs.replace(Usage(), **{field: count})) is expected


async def test_numbers_and_names_of_a_model_list_can_be_read_by_clients(
    autojump_clock: trio.testing.MockClock,
) -> None:
    models = b'{"id":"a","created":%b,"context_window":%b},{"id":"b %b"}' % (b"9" * 30, b"9" * 30, KEY.encode())
    async with Peer(reply(b'{"object":"list","data":[%b]}' % models, headers=JSON)) as peer:
        async with upstream(peer) as provider:
            [model] = await list_models(provider.ref)

    assert (model.id, model.created, model.context_window) == ("a", 0, None)


def test_a_number_beyond_all_is_the_largest_there_is() -> None:
    assert decode_json('["\\ud83d", 1e999, -1e999]')[1:] == [1.7976931348623157e308, -1.7976931348623157e308]
    assert encode_json(decode_json("[" + "9" * 300 + "]")) == b"[" + b"9" * 300 + b"]"
