"""Requests as bytes, with what each must lead to: a status for every answer, and whether the connection goes on.

Every shape is sent with ``PROBE`` behind it, a request that is fine. Where a shape ends the connection, the probe must
not be answered: it may be part of what the shape smuggles.
"""

from __future__ import annotations

from typing import NamedTuple

PROBE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
JSON = b'{"messages":[{"role":"user","content":"hi"}]}'
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = CHAT + b"transfer-encoding: chunked\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"
GOOD_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(JSON), JSON)


class Shape(NamedTuple):
    """``statuses`` are those of the answers to ``data`` alone; ``closes`` tells that nothing is answered after them."""

    name: str
    data: bytes
    statuses: tuple[int, ...]
    closes: bool


def refused(name: str, data: bytes, status: int = 400) -> Shape:
    """Answered once, then closed."""
    return Shape(name, data, (status,), closes=True)


def answered(name: str, data: bytes, *statuses: int) -> Shape:
    """Answered, and the connection goes on."""
    return Shape(name, data, statuses or (200,), closes=False)


def framed(body: bytes, *fields: bytes) -> bytes:
    """A chat request whose body is ``body``."""
    return CHAT + b"".join(field + b"\r\n" for field in fields) + b"content-length: %d\r\n\r\n" % len(body) + body


def chunks(data: bytes) -> bytes:
    return CHUNKED + data


