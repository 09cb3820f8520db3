"""The deployment kit of docs/deploy: the programs that read its files check them, and proxies carry a stream and a
WebSocket.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from trio_websocket import wrap_client_stream

import llm_runtime
from llm_runtime.config import load
from llm_runtime.config.server import Server
from support.server import OpenServer, hanging, open_server, saying

ROOT = Path(__file__).parents[2]
KIT = ROOT / "docs" / "deploy"
NAME = "llm.example.com"
PATH = os.environ["PATH"]
SECONDS = 20
"""How long a proxy may take to start, and to pass on a token."""

Proxy = Callable[[Path, int, int], list[str]]
"""Writes the kit's file into a folder, changed only in addresses and certificates: from a port to the daemon's. Returns
the command that runs it.
"""


def needs(command: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(command) is None, reason=f"{command} is not installed")


def nginx(folder: Path, port: int, daemon: int) -> list[str]:
    ours = (KIT / "nginx.conf").read_text("utf-8")
    for old, new in (
        ("listen 443 ssl http2;", f"listen 127.0.0.1:{port} ssl http2;"),
        ("/etc/nginx/llm.example.com.pem", str(folder / "cert.pem")),
        ("/etc/nginx/llm.example.com.key", str(folder / "key.pem")),
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{daemon};"),
    ):
        assert ours.count(old) == 1
        ours = ours.replace(old, new)
    (folder / "ours.conf").write_text(ours)
    paths = "".join(f"{each}_temp_path {folder};" for each in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body"))
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{}} http {{ access_log off; {paths} include {folder}/ours.conf; }}"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]


def caddy(folder: Path, port: int, daemon: int) -> list[str]:
    ours = (KIT / "Caddyfile").read_text("utf-8")
    for old, new in (
        (f"{NAME} {{", f"https://{NAME}:{port} {{\n\ttls {folder}/cert.pem {folder}/key.pem\n\tbind 127.0.0.1"),
        ("127.0.0.1:8080", f"127.0.0.1:{daemon}"),
    ):
        assert ours.count(old) == 1
        ours = ours.replace(old, new)
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {folder}\n}}\n{ours}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@asynccontextmanager
async def proxied(proxy: Proxy, folder: Path, server: OpenServer) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """The port of a running proxy in front of ``server``, and what trusts its certificate."""
    ca = trustme.CA()
    issued = ca.issue_cert(NAME)
    (folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = proxy(folder, port, server.address.port)
    process = await trio.lowlevel.open_process(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        with trio.fail_after(SECONDS):
            await _listening(port)
            yield port, trusting
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # nginx has a worker besides
        with trio.move_on_after(5, shield=True):
            await process.wait()


async def _listening(port: int) -> None:
    while True:  # a program of others tells nobody when it listens
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


async def secured(port: int, trusting: ssl.SSLContext) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), trusting, server_hostname=NAME)
    await stream.do_handshake()
    return stream


PROXIES = [pytest.param(nginx, id="nginx", marks=needs("nginx")), pytest.param(caddy, id="caddy", marks=needs("caddy"))]


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_token_passes_at_once_and_a_client_that_leaves_ends_the_request(proxy: Proxy, tmp_path: Path) -> None:
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\ncontent-length: "
    async with (
        open_server(hanging, allowed_hosts=(NAME,)) as server,
        proxied(proxy, tmp_path, server) as (port, trusting),
    ):
        stream = await secured(port, trusting)
        await stream.send_all(f"{head}{len(body)}\r\n\r\n".encode() + body)
        seen = b""
        while b"so far" not in seen:  # a proxy that holds the stream back would never give it: there is no more
            seen += await stream.receive_some()
        assert seen.startswith(b"HTTP/1.1 200 ")
        await trio.aclose_forcefully(stream)
        await server.engine.until(lambda: server.engine.open_runs == 0)


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_websocket_passes(proxy: Proxy, tmp_path: Path) -> None:
    async with (
        open_server(saying("Hel", "lo"), allowed_hosts=(NAME,)) as server,
        proxied(proxy, tmp_path, server) as (port, trusting),
        trio.open_nursery() as nursery,
    ):
        ws = await wrap_client_stream(nursery, await secured(port, trusting), NAME, "/v1/responses")
        await ws.send_message('{"type":"response.create","model":"m","input":"hi"}')
        while "response.completed" not in await ws.get_message():
            pass
        await ws.aclose()


def test_nginx_lets_as_large_bodies_through_as_the_daemon_takes() -> None:
    assert f"client_max_body_size {Server().max_body_mb:.0f}m;" in (KIT / "nginx.conf").read_text("utf-8")
    assert f"max_size {Server().max_body_mb:.0f}MB" in (KIT / "Caddyfile").read_text("utf-8")


def test_the_configurations_are_accepted(tmp_path: Path) -> None:
    for name in ("team", "prometheus", "openai", "anthropic"):
        (tmp_path / name).write_text(f"sk-{name}-0123456789abcdef0123456789abcdef")
    chart = (KIT / "helm" / "llm-runtime" / "values.yaml").read_text("utf-8")
    [of_chart] = re.findall(r"^config: \|\n((?:  .*\n|\n)+)", chart, re.M)
    for text in ((KIT / "config.toml").read_text("utf-8"), re.sub(r"^  ", "", of_chart, flags=re.M)):
        (tmp_path / "config.toml").write_text(text.replace("/run/secrets", str(tmp_path)))
        config = load(str(tmp_path / "config.toml"), {})
        server = config.server
        # Whoever stops the daemon waits longer than it takes.
        assert server.ready_delay_s + server.drain_s < 45
    assert "stop_grace_period: 45s" in (KIT / "compose.yaml").read_text("utf-8")
    assert "TimeoutStopSec=45" in (KIT / "llm-runtime.service").read_text("utf-8")
    assert "terminationGracePeriod: 45" in chart


@needs("systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for name in ("llm-runtime.service", "llm-runtime.socket"):
        text = (KIT / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/opt/llm-runtime/bin/llm-runtime", sys.executable))
    units = [str(tmp_path / "llm-runtime.service"), str(tmp_path / "llm-runtime.socket")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs("promtool")
def test_prometheus_accepts_its_files(tmp_path: Path) -> None:
    for name in ("prometheus.yaml", "alerts.yaml"):
        text = (KIT / name).read_text("utf-8")
        (tmp_path / name).write_text(text.replace("/run/secrets/prometheus", str(tmp_path / "key")))
    (tmp_path / "key").write_text("secret")
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rules found" in done.stdout


async def test_rules_and_dashboard_name_metrics_that_there_are() -> None:
    documented = set(re.findall(r"`(llm_runtime_\w+)`", (ROOT / "docs" / "metrics.md").read_text("utf-8")))
    async with llm_runtime.open_runtime(llm_runtime.Config()) as rt:
        told = set(re.findall(r"^# TYPE (\w+) ", (await rt.metrics()).decode(), re.M))
    dashboard = json.loads((KIT / "grafana.json").read_text("utf-8"))
    text = (KIT / "alerts.yaml").read_text("utf-8") + "".join(
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    )
    named = set(re.findall(r"(?:llm_runtime|process)_\w+", text))
    assert len(named) > 15
    assert {name.removesuffix("_bucket") for name in named} <= documented | told


def test_what_the_images_are_made_of_is_there() -> None:
    compose = (KIT / "compose.yaml").read_text("utf-8")
    mounted = re.findall(r"\./([\w.]+):/", compose)
    assert sorted(mounted) == ["alerts.yaml", "config.toml", "prometheus.yaml"]
    assert all((KIT / name).is_file() for name in mounted)
    [extras] = re.findall(r'"\.\[(\w+)\]"', (KIT / "Dockerfile").read_text("utf-8"))
    assert f"{extras} = [" in (ROOT / "pyproject.toml").read_text("utf-8")
