"""Creating and editing images, on the client side and the server side. Responses contain base64 or, from older models,
a URL; both are read. A client sends images to edit in a form. The runtime converts the form to JSON to decode it, and
sends the vendor another form.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_protocol.codec.body import Body
from llm_protocol.codec.decoding import misread
from llm_protocol.codec.fields import add_extra, bad_request, own_fields, unsupported
from llm_protocol.codec.forms import FormField, is_media_type, read_form, write_form
from llm_protocol.codec.json import JsonDecoder, WireError, decode_json, encode_around, encode_json
from llm_protocol.codec.media import base64_pieces, data_uri, image_from_url, sniff_media_type, unbase64_json
from llm_protocol.content import Image, JsonObject
from llm_protocol.dialect import WireRequest
from llm_protocol.events import Event, Finished, ItemDone, ItemStarted, Started, UsageReported
from llm_protocol.extra_fields import KeptFields, beyond, filled, is_empty, outer_fields
from llm_protocol.requests import ImageRequest
from llm_protocol.response import FinishReason, LLMResponse
from llm_protocol.vendor_profile import VendorProfile
from llm_protocol.wires.openai_chat.content import with_extra
from llm_protocol.wires.openai_chat.errors import not_understood
from llm_protocol.wires.openai_chat.shapes import HEAD_FIELDS, USAGE_SHAPE, WIRE, ChatWireUsage, read_usage

_MEDIA_TYPES = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "svg": "image/svg+xml",
}
_FORMATS = {media_type: name for name, media_type in _MEDIA_TYPES.items()}


class _Picture(msgspec.Struct):
    b64_json: msgspec.Raw = msgspec.Raw(b"null")
    url: str | None = None
    revised_prompt: Any = None


class _Answer(msgspec.Struct):
    data: list[_Picture]
    output_format: str | None = None
    usage: ChatWireUsage | None = None


_DECODER = JsonDecoder(_Answer)

_EXTRA = "openai_images"
"""The dialect of an image's extra fields. It differs from the chat dialect, whose endpoint must not receive them."""


