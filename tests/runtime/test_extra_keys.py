"""A key of ``parameters.extra`` that is no dialect's name would be passed over by every vendor: it is an error."""

from __future__ import annotations

import pytest

from llm_protocol.content import Message
from llm_protocol.errors import BadRequestError
from llm_protocol.requests import ChatRequest, Parameters
from llm_protocol.secret import Secret
from llm_runtime import open_runtime
from llm_runtime.config import Config, Provider


async def test_an_unknown_key_of_extra_is_an_error_that_names_the_right_one() -> None:
    provider = Provider(kind="openai", api_key=Secret("k"), base_url="http://127.0.0.1:9", models=("m",))
    request = ChatRequest(messages=(Message.of("user", "hi"),), parameters=Parameters(extra={"openai": {"n": 1}}))
    async with open_runtime(Config(providers={"p": provider})) as runtime:
        with pytest.raises(BadRequestError) as caught:
            await runtime.send(request)
    assert caught.value.failure.param == "parameters.extra.openai"
    assert str(caught.value).endswith('openai_chat, openai_responses; did you mean "openai_chat"?')
