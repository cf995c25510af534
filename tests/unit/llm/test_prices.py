"""Prices: what a call costs at most, what a list says, and bills that nobody sent."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from asking_fakes import FakeProvider, access, completion

from services.kernel.contracts.provenance import Usage
from services.kernel.llm.prices import Priced, Prices, WorstCase, cost_of, listed_prices
from services.kernel.llm.prompt import Inquiry, Prompt
from services.kernel.llm.provider import UnfitCompletion
from services.kernel.model_settings import ModelPrice
from services.simulator.catalogue import models_list

PROMPT = Prompt("analysis", "1", "You write JSON.", "Analyse.", {}, {"term": "책"})
CHEAP = ModelPrice(prompt_usd=Decimal("0.15"), completion_usd=Decimal("0.6"))
DEAR = ModelPrice(prompt_usd=Decimal(3), completion_usd=Decimal(15), request_usd=Decimal("0.001"))


def inquiry(max_tokens: int = 2_048) -> Inquiry:
    return Inquiry(PROMPT, access(), max_tokens, 0.3)


def test_the_worst_case_is_every_byte_a_token_and_the_longest_answer() -> None:
    worst = WorstCase(Prices({"test/model": DEAR}), [access()])(inquiry())
    body = inquiry().request(access()).body
    expected = Decimal(3 * len(body) + 15 * 2_048) / 1_000_000 + Decimal("0.001")
    assert worst == expected


def test_the_worst_case_follows_the_longest_answer_allowed() -> None:
    worst_case = WorstCase(Prices({"test/model": CHEAP}), [access()])
    small, large = worst_case(inquiry(1_000)), worst_case(inquiry(4_000))
    assert small is not None
    assert large is not None
    assert large > small


def test_of_several_routes_the_dearest_counts_and_one_without_a_price_leaves_it_unknown() -> None:
    other = access(model="other/model")
    prices = Prices({"test/model": CHEAP, "other/model": DEAR})
    worst_case = WorstCase(prices, [access(), other])
    assert worst_case(inquiry()) == WorstCase(prices, [other])(inquiry())
    unpriced = WorstCase(Prices({"test/model": CHEAP}), [access(), other])
    assert unpriced(inquiry()) is None
    assert unpriced.unpriced(inquiry()) == ["other/model"]


def test_the_table_of_the_settings_goes_before_the_list() -> None:
    prices = Prices({"a": CHEAP})
    prices.take_listed({"a": DEAR, "b": DEAR})
    assert (prices["a"], prices["b"], prices["c"]) == (CHEAP, DEAR, None)
    assert [prices.source(m) for m in "abc"] == ["CARDFLOW_PRICES", "provider", "unknown"]


def test_the_simulator_lists_what_it_charges() -> None:
    listed = listed_prices(json.dumps(models_list()).encode())
    price = listed["simulated/teacher-1"]
    assert cost_of(price, Usage(prompt_tokens=1_000, completion_tokens=1_000)) == Decimal("0.00075")


@pytest.mark.parametrize(
    "pricing",
    [
        {"prompt": "-1", "completion": "-1"},
        {"prompt": "NaN", "completion": "0"},
        {"prompt": "Infinity", "completion": "0"},
        {"prompt": "5", "completion": "0"},
        {"prompt": "free", "completion": "0"},
        {"prompt": None, "completion": "0"},
        {"prompt": True, "completion": "0"},
        {"prompt": "0.000001"},
        {"prompt": "0", "completion": "0", "request": "1e9"},
        "0.000001",
        None,
    ],
)
def test_what_is_no_sensible_price_is_left_out(pricing: Any) -> None:
    models = [
        {"id": "bad", "pricing": pricing},
        {"id": "good", "pricing": {"prompt": "0", "completion": "0"}},
    ]
    assert list(listed_prices(json.dumps({"data": models}).encode())) == ["good"]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"data": 3}', b'{"data": [1, {"id": 2}]}', b"[" * 100_000]
)
def test_what_is_no_list_lists_nothing(body: bytes) -> None:
    assert listed_prices(body) == {}


async def test_a_bill_that_the_provider_does_not_send_is_worked_out() -> None:
    silent = completion(cost_usd="0")
    unfit = UnfitCompletion("empty", "no text", silent)
    provider = Priced(FakeProvider([], [silent, unfit, completion()]), Prices({"test/model": DEAR}))
    request = inquiry().request(access())
    expected = Decimal(3 * 100 + 15 * 50) / 1_000_000 + Decimal("0.001")
    assert (await provider.complete(request)).usage.cost_usd == expected
    with pytest.raises(UnfitCompletion) as caught:
        await provider.complete(request)
    assert caught.value.completion.usage.cost_usd == expected
    assert (await provider.complete(request)).usage.cost_usd == Decimal("0.002")
