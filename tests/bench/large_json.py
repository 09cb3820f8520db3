"""How long one large body delays everything else.

    .venv/bin/python -P tests/bench/large_json.py

The runtime and its server run in this process, together with a task that sleeps for two milliseconds again and again.
Its longest delay is how long another stream would have been delayed. Clients and vendor are separate processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

import trio

MIB = 1024 * 1024
SIZE = 16 * MIB
TICK_SECONDS = 0.002

UPSTREAM = """
import http.server, json, random, sys
MIB = 1024 * 1024
random.seed(1)
def floats(mib):
    vector = "[" + ",".join(repr(random.uniform(-1, 1)) for _ in range(1500)) + "]"
    count = mib * MIB // len(vector)
    data = ",".join('{"object":"embedding","index":%d,"embedding":%s}' % (at, vector) for at in range(count))
    return ('{"object":"list","data":[' + data + '],"model":"m"}').encode()
def packed(mib):
    vector = "AACAPwAA" * 1024
    count = mib * MIB // len(vector)
    data = ",".join('{"object":"embedding","index":%d,"embedding":"%s"}' % (at, vector) for at in range(count))
    return ('{"object":"list","data":[' + data + '],"model":"m"}').encode()
def picture(mib):
    return b'{"data":[{"b64_json":"' + b"iVBORw0K" * (mib * MIB // 8) + b'"}]}'
def said(extra):
    message = b'{"role":"assistant","content":"hi"}'
    return b'{"id":"c","model":"m","choices":[{"index":0,"message":%b,"finish_reason":"stop"}]%b}' % (message, extra)
BODIES = {
    "floats": lambda: floats(61), "packed": lambda: packed(61), "picture": lambda: picture(61),
    "dense": lambda: said(b',"x":[' + b"[]," * (16 * MIB // 3) + b"1]"), "m": lambda: said(b""),
    "values": lambda: said(b',"x":[' + b",".join(b'"%013d"' % at for at in range(990000)) + b"]"),
}
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        name = self.path.split("/")[1]
        if name not in made: made[name] = BODIES[name]()
        body = made[name]
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
made = {}
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""

CLIENT = """
import http.client, sys
port, path = int(sys.argv[1]), sys.argv[2]
body = sys.stdin.buffer.read()
client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
client.request("POST", path, body, {"content-type": "application/json"})
answer = client.getresponse()
text = answer.read()
print(answer.status, len(text))
"""


def chat(**more: object) -> bytes:
    body = {"model": "m/m", "messages": [{"role": "user", "content": "hi"}], **more}
    return json.dumps(body, separators=(",", ":")).encode()


def padded(filling: bytes, size: int = SIZE) -> bytes:
    """A chat whose field ``x`` is a list of ``filling``, as large as a body may be."""
    start = chat()[:-1] + b',"x":['
    return start + (filling + b",") * ((size - len(start) - 10) // (len(filling) + 1)) + b"1]}"


def texts(count: int) -> bytes:
    return chat()[:-1] + b',"x":[' + b",".join(b'"%012d"' % at for at in range(count)) + b"]}"


CHAT, EMBED, DRAW = "/v1/chat/completions", "/v1/embeddings", "/v1/images/generations"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 2_000_000}}
CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "nothing large": (CHAT, chat),
    "client: empty lists": (CHAT, lambda: padded(b"[]")),
    "client: 990,000 texts": (CHAT, lambda: texts(990_000)),
    "client: 990,000 numbers": (CHAT, lambda: padded(b"1", 2_000_000 - 40_000)),
    "client: slow numbers": (CHAT, lambda: padded(b"1e-300")),
    "client: 16,000 messages": (
        CHAT,
        lambda: chat(messages=[{"role": "user", "content": "x" * 900}] * 16_000),
    ),
    "client: base64 picture": (CHAT, lambda: chat(messages=[{"role": "user", "content": [PICTURE]}])),
    "client: JSON in a text": (CHAT, lambda: chat(messages=[{"role": "user", "content": '{"a":[1,2]}' * 900_000}])),
    "vendor: dense, 16 MB": (CHAT, lambda: chat(model="dense/m")),
    "vendor: 990,000 texts": (CHAT, lambda: chat(model="values/m")),
    "vendor: 61 MB of floats": (EMBED, lambda: b'{"model":"floats/m","input":%b}' % json.dumps(["x"] * 2156).encode()),
    "vendor: 61 MB of base64": (EMBED, lambda: b'{"model":"packed/m","input":%b}' % json.dumps(["x"] * 7808).encode()),
    "the same as base64": (
        EMBED,
        lambda: b'{"model":"packed/m","encoding_format":"base64","input":%b}' % json.dumps(["x"] * 7808).encode(),
    ),
    "vendor: a 61 MB picture": (DRAW, lambda: b'{"model":"picture/m","prompt":"x"}'),
}


class Ticker:
    """Notices how long the event loop was busy at once."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        before = perf_counter()
        while True:
            await trio.sleep(TICK_SECONDS)
            now = perf_counter()
            self.longest = max(self.longest, now - before - TICK_SECONDS)
            before = now


async def main() -> None:
    from llm_protocol.policy import AnswerLimits
    from llm_protocol.requests import LLMProvider
    from llm_runtime import daemon
    from llm_runtime.config import Config, Provider, Server
    from llm_runtime.runtime import Runtime
    from llm_runtime.server import ListenAddress, server_child

    upstream = subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert upstream.stdout is not None
    port = int(upstream.stdout.readline())
    limits = AnswerLimits(chat=64, embedding=64, image_generation=64)
    config = Config(
        server=Server(port=0),
        providers={
            name: Provider(
                kind=LLMProvider.OPENAI_COMPATIBLE,
                base_url=f"http://127.0.0.1:{port}/{name}",
                models=("m",),
                max_answer_mb=limits,
            )
            for name in ("m", "dense", "values", "floats", "packed", "picture")
        },
    )
    found: list[ListenAddress] = []
    servers = lambda runtime: server_child(config.server, runtime, found.append, keys={})  # noqa: E731
    wanted = sys.argv[1:]
    try:
        async with Runtime(config, servers=servers).running():
            daemon._spare_what_stays()
            print(f"{'case':28} {'body':>9} {'answer':>16} {'total':>8} {'longest stall':>14}")
            for name, (path, make) in CASES.items():
                if not wanted or any(word in name for word in wanted):
                    await measure(name, path, make(), found[0].port)
    finally:
        upstream.kill()
        upstream.wait()


async def measure(name: str, path: str, body: bytes, port: int) -> None:
    command = [sys.executable, "-c", CLIENT, str(port), path]
    await trio.run_process(command, stdin=body, capture_stdout=True)  # the vendor makes its answer
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        began = perf_counter()
        done = await trio.run_process(command, stdin=body, capture_stdout=True)
        took = perf_counter() - began
        nursery.cancel_scope.cancel()
    said = done.stdout.decode().strip()
    print(f"{name:28} {len(body):9} {said:>16} {took:7.2f}s {ticker.longest * 1000:11.1f} ms", flush=True)


if __name__ == "__main__":
    trio.run(main)
