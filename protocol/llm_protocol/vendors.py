"""The vendors: one row for each company or API family that a provider can belong to.

To add a vendor, add a row; docs/adding-a-vendor.md explains that, and how another package adds vendors. The columns are
explained in `llm_protocol.vendor`. How the APIs of one wire differ is in `llm_protocol.vendor_profile`, which
parameters they accept in `llm_protocol.parameters.targets`. Facts about models are under the same kinds: prices in
``prices.json``, capabilities in `llm_protocol.model_table`, shutdown dates in `llm_protocol.lifecycle`.
"""

from __future__ import annotations

from typing import Final

from llm_protocol.requests import RequestType
from llm_protocol.vendor import (
    LIST_ROUTES,
    AccountHeader,
    FakeTraits,
    KeyRefusal,
    Purpose,
    Vendor,
    VendorRoute,
    VendorTable,
)
from llm_protocol.vendor_profile import CEREBRAS, COMPATIBLE, DEEPSEEK, GROQ, LOCAL, MISTRAL, OPENAI
from llm_protocol.wires import ANTHROPIC, COHERE, GEMINI

LOCAL_MODEL: Final = "smollm2"
"""The local model's name: it is addressed as ``local/smollm2``."""

LOCAL_SLOTS: Final = 4
"""The requests that the local model works on at the same time. Further requests wait."""

_CHAT = RequestType.CHAT
_EMBEDDING = RequestType.EMBEDDING
_IMAGE = RequestType.IMAGE_GENERATION

