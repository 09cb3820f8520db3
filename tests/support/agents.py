"""Command-line agents, unmodified and in their default configuration, each told where the daemon is in the way that its
own documentation gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.npm import node_modules
from support.sdk import sdk_python

SCRIPTS = Path(__file__).resolve().parents[1] / "clients" / "scripts"


class Place(NamedTuple):
    """Where one agent runs: its home and its work tree, the daemon, and the model it is given."""

    home: Path
    work: Path
    url: str
    key: str
    model: str


class Command(NamedTuple):
    """What to start. ``environ`` is added to an environment with no key of anybody."""

    arguments: list[str]
    environ: dict[str, str]


class Agent(NamedTuple):
    """``command(place, prompt, again)``: one turn; ``again``: of the conversation before."""

    name: str
    packages: tuple[str, ...]
    command: Callable[[Place, str, bool], Command]
    keeps: bool = True
    """Whether it can go on with a conversation."""
    has_tools: bool = True
    endless: tuple[str, ...] = ()
    """The failures that it repeats for longer than a turn is waited for, whatever `x-should-retry` says."""
    tries: int = 1
    """How often it sends a request that was refused for too many, by itself, whatever `x-should-retry` says."""
    variants: int = 1
    """How many requests it makes of one that was refused as bad, each with a feature less; at a vendor itself, too."""


CLAUDE_CODE = ("@anthropic-ai/claude-code@2.1.332",)
CODEX = ("@openai/codex@0.171.0",)
GEMINI_CLI = ("@google/gemini-cli@0.61.0",)
OPENCODE = ("opencode-ai@1.18.33",)
QWEN_CODE = ("@qwen-code/qwen-code@0.24.4",)
CLAUDE_AGENT_SDK = ("claude-agent-sdk==0.2.189",)
SIMONW_LLM = ("llm==0.36",)
AIDER = ("aider-chat>=0.86,<1",)


def _bin(name: str, packages: tuple[str, ...], command: str) -> str:
    return str(node_modules(name, *packages) / ".bin" / command)


def claude_code(place: Place, prompt: str, again: bool) -> Command:
    arguments = [_bin("claude-code", CLAUDE_CODE, "claude"), "-p", prompt, "--permission-mode", "acceptEdits"]
    return Command(
        [*arguments, "--continue"] if again else arguments,
        {
            "ANTHROPIC_BASE_URL": place.url,
            "ANTHROPIC_AUTH_TOKEN": place.key,
            "ANTHROPIC_MODEL": place.model,
            "ANTHROPIC_SMALL_FAST_MODEL": place.model,
            "DISABLE_AUTOUPDATER": "1",
        },
    )


def codex(place: Place, prompt: str, again: bool) -> Command:
    home = place.home / ".codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(f"""
        model = "{place.model}"
        model_provider = "llm-runtime"
        [model_providers.llm-runtime]
        name = "llm-runtime"
        base_url = "{place.url}/v1"
        env_key = "LLM_RUNTIME_KEY"
    """)
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    resume = ["resume", "--last"] if again else []
    return Command(
        [_bin("codex", CODEX, "codex"), "exec", *resume, *options, prompt],
        {"CODEX_HOME": str(home), "LLM_RUNTIME_KEY": place.key},
    )


def gemini_cli(place: Place, prompt: str, again: bool) -> Command:
    home = place.home / ".gemini"
    home.mkdir(exist_ok=True)
    (home / "settings.json").write_text('{"security": {"auth": {"selectedType": "gemini-api-key"}}}')
    resume = ["--resume", "latest"] if again else []
    return Command(
        [_bin("gemini-cli", GEMINI_CLI, "gemini"), "--skip-trust", "--yolo", "-m", place.model, *resume, "-p", prompt],
        {"GOOGLE_GEMINI_BASE_URL": place.url, "GEMINI_API_KEY": place.key},
    )


def opencode(place: Place, prompt: str, again: bool) -> Command:
    (place.work / "opencode.json").write_text(
        json.dumps(
            {
                "model": f"llm-runtime/{place.model}",
                "provider": {
                    "llm-runtime": {
                        "npm": "@ai-sdk/openai-compatible",
                        "options": {"baseURL": f"{place.url}/v1", "apiKey": place.key},
                        "models": {place.model: {}},
                    }
                },
                "autoupdate": False,
            }
        )
    )
    resume = ["--continue"] if again else []
    return Command([_bin("opencode", OPENCODE, "opencode"), "run", *resume, prompt], {})


def qwen_code(place: Place, prompt: str, again: bool) -> Command:
    resume = ["--continue"] if again else []
    return Command(
        [_bin("qwen-code", QWEN_CODE, "qwen"), "--auth-type", "openai", "--yolo", *resume, "-p", prompt],
        {"OPENAI_BASE_URL": f"{place.url}/v1", "OPENAI_API_KEY": place.key, "OPENAI_MODEL": place.model},
    )


def aider(place: Place, prompt: str, again: bool) -> Command:
    python = Path(sdk_python("aider", *AIDER))
    options = ["--yes-always", "--no-git", "--no-check-update", "--no-show-model-warnings", "--edit-format", "whole"]
    resume = ["--restore-chat-history"] if again else []
    return Command(
        [str(python.with_name("aider")), "--model", f"openai/{place.model}", *options, *resume, "--message", prompt],
        {"OPENAI_API_BASE": f"{place.url}/v1", "OPENAI_API_KEY": place.key, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )


def claude_agent_sdk(place: Place, prompt: str, again: bool) -> Command:
    python = sdk_python("claude-agent-sdk", *CLAUDE_AGENT_SDK)
    resume = ["--continue"] if again else []
    environ = {"ANTHROPIC_BASE_URL": place.url, "ANTHROPIC_AUTH_TOKEN": place.key, "ANTHROPIC_MODEL": place.model}
    return Command([python, str(SCRIPTS / "claude_agent.py"), prompt, *resume], environ)


def simonw_llm(place: Place, prompt: str, again: bool) -> Command:
    python = Path(sdk_python("llm", *SIMONW_LLM))
    home = place.home / "llm"
    home.mkdir(exist_ok=True)
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: {place.model}\n  api_base: {place.url}/v1\n  api_key_name: mine\n"
        "  supports_tools: true\n"
    )
    (home / "keys.json").write_text(json.dumps({"mine": place.key}))
    tools = home / "tools.py"
    tools.write_text(
        "def write_file(file_path: str, content: str) -> str:\n"
        "    with open(file_path, 'w', newline='') as file:\n        file.write(content)\n    return 'written'\n"
    )
    resume = ["--continue"] if again else ["--functions", str(tools)]
    return Command(
        [str(python.with_name("llm")), "-m", "mine", *resume, prompt],
        {"LLM_USER_PATH": str(home)},
    )


AGENTS = {
    each.name: each
    for each in (
        Agent("claude-code", CLAUDE_CODE, claude_code, variants=6),
        Agent("claude-agent-sdk", CLAUDE_AGENT_SDK, claude_agent_sdk, variants=6),
        Agent("codex", CODEX, codex, tries=6),
        Agent("gemini-cli", GEMINI_CLI, gemini_cli, endless=("rate_limited",)),
        Agent("opencode", OPENCODE, opencode, tries=6),
        Agent("qwen-code", QWEN_CODE, qwen_code, endless=("rate_limited",)),
        Agent("aider", AIDER, aider, has_tools=False, tries=10),
        Agent("llm", SIMONW_LLM, simonw_llm),
    )
}
