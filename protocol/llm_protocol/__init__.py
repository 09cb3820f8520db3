"""The data model and the vendors' wires: messages, requests, responses, events, failures. No I/O, no Trio."""
