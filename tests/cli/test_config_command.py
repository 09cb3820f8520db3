"""``config init``, ``config schema`` and ``deploy``."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llm_protocol.codec.json import encode_json
from llm_protocol.vendors import VENDORS
from llm_runtime.cli import deploy
from llm_runtime.cli.setup import Daemon
from llm_runtime.config import parse
from llm_runtime.config.schema import json_schema
from llm_runtime.config.source_file import ConfigurationFile
from llm_runtime.probes import CheckStatus
from support import commands
from support.peer import Peer, reply

ROOT = Path(__file__).parents[2]
KEY = "k-0123456789abcdef"
MODELS = reply(b'{"object":"list","data":[{"id":"m","object":"model"}]}', headers={"content-type": "application/json"})


async def test_a_first_file_has_what_the_environment_offers(tmp_path: Path) -> None:
    environ = {
        "GROQ_API_KEY": KEY,
        "GOOGLE_API_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "https://o.test/v1",
    }
    done = await commands.run("config", "init", stdin=b"", **environ)
    assert (done.code, KEY in done.out) == (0, False)
    config = parse(done.out.encode(), environ)
    assert {"openai", "gemini", "groq"} <= set(config.providers)
    assert config.providers["openai"].base_url == "https://o.test/v1"
    assert 'api_key = "env:GOOGLE_API_KEY"' in done.out
    assert "GROQ_API_KEY is set" in done.out
    again = await commands.run("config", "init", "--output", str(tmp_path / "c.toml"), stdin=b"", **environ)
    assert again.code == 0
    assert (tmp_path / "c.toml").read_text() == done.out
    refused = await commands.run("config", "init", "--output", str(tmp_path / "c.toml"), stdin=b"", **environ)
    assert (refused.code, refused.err) == (1, f"llm-runtime: cannot write {tmp_path}/c.toml: File exists\n")


async def test_what_is_commented_out_is_valid_too() -> None:
    done = await commands.run("config", "init", OPENAI_API_KEY=KEY, ANTHROPIC_API_KEY=KEY)
    lines = [line.removeprefix("# ") for line in done.out.splitlines()]
    source = "\n".join(line for line in lines if line.startswith("[") or " = " in line)
    source = source.replace('[server.tls]\ncertificate = "fullchain.pem"', "").replace('key = "privkey.pem"', "")
    config = parse(
        source.encode(),
        dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "APP_KEY"), KEY) | {"OPERATOR_KEY": KEY[::-1]},
    )
    assert (set(config.keys), set(config.routes)) == ({"app", "operator"}, {"careful"})
    assert config.providers["openai"].limits.requests_per_minute == 500


def mistakes(schema: dict[str, Any], value: Any, root: dict[str, Any], where: str = "") -> list[str]:
    """What of a JSON Schema matters here: names, and which kind of value."""
    if "$ref" in schema:
        return mistakes(root["$defs"][schema["$ref"].rpartition("/")[2]], value, root, where)
    if "anyOf" in schema:
        each = [mistakes(one, value, root, where) for one in schema["anyOf"]]
        return [] if [] in each else min(each, key=len)
    if isinstance(value, dict):
        if schema.get("type") != "object":
            return [where]
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        found = []
        for name, inner in value.items():
            if name not in known and rest is False:
                found.append(f"{where}.{name}")
            elif name in known or isinstance(rest, dict):
                found += mistakes(known.get(name, rest), inner, root, f"{where}.{name}")
        return found
    if "enum" in schema:
        return [] if value in schema["enum"] else [where]
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "array": list,
        "null": type(None),
    }
    return [] if isinstance(value, kinds.get(schema.get("type", ""), object)) else [where]


async def test_the_schema_knows_every_key_of_the_example() -> None:
    done = await commands.run("config", "schema")
    schema = json.loads(done.out)
    assert schema == json.loads(json.dumps(json_schema(VENDORS)))
    text = (ROOT / "docs/configuration.md").read_text()
    example = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    example["keys"]["me"].pop("expires")  # JSON has no times
    assert mistakes(schema, example, schema) == []
    assert mistakes(schema, {"server": {"prot": 1}, "providers": {"a": {"kind": "x"}}}, schema) == [
        ".server.prot",
        ".providers.a.kind",
    ]
    assert "vendors" not in schema["properties"]


@pytest.mark.parametrize("as_json", [False, True])
async def test_deploy_says_how_each_step_went(tmp_path: Path, as_json: bool) -> None:
    file = tmp_path / "c.toml"
    async with Peer(MODELS) as peer:
        file.write_text(
            "[server]\nport = 0\n[keys.boss]\nsecret = 'env:BOSS'\nadmin = true\n"
            f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\n'
        )
        environ = {"BOSS": KEY}
        async with commands.running("serve", "--config", str(file), environ=environ) as process:
            url = (await commands.line(process.stdout)).removeprefix("ready ")
            more = ("--json",) if as_json else ()
            done = await commands.run(
                "deploy", "--config", str(file), "--url", url, *more, BOSS=KEY, LLM_RUNTIME_KEY=KEY
            )
            assert done.code == 0, done
            wrong = await commands.run("deploy", "--config", str(file), "--url", url, *more, BOSS=KEY)
            assert wrong.code == 1
            process.terminate()
            assert await process.wait() == 0
    if as_json:
        result = json.loads(done.out)
        assert result.keys() == {"success", "id", "timestamp", "validation", "error"}
        steps = [each["what"] for each in result["validation"]["checks"]]
        assert (result["success"], result["error"]) == (True, None)
        assert {"initialise", "configure", "monitor", "scale", "provider", "deploy"} <= set(steps)
        assert json.loads(wrong.out)["success"] is False
    else:
        assert "reloaded: nothing changed" in done.out
        assert "p (openai_compatible)" in done.out


async def test_deploy_fails_if_the_daemon_reads_another_file(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.toml", tmp_path / "ours.toml"
    async with Peer(MODELS) as peer:
        theirs.write_text(
            f'[server]\nport = 0\n[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\n'
        )
        ours.write_text(theirs.read_text() + "[attempts]\nmax = 2\n")
        async with commands.running("serve", "--config", str(theirs)) as process:
            url = (await commands.line(process.stdout)).removeprefix("ready ")
            other = await commands.run("deploy", "--config", str(ours), "--url", url)
            copied = tmp_path / "elsewhere.toml"
            copied.write_text(theirs.read_text())
            same = await commands.run("deploy", "--config", str(copied), "--url", url)
            process.terminate()
            assert await process.wait() == 0
            log = await commands.rest(process.stderr)
    assert other.code == 1
    assert f"the daemon at {url} reads another configuration ({theirs})" in other.out
    assert "reloaded" not in other.out
    assert (same.code, log.count("reloaded")) == (0, 1), "only for the same content"


async def test_a_reload_that_is_told_in_no_known_way_is_a_failed_step() -> None:
    """Of another version, or of a proxy. The report is made all the same."""
    ours = ConfigurationFile(file="c.toml", sha256="0")
    json_type = {"content-type": "application/json"}
    answers = [reply(body, headers=json_type) for body in (encode_json(ours), b'{"added":7}', b"{}")]
    async with Peer(*answers) as peer:
        checks = await deploy._brought_to(Daemon(f"{peer.url}/v1", None), ours)
    assert [(each.what, each.status) for each in checks] == [
        ("deploy", CheckStatus.FAILED),
        ("monitor", CheckStatus.OK),
    ]


async def test_deploy_offline_connects_to_no_daemon(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[providers.p]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:1/v1"\n')
    async with Peer(MODELS) as peer:
        done = await commands.run("deploy", "--config", str(file), "--offline", "--url", peer.url)
        assert peer.connections == 0
    assert (done.code, done.out) == (2, "")
    assert done.err == "llm-runtime: --offline connects to nothing, --url connects to a daemon: give only one of them\n"


async def test_a_deployment_that_cannot_be_is_a_result_too(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[server]\nprot = 1\n")
    done = await commands.run("deploy", "--config", str(file), "--json")
    assert done.code == 2
    assert "server.prot" in json.loads(done.out)["error"]
