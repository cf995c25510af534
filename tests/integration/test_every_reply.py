"""Whatever a server sends: what becomes of the term, of its attempt, and of the money.

Each row is the bytes that a server on loopback sends, and what must come of them. The order is that
of an answer: the connection, the status, the body, the envelope, the text in it.
"""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import tracemalloc
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any

import pytest
from replies_by_hand import (
    COST_USD,
    GOOD,
    REPLY,
    USAGE,
    End,
    answer,
    asked_at,
    asked_of,
    choice,
)
from scripted_server import Script, at_once, close, hangs, http, repeats, reset, scripted, writes
from unit.asking_fakes import SECRET
from unit.term_samples import analysis_reply, as_text

from services.kernel.errors import TransientError
from services.kernel.llm.http_provider import REPLY_MAX_BYTES
from services.kernel.stream.retry import GiveUp, Retry

SHORT_S = 0.4
"""The timeout of a call whose server never comes to an end."""

COMPLETED = End(("billed",), COST_USD)
FREE = End(("billed",))
"""Completed by a server that names no price."""
UNCERTAIN = End(("uncertain",), verdict=Retry(0.0))
NOT_BILLED = End(("unbilled",), verdict=Retry(0.0))
BLOCKED = End(("throttled", "billed"), COST_USD, waits=(30.0,), is_blocked=True)


def waits(seconds: float) -> End:
    """Turned away, and served after the wait: no attempt is used, nothing is billed for it."""
    return End(("throttled", "billed"), COST_USD, waits=(seconds,))


def later(end: End, seconds: float) -> End:
    return replace(end, verdict=Retry(seconds))


def given_up(reason: str) -> End:
    return End(("unbilled",), verdict=GiveUp(reason))


def unfit(reason: str) -> End:
    """Paid, asked for once more, paid again, and given up with the reason of the reply."""
    return End(("billed", "billed"), 2 * COST_USD, GiveUp(reason))


def status(code: int, *headers: str, error: Any = None) -> Script:
    body = {"error": {"code": code, "message": "it went wrong", **(error or {})}}
    return writes(http(body, *headers, status=code))


def in_200(error: Any, **values: Any) -> Script:
    return writes(http({"error": error, **values}))


def of_type(name: str) -> Script:
    return in_200({"message": "it went wrong", "metadata": {"error_type": name}})


def says(*choices: Any, **values: Any) -> Script:
    return writes(http(answer(*choices, **values)))


def text(content: Any) -> Script:
    return says(choice(content))


def http_date(in_s: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=in_s), usegmt=True)


WHOLE = http(answer())
HEAD, BODY = WHOLE.split(b"\r\n\r\n", 1)
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
RAW = json.dumps(answer(), ensure_ascii=False).encode()

Row = tuple[Script, End]

THE_WAY: dict[str, Row] = {
    "reset before the head": (writes(b"", then=reset), UNCERTAIN),
    "closed before the head": (writes(b"", then=close), UNCERTAIN),
    "reset in the head": (writes(HEAD[:20], then=reset), UNCERTAIN),
    "closed in the head": (writes(HEAD[:20], then=close), UNCERTAIN),
    "reset after the head": (writes(HEAD + b"\r\n\r\n", then=reset), UNCERTAIN),
    "reset in the body": (writes(WHOLE[:-30], then=reset), UNCERTAIN),
    "closed in the body": (writes(WHOLE[:-30], then=close), UNCERTAIN),
    "closed after the body": (writes(WHOLE, then=close), COMPLETED),
    "longer than it says": (writes(http(RAW + b"}}}", length=len(RAW)), then=close), UNCERTAIN),
    "shorter than it says": (writes(http(RAW, length=len(RAW) + 9), then=close), UNCERTAIN),
    "a length that is none": (
        writes(HEAD.replace(str(len(BODY)).encode(), b"many") + b"\r\n\r\n" + BODY, then=close),
        UNCERTAIN,
    ),
    "HTTP/1.0 without a length": (
        writes(b"HTTP/1.0 200 OK\r\n\r\n" + RAW, then=close),
        COMPLETED,
    ),
    "HTTP/1.0 cut off": (writes(b"HTTP/1.0 200 OK\r\n\r\n" + RAW[:-9], then=close), UNCERTAIN),
    "in chunks": (
        writes(CHUNKED + b"%x\r\n" % len(RAW) + RAW + b"\r\n0\r\n\r\n"),
        COMPLETED,
    ),
    "a chunk with a broken size": (writes(CHUNKED + b"zz\r\n" + RAW, then=close), UNCERTAIN),
    "chunks without an end": (
        writes(CHUNKED + b"%x\r\n" % len(RAW) + RAW + b"\r\n", then=close),
        UNCERTAIN,
    ),
    "no HTTP": (writes(b"SSH-2.0-OpenSSH_9.6\r\n", then=close), UNCERTAIN),
    "an echo of what we sent": (
        writes(f"POST /v1 HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(), then=close),
        UNCERTAIN,
    ),
    "noise": (writes(bytes(range(256)) * 40, then=close), UNCERTAIN),
    "a head without end": (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 4_000), UNCERTAIN),
    "informed before the answer": (
        writes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + WHOLE),
        COMPLETED,
    ),
    "told to go on": (writes(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE), COMPLETED),
    "told of another protocol": (
        writes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", then=close),
        UNCERTAIN,
    ),
}

