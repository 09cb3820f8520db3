"""Estimate how many tokens a request will use, before it is sent.

No tokeniser is shipped: one takes more memory than the rest of the runtime, and each vendor has its own. The length of
the text, corrected by what the model reported for earlier requests, is accurate enough for reservations.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from llm_protocol.codec.json import encode_json
from llm_protocol.content import (
    Audio,
    Document,
    Image,
    Media,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)
from llm_protocol.requests import (
    AnyRequest,
    ChatRequest,
    CodeRequest,
    CompletionRequest,
    EmbeddingRequest,
    ImageRequest,
)
from llm_protocol.response import Usage

MAX_MODELS = 256
"""The most models whose experience is kept; the least recently used one is dropped."""

ASCII_PER_TOKEN = 4
"""ASCII characters per token, as in English and in code."""

BYTES_PER_TOKEN = 3
"""UTF-8 bytes of other scripts per token."""

MESSAGE_TOKENS = 4
"""The tokens of a message in addition to its content."""

TOOL_TOKENS = 8
"""The tokens of a tool's definition or call in addition to its JSON."""

IMAGE_TOKENS = 1_000
"""The tokens of an image sent at full detail."""

LOW_DETAIL_TOKENS = 85
"""The tokens of an image sent at low detail."""

PAGE_TOKENS = 2_000
"""The tokens of a page of a PDF, of which vendors read the text and a picture."""

PAGE_BYTES = 64 * 1024
"""The assumed bytes of a page, if the number of pages of a PDF is unknown."""

UNKNOWN_PAGES = 10
"""The assumed pages of a document whose content is not in the request."""

AUDIO_BYTES_PER_TOKEN = {"audio/wav": 1_500, "audio/aiff": 1_500}
"""Bytes of uncompressed audio per token, by media type: 32 tokens a second, at 24,000 samples of 2 bytes a second."""

COMPRESSED_BYTES_PER_TOKEN = 500
"""Bytes of any other audio per token."""

UNKNOWN_AUDIO_TOKENS = 2_000
"""The tokens of audio whose content is not in the request: about a minute."""

PICTURE_OUTPUT_TOKENS = 1_300
"""The tokens of an image in a response."""

DEFAULT_OUTPUT_TOKENS = 500
"""The tokens of a response if nothing is known about the model."""

PRIOR_TOKENS = 500
"""The weight of the estimate by length, in tokens: as if the model had been observed for so many tokens, and the
estimate had been right.
"""

PRIOR_OUTPUT_TOKENS = 50
"""The same as `PRIOR_TOKENS`, for the text of responses. It is smaller, because responses are shorter than prompts and
consist of text alone.
"""

DECAY = 0.9
"""The factor by which the weight of earlier responses shrinks when another response arrives."""

MIN_RATIO, MAX_RATIO = 0.25, 4.0
"""The range of the factor by which earlier responses may correct an estimate."""


class Estimate(NamedTuple):
    """An estimate. ``length`` is the input tokens as estimated from the request alone, without experience;
    `TokenEstimator.learn` needs it.
    """

    input_tokens: int
    output_tokens: int
    length: int
    choices: int = 1
    """The expected number of choices in the response."""

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def usage(self) -> Usage:
        """Return the estimate as a usage."""
        return Usage(input_tokens=self.input_tokens, output_tokens=self.output_tokens, estimated=True)


class TokenEstimator:
    """Estimates tokens by model, and learns from reported usage. ``model`` is any hashable value that stands for the
    model; it must be the same in all calls.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[Hashable, _Experience] = OrderedDict()

    def estimate(self, model: Hashable, request: AnyRequest) -> Estimate:
        """Return the expected usage of ``request``. The output is never estimated above ``max_output_tokens`` of the
        request.
        """
        known = self._models.get(model, _NONE)
        length = request_length(request)
        return Estimate(math.ceil(length * known.ratio), _output(request, known), length, _choices(request))

    def expect(self, models: Iterable[Hashable], request: AnyRequest) -> Usage:
        """Return the usage of ``request`` to expect on average over ``models``, to compare these models.

        The average is used because the experience with each model depends on which requests it happened to get.
        """
        known = [found for model in models if (found := self._models.get(model)) is not None] or [_NONE]
        length = request_length(request) * sum([each.ratio for each in known]) / len(known)
        output = sum([_output(request, each) for each in known]) // len(known)
        pictures = output if isinstance(request, ImageRequest) else 0
        return Usage(input_tokens=math.ceil(length), output_tokens=output, image_tokens=pictures, estimated=True)

    def learn(self, model: Hashable, estimate: Estimate, usage: Usage) -> None:
        """Learn from a response's actual usage. Estimated usage is ignored."""
        if usage.estimated or not usage.input_tokens or not estimate.length:
            return
        known = self._models.get(model)
        if known is None:
            known = self._models[model] = _Experience()
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        known.add(estimate.length, usage, estimate.choices)

    def learn_output(self, model: Hashable, length: float, tokens: int) -> None:
        """Learn that the text of a response had ``tokens`` tokens. ``length`` is the number of tokens that was
        estimated from the text's length.
        """
        known = self._models.get(model)
        if known is not None and length > 0 and tokens > 0:
            known.add_output(length, tokens)

    def output_ratio(self, model: Hashable) -> float:
        """Return how many tokens of ``model`` correspond to one token estimated from the length of a response's
        text.
        """
        return self._models.get(model, _NONE).output_ratio

    def billed_input(self, model: Hashable, estimate: Estimate) -> int | None:
        """The input tokens that ``model`` is expected to bill, if they differ from the tokens that it counts; else
        ``None``.
        """
        known = self._models.get(model, _NONE)
        return None if known.billed_ratio is None else max(1, math.ceil(estimate.length * known.billed_ratio))

    def statistics(self) -> dict[str, float]:
        """Return the ratio of the reported input tokens to the tokens estimated by length, for each model."""
        return {str(model): known.ratio for model, known in self._models.items()}


