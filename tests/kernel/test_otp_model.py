"""Random children with random exits, against an oracle of OTP's rules, at one level and over random trees."""

from __future__ import annotations

from functools import partial
from typing import Never

from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from llm_actors.kernel import ChildSpec, GaveUp, Intensity, Restart, Strategy, Supervisor, running
from llm_actors.testing import nothing_left, run_virtual
from support.actors import NO_WAIT, Ask, CrashCast, Journal, member
from support.otp import GAVE_UP, Oracle, OtpScript, ScriptEvent, run_ours

NAMES = "abcde"


@st.composite
def scripts(draw: st.DrawFn) -> OtpScript:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    name = st.sampled_from(names)
    failing = st.dictionaries(name, st.integers(1, 2), max_size=2).map(lambda d: tuple(sorted(d.items())))
    events = st.lists(st.builds(ScriptEvent, name, st.booleans(), failing), max_size=8)
    return OtpScript(
        children=tuple((child, draw(st.sampled_from(Restart))) for child in names),
        strategy=draw(st.sampled_from(Strategy)),
        intensity=draw(st.integers(0, 8)),
        events=tuple(draw(events)),
    )


@settings(max_examples=150)
@given(scripts())
def test_our_supervisor_does_what_the_oracle_says(script: OtpScript) -> None:
    """Same children replaced, same order, same moment of giving up, also when restarts fail."""
    assert run_virtual(partial(run_ours, script)) == Oracle(script).run()


class Node:
    """A random tree: leaves by name, or a supervisor with its intensity and children."""

    def __init__(self, name: str, children: list[Node], intensity: int, strategy: Strategy) -> None:
        self.name, self.children, self.intensity, self.strategy = name, children, intensity, strategy


@st.composite
def trees(draw: st.DrawFn, depth: int = 3, name: str = "r") -> Node:
    count = draw(st.integers(1, 3)) if depth else 0
    children = [draw(trees(depth=draw(st.integers(0, depth - 1)), name=f"{name}{number}")) for number in range(count)]
    return Node(name, children, draw(st.integers(0, 2)), draw(st.sampled_from(Strategy)))


class TreeOracle:
    """The same rules over levels: giving up is a crash of the supervisor, a fresh start forgets its ticks."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.parent: dict[str, Node] = {}
        self.ticks: dict[str, int] = {}
        self.journal: Journal = []
        self._up(root)

    def _up(self, node: Node) -> None:
        self.ticks[node.name] = 0
        if not node.children:
            self.journal.append(f"up {node.name}")
        for child in node.children:
            self.parent[child.name] = node
            self._up(child)

    def _down(self, node: Node) -> None:
        if not node.children:
            self.journal.append(f"down {node.name}")
        for child in reversed(node.children):
            self._down(child)

    def crash(self, name: str) -> bool:
        """Return whether the tree goes on."""
        self.journal.append(f"down {name}")
        return self._failed(name)

    def _failed(self, name: str) -> bool:
        if name == self.root.name:
            return False
        above = self.parent[name]
        at = [child.name for child in above.children].index(name)
        first = 0 if above.strategy is Strategy.ONE_FOR_ALL else at
        last = at + 1 if above.strategy is Strategy.ONE_FOR_ONE else len(above.children)
        self.ticks[above.name] += 1
        if self.ticks[above.name] > above.intensity:
            first, last = 0, len(above.children)
        for child in reversed(above.children[first:last]):
            if child.name != name:
                self._down(child)
        if self.ticks[above.name] > above.intensity:
            return self._failed(above.name)
        for child in above.children[first:last]:
            self._up(child)
        return True


async def run_tree(tree: Node, crashes: list[int]) -> Journal:
    journal: Journal = []
    leaves: dict[str, Supervisor] = {}

    def build(node: Node) -> Supervisor:
        specs: list[ChildSpec[Never]] = [
            build(c).as_child() if c.children else member(c.name, journal) for c in node.children
        ]
        made = Supervisor(
            specs,
            name=node.name,
            strategy=node.strategy,
            intensity=Intensity(node.intensity, 1e6),
            backoff=NO_WAIT,
        )
        leaves.update({child.name: made for child in node.children if not child.children})
        return made

    root = build(tree)
    try:
        async with nothing_left(), running(root):
            for crash in crashes:
                name = sorted(leaves)[crash % len(leaves)]
                leaves[name].ref(name).cast(CrashCast())
                await wait_all_tasks_blocked()
                assert await leaves[name].ref(name).call(Ask()) == 1
            length = len(journal)
    except* GaveUp:
        journal.append(GAVE_UP)
        length = len(journal)
    return journal[:length]


@settings(max_examples=100)
@given(trees().filter(lambda tree: bool(tree.children)), st.lists(st.integers(0, 100), max_size=8))
def test_random_trees_escalate_as_the_oracle_says(tree: Node, crashes: list[int]) -> None:
    oracle = TreeOracle(tree)
    leaves = sorted(entry.removeprefix("up ") for entry in oracle.journal)
    for crash in crashes:
        if not oracle.crash(leaves[crash % len(leaves)]):
            oracle.journal.append(GAVE_UP)
            break
    assert run_virtual(partial(run_tree, tree, crashes)) == oracle.journal


def test_the_oracle_itself_on_a_script_from_the_otp_manual() -> None:
    """rest_for_one: b fails, c goes with it; the second failure is one too many."""
    script = OtpScript(
        children=(("a", Restart.PERMANENT), ("b", Restart.PERMANENT), ("c", Restart.TEMPORARY)),
        strategy=Strategy.REST_FOR_ONE,
        intensity=1,
        events=(ScriptEvent("b", crash=True), ScriptEvent("b", crash=True)),
    )
    first = ["up a", "up b", "up c", "down b", "down c", "up b"]
    assert Oracle(script).run() == [*first, "down b", "down a", GAVE_UP]
