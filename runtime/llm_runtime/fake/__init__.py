"""A fake provider: the wires of all vendors on one port, with scripted responses and faults. For tests of programs that
call a model.

    async with FakeProvider(ScriptRule(model="gpt-*", status=429, retry_after=1, times=1)) as fake:
        ...                                             # point any SDK, or a provider of llm-runtime, at fake.url
        assert fake.journal.requests[0].model == "gpt-5"

It uses the server sides of the dialects. ``docs/fake-provider.md`` describes the fields of the script and the faults.
"""

from llm_runtime.fake.journal import CallState, Journal, Seen
from llm_runtime.fake.provider import FakeProvider
from llm_runtime.fake.script import FakeToolCall, Fault, ScriptRule, load_script

__all__ = ["CallState", "FakeProvider", "FakeToolCall", "Fault", "Journal", "ScriptRule", "Seen", "load_script"]
