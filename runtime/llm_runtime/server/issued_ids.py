"""Which ids of the vendors' each caller was given: others it may not use, since all callers share one vendor account.

The ids are in memory: after a restart of the process a caller must be given them again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import final

from llm_actors.run import Run
from llm_protocol.codec.fields import bad_request
from llm_protocol.events import Failed, Finished
from llm_protocol.requests import AnyRequest
from llm_protocol.vendor_ids import ids_of_request, ids_of_response
from llm_runtime.config import Key
from llm_runtime.server.limits import ISSUED_IDS


@final
class IssuedIds:
    """One per server. Where no keys are configured there is one tenant, and nothing is checked."""

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._allowed = {name: key.vendor_ids for name, key in keys.items()}
        self._issued: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)

    def check(self, request: AnyRequest) -> None:
        """Raise `BadRequestError` for an id in ``request`` that its caller was not given. An id of somebody else's is
        refused in the same words as one that never was.
        """
        if not request.caller:
            return
        issued, allowed = self._issued[request.caller], self._allowed.get(request.caller, ())
        for field, vendor_id in ids_of_request(request):
            if (digest := _digest(vendor_id)) in issued:
                issued.move_to_end(digest)
            elif not any(fnmatchcase(vendor_id, pattern) for pattern in allowed):
                raise bad_request(field, f"{field}: {vendor_id[:100]!r} was not issued to this key")

    def watch(self, run: Run) -> None:
        """Remember the ids that the response of ``run`` gives to its caller, from its end on."""
        if not run.request.caller:
            return
        note = partial(self._note_end, run.request.caller)
        if run.log.end is None:
            run.log.on_end = note
        else:
            note(run.log.end)

    def _note_end(self, caller: str, end: Finished | Failed) -> None:
        if end.response is not None:
            self.note(caller, (found.id for found in ids_of_response(end.response)))

    def note(self, caller: str, ids: Iterable[str]) -> None:
        """``ids`` were given to ``caller``."""
        issued = self._issued[caller]
        for vendor_id in ids:
            digest = _digest(vendor_id)
            issued[digest] = None
            issued.move_to_end(digest)
        while len(issued) > ISSUED_IDS:
            issued.popitem(last=False)


def _digest(vendor_id: str) -> bytes:
    """So that each takes the same room, however long it is."""
    return hashlib.blake2b(vendor_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