FRAMING = (
    # Two framings: RFC 9112, 6.1 and 6.3
    refused("CL and TE", CHAT + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n" + GOOD_CHUNKS),
    refused("TE and CL", CHAT + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n" + GOOD_CHUNKS),
    refused("CL 0 and TE", CHAT + b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n" + GOOD_CHUNKS),
    refused("CL and TE at an unknown path", b"POST /no HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("CL and TE for health", GET + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("CL and TE, folded", CHAT + b"content-length: 4\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    refused("CL and TE identity", CHAT + b"content-length: 4\r\ntransfer-encoding: identity\r\n\r\nabcd", 501),
    refused("two CL, different", CHAT + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
    refused("two CL in one field, different", CHAT + b"content-length: 3, 4\r\n\r\nabc"),
    answered("two CL, equal", framed(JSON, b"content-length: %d" % len(JSON))),
    answered("two CL in one field, equal", CHAT + b"content-length: %d, %d\r\n\r\n" % ((len(JSON),) * 2) + JSON),
    refused("CL negative", CHAT + b"content-length: -1\r\n\r\n"),
    refused("CL with plus", CHAT + b"content-length: +4\r\n\r\nabcd"),
    refused("CL hexadecimal", CHAT + b"content-length: 0x4\r\n\r\nabcd"),
    refused("CL with underscore", CHAT + b"content-length: 1_0\r\n\r\nabcd"),
    refused("CL with a space within", CHAT + b"content-length: 1 0\r\n\r\nabcd"),
    refused("CL empty", CHAT + b"content-length:\r\n\r\nabcd"),
    refused("CL decimal point", CHAT + b"content-length: 4.0\r\n\r\nabcd"),
    refused("CL of other digits", CHAT + "content-length: ４\r\n\r\nabcd".encode()),
    refused("CL of 30 digits", CHAT + b"content-length: " + b"9" * 30 + b"\r\n\r\n"),
    refused("CL of 5,000 digits", CHAT + b"content-length: " + b"9" * 5_000 + b"\r\n\r\n"),
    refused("CL of 20 digits", CHAT + b"content-length: " + b"9" * 20 + b"\r\n\r\n", 413),
    refused("CL one more than allowed", CHAT + b"content-length: %d\r\n\r\n" % (16 * 2**20 + 1), 413),
    answered("CL with leading zeros", CHAT + b"content-length: 000%d\r\n\r\n" % len(JSON) + JSON),
    answered("CL with spaces around", CHAT + b"content-length: \t %d \t\r\n\r\n" % len(JSON) + JSON),
    refused("TE of HTTP/1.0", CHAT.replace(b"1.1", b"1.0") + b"transfer-encoding: chunked\r\n\r\n" + GOOD_CHUNKS),
    refused("TE gzip", CHAT + b"transfer-encoding: gzip\r\n\r\nabcd", 501),
    refused("TE gzip, chunked", CHAT + b"transfer-encoding: gzip, chunked\r\n\r\n" + GOOD_CHUNKS, 501),
    refused("TE chunked, gzip", CHAT + b"transfer-encoding: chunked, gzip\r\n\r\n" + GOOD_CHUNKS, 501),
    refused("TE chunked, chunked", CHAT + b"transfer-encoding: chunked, chunked\r\n\r\n" + GOOD_CHUNKS, 501),
    refused("TE chunked twice", CHAT + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 501),
    refused("TE quoted", CHAT + b'transfer-encoding: "chunked"\r\n\r\n' + GOOD_CHUNKS, 501),
    refused("TE xchunked", CHAT + b"transfer-encoding: xchunked\r\n\r\n" + GOOD_CHUNKS, 501),
    refused("TE empty", CHAT + b"transfer-encoding:\r\n\r\n" + GOOD_CHUNKS, 501),
    refused("TE with a vertical tab", CHAT + b"transfer-encoding: \x0bchunked\r\n\r\n" + GOOD_CHUNKS),
    refused("TE before a colon with a space", CHAT + b"transfer-encoding : chunked\r\n\r\n" + GOOD_CHUNKS),
    refused("TE after a space", CHAT + b" transfer-encoding: chunked\r\n\r\n" + GOOD_CHUNKS),
    answered("TE in capitals", CHAT + b"Transfer-Encoding: CHUNKED\r\n\r\n" + GOOD_CHUNKS),
    answered("TE with an underscore is no TE", framed(JSON, b"transfer_encoding: chunked")),
    answered("no framing, no body", CHAT + b"\r\n", 400),
    answered("a body that GET does not need", GET + b"content-length: 3\r\n\r\nabc"),
    answered("a smuggled request in a body stays a body", framed(PROBE), 400),
)  # fmt: skip

CHUNK_FORMS = (
    answered("chunks", chunks(GOOD_CHUNKS)),
    answered("one byte each", chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in JSON) + b"0\r\n\r\n")),
    answered("size in capitals", chunks(b"2D\r\n%s\r\n0\r\n\r\n" % JSON)),
    answered("size with zeros", chunks(b"00002d\r\n%s\r\n000\r\n\r\n" % JSON)),
    answered("an extension", chunks(b"2d;a=b\r\n%s\r\n0;c\r\n\r\n" % JSON)),
    answered("a quoted extension", chunks(b'2d;a="b c"\r\n%s\r\n0\r\n\r\n' % JSON)),
    answered("a trailer", chunks(b"2d\r\n%s\r\n0\r\nx-a: b\r\n\r\n" % JSON)),
    answered("a trailer that names a length", chunks(b"2d\r\n%s\r\n0\r\ncontent-length: 9\r\n\r\n" % JSON)),
    answered("no chunk but the last", chunks(b"0\r\n\r\n"), 400),
    refused("size missing", chunks(b"\r\nabcd\r\n0\r\n\r\n")),
    refused("size negative", chunks(b"-4\r\nabcd\r\n0\r\n\r\n")),
    refused("size with plus", chunks(b"+4\r\nabcd\r\n0\r\n\r\n")),
    refused("size with 0x", chunks(b"0x4\r\nabcd\r\n0\r\n\r\n")),
    refused("size with an underscore", chunks(b"1_0\r\nabcd\r\n0\r\n\r\n")),
    refused("size of other letters", chunks(b"zz\r\nabcd\r\n0\r\n\r\n")),
    refused("size of 30 digits", chunks(b"f" * 30 + b"\r\nabcd")),
    refused("size after a space", chunks(b" 4\r\nabcd\r\n0\r\n\r\n")),
    refused("size ended by LF", chunks(b"4\nabcd\r\n0\r\n\r\n")),
    refused("chunk ended by LF", chunks(b"4\r\nabcd\n0\r\n\r\n")),
    refused("chunk longer than its size", chunks(b"2\r\nabcd\r\n0\r\n\r\n")),
    refused("chunk shorter than its size", chunks(b"6\r\nabcd\r\n0\r\n\r\n")),
    refused("chunk without its end", chunks(b"4\r\nabcd0\r\n\r\n")),
    refused("an endless extension", chunks(b"4;" + b"a" * 20_000)),
    refused("an endless trailer", chunks(b"0\r\nx: " + b"a" * 150_000), 431),
    refused("a trailer that is none", chunks(b"0\r\nno trailer\r\n\r\n")),
    refused("NUL in a size", chunks(b"4\0\r\nabcd\r\n0\r\n\r\n")),
)

LINES = (
    refused("empty method", b" /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("no target", b"GET HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("no version", b"GET /livez\r\nhost: localhost\r\n\r\n"),
    refused("HTTP/0.9", b"GET /livez HTTP/0.9\r\nhost: localhost\r\n\r\n", 505),
    refused("HTTP/1.2", b"GET /livez HTTP/1.2\r\nhost: localhost\r\n\r\n", 505),
    refused("HTTP/2.0", b"GET /livez HTTP/2.0\r\nhost: localhost\r\n\r\n", 505),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    refused("version of two digits", b"GET /livez HTTP/1.11\r\nhost: localhost\r\n\r\n"),
    refused("version in lower case", b"GET /livez http/1.1\r\nhost: localhost\r\n\r\n"),
    refused("other protocol", b"GET /livez FTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("two spaces", b"GET  /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("a space in the target", b"GET /li vez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("a tab for a space", b"GET\t/livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("a space at the end", b"GET /livez HTTP/1.1 \r\nhost: localhost\r\n\r\n"),
    refused("a method that is no token", b"G(T /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    answered("a method nobody knows", b"BREW /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
    answered("a method in lower case", b"get /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 405),
    refused("absolute form", b"GET http://localhost/livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("authority form", b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("asterisk form", b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("a target without its slash", b"GET livez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    answered("two slashes", b"GET //livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("dots", b"GET /v1/../livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("dots, encoded", b"GET /v1/%2e%2e/livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("a percent sign alone", b"GET /v1/models/% HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("encoded bytes that are no UTF-8", b"GET /v1/models/%ff%00 HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("a fragment", b"GET /livez#a HTTP/1.1\r\nhost: localhost\r\n\r\n", 404),
    answered("a query", b"GET /livez?a=%00&&=& HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("UTF-8 in the target", "GET /lívez HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()),
    refused("NUL in the target", b"GET /li\0vez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("CR in the target", b"GET /li\rvez HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    refused("a target of 20,000 bytes", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
    refused("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40),
    refused("noise", bytes(range(128, 256)) * 4 + b"\r\n\r\n"),
    refused("an answer", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    refused("an empty line before", b"\r\n" + GET + b"\r\n"),
    answered("HTTP/1.1 and close", GET + b"connection: close\r\n\r\n")._replace(closes=True),
    answered("HTTP/1.1 and CLOSE among others", GET + b"connection: x, CLOSE\r\n\r\n")._replace(closes=True),
    answered("HTTP/1.0", GET.replace(b"1.1", b"1.0") + b"\r\n")._replace(closes=True),
    answered("HTTP/1.0 without a Host", b"GET /livez HTTP/1.0\r\n\r\n")._replace(closes=True),
)

FIELDS = (
    refused("bare LF", b"GET /livez HTTP/1.1\nhost: localhost\n\n"),
    refused("bare LF in one line", b"GET /livez HTTP/1.1\r\nhost: localhost\nx: y\r\n\r\n"),
    refused("bare LF at the end", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\n"),
    refused("bare CR", b"GET /livez HTTP/1.1\r\nhost: localhost\rx: y\r\n\r\n"),
    refused("CR CR LF", b"GET /livez HTTP/1.1\r\r\nhost: localhost\r\n\r\n"),
    refused("folded with a space", GET + b"x: a\r\n b\r\n\r\n"),
    refused("folded with a tab", GET + b"x: a\r\n\tb\r\n\r\n"),
    refused("folded at the start", b"GET /livez HTTP/1.1\r\n host: localhost\r\n\r\n"),
    refused("no colon", GET + b"x\r\n\r\n"),
    refused("empty name", GET + b": x\r\n\r\n"),
    refused("a space in the name", GET + b"a b: x\r\n\r\n"),
    refused("a space before the colon", GET + b"x : y\r\n\r\n"),
    refused("UTF-8 in the name", GET + "é: y\r\n\r\n".encode()),
    refused("NUL in the name", GET + b"x\0: y\r\n\r\n"),
    refused("NUL in the value", GET + b"x: a\0b\r\n\r\n"),
    refused("control characters in the value", GET + b"x: a\x01b\r\n\r\n"),
    answered("UTF-8 in the value", GET + "x: é\r\n\r\n".encode()),
    answered("bytes that are no UTF-8 in the value", GET + b"x: \xff\xfe\r\n\r\n"),
    answered("an empty value", GET + b"x:\r\n\r\n"),
    answered("a hundred fields", GET + b"".join(b"x-%d: y\r\n" % number for number in range(100)) + b"\r\n"),
    refused("a field of 20,000 bytes", GET + b"x: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    refused("a field that never ends", GET + b"x: " + b"a" * 150_000, 431),
    refused("5,000 fields", GET + b"a: b\r\n" * 5_000 + b"\r\n", 431),
    refused("no Host", b"GET /livez HTTP/1.1\r\n\r\n"),
    refused("two Hosts", b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n"),
    refused("a foreign Host", b"GET /v1/models HTTP/1.1\r\nhost: evil.test\r\n\r\n", 403),
    refused("a Host with a user", b"GET /v1/models HTTP/1.1\r\nhost: x@localhost\r\n\r\n", 403),
    refused("a Host with a path", b"GET /v1/models HTTP/1.1\r\nhost: localhost/x\r\n\r\n", 403),
    refused("an empty Host", b"GET /v1/models HTTP/1.1\r\nhost:\r\n\r\n", 403),
    refused("a foreign Host and a body", b"POST /v1/responses HTTP/1.1\r\nhost: evil.test\r\ncontent-length: 99999\r\n"
            b"\r\n" + b"a" * 50_000, 403),
    refused("a foreign Origin", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.test\r\n\r\n", 403),
    refused("two Origins", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\norigin: a\r\norigin: b\r\n\r\n", 403),
    refused("fetched by another site", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\n"
            b"\r\n", 403),
    answered("fetched by our own page", b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: same-origin\r\n"
             b"\r\n"),
    refused("a key in the URL", b"GET /v1/models?api_key=x HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    answered("an Upgrade to something else", GET + b"upgrade: h2c\r\nconnection: upgrade\r\n\r\n"),
    answered("an expectation that is none of ours", GET + b"expect: something\r\n\r\n"),
    answered("two Authorizations", GET + b"authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n"),
)  # fmt: skip

BODIES = (
    answered("empty", framed(b""), 400),
    answered("no JSON", framed(b"{"), 400),
    answered("two values", framed(JSON + JSON), 400),
    answered("NUL", framed(b"\0" * 40), 400),
    answered("a number", framed(b"1"), 400),
    answered("NaN", framed(b'{"messages":[{"role":"user","content":"hi"}],"temperature":NaN}'), 400),
    answered("nested 100,000 deep", framed(b"[" * 100_000), 400),
    answered("bytes that are no UTF-8", framed(b"\xff\xfe"), 400),
    answered("no UTF-8 in a string", framed(JSON.replace(b"hi", b"h\xff")), 400),
    answered("no UTF-8 in a name", framed(JSON.replace(b"content", b"cont\xff")), 400),
    answered("no UTF-8 in what is ignored", framed(b'{"user":"\xff",' + JSON[1:]), 400),
    answered("no UTF-8 in an unknown field", framed(b'{"unknown_field":{"a":["\xc3\x28"]},' + JSON[1:]), 400),
    answered("an overlong form", framed(JSON.replace(b"hi", b"\xc0\xaf")), 400),
    answered("half a character", framed(JSON.replace(b"hi", b"\xe2\x82")), 400),
    answered("a surrogate in UTF-8", framed(JSON.replace(b"hi", b"\xed\xa0\x80")), 400),
    answered("UTF-16", framed(JSON.decode().encode("utf-16-le")), 400),
    answered("chunked, no UTF-8", chunks(b'3\r\n"\xff"\r\n0\r\n\r\n'), 400),
)

SHAPES = FRAMING + CHUNK_FORMS + LINES + FIELDS + BODIES
