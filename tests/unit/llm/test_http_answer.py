"""What each answer of a provider means to the caller: one row a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx
import pytest
from asking_fakes import access
from provider_answers import REQUEST, answer, choice, completed, error, failure, provider

from services.kernel.contracts.provenance import Usage
from services.kernel.errors import (
    CallRefused,
    PermanentError,
    ProviderBlocked,
    Throttled,
    Unavailable,
    UncertainCall,
)
from services.kernel.llm.http_answer import USAGE_MAX_TOKENS
from services.kernel.llm.provider import Completion, UnfitCompletion

# A completion


async def test_a_completion_says_who_served_it_at_what_cost() -> None:
    headers = {"x-generation-id": "gen-of-the-header"}
    served = await completed(httpx.Response(200, json=answer(), headers=headers))
    assert served == Completion(
        text="yes",
        model="test/model-served",
        provider="Test",
        generation_id="gen-of-the-header",
        usage=Usage(prompt_tokens=100, completion_tokens=50, cost_usd=Decimal("0.0021")),
    )


async def test_without_the_header_the_answers_own_id_is_the_generation() -> None:
    assert (await completed(httpx.Response(200, json=answer()))).generation_id == "gen-1"


async def test_a_local_server_need_not_name_itself() -> None:
    served = await completed(httpx.Response(200, json={"choices": [choice()]}))
    assert (served.model, served.provider) == ("unknown", "openrouter")
    assert served.generation_id is None
    assert served.usage == Usage()


async def test_the_body_is_sent_as_it_is_to_the_completions_of_the_address() -> None:
    seen: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=answer())

    await provider(respond, access(base_url="http://provider.test/api/v1/")).complete(REQUEST)
    (request,) = seen
    assert request.method == "POST"
    assert str(request.url) == "http://provider.test/api/v1/chat/completions"
    assert request.content == REQUEST.body


@pytest.mark.parametrize("finish_reason", ["stop", None, "tool_calls", "a_new_one", 7, ["stop"]])
async def test_an_unknown_finish_reason_leaves_the_text_as_good(finish_reason: Any) -> None:
    response = httpx.Response(200, json=answer(choice(finish_reason=finish_reason)))
    assert (await completed(response)).text == "yes"


async def test_an_empty_error_beside_a_completion_is_none() -> None:
    assert (await completed(httpx.Response(200, json=answer(error=None)))).text == "yes"


async def test_half_a_surrogate_pair_in_an_answer_can_still_be_written() -> None:
    broken = answer(choice("a\ud83d"), model="m\ud800", provider="p\ud800", id="g\ud800")
    served = await completed(httpx.Response(200, content=json.dumps(broken)))
    assert Completion.model_validate_json(served.to_bytes()) == served
    assert served.text == "a\ufffd"


USAGES: dict[str, tuple[Any, Usage]] = {
    "null": (None, Usage()),
    "a list": ([1, 2], Usage()),
    "a text": ("much", Usage()),
    "details": (
        {
            "prompt_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        Usage(prompt_tokens=10, cached_tokens=4, reasoning_tokens=3),
    ),
    "null details": ({"prompt_tokens": 10, "prompt_tokens_details": None}, Usage(prompt_tokens=10)),
    "negative": ({"prompt_tokens": -5, "cost": -1}, Usage()),
    "truth values": ({"prompt_tokens": True, "cost": True}, Usage()),
    "texts": ({"prompt_tokens": "10", "cost": "0.5"}, Usage(cost_usd=Decimal("0.5"))),
    "no number": ({"prompt_tokens": 1.5, "cost": "free"}, Usage()),
    "absurd": ({"prompt_tokens": USAGE_MAX_TOKENS + 1, "cost": 1_000.01}, Usage()),
    "a list as cost": ({"cost": [1]}, Usage()),
    "exact to the last digit": ({"cost": 0.1}, Usage(cost_usd=Decimal("0.1"))),
}


@pytest.mark.parametrize(("raw", "expected"), USAGES.values(), ids=USAGES)
async def test_missing_or_absurd_usage_counts_as_zero(raw: Any, expected: Usage) -> None:
    served = await completed(httpx.Response(200, json=answer(usage=raw)))
    assert served.usage == expected
    assert Completion.model_validate_json(served.to_bytes()) == served


@pytest.mark.parametrize("cost", ["NaN", "Infinity", "-Infinity", "1e400", "1e" + "9" * 30])
async def test_a_cost_that_no_number_holds_does_not_cost_us_the_reply(cost: str) -> None:
    body = json.dumps(answer()).replace("0.0021", cost)
    served = await completed(httpx.Response(200, content=body))
    assert (served.text, served.usage.cost_usd) == ("yes", 0)


# What to do about it: one row a verdict


@dataclass(frozen=True)
class Verdict:
    kind: type[Exception]
    reason: str | None = None
    wait_s: float | None = None


BLOCKED = Verdict(ProviderBlocked, wait_s=30)
UNCERTAIN = Verdict(UncertainCall)
HTML = httpx.Response(502, html="<html><h1>502 Bad Gateway</h1></html>")

VERDICTS: dict[str, tuple[httpx.Response, Verdict]] = {
    "429": (httpx.Response(429, json=error(429)), Verdict(Throttled, wait_s=5)),
    "429 with Retry-After": (
        httpx.Response(429, json=error(429), headers={"Retry-After": "17"}),
        Verdict(Throttled, wait_s=17),
    ),
    "429 with a wait over the cap": (
        httpx.Response(429, headers={"Retry-After": "86400"}),
        Verdict(Throttled, wait_s=120),
    ),
    "503": (httpx.Response(503, json=error(503)), Verdict(Unavailable, wait_s=5)),
    "503 with Retry-After": (
        httpx.Response(503, headers={"Retry-After": "9"}),
        Verdict(Throttled, wait_s=9),
    ),
    "402 with Retry-After: budget in flight": (
        httpx.Response(402, json=error(402), headers={"Retry-After": "3"}),
        Verdict(Throttled, wait_s=3),
    ),
    "402: no credit": (httpx.Response(402, json=error(402)), BLOCKED),
    "401: key refused": (httpx.Response(401, json=error(401)), BLOCKED),
    "401 with Retry-After": (httpx.Response(401, headers={"Retry-After": "1"}), BLOCKED),
    "403: not allowed": (httpx.Response(403), BLOCKED),
    "403: moderated": (
        httpx.Response(403, json=error(403, metadata={"reasons": ["violence"]})),
        Verdict(PermanentError, "moderated"),
    ),
    "302": (httpx.Response(302), Verdict(PermanentError, "provider_302")),
    **{
        str(status): (httpx.Response(status), Verdict(CallRefused, f"provider_{status}"))
        for status in (400, 404, 413, 418, 422)
    },
    **{
        str(status): (httpx.Response(status), UNCERTAIN)
        for status in (408, 500, 502, 504, 520, 524, 529)
    },
    "500 with Retry-After": (
        httpx.Response(500, headers={"Retry-After": "4"}),
        Verdict(UncertainCall, wait_s=4),
    ),
    "an unknown status": (httpx.Response(599), UNCERTAIN),
    "no content": (httpx.Response(204), UNCERTAIN),
    "502 in HTML": (HTML, UNCERTAIN),
    "200 in HTML": (httpx.Response(200, html="<html>Sign in</html>"), UNCERTAIN),
    "200 and nothing": (httpx.Response(200), UNCERTAIN),
    "200 and blanks": (httpx.Response(200, content=b"  \n \n"), UNCERTAIN),
    "200 and an array": (httpx.Response(200, json=[answer()]), UNCERTAIN),
    "200 too deep": (httpx.Response(200, content=b'{"a":' * 100_000), UNCERTAIN),
    "200 not UTF-8": (httpx.Response(200, content=b'{"a": "\xff\xfe"}'), UNCERTAIN),
    "200 with error 429": (httpx.Response(200, json=error(429)), Verdict(Throttled, wait_s=5)),
    "200 with error 401": (httpx.Response(200, json=error(401)), BLOCKED),
    "200 with error 400": (
        httpx.Response(200, json=error(400)),
        Verdict(CallRefused, "provider_400"),
    ),
    "200 with error 502": (httpx.Response(200, json=error(502)), UNCERTAIN),
    "200 with error beside choices": (
        httpx.Response(200, json=answer(usage=None) | error(502)),
        UNCERTAIN,
    ),
    "200 with error that was billed": (
        httpx.Response(200, json=answer() | error(502)),
        Verdict(UnfitCompletion, "finish_error"),
    ),
    **{
        f"200 with error code {code!r}": (httpx.Response(200, json=error(code)), UNCERTAIN)
        for code in (None, "rate_limited", True, 200, 9_999, -1, {"a": 1})
    },
    "200 with error as text": (httpx.Response(200, json={"error": "overloaded"}), UNCERTAIN),
    "the status counts where the body says otherwise": (
        httpx.Response(429, json=error(400)),
        Verdict(Throttled, wait_s=5),
    ),
    "no choices": (
        httpx.Response(200, json={"choices": []}),
        Verdict(UnfitCompletion, "no_choices"),
    ),
    "null choices": (
        httpx.Response(200, json={"choices": None}),
        Verdict(UnfitCompletion, "no_choices"),
    ),
    "missing choices": (httpx.Response(200, json={}), Verdict(UnfitCompletion, "no_choices")),
    "choices of nothing": (
        httpx.Response(200, json={"choices": [None]}),
        Verdict(UnfitCompletion, "no_choices"),
    ),
    **{
        f"finish_reason {reason}": (
            httpx.Response(200, json=answer(choice(finish_reason=reason))),
            Verdict(UnfitCompletion, f"finish_{reason}"),
        )
        for reason in ("error", "length", "content_filter")
    },
    "an error of the choice": (
        httpx.Response(200, json=answer(choice(error={"code": 502, "message": "lost"}))),
        Verdict(UnfitCompletion, "finish_error"),
    ),
    "a refusal": (
        httpx.Response(200, json=answer({"message": {"content": None, "refusal": "I won't"}})),
        Verdict(UnfitCompletion, "refused"),
    ),
    **{
        f"content {content!r}": (
            httpx.Response(200, json=answer(choice(content))),
            Verdict(UnfitCompletion, "empty"),
        )
        for content in (None, "", " \n", 7, [], [None, {"type": "text"}, {"text": 7}])
    },
    **{
        f"message {message!r}": (
            httpx.Response(200, json=answer({"message": message})),
            Verdict(UnfitCompletion, "empty"),
        )
        for message in (None, "yes", {})
    },
}


@pytest.mark.parametrize(("response", "verdict"), VERDICTS.values(), ids=VERDICTS)
async def test_what_an_answer_means(response: httpx.Response, verdict: Verdict) -> None:
    seen = await failure(response)
    assert type(seen) is verdict.kind
    assert getattr(seen, "reason", None) == verdict.reason
    assert getattr(seen, "retry_after_s", None) == verdict.wait_s
    assert str(seen)


async def test_an_unfit_completion_says_what_it_cost() -> None:
    seen = await failure(httpx.Response(200, json=answer(choice(finish_reason="length"))))
    assert seen.completion.usage.cost_usd == Decimal("0.0021")
    assert seen.completion.generation_id == "gen-1"


async def test_a_refused_key_says_what_to_check() -> None:
    assert "check the key and the credit" in str(await failure(httpx.Response(401)))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx.Response(400, json=error(400, "no such  model\n")), "400: no such model"),
        (HTML, "502: <html><h1>502 Bad Gateway</h1></html>"),
        (httpx.Response(200, html="<html>Sign in</html>"), "no JSON: <html>Sign in</html>"),
        (httpx.Response(400, content=b"\xff\xfe"), "400: \ufffd\ufffd"),
        (httpx.Response(400, json=error(400, {"text": "odd"})), "400: {'text': 'odd'}"),
    ],
)
async def test_a_message_repeats_what_the_provider_said(
    response: httpx.Response, expected: str
) -> None:
    assert expected in str(await failure(response))


LONG = "x" * 100_000
BROKEN = "half \ud83d"


@pytest.mark.parametrize("said", [LONG, BROKEN])
@pytest.mark.parametrize(
    "said_in",
    [
        lambda said: error(502, said),
        lambda said: {"error": said},
        lambda said: answer(choice(error=said)),
        lambda said: answer(choice(error={"message": said})),
        lambda said: answer({"message": {"refusal": said}}),
    ],
    ids=["error", "text", "choice", "choice's message", "refusal"],
)
async def test_a_message_is_short_and_can_be_written(
    said: str, said_in: Callable[[str], dict[str, Any]]
) -> None:
    seen = await failure(httpx.Response(200, content=json.dumps(said_in(said))))
    assert len(str(seen)) < 400
    assert str(seen).encode()
