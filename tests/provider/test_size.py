"""What a request costs to encode: a large one is encoded in a thread."""

from __future__ import annotations

from llm_actors.provider import size_of
from llm_protocol.content import Image
from llm_protocol.requests import ImageRequest


def test_the_mask_of_an_image_edit_counts() -> None:
    edit = ImageRequest(model="m", prompt="p", images=(Image(data=bytes(1_000)),), mask=Image(data=bytes(300)))
    assert size_of(edit) == 1_300