_ROWS = (
    Vendor(
        kind="openai",
        title="OpenAI",
        profile=OPENAI,
        base_url="https://api.openai.com/v1",
        key_variables=("OPENAI_API_KEY",),
        url_variables=("OPENAI_BASE_URL",),
        account_headers={
            "organization": AccountHeader("openai-organization", "OPENAI_ORG_ID"),
            "project": AccountHeader("openai-project", "OPENAI_PROJECT_ID"),
        },
        default_models={
            # Small models first. An expensive one can be requested by name.
            _CHAT: (
                r"gpt-[\d.]+-luna",
                r"gpt-[\d.]+-terra",
                r"gpt-5\.[45]-mini",
                r"gpt-5-mini",
                r"gpt-[\d.]+-sol",
                r"gpt-5\.[0-5]",
                r"gpt-5",
                r"gpt-4o-mini",
                r"gpt-4\.1-mini",
                r"gpt-4o",
                r"gpt-4\.1",
                r"gpt-[\d.]+-nano",
                r"gpt-[\d.]+-astra",
                r"gpt-\d[\d.]*",
                r"gpt-4-turbo",
                r"gpt-3\.5-turbo",
                r"o\d(-mini)?",
            ),
            # Always the same model: embeddings of different models cannot be compared.
            _EMBEDDING: (
                r"text-embedding-3-small",
                r"text-embedding-3-large",
                r"text-embedding-ada-\d+",
                r".*embed.*",
            ),
            _IMAGE: (
                r"gpt-image-[\d.]+-flare",
                r"gpt-image-[\d.]+-sunburst",
                r"gpt-image-[\d.]+",
                r".*image.*",
                r"dall-e-\d",
            ),
        },
    ),
    Vendor(
        kind="anthropic",
        title="Anthropic",
        wire=ANTHROPIC,
        base_url="https://api.anthropic.com",
        key_variables=("ANTHROPIC_API_KEY",),
        url_variables=("ANTHROPIC_BASE_URL",),
        compatible_api_version="2023-06-01",
        default_models={
            _CHAT: (
                r"claude-sonnet-\d+(-\d{1,2})?",
                r"claude-haiku-\d+(-\d{1,2})?",
                r"claude-opus-\d+(-\d{1,2})?",
                r"claude-.*",
            ),
        },
        routes=(VendorRoute("POST", r"/v1/messages"), *LIST_ROUTES),
        error_shape="anthropic",
        fake=FakeTraits(
            request_id_header="request-id",
            required_header="anthropic-version",
            client_headers=frozenset(("anthropic-version",)),
            client_paths=("/v1/messages",),
        ),
    ),
    Vendor(
        kind="gemini",
        telemetry_name="gcp.gemini",
        title="Gemini",
        wire=GEMINI,
        base_url="https://generativelanguage.googleapis.com",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        url_variables=("GOOGLE_GEMINI_BASE_URL",),
        account_headers={"project": AccountHeader("x-goog-user-project")},
        default_models={
            _CHAT: (
                r"gemini-flash",
                r"gemini-[\d.]+-flash",
                r"gemini-flash-lite",
                r"gemini-[\d.]+-flash-lite",
                r"gemini-pro",
                r"gemini-[\d.]+-pro",
                r"gemini-[\d.]+-[a-z]+",
                r"gemini-.*",
                r"gemma-.*",
            ),
            _EMBEDDING: (r"gemini-embedding-001", r"gemini-embedding-\d", r".*embed.*"),
            _IMAGE: (
                r"gemini-[\d.]+-flash-image",
                r"gemini-[\d.]+-pro-image",
                r"gemini-[\d.]+-flash-lite-image",
                r".*image.*",
            ),
        },
        routes=(
            VendorRoute("POST", r"/v1(beta)?/(models|tunedModels)/[^/]+:\w+"),
            VendorRoute("GET", r"/v1beta/models", Purpose.MODELS),
            VendorRoute("GET", r"/v1beta/models/(?P<model>.+)", Purpose.MODEL),
            *LIST_ROUTES,
        ),
        error_shape="google",
        fake=FakeTraits(
            request_id_header="x-gemini-request-id",
            key_missing=KeyRefusal(403, "Method doesn't allow unregistered callers."),
            key_wrong=KeyRefusal(400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"),
            says_retry_after=False,
            client_headers=frozenset(("x-goog-api-key", "x-goog-api-client")),
            client_paths=("/v1beta/",),
        ),
    ),
    Vendor(
        kind="cohere",
        title="Cohere",
        wire=COHERE,
        base_url="https://api.cohere.com",
        key_variables=("COHERE_API_KEY", "CO_API_KEY"),
        url_variables=("CO_API_URL",),
        default_models={
            _CHAT: (
                r"command-a",
                r"command-a-plus",
                r"command-a-reasoning",
                r"command-r-plus",
                r"command-r",
                r"command-.*",
            ),
            _EMBEDDING: (r"embed-v4\.0", r"embed-v[\d.]+.*", r"embed-multilingual-.*", r".*embed.*"),
        },
        routes=(VendorRoute("POST", r"/v2/(chat|embed)"), *LIST_ROUTES),
        error_shape="cohere",
        fake=FakeTraits(
            request_id_header="x-debug-trace-id",
            client_values=(("x-fern-sdk-name", "cohere"),),
            client_paths=("/v2/",),
            client_query=frozenset(("page_size", "page_token", "endpoint", "default_only")),
        ),
    ),
    Vendor(
        kind="cerebras",
        title="Cerebras",
        profile=CEREBRAS,
        responses=False,
        base_url="https://api.cerebras.ai/v1",
        key_variables=("CEREBRAS_API_KEY",),
        url_variables=("CEREBRAS_BASE_URL",),
        default_models={_CHAT: (r"gpt-oss-120b", r"qwen-[\d.]+-\d+b", r"gpt-oss-.*")},
        routes=(
            VendorRoute("POST", r"/v1/(chat/)?completions"),
            VendorRoute("GET", r"/v1/tcp_warming", Purpose.WARM_UP),
            *LIST_ROUTES,
        ),
        error_shape="flat",
        fake=FakeTraits(client_values=(("user-agent", "cerebras"),)),
    ),
    Vendor(
        kind="openai_compatible",
        title="OpenAI-compatible servers",
        profile=COMPATIBLE,
        # For chats, any model of the server. Embeddings and images need a model whose name shows that it makes them.
        default_models={_EMBEDDING: (r".*embed.*",), _IMAGE: (r".*(image|diffusion|flux|dall-e).*",)},
        generic=True,
    ),
    # OpenAI's wire under another address. The addresses are those of the vendors' pages, read 29 November 2026:
    # openrouter.ai/docs, console.groq.com/docs/openai, docs.mistral.ai, api-docs.deepseek.com, docs.x.ai,
    # docs.together.ai/docs/inference/openai-compatibility, docs.ollama.com/api/openai-compatibility.
    # learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle: the v1 API needs no api-version.
    Vendor(
        kind="azure",
        telemetry_name="azure.ai.openai",
        title="Azure OpenAI",
        profile=OPENAI,
        key_variables=("AZURE_OPENAI_API_KEY",),
        url_variables=("AZURE_OPENAI_ENDPOINT",),
        url_suffix="/openai/v1",
        auth_header="api-key",
        models_key="openai",
    ),
    Vendor(
        kind="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_variables=("OPENROUTER_API_KEY",),
    ),
    Vendor(
        kind="groq",
        title="Groq",
        profile=GROQ,
        base_url="https://api.groq.com/openai/v1",
        key_variables=("GROQ_API_KEY",),
    ),
    Vendor(
        kind="mistral",
        telemetry_name="mistral_ai",
        title="Mistral",
        profile=MISTRAL,
        base_url="https://api.mistral.ai/v1",
        key_variables=("MISTRAL_API_KEY",),
        responses=False,
    ),
    Vendor(
        kind="deepseek",
        title="DeepSeek",
        profile=DEEPSEEK,
        base_url="https://api.deepseek.com",
        key_variables=("DEEPSEEK_API_KEY",),
        responses=False,
    ),
    Vendor(
        kind="xai",
        telemetry_name="x_ai",
        title="xAI",
        base_url="https://api.x.ai/v1",
        key_variables=("XAI_API_KEY",),
    ),
    Vendor(
        kind="together", title="Together", base_url="https://api.together.ai/v1", key_variables=("TOGETHER_API_KEY",)
    ),
    Vendor(
        kind="ollama",
        title="Ollama",
        base_url="http://localhost:11434/v1",
        generic=True,
        free=True,
        found_on_loopback=True,
    ),
    Vendor(
        kind="local",
        title="the local model",
        profile=LOCAL,
        responses=False,
        max_concurrency=LOCAL_SLOTS,
        local=True,
        free=True,
    ),
)

VENDORS: Final = VendorTable(_ROWS)
"""The vendors that come with llm-runtime, by kind."""
