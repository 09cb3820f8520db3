"""``/v1/images/edits``: a form with pictures goes on as a form to OpenAI's wire, and as a conversation to Gemini."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_protocol.codec.forms import FormField, read_form, write_form
from llm_protocol.codec.json import WireError
from llm_protocol.requests import LLMProvider
from llm_runtime.fake.answers import picture
from support.callers import Served, served
from support.peer import Peer, reply
from support.server import Reply
from support.upstream import JSON

CAT, DOG, MASK, MADE = (picture(name) for name in ("cat", "dog", "mask", "made"))
ANSWER = {"created": 1, "data": [{"b64_json": base64.b64encode(MADE).decode()}], "output_format": "png"}
PNG = "image/png"


def form(*files: tuple[str, bytes], **texts: str) -> tuple[str, bytes]:
    return write_form(
        [
            *(FormField(name, text.encode()) for name, text in texts.items()),
            *(FormField(name, content, "application/octet-stream", is_file=True) for name, content in files),
        ]
    )


async def edit(daemon: Served, content_type: str, body: bytes, **headers: str) -> Reply:
    async with await daemon.connect() as client:
        head = {"authorization": "Bearer sk-me", "content-type": content_type, **headers}
        return await client.request("POST", "/v1/images/edits", body, **head)


def sent(peer: Peer) -> Any:
    (call,) = peer.requests
    return call


async def test_a_form_goes_on_as_a_form() -> None:
    answer = reply(json.dumps(ANSWER).encode(), headers=JSON)
    async with served(kind=LLMProvider.OPENAI, vendor=answer, me={}) as daemon:
        got = await edit(
            daemon,
            *form(
                ("image[]", CAT), ("image[]", DOG), ("mask", MASK),
                model="cheap/small", prompt="a hat", n="2", input_fidelity="high", size="1024x1024",
            ),
        )  # fmt: skip
        assert got.status == 200, got.body
        assert base64.b64decode(json.loads(got.body)["data"][0]["b64_json"]) == MADE
        call = sent(daemon.vendors["cheap"])
        assert call.target == "/v1/images/edits"
        fields = read_form(call.body)
        assert [(each.name, each.content) for each in fields if each.is_file] == [
            ("image[]", CAT), ("image[]", DOG), ("mask", MASK),
        ]  # fmt: skip
        assert {each.media_type for each in fields if each.is_file} == {PNG}
        assert {each.name: each.text for each in fields if not each.is_file} == {
            "model": "small", "prompt": "a hat", "n": "2", "input_fidelity": "high", "size": "1024x1024",
        }  # fmt: skip


async def test_gemini_is_shown_the_pictures() -> None:
    parts = [{"inlineData": {"mimeType": PNG, "data": base64.b64encode(MADE).decode()}}]
    body = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
    answer = reply(json.dumps(body).encode(), headers=JSON)
    async with served(kind=LLMProvider.GEMINI, vendor=answer, me={}) as daemon:
        got = await edit(daemon, *form(("image", CAT), model="cheap/small", prompt="a hat"))
        assert got.status == 200, got.body
        assert base64.b64decode(json.loads(got.body)["data"][0]["b64_json"]) == MADE
        said = json.loads(sent(daemon.vendors["cheap"]).body)["contents"][0]["parts"]
        assert said == [{"inlineData": {"mimeType": PNG, "data": base64.b64encode(CAT).decode()}}, {"text": "a hat"}]


@pytest.mark.parametrize(
    ("kind", "files", "texts", "param"),
    [
        (LLMProvider.GEMINI, (("image", CAT), ("mask", MASK)), {}, "mask"),
        (LLMProvider.OPENAI, (), {}, "image"),
        (LLMProvider.OPENAI, (("image", CAT),), {"stream": "true"}, "stream"),
        (LLMProvider.COHERE, (("image", CAT),), {}, None),
    ],
    ids=["a mask at Gemini", "no picture", "a stream", "no such vendor"],
)
async def test_what_cannot_be_is_refused_without_a_call(
    kind: LLMProvider, files: tuple[tuple[str, bytes], ...], texts: dict[str, str], param: str | None
) -> None:
    async with served(kind=kind, vendor=reply(b"{}", headers=JSON), me={}) as daemon:
        got = await edit(daemon, *form(*files, model="cheap/small", prompt="x", **texts))
        assert got.status == 400, got.body
        assert param is None or json.loads(got.body)["error"]["param"] == param
        assert daemon.asked() == {}


async def test_a_form_that_is_broken_is_refused() -> None:
    content_type, body = form(("image", CAT), model="cheap/small", prompt="x")
    async with served(kind=LLMProvider.OPENAI, vendor=reply(b"{}", headers=JSON), me={}) as daemon:
        for broken in (body[:-4], body[:100], b"--\r\n\r\n", b"--" + b"x" * 100 + b"\r\n"):
            got = await edit(daemon, content_type, broken)
            assert got.status == 400
            assert "form" in json.loads(got.body)["error"]["message"]


FIELDS = st.builds(
    FormField,
    name=st.text('abc[]_"\\\r\n;= ', min_size=1, max_size=8),
    content=st.binary(max_size=200),
    media_type=st.sampled_from([None, "image/png", "text/plain"]),
    is_file=st.booleans(),
)


@given(st.lists(FIELDS, max_size=5))
def test_a_form_that_is_written_is_read_again(fields: list[FormField]) -> None:
    content_type, body = write_form(fields)
    if fields:
        assert read_form(body) == fields
        assert body.startswith(b"--" + content_type.partition("boundary=")[2].encode())


INJECTED = 'x/y"\r\ncontent-disposition: form-data; name="model"\r\n\r\ndear\r\n'


def test_a_media_type_cannot_add_to_the_form() -> None:
    """Of a data URI, which a client may write as it likes."""
    _, body = write_form([FormField("image", CAT, INJECTED, is_file=True)])
    assert read_form(body) == [FormField("image", CAT, None, is_file=True)]
    assert body.count(b"\r\n\r\n") == 1
    assert b"dear" not in body


async def test_neither_a_field_nor_a_picture_adds_to_the_form_of_the_vendor() -> None:
    answer = reply(json.dumps(ANSWER).encode(), headers=JSON)
    name = 'x"\r\n\r\ny\r\n; name="model'
    asked = {
        "model": "cheap/small",
        "prompt": "a hat",
        "images": [{"image_url": f"data:{INJECTED};base64,{base64.b64encode(CAT).decode()}"}],
        name: "dear",
    }
    async with served(kind=LLMProvider.OPENAI, vendor=answer, me={}) as daemon:
        got = await edit(daemon, "application/json", json.dumps(asked).encode())
        assert got.status == 200, got.body
        body = sent(daemon.vendors["cheap"]).body
        assert {each.name: (each.content, each.media_type) for each in read_form(body)} == {
            "model": (b"small", None), "prompt": (b"a hat", None), name: (b"dear", None), "image": (CAT, PNG),
        }  # fmt: skip
        assert body.count(b"\r\n\r\n") == 4


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    try:
        read_form(b"--x\r\n" + body)
    except WireError as exc:
        assert "form" in str(exc)  # noqa: PT017 - most bytes are refused, some are none the less a form
