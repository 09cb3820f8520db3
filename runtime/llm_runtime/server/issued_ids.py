"""The vendor ids that each caller has received: ids of files, containers and other objects at the vendor. A caller may
use only its own, because all callers share one account at the vendor.

The ids are kept in memory; if stored responses are in Redis, also there. After a restart without Redis, a caller has to
receive an id again before using it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import final

from llm_actors.run import Run
from llm_protocol.codec.fields import bad_request
from llm_protocol.events import Failed, Finished
from llm_protocol.requests import AnyRequest
from llm_protocol.vendor_ids import ids_of_request, ids_of_response
from llm_runtime.config import Key
from llm_runtime.server.limits import ISSUED_IDS, UNKNOWN_IDS


@final
class IssuedIds:
    """The vendor ids of all callers of one server. Without configured keys all clients count as one caller, and
    nothing is checked.
    """

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self.change(keys)
        self.on_new: Callable[[str, Sequence[bytes]], None] = lambda _caller, _digests: None
        """Called with the digests of the ids that a caller receives from this process."""
        self._issued: defaultdict[str, OrderedDict[bytes, None]] = defaultdict(OrderedDict)

    def change(self, keys: Mapping[str, Key]) -> None:
        """Replace the callers."""
        self._allowed = {name: key.vendor_ids for name, key in keys.items()}

    def check(self, request: AnyRequest) -> None:
        """Raise `BadRequestError` for an id in ``request`` that its caller has not received. The error is the same for
        another caller's id and for one that never existed.
        """
        for field, vendor_id in self._unissued(request):
            advice = "the daemon's operator can allow it in keys.NAME.vendor_ids"
            raise bad_request(field, f"{field}: {vendor_id[:100]!r} was not issued to this key; {advice}")

    def unissued(self, request: AnyRequest) -> list[str]:
        """Return the ids in ``request`` for which `check` would raise, each once. Raises `BadRequestError` for more
        than `UNKNOWN_IDS`, because other processes are asked about each of them.
        """
        found: dict[str, None] = {}
        for field, vendor_id in self._unissued(request):
            found[vendor_id] = None
            if len(found) > UNKNOWN_IDS:
                message = f"{field}: more than {UNKNOWN_IDS} ids in this request were not issued to this key"
                raise bad_request(field, message)
        return list(found)

    def _unissued(self, request: AnyRequest) -> Iterator[tuple[str, str]]:
        """Return the ids that the caller has not received, with the names of their fields."""
        if not request.caller:
            return
        issued, allowed = self._issued[request.caller], self._allowed.get(request.caller, ())
        for field, vendor_id in ids_of_request(request):
            if (digest := digest_of(vendor_id)) in issued:
                issued.move_to_end(digest)
            elif not any(fnmatchcase(vendor_id, pattern) for pattern in allowed):
                yield field, vendor_id

    def those_of(self, caller: str, ids: Iterable[str]) -> list[str]:
        """Return those of ``ids`` that ``caller`` has received."""
        issued = self._issued.get(caller) or ()
        return [vendor_id for vendor_id in ids if digest_of(vendor_id) in issued]

    def watch(self, run: Run) -> None:
        """Remember the ids in the response of ``run`` for its caller, once the run ends."""
        if not run.request.caller:
            return
        note = partial(self._note_end, run.request.caller)
        if run.log.end is None:
            run.log.on_end = note
        else:
            note(run.log.end)

    def _note_end(self, caller: str, end: Finished | Failed) -> None:
        if end.response is not None:
            self.issue(caller, [found.id for found in ids_of_response(end.response)])

    def issue(self, caller: str, ids: Sequence[str]) -> None:
        """Record that ``caller`` receives ``ids`` from this process, and pass them to `on_new`."""
        self.note(caller, ids)
        if ids:
            self.on_new(caller, [digest_of(each) for each in ids])

    def note(self, caller: str, ids: Iterable[str]) -> None:
        """Record that ``caller`` has received ``ids``, from this or another process."""
        issued = self._issued[caller]
        for vendor_id in ids:
            digest = digest_of(vendor_id)
            issued[digest] = None
            issued.move_to_end(digest)
        while len(issued) > ISSUED_IDS:
            issued.popitem(last=False)


def digest_of(vendor_id: str) -> bytes:
    """Return a digest of the id, so that every id takes the same amount of memory."""
    return hashlib.blake2b(vendor_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
