"""Through the daemon, nothing of a vendor's own wire is lost: every parameter of its SDK, every field of its answers.

The upstream is a capturing fake of the same vendor. What is refused or stays here is explained, once, for this test and
bin/vendor-drift alike.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_actors.transport import HttpRequest, Transport, parse_url
from support.drift import ENDPOINTS, HEADERS, OTHER_NAMES, missing_fields, real_sample
from support.peer import Peer, reply
from support.same_wire import AGENTS, BESIDE, KINDS, SAMPLES, SURFACES, cut, daemon_before, unexplained
from support.upstream import JSON


@pytest.mark.parametrize("name", KINDS)
async def test_every_parameter_arrives_and_every_field_comes_back(name: str) -> None:
    sample, endpoint = SAMPLES[name], ENDPOINTS[name]
    answer = real_sample(sample, SURFACES["answers"][sample])
    headers = {**JSON, **AGENTS.get(name, {})}
    lost: dict[str, str] = {}
    tried = asked = 0
    transport = Transport()
    answers = [reply(json.dumps(each).encode(), headers=JSON) for each in (answer, cut(answer))]
    async with Peer(*answers, responses=True) as vendor, daemon_before(vendor, KINDS[name]) as url:

        async def ask(body: dict[str, Any]) -> tuple[int, bytes]:
            payload = json.dumps({"model": "m", **endpoint.body, **body}).encode()
            request = HttpRequest("POST", parse_url(url)[0], endpoint.path, headers, payload)
            async with transport.send(request) as response:
                return response.status, await response.read()

        gone = missing_fields(answer, json.loads((await ask({}))[1]))
        lost |= {f"{sample} answer {each}": "does not come back" for each in gone}
        for parameter, value in SURFACES["parameters"][name].items():
            if parameter in endpoint.body or parameter in HEADERS or parameter == "model":
                continue
            body = {endpoint.inside: {parameter: value}} if endpoint.inside else {parameter: value}
            before, tried = len(vendor.requests), tried + 1
            status, told = await ask(body | BESIDE.get((name, parameter), {}))
            if status != 200 or len(vendor.requests) == before:
                lost[f"{name} parameter {parameter}"] = f"{status}: {told[:200]!r}"
                continue
            sent = json.loads(vendor.requests[-1].body)
            sent = sent.get(endpoint.inside, {}) if endpoint.inside else sent
            if parameter not in sent and OTHER_NAMES.get(parameter) not in sent:
                lost[f"{name} parameter {parameter}"] = "does not arrive"
            asked += 1
        await transport.aclose()
    assert asked >= tried // 2, "most were refused"
    assert unexplained(lost) == {}
