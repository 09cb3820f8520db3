"""The recipes in docs/how-to/providers.md: each is a configuration, and reaches the right address in the right way."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from llm_protocol.content import Message
from llm_protocol.requests import ChatRequest
from llm_protocol.secret import Secret
from llm_protocol.version import VERSION
from llm_runtime.config import parse
from llm_runtime.providers import provider_spec

ROOT = Path(__file__).parents[2]
KEY = "k-0123456789abcdef"

CHAT = "/chat/completions"
EXPECTED = {
    "azure 1": (f"https://my-resource.openai.azure.com/openai/v1{CHAT}", {"api-key": KEY}),
    "azure 2": (f"https://my-resource.openai.azure.com/openai/v1{CHAT}", {"authorization": f"Bearer {KEY}"}),
    "vertex": (
        f"https://aiplatform.googleapis.com/v1/projects/my-project/locations/global/endpoints/openapi{CHAT}",
        {"authorization": f"Bearer {KEY}"},
    ),
    "bedrock": (f"https://bedrock-runtime.us-west-2.amazonaws.com/openai/v1{CHAT}", {"authorization": f"Bearer {KEY}"}),
    "openrouter": (
        f"https://openrouter.ai/api/v1{CHAT}",
        {"authorization": f"Bearer {KEY}", "http-referer": "https://my-app.example", "x-title": "My app"},
    ),
    "groq": (f"https://api.groq.com/openai/v1{CHAT}", {"authorization": f"Bearer {KEY}"}),
    "vllm": (f"http://127.0.0.1:8000/v1{CHAT}", {}),
    "ollama": (f"http://localhost:11434/v1{CHAT}", {}),
    "lm_studio": (f"http://127.0.0.1:1234/v1{CHAT}", {}),
    "llama_cpp": (f"http://127.0.0.1:8081/v1{CHAT}", {}),
    "litellm": (f"http://127.0.0.1:4000/v1{CHAT}", {"authorization": f"Bearer {KEY}"}),
    "openai": (
        f"https://api.openai.com/v1{CHAT}",
        {"authorization": f"Bearer {KEY}", "openai-organization": "org-1", "openai-project": "proj-1"},
    ),
    "gateway": (
        f"https://gateway.example/openai/v1{CHAT}?version=2026-11-01",
        {"x-gateway-key": KEY, "x-team": "search"},
    ),
    "work": (f"https://api.openai.com/v1{CHAT}", {"authorization": f"Bearer {KEY}"}),
    "internal": (f"https://models.corp.example/v1{CHAT}", {}),
}


class Environment(dict[str, str]):
    """Every variable is set."""

    def get(self, name: str, default: object = None) -> str:
        return {"PROXY_AUTH": "user:password"}.get(name, "" if name.lower().endswith("_proxy") else KEY)


def recipes() -> Iterator[tuple[str, str]]:
    """Each provider of each block, by name, and the block."""
    seen: dict[str, int] = {}
    for block in re.findall(r"^```toml\n(.*?)^```$", (ROOT / "docs/how-to/providers.md").read_text(), re.DOTALL | re.M):
        for name in tomllib.loads(block)["providers"]:
            seen[name] = seen.get(name, 0) + 1
            yield f"{name} {seen[name]}" if name == "azure" else name, block


RECIPES = dict(recipes())


def test_each_recipe_is_tried() -> None:
    assert list(RECIPES) == list(EXPECTED)


@pytest.mark.parametrize("recipe", EXPECTED)
def test_a_recipe_reaches_its_provider(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.key").write_text(KEY)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "company-ca.pem"))
    name = recipe.partition(" ")[0]
    config = parse(RECIPES[recipe].encode(), Environment(), folder=tmp_path)
    spec = provider_spec(name, config.providers[name])
    if spec.renewer is not None:
        spec.renewer.current = Secret(KEY)
    wire = spec.dialect.encode_request(ChatRequest(model="m", messages=(Message.of("user", "Hi."),)), stream=False)
    request = spec.http_request(wire)
    address, headers = EXPECTED[recipe]
    assert f"{request.origin}{request.target}" == address
    expected = {"content-type": "application/json", "user-agent": f"llm-runtime/{VERSION}", **headers}
    assert {key: value for key, value in request.headers.items() if key != "accept"} == expected


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("", "2026-10-21"),
        ('base_url = "https://claude.example"', "2023-06-01"),
        ('api_version = "2024-01-01"', "2024-01-01"),
    ],
    ids=["Anthropic", "a server of others", "configured"],
)
def test_the_version_of_anthropics_wire_goes_by_the_address(line: str, version: str) -> None:
    source = f'[providers.a]\nkind = "anthropic"\napi_key = "env:K"\n{line}'
    spec = provider_spec("a", parse(source.encode(), {"K": KEY}).providers["a"])
    wire = spec.dialect.encode_request(ChatRequest(model="m", messages=(Message.of("user", "Hi."),)), stream=False)
    assert spec.http_request(wire).headers["anthropic-version"] == version
    assert spec.http_request(spec.dialect.models_request(None)).headers["anthropic-version"] == version
