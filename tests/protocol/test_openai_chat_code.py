"""The one endpoint of this wire that is ours."""

from __future__ import annotations

import pytest

from llm_protocol.errors import LLMClientError
from llm_protocol.requests import CodeFile, CodeRequest
from llm_protocol.wires.openai_chat import OpenAIChatServer

PATH = "/v1/code/generations"


def test_a_code_request_is_read() -> None:
    body = (
        b'{"model":"m","instruction":"sort","language":"python","prefix":"def f(","suffix":"return x",'
        b'"files":[{"path":"a.py","content":"A = 1"}],"max_tokens":50,"stream":true,"unknown":1}'
    )
    inbound = OpenAIChatServer().decode_request(PATH, body)

    request = inbound.request
    assert isinstance(request, CodeRequest)
    assert inbound.stream
    assert (request.instruction, request.language, request.prefix, request.suffix) == (
        "sort",
        "python",
        "def f(",
        "return x",
    )
    assert request.files == (CodeFile("a.py", "A = 1"),)
    assert request.parameters.max_output_tokens == 50
    assert request.parameters.extra == {"openai_chat": {"unknown": 1}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"model":"m"}', "instruction"),
        (b'{"model":"m","instruction":""}', "instruction"),
        (b'{"model":"m","instruction":"x","files":[{"path":"a"}]}', "files[0].content"),
        (b'{"model":"m","instruction":"x","files":[{"content":"a"}]}', "files[0].path"),
        (b'{"model":"m","instruction":"x","n":2}', "n"),
    ],
)
def test_what_is_wrong_is_named(body: bytes, param: str) -> None:
    with pytest.raises(LLMClientError) as caught:
        OpenAIChatServer().decode_request(PATH, body)
    assert caught.value.failure.param == param
