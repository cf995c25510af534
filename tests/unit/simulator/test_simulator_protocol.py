"""The simulator speaks OpenRouter's protocol and keeps exact books."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from simulator_calls import PATH, Clock, analysis_call, cards_call, client_of, stats_of

from services.kernel.provider_access import SIMULATED_MODEL
from services.simulator.app import SimulatorSettings, build_app
from services.simulator.settings import MODEL_ID


def content_of(response: httpx.Response) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(response.json()["choices"][0]["message"]["content"])
    return answer


async def test_a_reply_has_the_shape_of_a_chat_completion() -> None:
    async with client_of() as client:
        response = await client.post(PATH, json=analysis_call("책"))

    reply = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-generation-id"] == reply["id"]
    assert reply["object"] == "chat.completion"
    assert reply["provider"] == "Simulated"
    assert reply["model"] == "some/model"
    assert reply["created"] == 1_800_000_000
    choice = reply["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("stop", "stop")
    assert choice["message"]["role"] == "assistant"
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}
    nano = usage["prompt_tokens"] * 150 + usage["completion_tokens"] * 600
    assert Decimal(str(usage["cost"])) == Decimal(nano) / 10**9


@pytest.mark.parametrize("path", [PATH, "/v1/chat/completions", "/chat/completions"])
async def test_any_prefix_leads_to_the_same_model(path: str) -> None:
    async with client_of() as client:
        response = await client.post(path, json=analysis_call("책"))

    assert content_of(response)["primary_meaning"] == "book"


async def test_the_shipped_truth_is_answered_by_homonym_number() -> None:
    async with client_of() as client:
        boat = await client.post(PATH, json=analysis_call("배", homonym=2))
        pear = await client.post(PATH, json=analysis_call("배", hint="pear"))

    assert "boat" in content_of(boat)["primary_meaning"]
    assert "pear" in content_of(pear)["primary_meaning"]
    assert not {"homonym", "hint", "term_number"} & content_of(boat).keys()


async def test_an_unknown_term_is_answered_and_marked_as_simulated() -> None:
    async with client_of() as client:
        response = await client.post(PATH, json=analysis_call("뷁뛟", type="adverb"))

    answer = content_of(response)
    assert answer["term"] == "뷁뛟"
    assert answer["pos"] == "adverb"
    assert answer["primary_meaning"] == "simulated meaning of 뷁뛟"


async def test_cards_come_one_per_type_in_the_order_asked_for() -> None:
    wanted = ["Scene", "Usage-Comparison", "Hanja"]
    async with client_of() as client:
        response = await client.post(PATH, json=cards_call("책", *wanted))
        untyped = await client.post(
            PATH,
            json={"messages": [{"role": "user", "content": '{"term": "책", "card_types": 1}'}]},
        )

    assert [card["tab_name"] for card in content_of(response)["cards"]] == wanted
    assert [card["tab_name"] for card in content_of(untyped)["cards"]] == ["Scene"]


async def test_the_term_is_found_in_parts_and_before_a_repair_message() -> None:
    call = analysis_call("책")
    asked = call["messages"][1]["content"]
    call["messages"][1]["content"] = [{"type": "text", "text": asked}, {"type": "image"}, "x"]
    call["messages"] += [
        {"role": "assistant", "content": '{"term": "물"}'},
        {"role": "user", "content": "ipa was missing.\n{broken\n{}\nAnswer again."},
    ]
    async with client_of() as client:
        response = await client.post(PATH, json=call)

    assert content_of(response)["term"] == "책"


async def test_a_call_without_a_term_is_chat() -> None:
    async with client_of() as client:
        response = await client.post(
            PATH, json={"messages": [{"role": "user", "content": "ping"}, {"role": "user"}]}
        )
        stats = await stats_of(client)

    assert "simulator" in response.json()["choices"][0]["message"]["content"]
    assert response.json()["model"] == MODEL_ID
    assert stats["by_stage"] == {"analysis": 0, "cards": 0, "chat": 1}
    assert stats["terms"] == {"analysis": {}, "cards": {}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{nonsense", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", '"messages"'),
        (b"{}", '"messages"'),
        (b'{"messages": ["x"]}', '"messages"'),
        (b'{"messages": []}', "empty"),
        (b'{"messages": [{"role": "user"}], "stream": true}', "Streaming"),
    ],
)
async def test_a_bad_request_is_told_so_in_the_provider_s_form(body: bytes, says: str) -> None:
    async with client_of() as client:
        response = await client.post(PATH, content=body)
        stats = await stats_of(client)

    error = response.json()["error"]
    assert response.status_code == error["code"] == 400
    assert says in error["message"]
    assert error["metadata"]["error_type"] == "invalid_request"
    assert stats["errors"] == {"bad_request": 1}
    assert stats["charged_usd"] == 0


async def test_max_tokens_stops_the_model_in_mid_word() -> None:
    async with client_of() as client:
        response = await client.post(PATH, json={**analysis_call("책"), "max_tokens": 20})
        stats = await stats_of(client)

    reply = response.json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 20
    assert stats["malformed"] == {"max_tokens": 1}


async def test_models_and_generations_can_be_looked_up() -> None:
    async with client_of() as client:
        models = (await client.get("/api/v1/models")).json()
        reply = (await client.post(PATH, json=analysis_call("책"))).json()
        known = await client.get("/api/v1/generation", params={"id": reply["id"]})
        unknown = await client.get("/api/v1/generation", params={"id": "gen-0"})

    assert [model["id"] for model in models["data"]] == [MODEL_ID] == [SIMULATED_MODEL]
    assert models["data"][0]["pricing"]["prompt"] == "0.00000015"
    assert models["data"][0]["pricing"]["completion"] == "0.0000006"
    assert known.json()["data"]["total_cost"] == reply["usage"]["cost"]
    assert known.json()["data"]["tokens_prompt"] == reply["usage"]["prompt_tokens"]
    assert unknown.status_code == unknown.json()["error"]["code"] == 404


async def test_old_generations_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.simulator.provider._GENERATIONS_KEPT", 1)
    async with client_of() as client:
        old, new = [
            (await client.post(PATH, json=analysis_call(term))).json()["id"]
            for term in ("책", "물")
        ]
        found = [
            (await client.get("/generation", params={"id": id_})).status_code for id_ in (old, new)
        ]

    assert found == [404, 200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/livez", 200), ("GET", "/", 404), ("GET", PATH, 405), ("GET", "/control", 200)],
)
async def test_other_addresses(method: str, path: str, status: int) -> None:
    async with client_of() as client:
        response = await client.request(method, path)

    assert response.status_code == status


async def test_other_scopes_than_http_are_left_alone() -> None:
    async def never() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError

    await build_app(SimulatorSettings())({"type": "lifespan"}, never, send)


async def test_the_books_add_up_to_the_nano_dollar() -> None:
    calls = [analysis_call("책"), analysis_call("물"), cards_call("책", "Scene", "Hanja")]
    async with client_of() as client:
        replies = [(await client.post(PATH, json=call)).json() for call in calls * 3]
        stats = await stats_of(client)

    costs = sum(Decimal(str(reply["usage"]["cost"])) for reply in replies)
    assert Decimal(str(stats["charged_usd"])) == costs > 0
    assert stats["calls"] == stats["answered"] == 9
    assert stats["by_stage"] == {"analysis": 6, "cards": 3}
    assert stats["terms"] == {"analysis": {"책": 3, "물": 3}, "cards": {"책": 3}}
    assert stats["duplicates"] == 3
    assert stats["lost_usd"] == 0
    assert stats["started_at"] == "2027-01-15T08:00:00+00:00"


async def test_homonyms_and_hints_are_other_requests_and_no_duplicates() -> None:
    calls = [
        analysis_call("배", homonym=1),
        analysis_call("배", homonym=2),
        analysis_call("책"),
        analysis_call("책", hint="book"),
    ]
    async with client_of() as client:
        for call in calls:
            await client.post(PATH, json=call)
        stats = await stats_of(client)
        without_terms = (await client.get("/stats?terms=0")).json()

    assert stats["terms"]["analysis"] == {"배#1": 1, "배#2": 1, "책": 2}
    assert stats["duplicates"] == 0
    assert "terms" not in without_terms


async def test_the_highest_concurrency_is_counted() -> None:
    waiting = asyncio.Semaphore(0)
    all_there = asyncio.Event()

    async def sleep(_: float) -> None:
        waiting.release()
        await all_there.wait()

    app = build_app(SimulatorSettings(), sleep=sleep)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s") as client:
        async with asyncio.TaskGroup() as group:
            for number in range(7):
                group.create_task(client.post(PATH, json=analysis_call(f"가{number}")))
            for _ in range(7):
                await waiting.acquire()
            in_flight = (await stats_of(client))["in_flight"]
            all_there.set()
        stats = await stats_of(client)

    assert in_flight == 7
    assert stats["highest_concurrency"] == 7
    assert stats["in_flight"] == 0


async def test_latency_is_spread_around_its_mean_and_has_a_tail() -> None:
    clock = Clock()
    settings = SimulatorSettings(latency_ms=100, jitter_ms=50, tail_rate=0.2, tail_ms=1000)
    async with client_of(settings, clock) as client:
        for number in range(200):
            await client.post(PATH, json=analysis_call(f"가{number}"))

    usual = [delay_s for delay_s in clock.slept_s if delay_s < 1]
    assert 0.05 <= min(usual) < 0.06
    assert 0.14 < max(usual) <= 0.15
    assert 20 <= len(clock.slept_s) - len(usual) <= 60


async def test_no_60_seconds_hold_more_calls_than_the_limit() -> None:
    clock = Clock()
    async with client_of(SimulatorSettings(latency_ms=0, jitter_ms=0, rpm=3), clock) as client:
        statuses = []
        for at_s in (0, 10, 20, 30, 59.9, 60, 60.5, 70, 75):
            clock.now_s = 1_800_000_000 + at_s
            response = await client.post(PATH, json=analysis_call("책"))
            statuses.append((at_s, response.status_code))
        stats = await stats_of(client)

    assert statuses == [
        (0, 200),
        (10, 200),
        (20, 200),
        (30, 429),
        (59.9, 429),
        (60, 200),
        (60.5, 429),
        (70, 200),
        (75, 429),
    ]
    assert stats["rate_limited"] == 4
    assert stats["calls"] == 9
    assert stats["errors"] == {}


async def test_each_model_has_a_limit_of_its_own_and_its_own_figures() -> None:
    clock = Clock()
    clock.now_s = 1_800_000_000
    async with client_of(SimulatorSettings(latency_ms=0, jitter_ms=0, rpm=2), clock) as client:
        statuses = []
        for at_s, model in ((0, "a"), (0.5, "a"), (1, "a"), (1, "b"), (70, "a")):
            clock.now_s = 1_800_000_000 + at_s
            call = analysis_call("책") | {"model": model}
            statuses.append((await client.post(PATH, json=call)).status_code)
        models = (await stats_of(client))["models"]

    assert statuses == [200, 200, 429, 200, 200]
    assert models["b"]["admitted"] == 1
    assert models["a"] == {
        "admitted": 3,
        "first_at": 1_800_000_000,
        "last_at": 1_800_000_070,
        "busiest_minute": 2,
        "busiest_second": 2,
    }


async def test_a_429_says_when_there_is_room_again() -> None:
    clock = Clock()
    async with client_of(SimulatorSettings(latency_ms=0, jitter_ms=0, rpm=1), clock) as client:
        await client.post(PATH, json=analysis_call("책"))
        clock.now_s += 12.5
        response = await client.post(PATH, json=analysis_call("책"))
        clock.now_s += int(response.headers["retry-after"])
        later = await client.post(PATH, json=analysis_call("책"))

    assert response.headers["retry-after"] == "48"
    assert response.headers["x-ratelimit-limit"] == "1"
    assert response.headers["x-ratelimit-remaining"] == "0"
    assert response.headers["x-ratelimit-reset"] == "1800000060000"
    error = response.json()["error"]
    assert error["code"] == 429
    assert error["metadata"]["headers"]["X-RateLimit-Reset"] == "1800000060000"
    assert error["availability"] == {"retryable": True, "retry_after": 48}
    assert later.status_code == 200


async def test_a_limit_set_while_running_counts_what_went_before() -> None:
    async with client_of() as client:
        for _ in range(5):
            await client.post(PATH, json=analysis_call("책"))
        await client.post("/control", json={"rpm": 5})
        response = await client.post(PATH, json=analysis_call("책"))

    assert response.status_code == 429