class _Experience:
    """What one model has used so far: sums that decay."""

    __slots__ = ("_answers", "_billed", "_guessed", "_length", "_output", "_taken", "_written")

    def __init__(self) -> None:
        self._guessed = self._taken = self._billed = float(PRIOR_TOKENS)
        self._length = self._written = float(PRIOR_OUTPUT_TOKENS)
        self._output = 0.0
        self._answers = 0.0

    @property
    def output_ratio(self) -> float:
        return min(max(self._written / self._length, MIN_RATIO), MAX_RATIO)

    @property
    def ratio(self) -> float:
        return min(max(self._taken / self._guessed, MIN_RATIO), MAX_RATIO)

    @property
    def billed_ratio(self) -> float | None:
        """Return the ratio of billed tokens to the estimate; ``None`` if billed and counted tokens are the same."""
        return None if self._billed == self._taken else min(max(self._billed / self._guessed, MIN_RATIO), MAX_RATIO)

    @property
    def output(self) -> float:
        return self._output / self._answers if self._answers else DEFAULT_OUTPUT_TOKENS

    def add(self, length: int, usage: Usage, choices: int) -> None:
        self._guessed = self._guessed * DECAY + length
        self._taken = self._taken * DECAY + usage.input_tokens
        billed = usage.billed_input_tokens
        self._billed = self._billed * DECAY + (usage.input_tokens if billed is None else billed)
        self._output = self._output * DECAY + usage.output_tokens / choices
        self._answers = self._answers * DECAY + 1

    def add_output(self, length: float, tokens: int) -> None:
        self._length = self._length * DECAY + length
        self._written = self._written * DECAY + tokens


_NONE = _Experience()


def _output(request: AnyRequest, known: _Experience) -> int:
    match request:
        case EmbeddingRequest():
            return 0
        case ImageRequest():
            return request.n * PICTURE_OUTPUT_TOKENS
    likely, most = math.ceil(known.output), request.parameters.max_output_tokens
    return _choices(request) * (likely if most is None else min(likely, most))


def _choices(request: AnyRequest) -> int:
    return request.n if isinstance(request, ChatRequest) else 1


# ---------------------------------------------------------------- lengths


def text_length(text: str) -> float:
    """Return the tokens of a text, estimated from its length alone."""
    if text.isascii():
        return len(text) / ASCII_PER_TOKEN
    plain = len(text.encode("ascii", "ignore"))
    other = len(text.encode("utf-8", "replace")) - plain
    return plain / ASCII_PER_TOKEN + other / BYTES_PER_TOKEN


def parts_length(parts: Iterable[Part]) -> float:
    """Return the tokens of parts, estimated from their length alone."""
    return sum(map(_part_length, parts))


def request_length(request: AnyRequest) -> int:
    """Return the input tokens of a request, estimated from its length alone; at least one."""
    return max(1, math.ceil(_length(request)))


def _length(request: AnyRequest) -> float:
    match request:
        case ChatRequest():
            shape = () if request.response_format is None else (request.response_format,)
            return sum(map(_message_length, request.messages)) + sum(map(_json_length, (*request.tools, *shape)))
        case CompletionRequest():
            return _texts_length(request.prompt, request.suffix)
        case EmbeddingRequest():
            tokens = sum(len(each) for each in request.inputs if not isinstance(each, str))
            return tokens + _texts_length(*(each for each in request.inputs if isinstance(each, str)))
        case ImageRequest():
            shown = len(request.images) + (request.mask is not None)
            return _texts_length(request.prompt) + IMAGE_TOKENS * shown
        case CodeRequest():
            files = (text for file in request.files for text in (file.path, file.content))
            return _texts_length(request.instruction, request.prefix, request.suffix, *files)


def _texts_length(*texts: str | None) -> float:
    return MESSAGE_TOKENS + sum(text_length(text) for text in texts if text)


def _message_length(message: Message) -> float:
    length: float = MESSAGE_TOKENS
    for part in message.content:
        length += text_length(part.text) if type(part) is Text else _part_length(part)
    return length


def _json_length(value: Any) -> float:
    return TOOL_TOKENS + len(encode_json(value)) / ASCII_PER_TOKEN


def _part_length(part: Part) -> float:
    match part:
        case Text() | Refusal():
            return text_length(part.text)
        case Reasoning():
            return text_length(part.text) + len(part.encrypted or "") / ASCII_PER_TOKEN
        case ToolCall():
            return TOOL_TOKENS + text_length(part.name) + text_length(part.arguments)
        case ToolResult():
            return TOOL_TOKENS + parts_length(part.content)
        case Image():
            return LOW_DETAIL_TOKENS if part.detail == "low" else IMAGE_TOKENS
        case Document():
            return _document_length(part)
        case Audio():
            per_token = AUDIO_BYTES_PER_TOKEN.get(part.media_type or "", COMPRESSED_BYTES_PER_TOKEN)
            size = _bytes_of(part)
            return UNKNOWN_AUDIO_TOKENS if size is None else size / per_token
        case Opaque():
            return _json_length(part.value)


def _bytes_of(part: Media) -> int | None:
    if part.base64 is not None:
        return len(part.base64) * 3 // 4
    return None if part.data is None else len(part.data)


def _document_length(part: Document) -> float:
    if part.text is not None:
        return text_length(part.text)
    size = _bytes_of(part)
    if part.is_text and size is not None:
        return size / ASCII_PER_TOKEN
    pages = part.pages or (UNKNOWN_PAGES if size is None else max(1, round(size / PAGE_BYTES)))
    return pages * PAGE_TOKENS
