"""The walks in ``docs/architecture.md`` are those that a running server takes."""

from __future__ import annotations

import pytest

from support.generated import ROOT, architecture
from support.walk import MOST_BACK, MOST_IN, footprints, page, walks


def test_the_page_shows_the_walks_as_they_are() -> None:
    assert (ROOT / "docs" / "architecture.md").read_text() == architecture(), "run bin/make-docs"


def test_a_walk_begins_and_ends_where_it_should() -> None:
    way_in, way_back, crash = walks()
    assert way_in[0].endswith("server/receiver.py")
    assert any("/transport/" in path for path in way_in[-5:])
    assert "/transport/" in way_back[0]
    assert any("/server/" in path for path in way_back[-5:])
    assert any(path.endswith("kernel/supervisor_run.py") for path in crash)


def test_a_walk_takes_no_more_files_than_a_reader_can_follow() -> None:
    way_in, way_back, _ = walks()
    assert len(way_in) <= MOST_IN, way_in
    assert len(way_back) <= MOST_BACK, way_back


async def test_a_coroutine_that_only_waits_for_another_leaves_no_footprint() -> None:
    with footprints() as seen:
        page([])
    assert seen == {}, "tests are no files of ours"


@pytest.mark.parametrize("walk", ["way_in", "way_back", "crash"])
def test_each_file_says_what_it_is_for(walk: str) -> None:
    for path in getattr(walks(), walk):
        assert len(page([path]).rstrip().rpartition(": ")[2]) > 10, f"{path} has no first sentence"
