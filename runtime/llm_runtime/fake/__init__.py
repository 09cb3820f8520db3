"""A fake provider: all five vendors' wires on one port, with answers and faults by script. For tests of whatever talks
to a model.

    async with FakeProvider(Rule(model="gpt-*", status=429, retry_after=1, times=1)) as fake:
        ...                                             # point any SDK, or a provider of llm-runtime, at fake.url
        assert fake.journal.requests[0].model == "gpt-5"

It is made of the dialects' server sides, so what it says is what our own clients are held to. ``docs/fake-provider.md``
has the script's fields and the faults.
"""

from llm_runtime.fake.journal import CallState, Journal, Seen
from llm_runtime.fake.provider import FakeProvider
from llm_runtime.fake.script import FakeToolCall, Fault, ScriptRule, load_script

__all__ = ["CallState", "FakeProvider", "FakeToolCall", "Fault", "Journal", "ScriptRule", "Seen", "load_script"]
