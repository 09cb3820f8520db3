"""All that is fuzzed, by name."""

from fuzz.clients import CLIENT_REQUESTS
from fuzz.files import CLAIMS, CONFIG, ENTRY
from fuzz.http import ANSWER, SERVER
from fuzz.sse import SSE
from fuzz.vendors import VENDORS

TARGETS = {each.name: each for each in (SSE, VENDORS, CLIENT_REQUESTS, SERVER, ANSWER, CONFIG, CLAIMS, ENTRY)}
