"""Every contract as it stands on the wire: what was written once is read and written the same.

The files in `golden/` are what other programs, stored streams and databases hold. A test that fails
here means a break of the wire: give the event a new version instead of changing its file.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kernel import contracts
from services.kernel.contracts.base import Contract
from services.kernel.contracts.provenance import Usage
from services.kernel.contracts.term import TermAccepted
from services.kernel.errors import PermanentError

GOLDEN = Path(__file__).parent / "golden"

FREE_MAPS = {"original_headers"}
"""Fields whose keys are the data: there an unknown key is none."""


def all_contracts() -> Iterator[type[Contract]]:
    for module in pkgutil.iter_modules(contracts.__path__, f"{contracts.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            is_contract = isinstance(value, type) and issubclass(value, Contract)
            if is_contract and value is not Contract and value.__module__ == module.name:
                yield value


CONTRACTS = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", contract.__name__).lower(): contract
    for contract in all_contracts()
}
each_contract = pytest.mark.parametrize(("name", "contract"), CONTRACTS.items(), ids=CONTRACTS)


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_contract_has_its_golden_file_and_every_file_its_contract() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(CONTRACTS)


@each_contract
def test_what_was_written_once_is_read_and_written_the_same(
    name: str, contract: type[Contract]
) -> None:
    event = contract.model_validate_json((GOLDEN / f"{name}.json").read_bytes())
    assert json.loads(event.to_bytes()) == golden(name)
    assert contract.model_validate_json(event.to_bytes()) == event


@each_contract
def test_a_golden_file_sets_every_field(name: str, contract: type[Contract]) -> None:
    document = golden(name)
    assert document.keys() == contract.model_fields.keys()
    unset = {field for field, value in document.items() if value in (None, [], {})}
    assert not unset


def from_the_future(value: Any, field: str = "") -> Any:
    """The document with an unknown field in every object of ours."""
    match value:
        case dict() if field in FREE_MAPS:
            return value
        case dict():
            known = {key: from_the_future(item, key) for key, item in value.items()}
            return {**known, "from_the_future": {"any": [1, None]}}
        case list():
            return [from_the_future(item, field) for item in value]
        case _:
            return value


@each_contract
def test_unknown_fields_are_ignored_at_every_depth(name: str, contract: type[Contract]) -> None:
    newer = json.dumps(from_the_future(golden(name)))
    event = contract.model_validate_json(newer)
    assert json.loads(event.to_bytes()) == golden(name)


@each_contract
def test_what_an_older_writer_left_out_has_its_default(name: str, contract: type[Contract]) -> None:
    document = golden(name)
    required = {key for key, field in contract.model_fields.items() if field.is_required()}
    event = contract.model_validate_json(json.dumps({key: document[key] for key in required}))
    assert {key for key in required if json.loads(event.to_bytes())[key] != document[key]} == set()


@each_contract
def test_a_contract_is_frozen(name: str, contract: type[Contract]) -> None:
    event = contract.model_validate(golden_values(name, contract))
    with pytest.raises(ValueError, match="frozen"):
        setattr(event, next(iter(contract.model_fields)), None)


def golden_values(name: str, contract: type[Contract]) -> dict[str, Any]:
    return contract.model_validate_json((GOLDEN / f"{name}.json").read_bytes()).model_dump()


VERSIONED = [name for name, contract in CONTRACTS.items() if "version" in contract.model_fields]


@pytest.mark.parametrize("name", VERSIONED)
def test_an_event_of_another_version_is_not_taken_for_this_one(name: str) -> None:
    newer = json.dumps({**golden(name), "version": 2})
    with pytest.raises(ValueError, match="version"):
        CONTRACTS[name].model_validate_json(newer)


def test_the_events_carry_their_version() -> None:
    assert set(VERSIONED) == {
        "term_accepted",
        "term_analyzed",
        "cards_finished",
        "dead_letter",
        "batch_opened",
        "batch_progress",
        "batch_completed",
        "batch_cancelled",
    }


@given(st.decimals(0, 1_000, places=9, allow_nan=False, allow_infinity=False))
def test_money_is_a_json_number_that_comes_back_exactly(amount: Decimal) -> None:
    written = Usage(cost_usd=amount).to_bytes()
    assert isinstance(json.loads(written)["cost_usd"], float)
    assert Usage.model_validate_json(written).cost_usd == amount


def test_korean_stands_on_the_wire_as_it_is_read() -> None:
    raw = CONTRACTS["term_accepted"].model_validate(golden("term_accepted")).to_bytes()
    assert "배".encode() in raw


def test_bytes_that_are_no_event_are_given_up_on_at_once_and_named() -> None:
    with pytest.raises(PermanentError, match="not a TermAccepted") as raised:
        TermAccepted.from_bytes(b'{"version": 99}')
    assert raised.value.reason == "bad_event"