WITHOUT_END: dict[str, Row] = {
    "hangs before the head": (hangs(), UNCERTAIN),
    "hangs in the head": (hangs(HEAD[:20]), UNCERTAIN),
    "hangs after the head": (hangs(HEAD + b"\r\n\r\n"), UNCERTAIN),
    "hangs in the body": (hangs(WHOLE[:-1]), UNCERTAIN),
    "hangs before the last chunk": (
        hangs(CHUNKED + b"%x\r\n" % len(RAW) + RAW + b"\r\n"),
        UNCERTAIN,
    ),
    "drips blanks": (repeats(CHUNKED, b"1\r\n \r\n", every_s=0.05), UNCERTAIN),
    "drips the head": (repeats(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", every_s=0.05), UNCERTAIN),
    "informs for ever": (
        repeats(b"", b"HTTP/1.1 102 Processing\r\n\r\n", every_s=0.05),
        UNCERTAIN,
    ),
    "tells of a failure and hangs": (hangs(http(b"{", status=500, length=9)), UNCERTAIN),
}

STATUSES: dict[str, Row] = {
    **{
        str(code): (status(code), given_up(f"provider_{code}"))
        for code in (400, 404, 405, 410, 413, 415, 418, 422, 431, 451)
    },
    **{str(code): (status(code), NOT_BILLED) for code in (409, 423, 425)},
    **{
        str(code): (status(code), UNCERTAIN)
        for code in (408, 424, 499, 500, 501, 502, 504, 505, *range(520, 531), 599)
    },
    "599 with a wait": (status(599, "Retry-After: 7"), later(UNCERTAIN, 7.0)),
    "500 with a wait": (status(500, "Retry-After: 7"), later(UNCERTAIN, 7.0)),
    "529 with a wait in its body": (
        status(529, error={"availability": {"retryable": True, "retry_after": 4}}),
        later(UNCERTAIN, 4.0),
    ),
    "409 with a wait": (status(409, "Retry-After: 7"), later(NOT_BILLED, 7.0)),
    "401": (status(401), BLOCKED),
    "401 with a wait": (status(401, "Retry-After: 1"), BLOCKED),
    "402": (status(402), BLOCKED),
    "402 with a wait: a budget in flight": (status(402, "Retry-After: 3"), waits(3.0)),
    "403": (status(403), BLOCKED),
    "403 in HTML": (
        writes(http(b"<h1>Blocked</h1>", "Content-Type: text/html", status=403)),
        BLOCKED,
    ),
    "403 over a key's limit": (
        status(403, error={"message": "Key limit exceeded (monthly limit)"}),
        BLOCKED,
    ),
    "403 for what was said": (
        status(403, error={"metadata": {"reasons": ["violence"], "flagged_input": "책"}}),
        given_up("moderated"),
    ),
    "400 for what was said": (status(400, error={"code": "content_filter"}), given_up("moderated")),
    "429": (status(429), waits(5.0)),
    "429 without a body": (writes(http(b"", status=429)), waits(5.0)),
    "429 in HTML": (
        writes(http(b"<h1>Slow down</h1>", "Content-Type: text/html", status=429)),
        waits(5.0),
    ),
    "429 in seconds": (status(429, "Retry-After: 17"), waits(17.0)),
    "429 in parts of a second": (status(429, "Retry-After: 0.25"), waits(0.25)),
    "429 in milliseconds": (status(429, "Retry-After-Ms: 1500"), waits(1.5)),
    "429 by the longest of its hints": (
        status(429, "Retry-After: 2", "Retry-After-Ms: 9000"),
        waits(9.0),
    ),
    "429 in its body": (
        status(429, error={"availability": {"retryable": True, "retry_after": 11}}),
        waits(11.0),
    ),
    "429 for a day": (status(429, "Retry-After: 86400"), waits(120.0)),
    "429 for ever": (status(429, "Retry-After: 1e400"), waits(5.0)),
    "429 for no time": (status(429, "Retry-After: 0"), waits(5.0)),
    "429 into the past": (status(429, "Retry-After: -5"), waits(5.0)),
    "429 since yesterday": (status(429, f"Retry-After: {http_date(-86_400)}"), waits(5.0)),
    "429 in words": (status(429, "Retry-After: soon"), waits(5.0)),
    "429 that is no number": (status(429, "Retry-After: NaN"), waits(5.0)),
    "429 twice": (status(429, "Retry-After: 3", "Retry-After: 3"), waits(3.0)),
    "429 without credit": (status(429, error={"code": "insufficient_quota"}), BLOCKED),
    "503": (status(503), waits(5.0)),
    "503 with a wait": (status(503, "Retry-After: 9"), waits(9.0)),
    "503 in HTML": (
        writes(http(b"<h1>Sorry</h1>", "Content-Type: text/html", status=503)),
        waits(5.0),
    ),
    "502 in HTML": (
        writes(http(b"<h1>Bad gateway</h1>", "Content-Type: text/html", status=502)),
        UNCERTAIN,
    ),
    "201 with a completion": (writes(http(answer(), status=201)), COMPLETED),
    "299 with a completion": (writes(http(answer(), status=299)), COMPLETED),
    "204": (writes(b"HTTP/1.1 204 No Content\r\n\r\n"), UNCERTAIN),
    "500 with a completion": (writes(http(answer(), status=500)), UNCERTAIN),
}

BODIES: dict[str, Row] = {
    "nothing": (writes(http(b"")), UNCERTAIN),
    "blanks": (writes(http(b" \n \n")), UNCERTAIN),
    "HTML": (writes(http(b"<html>Sign in</html>", "Content-Type: text/html")), UNCERTAIN),
    "JSON that is called HTML": (writes(http(RAW, "Content-Type: text/html")), COMPLETED),
    "JSON without a type": (writes(b"HTTP/1.1 200 OK\r\n\r\n" + RAW, then=close), COMPLETED),
    "truncated JSON": (writes(http(RAW[:-40])), UNCERTAIN),
    "an array": (writes(http([answer()])), UNCERTAIN),
    "a text": (writes(http("책")), UNCERTAIN),
    "null": (writes(http(None)), UNCERTAIN),
    "two objects": (writes(http(RAW + RAW)), UNCERTAIN),
    "a byte order mark": (writes(http(b"\xef\xbb\xbf" + RAW)), COMPLETED),
    "UTF-16": (writes(http(RAW.decode().encode("utf-16"))), COMPLETED),
    "EUC-KR": (
        writes(http(json.dumps({"a": "한국어"}, ensure_ascii=False).encode("euc-kr"))),
        UNCERTAIN,
    ),
    "a wrong charset": (
        writes(http(RAW, "Content-Type: application/json; charset=euc-kr")),
        COMPLETED,
    ),
    "too deep": (writes(http(b'{"a":' * 100_000)), UNCERTAIN),
    "a number of 5,000 digits": (writes(http(b'{"a":' + b"9" * 5_000 + b"}")), UNCERTAIN),
    "5 MB of completion": (text("x" * 5_000_000), UNCERTAIN),
    "5 MB of a failure": (writes(http(b"x" * 5_000_000, status=500)), UNCERTAIN),
    "as much as may be": (writes(http(RAW.rjust(REPLY_MAX_BYTES))), COMPLETED),
    "a body without end": (
        repeats(CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
        UNCERTAIN,
    ),
    "gzip": (writes(http(gzip.compress(RAW), "Content-Encoding: gzip")), COMPLETED),
    "deflate": (writes(http(zlib.compress(RAW), "Content-Encoding: deflate")), COMPLETED),
    "gzip that is none": (writes(http(RAW, "Content-Encoding: gzip")), UNCERTAIN),
    "gzip cut off": (writes(http(gzip.compress(RAW)[:-90], "Content-Encoding: gzip")), UNCERTAIN),
    "deflate that is none": (writes(http(b"\xff" * 99, "Content-Encoding: deflate")), UNCERTAIN),
    **{
        f"a coding that was not asked for: {coding}": (
            writes(http(b"\xff\x1b\x00" * 99, f"Content-Encoding: {coding}")),
            UNCERTAIN,
        )
        for coding in ("br", "zstd", "compress", "x-unknown", "gzip, gzip")
    },
    "called identity": (writes(http(RAW, "Content-Encoding: identity")), COMPLETED),
}

ERRORS_IN_200: dict[str, Row] = {
    **{f"code {code}": (in_200({"code": code}), waits(5.0)) for code in (429, 503, "429")},
    **{f"code {code}": (in_200({"code": code}), BLOCKED) for code in (401, 402, 403)},
    **{
        f"code {code}": (in_200({"code": code}), given_up(f"provider_{code}"))
        for code in (400, 404, 413, 422)
    },
    **{
        f"code {code!r}": (in_200({"code": code}), UNCERTAIN)
        for code in (408, 500, 502, 504, 529, None, True, 200, 9_999, -1, {"a": 1}, "odd")
    },
    **{
        f"type {name}": (of_type(name), end)
        for name, end in {
            "rate_limit_exceeded": waits(5.0),
            "provider_overloaded": waits(5.0),
            "authentication": BLOCKED,
            "payment_required": BLOCKED,
            "insufficient_credits": BLOCKED,
            "permission_denied": BLOCKED,
            "content_policy_violation": given_up("moderated"),
            "refusal": given_up("moderated"),
            "invalid_request": given_up("provider_400"),
            "invalid_prompt": given_up("provider_400"),
            "context_length_exceeded": given_up("provider_400"),
            "string_too_long": given_up("provider_400"),
            "not_found": given_up("provider_404"),
            "payload_too_large": given_up("provider_413"),
            "unprocessable": given_up("provider_422"),
            "timeout": UNCERTAIN,
            "server": UNCERTAIN,
            "provider_unavailable": UNCERTAIN,
            "unmapped": UNCERTAIN,
            "a_new_one": UNCERTAIN,
        }.items()
    },
    "retryable, after a time, without a code": (
        in_200({"message": "busy", "availability": {"retryable": True, "retry_after": 2.5}}),
        waits(2.5),
    ),
    "retryable, without a time": (in_200({"availability": {"retryable": True}}), UNCERTAIN),
    "not retryable": (in_200({"availability": {"retryable": False}}), given_up("provider_error")),
    "odd availability": (in_200({"availability": [7]}), UNCERTAIN),
    "retryable after nonsense": (
        in_200({"availability": {"retryable": True, "retry_after": {"s": 1}}}),
        UNCERTAIN,
    ),
    "a wait in quoted headers": (
        in_200({"code": 429, "metadata": {"headers": {"Retry-After": "8"}}}),
        waits(8.0),
    ),
    "a text": (in_200("overloaded"), UNCERTAIN),
    "a list": (in_200([1]), UNCERTAIN),
    "beside a completion, without a price": (
        writes(http(answer(error={"code": 502}, usage=None))),
        UNCERTAIN,
    ),
    "beside a completion, billed": (
        writes(http(answer(error={"code": 502}))),
        unfit("finish_error"),
    ),
    "beside nothing, billed": (in_200({"code": 429}, usage=USAGE), unfit("finish_error")),
    "null beside a completion": (writes(http(answer(error=None))), COMPLETED),
    "empty beside a completion": (writes(http(answer(error={}))), COMPLETED),
    "in the choice, without a price": (
        says({**choice(None, finish_reason="error"), "error": {"code": 502}}, usage=None),
        UNCERTAIN,
    ),
    "in the choice: a limit": (
        says({**choice(None, finish_reason="error"), "error": {"code": 429}}, usage=None),
        waits(5.0),
    ),
    "in the choice, billed": (
        says({**choice(), "error": {"code": 502, "message": "lost"}}),
        unfit("finish_error"),
    ),
}

ENVELOPES: dict[str, Row] = {
    "no choices": (says(choices=[]), unfit("no_choices")),
    "null choices": (says(choices=None), unfit("no_choices")),
    "choices of null": (says(None), unfit("no_choices")),
    "choices of texts": (says("책"), unfit("no_choices")),
    "choices as an object": (says(choices={"0": choice()}), unfit("no_choices")),
    "missing choices": (writes(http({"usage": USAGE})), unfit("no_choices")),
    "no message": (says({"finish_reason": "stop"}), unfit("empty")),
    "a null message": (says({"message": None}), unfit("empty")),
    "a message that is a text": (says({"message": "책"}), unfit("empty")),
    "null content": (text(None), unfit("empty")),
    "empty content": (text(""), unfit("empty")),
    "blank content": (text(" \n\t"), unfit("empty")),
    "a number as content": (text(7), unfit("empty")),
    "only reasoning": (says(choice(None, reasoning="Let me think")), unfit("empty")),
    "content in parts": (
        text([{"type": "text", "text": REPLY[:50]}, {"type": "text", "text": REPLY[50:]}]),
        COMPLETED,
    ),
    "parts without a text": (text([{"type": "image_url"}, None, 7]), unfit("empty")),
    "a refusal": (says(choice(None, refusal="I can't help with that.")), unfit("refused")),
    "a refusal beside content": (says(choice(refusal="I can't.")), unfit("refused")),
    "finished by error, billed": (says(choice(finish_reason="error")), unfit("finish_error")),
    "finished by error, free": (says(choice(finish_reason="error"), usage=None), UNCERTAIN),
    "finished by length": (
        says(choice(REPLY[:99], finish_reason="length")),
        unfit("finish_length"),
    ),
    "finished by length, and whole": (
        says(choice(finish_reason="length")),
        unfit("finish_length"),
    ),
    "filtered": (
        says(choice("", finish_reason="content_filter")),
        unfit("finish_content_filter"),
    ),
    **{
        f"finished by {reason!r}": (says(choice(finish_reason=reason)), COMPLETED)
        for reason in ("stop", None, "tool_calls", "a_new_one", 7, ["stop"])
    },
    "called a tool": (
        says(choice(None, finish_reason="tool_calls", tool_calls=[{"id": "1"}])),
        unfit("empty"),
    ),
    "two choices": (says(choice(), choice("no")), COMPLETED),
    "no usage": (says(usage=None), FREE),
    "missing usage": (writes(http({"choices": [choice()]})), FREE),
    "a price below nothing": (says(usage={**USAGE, "cost": -1}), FREE),
    "an absurd price": (says(usage={**USAGE, "cost": 1e12}), FREE),
    "a price that is a truth value": (says(usage={**USAGE, "cost": True}), FREE),
    "a price as text": (says(usage={**USAGE, "cost": "0.0021"}), COMPLETED),
    **{
        f"a price of {price}": (writes(http(RAW.replace(b"0.0021", price.encode()))), FREE)
        for price in ("NaN", "Infinity", "-Infinity", "1e400", "1e999999999999999999")
    },
    "absurd tokens": (says(usage={**USAGE, "prompt_tokens": 10**30}), COMPLETED),
    "tokens in a list": (says(usage={**USAGE, "completion_tokens": [1]}), COMPLETED),
    "another model": (says(model="other/model"), COMPLETED),
    "a model that is none": (says(model={"id": 7}, provider=7, id=[1]), COMPLETED),
    "keys that stand twice": (
        writes(http(RAW[:-1] + b', "choices": []}')),
        unfit("no_choices"),
    ),
    "fields that nobody knows": (says(from_the_future=[{"a": None}] * 99), COMPLETED),
}

TEXTS: dict[str, Row] = {
    "fenced": (text(f"```json\n{REPLY}\n```"), COMPLETED),
    "prose around it": (text(f"Sure! Here it is:\n{REPLY}\nAnything else?"), COMPLETED),
    "prose": (text("책 means book."), unfit("not_json")),
    "an array": (text("[1, 2]"), unfit("not_json")),
    "cut off": (text(REPLY[:-40]), unfit("not_json")),
    "single quotes": (text(REPLY.replace('"', "'")), unfit("not_json")),
    "a text too deep": (text('{"a":' * 50_000), unfit("not_json")),
    "an empty object": (text("{}"), unfit("schema")),
    "NaN for a text": (text(REPLY.replace('"book"', "NaN", 1)), unfit("schema")),
    "a field of the wrong type": (text(as_text(analysis_reply(ipa=["a"]))), unfit("schema")),
    "a field that is missing": (text(REPLY.replace('"ipa"', '"ipo"')), unfit("schema")),
    "an unknown part of speech": (text(as_text(analysis_reply(pos="verbish"))), unfit("schema")),
    "keys that stand twice in a text": (text(REPLY[:-1] + ', "term": "물"}'), unfit("wrong_term")),
    "half a surrogate pair": (text(REPLY.replace("book", "\\ud83d", 1)), unfit("broken_text")),
    "half a surrogate pair, unescaped": (
        writes(http(RAW.replace(b'\\"book\\"', b'\\"a \\ud83d b\\"', 1))),
        unfit("markup"),
    ),
    "the wrong term": (text(as_text(analysis_reply("물"))), unfit("wrong_term")),
    "markup": (text(REPLY.replace("book", "<b>book</b>", 1)), unfit("markup")),
    "a link": (text(REPLY.replace("book", "see https://x.test", 1)), unfit("markup")),
    "too long": (text(as_text(analysis_reply(primary_meaning="b" * 5_000))), unfit("bounds")),
    "no IPA": (text(as_text(analysis_reply(ipa="chaek"))), unfit("ipa")),
}

TABLES = {
    "way": THE_WAY,
    "status": STATUSES,
    "body": BODIES,
    "error in 200": ERRORS_IN_200,
    "envelope": ENVELOPES,
    "text": TEXTS,
}
ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


async def expect(script: Script, expected: End, *, timeout_s: float) -> None:
    seen, server = await asked_of(script, *_next(script, expected), timeout_s=timeout_s)
    assert seen.end == expected, seen.error
    assert server.calls == len(expected.outcomes), "sent more often than recorded"
    assert (seen.analysis is not None) == (expected.verdict is None)
    if seen.error is not None:
        assert len(str(seen.error)) < 800
        assert SECRET not in repr(seen.error)
        assert seen.error.__cause__ is None or SECRET not in repr(seen.error.__cause__)
        assert seen.error.__context__ is None or SECRET not in repr(seen.error.__context__)
        str(seen.error).encode()


def _next(script: Script, expected: End) -> tuple[Script, ...]:
    """Who was turned away is served the next time."""
    return (GOOD,) if expected.waits else (script,)


@pytest.mark.parametrize(("script", "expected"), ROWS.values(), ids=ROWS)
async def test_every_reply_has_its_verdict(script: Script, expected: End) -> None:
    await expect(script, expected, timeout_s=5.0)


@pytest.mark.parametrize(("script", "expected"), WITHOUT_END.values(), ids=WITHOUT_END)
async def test_a_server_without_end_is_given_up_in_time(script: Script, expected: End) -> None:
    await expect(script, expected, timeout_s=SHORT_S)


async def test_a_wait_until_a_date_is_kept() -> None:
    """HTTP dates have no parts of a second."""
    seen, _ = await asked_of(status(429, f"Retry-After: {http_date(60)}"), GOOD)
    (wait_s,) = seen.end.waits
    assert 50 < wait_s <= 60
    reset_ms = (datetime.now(UTC) + timedelta(seconds=60)).timestamp() * 1_000
    seen, _ = await asked_of(status(429, f"X-RateLimit-Reset: {reset_ms:.0f}"), GOOD)
    (wait_s,) = seen.end.waits
    assert 50 < wait_s <= 60


UNFIT = {name: script for name, (script, end) in ROWS.items() if end.outcomes == ("billed",) * 2}


@pytest.mark.parametrize("script", UNFIT.values(), ids=UNFIT)
async def test_every_unfit_reply_can_be_mended(script: Script) -> None:
    seen, _ = await asked_of(script, GOOD)
    assert seen.analysis is not None
    assert seen.analysis.primary_meaning == "book"
    assert seen.end == End(("billed", "billed"), 2 * COST_USD)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirection_is_not_followed_with_our_key(code: int) -> None:
    async with scripted(GOOD) as elsewhere:
        location = f"Location: {elsewhere.url}/chat/completions"
        seen, _ = await asked_of(writes(http(b"", location, status=code)))
        assert elsewhere.calls == 0
    assert seen.end == given_up(f"provider_{code}")
    assert "base URL" in str(seen.error)


async def test_what_a_gzip_bomb_becomes_is_bounded() -> None:
    """256 MiB of blanks in 256 KiB: read chunk by chunk, given up at the bound."""
    bomb = gzip.compress(b" " * 2**28)
    tracemalloc.start()
    try:
        seen, _ = await asked_of(writes(http(bomb, "Content-Encoding: gzip")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen.end == UNCERTAIN
    assert "larger than" in str(seen.error)
    assert peak < 64 * 2**20


async def test_the_model_that_answered_is_named() -> None:
    seen, _ = await asked_of(says(model="other/model", provider="Elsewhere"))
    assert seen.completion is not None
    assert (seen.completion.model, seen.completion.provider) == ("other/model", "Elsewhere")


async def test_a_key_that_is_quoted_stands_nowhere() -> None:
    echo = {"error": {"code": 400, "message": f"bad key {SECRET}"}}
    seen, _ = await asked_of(writes(http(echo, status=400)))
    assert "bad key [redacted]" in str(seen.error)
    seen, _ = await asked_of(says(id=SECRET, model=SECRET, provider=SECRET))
    assert seen.completion is not None
    assert SECRET not in seen.completion.model_dump_json()
    seen, _ = await asked_of(writes(http(answer(), f"X-Generation-Id: {SECRET}")))
    assert seen.completion is not None
    assert seen.completion.generation_id == "[redacted]"


# Before anything is sent


async def test_a_connection_that_is_refused_costs_nothing() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        seen = await asked_at(f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/v1")
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)


async def test_a_name_that_nobody_has_costs_nothing() -> None:
    seen = await asked_at("http://provider.invalid/v1")
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)


async def test_a_connection_that_is_never_taken_costs_nothing() -> None:
    """Nobody accepts, and the queue is full."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        seen = await asked_at(
            f"http://127.0.0.1:{listening.getsockname()[1]}/v1", timeout_s=SHORT_S
        )
        for caller in callers:
            caller.close()
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> SSLContext:
    """A server's side with a certificate that nobody vouches for."""
    folder: Path = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    made += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_certificate_that_nobody_vouches_for_is_told_nothing(tls: SSLContext) -> None:
    async with scripted(GOOD, tls=tls) as server:
        seen = await asked_at(server.url)
        assert server.calls == 0
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)
    assert "certificate" in str(seen.error).lower()


SPOKEN = {"HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n", "nothing": b"", "noise": b"\x15\x03\x01no"}


@pytest.mark.parametrize("raw", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize("end", [close, reset])
async def test_a_server_that_speaks_no_tls_was_sent_nothing(raw: bytes, end: Any) -> None:
    async with at_once(writes(raw, then=end)) as url:
        seen = await asked_at(url)
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)


async def test_a_server_that_hangs_in_the_handshake_was_sent_nothing() -> None:
    async with at_once(hangs()) as url:
        seen = await asked_at(url, timeout_s=SHORT_S)
    assert (seen.end, type(seen.error)) == (NOT_BILLED, TransientError)


async def test_a_connection_that_its_server_ends_is_not_used_again() -> None:
    last = "Connection: close"
    seen, server = await asked_of(
        writes(http(answer(choice("prose")), last), then=close),
        writes(http(answer(), last), then=close),
    )
    assert (seen.end.outcomes, server.calls) == (("billed", "billed"), 2)
    assert seen.analysis is not None
