"""The simulator fails as told: every kind, the same for the same seed, in any order."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from simulator_calls import INSTANT, PATH, analysis_call, cards_call, client_of, stats_of

from services.kernel.contracts.card import COLUMNS
from services.kernel.errors import SettingsError
from services.simulator.app import SimulatorSettings
from services.simulator.fate import decide_fate
from services.simulator.settings import ERROR_KINDS, MALFORMED_KINDS

TERMS = [f"{syllable}나" for syllable in "가거고구그기다더도두드디라러로루르리마머모무"]


def failing(*kinds: str, rate: float = 1.0) -> SimulatorSettings:
    return replace(INSTANT, error_rate=rate, error_kinds=kinds)


def spoiling(*kinds: str, rate: float = 1.0, seed: int = 0) -> SimulatorSettings:
    return replace(INSTANT, malformed_rate=rate, malformed_kinds=kinds, seed=seed)


async def outcome(client: httpx.AsyncClient, call: dict[str, Any]) -> str:
    """What became of a call, as far as it does not depend on the call's own text."""
    try:
        response = await client.post(PATH, json=call)
    except ConnectionResetError as error:
        return str(error)
    return f"{response.status_code} {response.text}"


@pytest.mark.parametrize(
    ("kind", "retry_after", "error_type"),
    [
        ("429", "1", "rate_limit_exceeded"),
        ("500", None, "server_error"),
        ("502", None, "provider_unavailable"),
        ("503", "1", "provider_overloaded"),
        ("504", None, "timeout"),
    ],
)
async def test_a_failure_by_status(kind: str, retry_after: str | None, error_type: str) -> None:
    async with client_of(failing(kind)) as client:
        response = await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    error = response.json()["error"]
    assert response.status_code == error["code"] == int(kind)
    assert error["metadata"]["error_type"] == error_type
    assert response.headers.get("retry-after") == retry_after
    assert "x-ratelimit-limit" not in response.headers
    assert stats["errors"] == {kind: 1}
    assert (stats["answered"], stats["charged_usd"], stats["rate_limited"]) == (0, 0, 0)


async def test_an_error_can_stand_in_a_200() -> None:
    async with client_of(failing("error_in_200")) as client:
        response = await client.post(PATH, json=analysis_call("책"))

    assert response.status_code == 200
    assert response.json()["error"]["code"] == 502
    assert "choices" not in response.json()


async def test_an_error_can_stand_in_a_choice() -> None:
    async with client_of(failing("error_in_choice")) as client:
        response = await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    choice = response.json()["choices"][0]
    assert response.status_code == 200
    assert choice["finish_reason"] == "error"
    assert choice["error"]["code"] == 502
    assert stats["charged_usd"] == 0


async def test_a_reset_call_is_not_billed_and_a_cut_one_is() -> None:
    async with client_of(failing("reset")) as client:
        with pytest.raises(ConnectionResetError):
            await client.post(PATH, json=analysis_call("책"))
        await client.post("/control", json={"error_kinds": ["cut"]})
        with pytest.raises(ConnectionResetError):
            await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    assert stats["errors"] == {"reset": 1, "cut": 1}
    assert stats["answered"] == 0
    assert stats["charged_usd"] == stats["lost_usd"] > 0
    assert stats["in_flight"] == 0


async def test_all_kinds_of_errors_occur_at_about_their_rate() -> None:
    async with client_of(replace(INSTANT, error_rate=0.3)) as client:
        for number in range(600):
            await outcome(client, analysis_call(f"가{number}"))
        stats = await stats_of(client)

    assert set(stats["errors"]) == set(ERROR_KINDS)
    assert 130 < sum(stats["errors"].values()) < 230


@pytest.mark.parametrize(("stage", "missing"), [("analysis", {"tsv"}), ("cards", set())])
async def test_all_malformed_kinds_occur_at_about_their_rate(stage: str, missing: set[str]) -> None:
    async with client_of(replace(INSTANT, malformed_rate=0.3)) as client:
        for number in range(600):
            term = f"가{number}"
            call = analysis_call(term) if stage == "analysis" else cards_call(term, "Scene")
            await client.post(PATH, json=call)
        stats = await stats_of(client)

    assert set(stats["malformed"]) == set(MALFORMED_KINDS) - missing
    assert 130 < sum(stats["malformed"].values()) < 230
    assert stats["answered"] == 600


