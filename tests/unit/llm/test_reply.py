"""Reading JSON out of a model's text: what is forgiven, and what is said about the rest."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from services.kernel.errors import ReplyRejected
from services.kernel.llm.reply import read_reply


class Part(BaseModel):
    name: str


class Reply(BaseModel):
    term: str
    count: int = 0
    parts: list[Part] = Field(default_factory=list)


FORGIVEN = {
    "plain": '{"term": "책"}',
    "blanks": '\n\t {"term": "책"} \n',
    "byte order mark": '\ufeff{"term": "책"}',
    "fences": '```json\n{"term": "책"}\n```',
    "fences without a language": '```\n{"term": "책"}\n```',
    "prose before": 'Here is the analysis you asked for:\n{"term": "책"}',
    "prose after": '{"term": "책"}\nTell me if you need {more}.',
    "a second object": '{"term": "책"}{"term": "물"}',
    "unknown fields": '{"term": "책", "thoughts": {"deep": [1, 2, 3]}}',
    "escapes": '{"term": "\\ucc45"}',
}


@pytest.mark.parametrize("text", FORGIVEN.values(), ids=FORGIVEN)
def test_what_stands_around_the_object_is_forgiven(text: str) -> None:
    assert read_reply(text, Reply) == Reply(term="책")


REJECTED = {
    "empty": ("", "not_json", "no JSON object"),
    "prose": ("I can't help with that.", "not_json", "no JSON object"),
    "an array": ('["책"]', "not_json", "no JSON object"),
    "cut off": ('{"term": "책', "not_json", "Unterminated string"),
    "a trailing comma": ('{"term": "책",}', "not_json", "line 1 column"),
    "single quotes": ("{'term': '책'}", "not_json", "line 1 column"),
    "too deep": ('{"a":' * 100_000, "not_json", "recursion"),
    "an endless number": ('{"count": ' + "9" * 10_000 + "}", "not_json", "digits"),
    "a missing field": ("{}", "schema", "term: Field required"),
    "a wrong type": ('{"term": 1}', "schema", "term: Input should be a valid string"),
    "a wrong part": (
        '{"term": "책", "parts": [{"name": "a"}, {"name": null}]}',
        "schema",
        "parts.1.name: Input should be a valid string",
    ),
    "half a surrogate pair": ('{"term": "\\ud83d"}', "broken_text", "surrogate"),
    "half a pair deep inside": (
        '{"term": "책", "parts": [{"name": "\\udc00"}]}',
        "broken_text",
        "surrogate",
    ),
}


@pytest.mark.parametrize(("text", "reason", "detail"), REJECTED.values(), ids=REJECTED)
def test_an_unfit_reply_is_rejected_and_told_why(text: str, reason: str, detail: str) -> None:
    with pytest.raises(ReplyRejected) as raised:
        read_reply(text, Reply)
    assert raised.value.reason == reason
    assert detail in raised.value.detail


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read_reply('{"term": "\\ud83d\\udcd6"}', Reply).term == "📖"


def test_five_faults_are_named_and_no_value_is_repeated() -> None:
    parts = ", ".join('{"name": 4711}' for _ in range(20))
    with pytest.raises(ReplyRejected) as raised:
        read_reply(f'{{"term": "책", "parts": [{parts}]}}', Reply)
    assert raised.value.detail.count("parts.") == 5
    assert "4711" not in raised.value.detail


@given(st.text() | st.text('{}[]":,\\ud8 0truefalsnull'))
def test_any_text_is_read_or_rejected(text: str) -> None:
    with suppress(ReplyRejected):
        reply = read_reply(text, Reply)
        assert Reply.model_validate_json(reply.model_dump_json()) == reply
