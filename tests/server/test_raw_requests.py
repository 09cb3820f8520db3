"""More than a hundred requests as bytes: what each is answered, and that nothing is read into what follows it."""

from __future__ import annotations

import re

import pytest

from support.raw_requests import PROBE, SHAPES, Shape
from support.server import open_server


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
async def test_each_shape_has_its_answer(shape: Shape) -> None:
    async with open_server() as server, await server.connect() as client:
        await client.send(shape.data + PROBE.replace(b"\r\n\r\n", b"\r\nx-probe: 1\r\nconnection: close\r\n\r\n"))
        answer = await client.until_closed()
        statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
        assert statuses == [*shape.statuses, *([] if shape.closes else [200])], answer
        assert (await server.request("GET", "/livez")).status == 200, "the server is well"


def test_there_are_enough_of_them() -> None:
    assert len(SHAPES) >= 100
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
