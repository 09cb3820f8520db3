"""What a request costs to encode: a large one is encoded in a thread."""

from __future__ import annotations

from llm_protocol.content import Image
from llm_protocol.requests import CodeFile, CodeRequest, CompletionRequest, EmbeddingRequest, ImageRequest, size_of


def test_the_mask_of_an_image_edit_counts() -> None:
    edit = ImageRequest(model="m", prompt="p", images=(Image(data=bytes(1_000)),), mask=Image(data=bytes(300)))
    assert size_of(edit) == 1_300


def test_texts_and_tokens_of_every_type_count() -> None:
    assert size_of(CompletionRequest(prompt="x" * 100, suffix="y" * 10)) == 110
    assert size_of(EmbeddingRequest(inputs=("x" * 100, (1, 2, 3)))) == 124
    code = CodeRequest(instruction="x" * 100, prefix="y", files=(CodeFile(path="f", content="z" * 1_000),))
    assert size_of(code) == 1_101
