"""Reading submissions from anybody: what is understood, and how every refusal is told."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.ingest.decode import (
    JSON_MAX_DEPTH,
    combined_hint,
    decode_submission,
    part_of_speech,
    unknown_fields,
)
from services.kernel.contracts.term import (
    DECK_MAX_CHARACTERS,
    HINT_MAX_CHARACTERS,
    POSITION_MAX,
    TermSubmitted,
)
from services.kernel.errors import TermRefused
from services.kernel.korean.normal_form import NormalForm, normal_form


def submitted(**values: Any) -> TermSubmitted:
    return TermSubmitted(**{"term": "책", **values})


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


UNDERSTOOD: dict[str, tuple[bytes, TermSubmitted]] = {
    "bare text": ("책".encode(), submitted()),
    "bare text with a gloss": ("[명사] 책".encode(), submitted(term="[명사] 책")),
    "bare text that looks like an array": (b"[1, 2]", submitted(term="[1, 2]")),
    "bare text with a line end": ("책\n".encode(), submitted(term="책\n")),
    "nothing": (b"", submitted(term="")),
    "blanks": (b" \n\t", submitted(term=" \n\t")),
    "a byte order mark": ("\ufeff책".encode(), submitted()),
    "a byte order mark before JSON": ('\ufeff{"term": "책"}'.encode(), submitted()),
    "a JSON string": ('"책"'.encode(), submitted()),
    "a JSON string in escapes": (b'"\\ucc45"', submitted()),
    "an object": ('{"term": "책"}'.encode(), submitted()),
    "an object between blanks": ('\n {"term": "책"}\n'.encode(), submitted()),
    "all fields": (
        encoded(
            {
                "term": "책",
                "position": 3,
                "type": "noun",
                "deck": "TOPIK 1",
                "priority": "urgent",
                "hint": "book",
            }
        ),
        submitted(position=3, type="noun", deck="TOPIK 1", priority="urgent", hint="book"),
    ),
    "nulls": (
        encoded({"term": "책", "position": None, "type": None, "deck": None, "hint": None}),
        submitted(),
    ),
    "unknown fields": (encoded({"term": "책", "level": 3, "tags": ["a"]}), submitted()),
    "an unknown field of broken text": (
        b'{"term": "a", "\\ud800": "\\ud800"}',
        submitted(term="a"),
    ),
    "the first position": (encoded({"term": "책", "position": 1}), submitted(position=1)),
    "the last position": (
        encoded({"term": "책", "position": POSITION_MAX}),
        submitted(position=POSITION_MAX),
    ),
    "a position in quotes": (encoded({"term": "책", "position": "3"}), submitted(position=3)),
    "a position with a point": (encoded({"term": "책", "position": 3.0}), submitted(position=3)),
    "brackets in a text": (
        encoded({"term": "책", "hint": "[" * 400}),
        submitted(hint="[" * 400),
    ),
    "brackets after an escaped quote": (
        encoded({"term": "책", "hint": '\\"' + "[" * 400}),
        submitted(hint='\\"' + "[" * 400),
    ),
    "the longest hint": (
        encoded({"term": "책", "hint": "x" * HINT_MAX_CHARACTERS}),
        submitted(hint="x" * HINT_MAX_CHARACTERS),
    ),
    "the deepest unknown field": (
        encoded({"term": "책", "more": [[[[[[[1]]]]]]]}),
        submitted(),
    ),
    "a whole surrogate pair": (
        b'{"term": "a", "hint": "\\ud83d\\udcd6"}',
        submitted(term="a", hint="📖"),
    ),
}


@pytest.mark.parametrize(("payload", "expected"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_what_a_publisher_may_send(payload: bytes, expected: TermSubmitted) -> None:
    assert decode_submission(payload) == expected


def field(**values: Any) -> bytes:
    return encoded({"term": "책", **values})


REFUSED: dict[str, tuple[bytes, str, str]] = {
    "EUC-KR": ("국물".encode("euc-kr"), "payload", "not_utf8"),
    "UTF-16": ("책".encode("utf-16"), "payload", "not_utf8"),
    "any bytes": (b"\x80\xff", "payload", "not_utf8"),
    "a surrogate in UTF-8": (b"\xed\xa0\x80", "payload", "not_utf8"),
    "JSON cut off": (b'{"term": "a', "payload", "not_json"),
    "a string cut off": (b'"a', "payload", "not_json"),
    "single quotes": (b"{'term': 'a'}", "payload", "not_json"),
    "two objects": (b'{"term": "a"}{"term": "b"}', "payload", "not_json"),
    "a quoted word and more": ('"책"을 읽다'.encode(), "payload", "not_json"),
    "a line break in a string": (b'{"term": "a\nb"}', "payload", "not_json"),
    "a key twice": (b'{"term": "a", "term": "b"}', "payload", "not_json"),
    "an inner key twice": (b'{"term": "a", "x": {"y": 1, "y": 2}}', "payload", "not_json"),
    "NaN": (b'{"term": "a", "position": NaN}', "payload", "not_json"),
    "infinity": (b'{"term": "a", "position": Infinity}', "payload", "not_json"),
    "infinity below": (b'{"term": "a", "x": -Infinity}', "payload", "not_json"),
    "an endless number": (b'{"position": ' + b"9" * 5_000 + b"}", "payload", "not_json"),
    "100,000 objects deep": (b'{"a":' * 100_000, "payload", "too_deep"),
    "100,000 arrays deep": (b'{"a":' + b"[" * 100_000, "payload", "too_deep"),
    "nine levels deep": (field(more=[[[[[[[[1]]]]]]]]), "payload", "too_deep"),
    "depth behind brackets in a string": (
        b'{"hint": "' + b"]" * 100_000 + b'", "a": ' + b"[" * 100_000,
        "payload",
        "too_deep",
    ),
    "depth behind an escaped quote": (
        b'{"hint": "\\"' + b"]" * 100_000 + b'", "a": ' + b"[" * 100_000,
        "payload",
        "too_deep",
    ),
    "no term": (b"{}", "term", "invalid_field"),
    "a null term": (field(term=None), "term", "invalid_field"),
    "a number as term": (field(term=1), "term", "invalid_field"),
    "a list as term": (field(term=["책"]), "term", "invalid_field"),
    "position 0": (field(position=0), "position", "invalid_field"),
    "position -1": (field(position=-1), "position", "invalid_field"),
    "position 1.5": (field(position=1.5), "position", "invalid_field"),
    "position true": (field(position=True), "position", "invalid_field"),
    "position false": (field(position=False), "position", "invalid_field"),
    "position in words": (field(position="third"), "position", "invalid_field"),
    "position empty": (field(position=""), "position", "invalid_field"),
    "position 10**30": (field(position=10**30), "position", "invalid_field"),
    "position over the last": (field(position=POSITION_MAX + 1), "position", "invalid_field"),
    "position 1e400": (b'{"term": "a", "position": 1e400}', "position", "invalid_field"),
    "position as list": (field(position=[1]), "position", "invalid_field"),
    "an unknown priority": (field(priority="now"), "priority", "invalid_field"),
    "a null priority": (field(priority=None), "priority", "invalid_field"),
    "a list as type": (field(type=["noun"]), "type", "invalid_field"),
    "a number as hint": (field(hint=1), "hint", "invalid_field"),
    "a long hint": (field(hint="x" * (HINT_MAX_CHARACTERS + 1)), "hint", "invalid_field"),
    "a long deck": (field(deck="x" * (DECK_MAX_CHARACTERS + 1)), "deck", "invalid_field"),
    **{
        f"half a surrogate pair as {name}": (
            json.dumps({"term": "a", name: "b\ud800"}).encode(),
            name,
            "broken_text",
        )
        for name in ("term", "type", "deck", "hint")
    },
}


@pytest.mark.parametrize(("payload", "named", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_names_the_field_and_the_reason(payload: bytes, named: str, reason: str) -> None:
    with pytest.raises(TermRefused) as raised:
        decode_submission(payload)
    assert (raised.value.field, raised.value.reason) == (named, reason)
    assert len(str(raised.value).encode()) < 300


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ("국물".encode("euc-kr"), "byte 0 is not UTF-8; publish UTF-8 text or JSON"),
        (b'{"term": "a", "term": "b"}', "the key 'term' stands twice"),
        (b'{"x": NaN}', "NaN is no JSON number"),
        (b'{"a":' * 9, "JSON is nested over 8 levels"),
        (field(position=True), "true and false are no position"),
        (b'{"term": "a", "hint": "\\ud800"}', r"'\ud800' holds half a surrogate pair"),
    ],
)
def test_a_refusal_says_what_was_seen_and_what_to_do(payload: bytes, detail: str) -> None:
    with pytest.raises(TermRefused) as raised:
        decode_submission(payload)
    assert detail in str(raised.value)


def test_a_json_string_of_broken_text_is_left_to_the_normal_form_to_refuse() -> None:
    said = decode_submission(b'"\\ud800"')
    with pytest.raises(TermRefused) as raised:
        normal_form(said.term)
    assert raised.value.field == "term"
    assert str(raised.value).encode()


HOSTILE = {
    "quotes that never close": b'{"' + b'\\"' * 32_000,
    "as many keys as fit": b'{"term":"a"' + b"".join(b',"%d":0' % n for n in range(7_000)) + b"}",
    "as many keys as fit, the last twice": (
        b'{"term":"a"' + b"".join(b',"%d":0' % n for n in range(7_000)) + b',"6999":0}'
    ),
    "backslashes": b'{"' + b"\\" * 64_000,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_no_payload_takes_more_than_linear_time(payload: bytes) -> None:
    started = time.process_time()
    with suppress(TermRefused):
        decode_submission(payload)
    assert time.process_time() - started < 0.5


UNKNOWN: dict[str, tuple[bytes, list[str]]] = {
    "none": (field(hint="a"), []),
    "two": (field(tags=[], level=1), ["level", "tags"]),
    "behind a byte order mark": (b"\xef\xbb\xbf" + field(level=1), ["level"]),
    "behind blanks": (b" \n" + field(level=1), ["level"]),
    "bare text": ("책".encode(), []),
    "a JSON string": ('"책"'.encode(), []),
    "half a surrogate pair": (b'{"term": "a", "\\ud800": 1}', [r"\ud800"]),
}


@pytest.mark.parametrize(("payload", "names"), UNKNOWN.values(), ids=UNKNOWN)
def test_fields_that_we_leave_out_are_named(payload: bytes, names: list[str]) -> None:
    assert unknown_fields(payload) == names


TYPES = {
    "noun": "noun",
    " Noun ": "noun",
    "VERB": "verb",
    "phrase": "phrase",
    "명사": "noun",
    "감탄사": "interjection",
    "substantive": None,
    "": None,
    " ": None,
    None: None,
}


@pytest.mark.parametrize(("said", "understood"), TYPES.items(), ids=repr)
def test_a_type_is_a_part_of_speech_or_none(said: str | None, understood: str | None) -> None:
    assert part_of_speech(submitted(type=said)) == understood


HINTS: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({}, None, None),
    ({"hint": "book"}, None, "book"),
    ({"hint": " book "}, " 冊 ", "book; 冊"),
    ({"hint": "book", "type": "noun"}, None, "book"),
    ({"hint": "book", "type": "하다 verb"}, None, "book; 하다 verb"),
    ({"type": "TOPIK 1"}, "冊", "冊; TOPIK 1"),
    ({"hint": "冊", "type": "冊"}, "冊", "冊"),
    ({"hint": " ", "type": " "}, " ", None),
    ({"hint": "x" * 500, "type": "y"}, "z", "x" * 500),
]


@pytest.mark.parametrize(("values", "gloss", "hint"), HINTS)
def test_the_hint_is_all_that_came_with_the_term(
    values: dict[str, Any], gloss: str | None, hint: str | None
) -> None:
    assert combined_hint(submitted(**values), NormalForm("책", None, gloss)) == hint


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from([*TermSubmitted.model_fields, "more"]), json_values)
payloads = st.one_of(
    st.binary(),
    st.text().map(str.encode),
    json_values.map(lambda value: json.dumps(value).encode()),
    objects.map(lambda value: json.dumps(value).encode()),
    st.text('{}[]":,\\ud8 0책').map(str.encode),
)


@given(payload=payloads)
@example(payload=b'{"term": "\\ud800"}')
@example(payload=b'"' + b"[" * 100_000)
def test_any_bytes_are_a_submission_or_a_refusal(payload: bytes) -> None:
    with suppress(TermRefused):
        said = decode_submission(payload)
        assert isinstance(said, TermSubmitted)
        assert unknown_fields(payload) == sorted(unknown_fields(payload))


@given(depth=st.integers(1, 2 * JSON_MAX_DEPTH))
def test_the_depth_is_counted_exactly(depth: int) -> None:
    payload = b'{"term":"a","more":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    if depth == 1:
        payload = b'{"term":"a"}'
    if depth > JSON_MAX_DEPTH:
        with pytest.raises(TermRefused, match="nested"):
            decode_submission(payload)
    else:
        assert decode_submission(payload).term == "a"
