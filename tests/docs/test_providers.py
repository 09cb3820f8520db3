"""The recipes in docs/how-to/providers.md: each is a configuration, and a fake in its provider's place checks the rest.

The fake checks the name that TLS asks for, the path with its query, and every header.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import trustme

from llm_actors.provider import Generate, ProviderActor
from llm_actors.testing import alone
from llm_actors.transport import TlsTrust
from llm_protocol.content import Message
from llm_protocol.events import Event, Finished
from llm_protocol.requests import ChatRequest
from llm_protocol.version import VERSION
from llm_runtime.config import Config, parse
from llm_runtime.providers import provider_spec
from support.peer import Peer, reply
from support.proxying import FakeProxy
from support.upstream import JSON, whole

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


OTHERS = {
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com",
    "xai": "https://api.x.ai/v1",
    "together": "https://api.together.ai/v1",
}
"""Those that are named beside Groq."""


@pytest.fixture(scope="module")
def company() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, company: trustme.CA) -> Path:
    """What the recipes name: files, and commands that write a token."""
    (tmp_path / "gateway.key").write_text(KEY)
    company.cert_pem.write_to_path(str(tmp_path / "company-ca.pem"))
    for command in ("az", "gcloud"):
        file = tmp_path / "bin" / command
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\necho {KEY}\n")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return tmp_path


@pytest.mark.parametrize("recipe", EXPECTED)
async def test_a_recipe_reaches_its_provider(recipe: str, folder: Path, company: trustme.CA) -> None:
    config = parse(RECIPES[recipe].encode(), Environment(), folder=folder)
    address, headers = EXPECTED[recipe]
    await reaches(config, recipe.partition(" ")[0], address, headers, folder, company)


@pytest.mark.parametrize("kind", OTHERS)
async def test_what_is_said_of_groq_goes_for_the_others(kind: str, folder: Path, company: trustme.CA) -> None:
    block = RECIPES["groq"].replace('"groq"', f'"{kind}"').replace("GROQ", kind.upper())
    config = parse(block.encode(), Environment(), folder=folder)
    await reaches(config, "groq", OTHERS[kind] + CHAT, {"authorization": f"Bearer {KEY}"}, folder, company)


async def reaches(
    config: Config, name: str, address: str, headers: dict[str, str], folder: Path, company: trustme.CA
) -> None:
    """Ask the provider, whose place a fake has taken, and look at all that it sees."""
    url, named = urlsplit(address), list[str | None]()
    context = None
    if url.scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        company.issue_cert(url.hostname or "").configure_cert(context)
        context.sni_callback = lambda _socket, server, _context: named.append(server)
    spec = provider_spec(name, config.providers[name])
    spec = msgspec.structs.replace(spec, trust=TlsTrust(str(folder / "company-ca.pem")))
    async with Peer(reply(whole(), headers=JSON), tls=context, http2=spec.http2) as peer:
        async with FakeProxy(peer, known="user:password") as proxy:
            dial = peer.dial
            if spec.proxy is not None:
                proxy.proxy, dial = spec.proxy, proxy.dial
            async with alone(ProviderActor(spec, dial=dial), name=name) as lone:
                events: list[Event] = []
                request = ChatRequest(model="m", messages=(Message.of("user", "Hi."),))
                result = await lone.ref.call(Generate(request=request, stream=False, sink=events.append))
            assert isinstance(result.end, Finished), result
            assert proxy.asked == ([f"{url.hostname}:443"] if spec.proxy is not None else [])
        (seen,) = peer.requests
    assert (seen.method, seen.target) == ("POST", url.path + (f"?{url.query}" if url.query else ""))
    expected = {
        "host": url.netloc,
        "content-type": "application/json",
        "content-length": str(len(seen.body)),
        "accept-encoding": "identity",
        "user-agent": f"llm-runtime/{VERSION}",
        **headers,
    }
    assert {key: value for key, value in seen.headers.items() if key != "accept"} == expected
    assert named == ([url.hostname] if context is not None else [])


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