async def test_fates_do_not_depend_on_the_order_of_arrival() -> None:
    settings = replace(INSTANT, error_rate=0.4, malformed_rate=0.4, seed=5)
    calls = [(term, nth) for term in TERMS for nth in (1, 2, 3)]
    by_nth = sorted(calls, key=lambda call: (call[1], call[0]))
    seen: list[dict[tuple[str, int], str]] = []
    for order in (calls, by_nth):
        async with client_of(settings) as client:
            seen.append({call: await outcome(client, analysis_call(call[0])) for call in order})

    assert seen[0] == seen[1]
    assert len(set(seen[0].values())) > 20


async def test_another_seed_gives_other_fates() -> None:
    fates = []
    for seed in (1, 1, 2):
        async with client_of(replace(INSTANT, error_rate=0.5, seed=seed)) as client:
            fates.append([(await outcome(client, analysis_call(term)))[:3] for term in TERMS])

    assert fates[0] == fates[1] != fates[2]


async def test_a_later_call_for_the_same_term_comes_out_right() -> None:
    async with client_of(spoiling("prose", rate=0.5)) as client:
        turned_out = {}
        for term in TERMS:
            replies = [await client.post(PATH, json=analysis_call(term)) for _ in range(8)]
            texts = [reply.json()["choices"][0]["message"]["content"] for reply in replies]
            turned_out[term] = [text.startswith("{") for text in texts]

    assert all(any(right) for right in turned_out.values())
    assert not all(right[0] for right in turned_out.values())


def test_a_higher_rate_adds_failures_and_takes_none_away() -> None:
    def failed(rate: float) -> set[str]:
        settings = replace(INSTANT, error_rate=rate)
        return {term for term in TERMS if decide_fate(settings, "analysis", term, 1).error}

    assert failed(0.1) < failed(0.5) < failed(1.0) == set(TERMS)


async def test_a_rate_limited_call_does_not_change_the_fates() -> None:
    seen = []
    for rpm in (0, len(TERMS)):
        async with client_of(replace(INSTANT, error_rate=0.5, rpm=rpm)) as client:
            first = [await outcome(client, analysis_call(term)) for term in TERMS]
            await outcome(client, analysis_call(TERMS[0]))  # Refused in the second round only.
            seen.append(first)

    assert seen[0] == seen[1]


