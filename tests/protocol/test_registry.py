"""Which dialect a kind of vendor is spoken to with, and answered in."""

from __future__ import annotations

import pytest

from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.vendors import VENDORS


@pytest.mark.parametrize("kind", LLMProvider)
def test_both_sides_of_a_kind_are_of_one_dialect(kind: LLMProvider) -> None:
    assert VENDORS[kind].client().name == VENDORS[kind].server().name


def test_the_local_model_is_asked_only_for_text() -> None:
    """It has one model, which makes neither vectors nor pictures: who asks for those is told before any call."""
    assert VENDORS[LLMProvider.LOCAL].client().request_types == {RequestType.CHAT, RequestType.COMPLETION}
