"""The dashboard's models and its playground in a real browser, against a whole runtime and a fake provider."""

from __future__ import annotations

import json
from typing import Any

from llm_runtime.fake import FakeProvider, ScriptRule
from support.playground import ENDED, playing, send, texts

ANSWER = "It restarts what crashes."


async def test_an_answer_comes_and_the_next_message_continues_it(chromium: str) -> None:
    async with FakeProvider(ScriptRule(text=ANSWER)) as fake, playing(chromium, fake) as tab:
        await send(tab, "p/one", "What does a supervisor do?")
        await tab.until(ENDED)
        await send(tab, "p/two", "And who restarts it?")
        await tab.until(ENDED)
        assert await texts(tab, "#dialogue > .answer") == [ANSWER, ANSWER]
        facts = await texts(tab, "#dialogue .facts")
        assert facts[0].startswith("one · first token after ")
        assert facts[0].endswith("tokens in, 7 out · price unknown")
        roles = [each["role"] for each in _bodies(fake)[-1]["messages"]]
        assert roles == ["user", "assistant", "user"]
        await tab.see("$('anew').click()")
        assert await texts(tab, "#dialogue > *") == []
        await send(tab, "p/one", "Something else.")
        await tab.until(ENDED)
        assert len(_bodies(fake)[-1]["messages"]) == 1
        # The browser's own line for the refusal that made the page ask for a key.
        assert [each for each in tab.complaints if "401" not in each] == []


async def test_members_of_a_panel_stand_side_by_side(chromium: str) -> None:
    async with FakeProvider(ScriptRule(text=ANSWER)) as fake, playing(chromium, fake) as tab:
        await send(tab, "both", "What does a supervisor do?")
        await tab.until(ENDED)
        assert sorted(await texts(tab, ".member h3")) == ["p/one", "p/two"]
        assert await texts(tab, ".member .answer") == [ANSWER, ANSWER]
        assert await texts(tab, "#dialogue > .answer") == [ANSWER]


async def test_stop_ends_the_call(chromium: str) -> None:
    async with FakeProvider(ScriptRule(text=ANSWER, delay_event_s=30)) as fake, playing(chromium, fake) as tab:
        await send(tab, "p/one", "What does a supervisor do?")
        await tab.until("turn.id")
        await tab.see("$('stop').click()")
        await tab.until(ENDED)
        await fake.journal.until(lambda journal: journal.left == 1)
        assert (await texts(tab, "#dialogue .facts"))[0].startswith("cancelled · ")


async def test_a_new_conversation_ends_the_old_ones_answer_and_hears_nothing_of_it(chromium: str) -> None:
    slow = ScriptRule(text=ANSWER, delay_event_s=0.2, times=1)
    async with FakeProvider(slow, ScriptRule(text="Hello.")) as fake, playing(chromium, fake) as tab:
        await send(tab, "p/one", "What does a supervisor do?")
        await tab.until("turn.first")
        await tab.see("$('anew').click()")
        await send(tab, "p/one", "Hello?")
        await tab.until(ENDED)
        assert await texts(tab, "#dialogue > .answer") == ["Hello."]
        await fake.journal.until(lambda journal: journal.left == 1)


async def test_a_message_that_was_stopped_before_the_connection_was_there_is_not_sent(chromium: str) -> None:
    async with FakeProvider(ScriptRule(text=ANSWER)) as fake, playing(chromium, fake) as tab:
        await tab.see("$('chosen').value = 'p/one'; $('asked').value = 'Never mind.'")
        await tab.see("$('asking').requestSubmit(); $('stop').click()")
        assert await texts(tab, "#dialogue .facts.bad") == ["stopped"]
        for question in ("Hello?", "Are you there?"):
            await send(tab, "p/one", question)
            await tab.until(ENDED)
        assert await texts(tab, "#dialogue > .answer") == ["", ANSWER, ANSWER]
        assert [len(each["messages"]) for each in _bodies(fake)] == [1, 3]


async def test_a_failure_is_said_in_the_daemons_words(chromium: str) -> None:
    async with FakeProvider() as fake, playing(chromium, fake) as tab:
        await send(tab, "nobody/knows", "Hello?")
        await tab.until(ENDED)
        [words] = await texts(tab, "#dialogue .facts.bad")
        assert "nobody" in words
        await send(tab, "p/one", "Hello?")  # the next one goes
        await tab.until(ENDED)
        assert len(await texts(tab, "#dialogue > .answer")) == 2


async def test_a_key_that_no_browser_can_send_over_websocket_is_said(chromium: str) -> None:
    async with FakeProvider() as fake, playing(chromium, fake, key="c2VjcmV0/c2VjcmV0/c2VjcmV0=") as tab:
        await send(tab, "p/one", "Hello?")
        await tab.until(ENDED)
        assert (await texts(tab, ".facts.bad"))[0].startswith("A browser can send a key over WebSocket only if")


async def test_models_are_listed_and_explained(chromium: str) -> None:
    async with FakeProvider() as fake, playing(chromium, fake) as tab:
        await tab.see("location.hash = 'models'")
        await tab.until("!$('models').hidden")
        names = await texts(tab, "#listed tbody td:first-child")
        assert {"p/one", "p/two", "both", "auto"} <= set(names)
        heads = await tab.see(
            "[...$('listed').rows[0].cells].filter(each => each.offsetParent).map(each => each.textContent)"
        )
        assert heads == ["Name", "Owner"], "nothing is known of the others"
        await tab.see("$('model').value = 'both'; $('explain').requestSubmit()")
        await tab.until("$('explained').children.length === 2")
        assert (await texts(tab, "#explained li"))[0].startswith("p/one")
        await tab.see("$('model').value = 'nobody/knows'; $('explain').requestSubmit()")
        await tab.until("$('unexplained').textContent")
        assert await texts(tab, "#explained li") == []


def _bodies(fake: FakeProvider) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in fake.journal.requests if seen.path.endswith("/chat/completions")]
