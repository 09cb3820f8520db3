"""Code requests, server side. No vendor has an endpoint for them, so this one is ours: ``POST /v1/code/generations``,
answered as chat completions are, the code without fences as the message's content.
"""

from __future__ import annotations

from llm_protocol.codec.body import Body
from llm_protocol.requests import CodeFile, CodeRequest
from llm_protocol.wires.openai_chat.inbound import common_parameters, refuse_lost, refuse_many


def code_request(body: Body, name: str) -> CodeRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    instruction = body.string("instruction")
    if not instruction:
        raise body.wrong("instruction", "a string that says what the code is to do")
    refuse_many(body, "n")
    refuse_lost(body)
    return CodeRequest(
        model=body.model(),
        instruction=instruction,
        language=body.string("language"),
        prefix=body.string("prefix"),
        suffix=body.string("suffix"),
        files=tuple(_file(file) for file in body.objects("files")),
        parameters=common_parameters(body, name),
    )


def _file(file: Body) -> CodeFile:
    path, content = file.string("path"), file.string("content")
    if not path or content is None:
        raise file.wrong("path", "a string, beside a string content")
    return CodeFile(path, content)