async def choice_of(kind: str, call: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    async with client_of(spoiling(kind, seed=seed)) as client:
        response = await client.post(PATH, json=call)
        stats = await stats_of(client)
    assert stats["malformed"] == {kind: 1}
    assert stats["charged_usd"] == response.json()["usage"]["cost"] > 0
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


CALLS = [analysis_call("책"), cards_call("책", "Scene", "Hanja")]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("seed", range(4))
async def test_what_is_no_json(call: dict[str, Any], seed: int) -> None:
    truncated = await choice_of("truncated", call, seed)
    prose = await choice_of("prose", call, seed)
    empty = await choice_of("empty", call, seed)
    null = await choice_of("null", call, seed)
    refusal = await choice_of("refusal", call, seed)

    assert truncated["finish_reason"] == "length"
    for text in (truncated["message"]["content"], prose["message"]["content"]):
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
    assert empty["message"]["content"].strip() == ""
    assert null["message"]["content"] is None
    assert refusal["message"]["refusal"]
    assert not refusal["message"]["content"]


@pytest.mark.parametrize("seed", range(6))
async def test_fenced_and_trailing_replies_hold_the_right_answer(seed: int) -> None:
    for call in CALLS:
        async with client_of(replace(INSTANT, seed=seed)) as client:
            right = (await client.post(PATH, json=call)).json()["choices"][0]["message"]["content"]
        fenced = (await choice_of("fenced", call, seed))["message"]["content"]
        trailing = (await choice_of("trailing_prose", call, seed))["message"]["content"]

        inside = fenced[fenced.index("{") : fenced.rindex("}") + 1]
        assert fenced.count("```") == 2
        assert json.loads(inside) == json.loads(right)
        assert json.JSONDecoder().raw_decode(trailing)[0] == json.loads(right)
        assert not trailing.endswith("}")


@pytest.mark.parametrize("seed", range(6))
async def test_a_field_is_missing_or_of_a_wrong_type(seed: int) -> None:
    for call, needed in zip(
        CALLS, ({"primary_meaning", "ipa", "pos"}, {"front", "back"}), strict=True
    ):
        missing = json.loads((await choice_of("missing_field", call, seed))["message"]["content"])
        wrong = json.loads((await choice_of("schema_violation", call, seed))["message"]["content"])
        if "cards" in missing:
            assert len(missing["cards"]) == len(wrong["cards"]) == 2
            missing, wrong = missing["cards"][0], wrong["cards"][0]

        assert len(needed - missing.keys()) == 1
        assert sum(isinstance(wrong[name], dict) for name in needed) == 1


@pytest.mark.parametrize("kind", ["missing_field", "schema_violation"])
async def test_even_no_cards_at_all_can_be_spoilt(kind: str) -> None:
    content = (await choice_of(kind, cards_call("책")))["message"]["content"]

    assert json.loads(content).get("cards") in (None, {"value": []})


async def test_the_wrong_term_is_answered_in_the_right_form() -> None:
    for term in ("책", "우산"):
        analysis = json.loads(
            (await choice_of("wrong_term", analysis_call(term)))["message"]["content"]
        )
        cards = json.loads(
            (await choice_of("wrong_term", cards_call(term, "Scene")))["message"]["content"]
        )["cards"]

        assert analysis["term"] not in (term, "")
        assert term not in cards[0]["front"]
        assert cards[0]["tab_name"] == "Scene"


async def test_choices_can_be_empty() -> None:
    async with client_of(spoiling("no_choices")) as client:
        response = await client.post(PATH, json=analysis_call("책"))

    assert response.json()["choices"] == []


async def test_cards_can_come_as_nine_columns_with_and_without_a_header() -> None:
    seen_headers = set()
    for seed in range(8):
        text = (await choice_of("tsv", CALLS[1], seed))["message"]["content"]
        rows = [line.split("\t") for line in text.split("\n")]
        has_header = tuple(rows[0]) == COLUMNS
        seen_headers.add(has_header)
        cards = [dict(zip(COLUMNS, row, strict=True)) for row in rows[has_header:]]

        assert [card["tab_name"] for card in cards] == ["Scene", "Hanja"]
        assert [card["position"] for card in cards] == ["1", "2"]
        assert all(card["term"] == "책" for card in cards)
        assert all(value for card in cards for name, value in card.items() if name != COLUMNS[-1])

    assert seen_headers == {True, False}


async def test_an_analysis_never_comes_as_columns_and_chat_is_never_spoilt() -> None:
    async with client_of(spoiling("tsv")) as client:
        response = await client.post(PATH, json=analysis_call("책"))
        await client.post("/control", json={"malformed_kinds": []})
        await client.post(PATH, json={"messages": [{"role": "user", "content": "ping"}]})
        stats = await stats_of(client)

    assert json.loads(response.json()["choices"][0]["message"]["content"])["term"] == "책"
    assert stats["malformed"] == {}


async def test_down_and_refusing_providers_answer_everybody_alike() -> None:
    async with client_of() as client:
        await client.post("/control", json={"down": True})
        down = await client.post(PATH, json=analysis_call("책"))
        await client.post("/control", json={"down": False, "refuse_status": 402})
        refused = await client.post(PATH, json=analysis_call("책"))
        alive = await client.get("/livez")
        await client.post("/control", json={"refuse_status": 0})
        up = await client.post(PATH, json=analysis_call("책"))
        stats = await stats_of(client)

    assert (down.status_code, refused.status_code, alive.status_code) == (503, 402, 200)
    assert refused.json()["error"]["metadata"]["error_type"] == "insufficient_credits"
    assert up.status_code == 200
    assert stats["errors"] == {"down": 1, "refused_402": 1}


async def test_control_tells_the_settings_that_now_hold() -> None:
    async with client_of() as client:
        changed = (await client.post("/control", json={"error_rate": 0, "latency_ms": 5})).json()
        looked_up = (await client.get("/control")).json()

    assert changed == looked_up
    assert (changed["latency_ms"], changed["malformed_rate"]) == (5, 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"error_rate": 1.5}, "a share of 0 to 1"),
        ({"error_rate": "much"}, "error_rate is 'much'"),
        ({"error_rate": True}, "error_rate is True"),
        ({"down": 1}, "down is 1"),
        ({"rpm": 1.5}, "rpm is 1.5"),
        ({"latency_ms": -1}, "0 or more"),
        ({"error_kinds": ["999"]}, "some of 429"),
        ({"error_kinds": "429"}, "error_kinds"),
        ({"malformed_kinds": [1]}, "malformed_kinds"),
        ({"refuse_status": 200}, "a status of 400 to 599"),
        ([], "a JSON object"),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_as_a_whole(changes: Any, says: str) -> None:
    async with client_of() as client:
        before = (await client.get("/control")).json()
        response = await client.post("/control", json=changes)
        after = (await client.get("/control")).json()

    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
    assert before == after


async def test_a_change_that_is_no_json_is_refused() -> None:
    async with client_of() as client:
        response = await client.post("/control", content=b"down!")

    assert response.status_code == 400


def test_settings_out_of_bounds_are_refused() -> None:
    with pytest.raises(SettingsError, match="rpm is -1; expected 0 or more"):
        SimulatorSettings(rpm=-1)
