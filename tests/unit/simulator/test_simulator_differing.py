"""Models of other names that see some terms otherwise."""

from __future__ import annotations

import json
from typing import Any

from running_pipeline import invented_words

from services.simulator.asked import read_call
from services.simulator.completions import SimulatedModel
from services.simulator.fate import Fate
from services.simulator.knowledge import Knowledge
from services.simulator.settings import MODEL_ID

MODEL = SimulatedModel(Knowledge.shipped())
HONEST = Fate(0.0, hangs=False, error=None, malformed=None, variant=0, code="")
FIELDS = {"pos", "ipa", "hanja", "primary_meaning"}


def answer(term: str, model: str, rate: float, seed: int = 0, **data: Any) -> dict[str, Any]:
    said = json.dumps({"term": term, **data}, ensure_ascii=False)
    asked = read_call(
        json.dumps({"model": model, "messages": [{"role": "user", "content": said}]}).encode()
    )
    content = MODEL.complete(asked, HONEST, seed, disagreement_rate=rate).content
    loaded: dict[str, Any] = json.loads(content or "")
    return loaded


def changed(term: str, model: str, rate: float, seed: int = 0) -> set[str]:
    right, said = answer(term, MODEL_ID, rate, seed), answer(term, model, rate, seed)
    return {field for field in right if right[field] != said[field]}


def test_the_simulators_own_model_is_always_right() -> None:
    assert answer("책", MODEL_ID, 1.0) == answer("책", MODEL_ID, 0.0)


def test_without_a_rate_all_models_agree() -> None:
    assert not any(changed(term, "other/model", 0.0) for term in invented_words(50))


def test_another_model_differs_in_one_field_for_that_share_of_terms() -> None:
    differing = [changed(term, "other/model", 0.3) for term in invented_words(300)]
    assert 60 < sum(map(bool, differing)) < 120
    assert {len(fields) for fields in differing} == {0, 1}
    assert set().union(*differing) == FIELDS


def test_a_higher_rate_keeps_the_terms_of_a_lower_one() -> None:
    for term in invented_words(100):
        assert changed(term, "other/model", 0.2) <= changed(term, "other/model", 0.6)
        assert changed(term, "other/model", 1.0)


def test_the_same_seed_differs_in_the_same_terms_and_two_models_in_others() -> None:
    words = invented_words(100)
    one = [changed(term, "other/model", 0.5) for term in words]
    assert one == [changed(term, "other/model", 0.5) for term in words]
    assert one != [changed(term, "third/model", 0.5) for term in words]
    assert one != [changed(term, "other/model", 0.5, seed=1) for term in words]


def test_cards_are_the_same_whoever_writes_them() -> None:
    data = {**answer("책", MODEL_ID, 0.0), "card_types": ["Scene"]}
    assert answer(model="other/model", rate=1.0, **data) == answer(model=MODEL_ID, rate=1.0, **data)
