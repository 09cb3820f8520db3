"""The model list and its members, in the form of whoever asks."""

from __future__ import annotations

import pytest

from support.server import open_server

OPENAI: dict[str, str] = {}
ANTHROPIC = {"anthropic_version": "2023-06-01"}
GOOGLE = {"x_goog_api_client": "google-genai-sdk/3.3"}
COHERE = {"user_agent": "cohere/7.3.0"}
NAMES = ["fake/fake-1", "local/smollm2", "careful", "auto"]
LISTS = {
    "openai": (OPENAI, "/v1/models", "data", "id", ""),
    "anthropic": (ANTHROPIC, "/v1/models", "data", "id", ""),
    "google": (GOOGLE, "/v1/models", "models", "name", "models/"),
    "google, v1beta": (OPENAI, "/v1beta/models", "models", "name", "models/"),
    "cohere": (COHERE, "/v1/models", "models", "name", ""),
}


@pytest.mark.parametrize("who", LISTS)
async def test_the_list_and_its_members_have_the_form_of_who_asks(who: str) -> None:
    headers, path, listed, name, prefix = LISTS[who]
    async with open_server() as server:
        page = (await server.request("GET", path, **headers)).json[listed]
        assert [each[name] for each in page] == [prefix + each for each in NAMES]
        for spelling in ("local/smollm2", "local%2Fsmollm2", "smollm2", "models/smollm2", "smollm2/"):
            assert (await server.request("GET", f"{path}/{spelling}", **headers)).json == page[1]
        for member in page[2:]:
            assert (
                await server.request("GET", f"{path}/{member[name].removeprefix('models/')}", **headers)
            ).json == member


@pytest.mark.parametrize(
    ("headers", "place"),
    [
        (OPENAI, ("error", "message")),
        (ANTHROPIC, ("error", "message")),
        (GOOGLE, ("error", "message")),
        (COHERE, ("message",)),
    ],
)
async def test_who_asks_for_none_of_them_is_told_a_name_that_is_near(
    headers: dict[str, str], place: tuple[str, ...]
) -> None:
    async with open_server() as server:
        reply = await server.request("GET", "/v1/models/smolm2", **headers)
        assert reply.status == 404
        said = reply.json
        for step in place:
            said = said[step]
        assert said.endswith('; did you mean "smollm2"?')


async def test_a_colon_in_a_name_is_no_method() -> None:
    async with open_server() as server:
        assert (await server.request("GET", "/v1/models/llama3:8b")).json["error"]["type"] == "invalid_request_error"