def image_body(request: ImageRequest, profile: VendorProfile) -> JsonObject:
    """The body of ``POST /images/generations``. It has no ``response_format``, because the GPT image models
    refuse it.
    """
    body: JsonObject = {"model": request.model, "prompt": request.prompt}
    if request.n != 1:
        body["n"] = request.n
    for name in ("size", "quality", "output_format", "background"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.parameters.user is not None:
        body["user"] = request.parameters.user
    add_extra(body, request.parameters, profile.name)
    return body


def edit_request_of(request: ImageRequest, profile: VendorProfile) -> WireRequest:
    """Return the request to ``POST /images/edits``. Raises `UnsupportedError` for an image whose bytes are not in the
    request.
    """
    said = image_body(request, profile).items()
    fields = [FormField(name, value.encode() if isinstance(value, str) else encode_json(value)) for name, value in said]
    several = "image[]" if len(request.images) > 1 else "image"
    fields += [_file(several, image, f"images[{at}]") for at, image in enumerate(request.images)]
    if request.mask is not None:
        fields.append(_file("mask", request.mask, "mask"))
    content_type, body = write_form(fields)
    return WireRequest("POST", "/images/edits", (("content-type", content_type),), body)


def _file(name: str, image: Image, where: str) -> FormField:
    if image.data is None:
        raise unsupported(where, f"{where}: an image to be changed must be sent as bytes, not by URL")
    told = image.media_type
    media_type = told if told and is_media_type(told) else sniff_media_type(image.data)
    return FormField(name, image.data, media_type, is_file=True)


def decode_images(request: ImageRequest, body: bytes) -> list[Event]:
    """The events of a whole response."""
    try:
        answer = _DECODER.decode(body)
        format_ = answer.output_format or request.output_format
        pictures = [_picture(item, format_) for item in answer.data]
        fields = outer_fields(body, ("usage",), HEAD_FIELDS)
    except WireError as exc:
        return [not_understood(body, exc)]
    if not pictures:
        return [misread("it has no image")]
    kept = KeptFields(WIRE)
    kept.keep("head", fields, HEAD_FIELDS)
    kept.keep("usage", beyond(fields.get("usage"), USAGE_SHAPE))
    events: list[Event] = [*kept.take_events(), Started(model=request.model)]
    for index, picture in enumerate(pictures):
        events += (ItemStarted(index=index, kind="image"), ItemDone(index=index, part=picture))
    if answer.usage is not None:
        events.append(UsageReported(read_usage(answer.usage)))
    return [*events, Finished(reason=FinishReason.STOP)]


def _picture(item: _Picture, format_: str | None) -> Image:
    picture = _shown(item, format_)
    if is_empty(item.revised_prompt):
        return picture
    return msgspec.structs.replace(picture, extra={_EXTRA: {"revised_prompt": item.revised_prompt}})


def _shown(item: _Picture, format_: str | None) -> Image:
    if data := unbase64_json(item.b64_json):
        return Image(data=data, media_type=_MEDIA_TYPES.get(format_ or "") or sniff_media_type(data))
    if item.url:
        return image_from_url(item.url)
    raise WireError("an image has neither b64_json nor url")


def image_request(body: Body, name: str) -> ImageRequest:
    """The request in a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    if body.boolean("stream") or body.integer("partial_images"):
        raise body.cannot("stream", "images are not streamed; omit stream and partial_images")
    n = body.integer("n")
    if n is not None and n < 1:
        raise body.wrong("n", "a whole number of at least 1")
    return ImageRequest(
        model=body.model(),
        prompt=body.required_string("prompt"),
        n=1 if n is None else n,
        size=body.string("size"),
        quality=body.string("quality"),
        output_format=body.string("output_format"),
        background=body.string("background"),
        parameters=with_extra({"user": body.string("user")}, body, name),
    )


_NUMBERS = frozenset(("n", "output_compression", "partial_images", "frame_count", "frame_duration_ms"))
_JSON = frozenset(("stream", "llm_runtime"))


def form_as_json(body: bytes) -> bytes:
    """Return a form of ``/images/edits`` as equivalent JSON, with its files as data URIs. Raises `BadRequestError`."""
    found: JsonObject = {}
    try:
        for field in read_form(body):
            name = field.name.removesuffix("[]")
            if field.is_file:
                file = {"image_url": data_uri(sniff_media_type(field.content), field.content)}
                if name == "image":
                    found.setdefault("images", []).append(file)
                else:
                    found[name] = file
            else:
                text = field.text
                is_json = name in _JSON or (name in _NUMBERS and text.isdecimal())
                found[name] = decode_json(text.encode()) if is_json else text
    except WireError as exc:
        raise bad_request(None, f"the body is a form that cannot be read: {exc}") from None
    return encode_json(found)


def edit_request(body: Body, name: str) -> ImageRequest:
    """Return the request to change images, from a client's body. Raises `BadRequestError`, `UnsupportedError`."""
    images = tuple(map(_image_in, body.objects("images")))
    mask = body.object("mask")
    if not images:
        raise bad_request("image", "an edit needs at least one image: set image in a form, or images in JSON")
    request = image_request(body, name)
    return msgspec.structs.replace(request, images=images, mask=None if mask is None else _image_in(mask))


def _image_in(body: Body) -> Image:
    if body.string("file_id") is not None:
        raise body.cannot(
            "file_id", "file_id is not supported, because a file exists at one vendor only; send the image itself"
        )
    try:
        return image_from_url(body.required_string("image_url"))
    except WireError as exc:
        raise body.wrong("image_url", f"an image: {exc}") from None


def encode_images(response: LLMResponse) -> bytes:
    """The body of a whole response."""
    kept = response.extra.get(WIRE, {})
    body: JsonObject = {**kept.get("head", {}), "created": int(response.timestamp), "data": []}
    kinds = {_FORMATS.get(image.media_type or "") for image in response.images}
    if len(kinds) == 1 and None not in kinds:
        body["output_format"] = kinds.pop()
    if response.usage is not None:
        usage = response.usage
        counts: JsonObject = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        }
        details = {"text_tokens": usage.input_tokens, "image_tokens": 0}
        body["usage"] = filled(counts, {"input_tokens_details": details, **kept.get("usage", {})})
    pieces: list[bytes] = []
    for image in response.images:
        pieces += (b",", *_written(image))
    return encode_around(body, "data", pieces[1:])


def _written(image: Image) -> list[bytes]:
    more = own_fields(image.extra, _EXTRA)
    if image.data is None:
        return [encode_json({"url": image.url, **more})]
    tail = b"," + encode_json(more)[1:] if more else b"}"
    return [b'{"b64_json":"', *base64_pieces(image.data), b'"' + tail]
