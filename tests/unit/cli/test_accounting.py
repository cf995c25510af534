"""A history that is in order balances; whatever is lost, doubled or invented is named by its id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cli.accounts.accounting import (
    AttemptsKey,
    BatchRecord,
    Paid,
    Problem,
    Submission,
    batch_problems,
    fingerprint_problems,
)
from services.cli.accounts.billing import Seen, Tally, provider_problems, tally
from services.kernel.contracts.attempt import Attempt, AttemptHistory, Outcome

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

Fate = st.sampled_from(
    [
        "waiting",
        "refused",
        "accepted",
        "dead1",
        "cancelled1",
        "analyzed",
        "dead2",
        "cancelled2",
        "finished",
        "cached",
    ]
)
REACHED = {"dead1": 1, "analyzed": 1, "cancelled2": 1, "dead2": 2, "finished": 2}
"""How many stages asked a model."""


def attempt(outcome: Outcome = "billed", **values: Any) -> Attempt:
    return Attempt.model_validate({"outcome": outcome, "started_at": NOON, **values})


def history(*attempts: Attempt) -> AttemptHistory:
    return AttemptHistory(attempts=attempts)


def paid_history(fingerprint: str, failures: int = 0) -> AttemptHistory:
    unfit = [
        attempt(fingerprint=fingerprint, cost_usd=Decimal("0.0003"), error="unfit")
        for _ in range(failures)
    ]
    return history(*unfit, attempt(fingerprint=fingerprint, cost_usd=Decimal("0.0007")))


@dataclass
class Story:
    """What happened to a batch's terms, and the books that it left."""

    record: BatchRecord
    attempts: dict[AttemptsKey, AttemptHistory] = field(default_factory=dict)

    def problems(self) -> list[Problem]:
        return [*batch_problems(self.record, self.attempts), *fingerprint_problems(self.attempts)]

    def named(self) -> set[str]:
        """Ids that some problem names; of attempts their term's."""
        return {id_.split("/")[-1] for problem in self.problems() for id_ in problem.ids}


def story_of(fates: list[tuple[str, int]]) -> Story:
    """Each term's fate with the number of unfit replies before it; ingest is at the last place."""
    ids: dict[str, set[str]] = {name: set() for name in ("accepted", "analyzed", "refused")}
    lost: dict[str, dict[str, set[str]]] = {
        kind: {"stage1": set(), "stage2": set()} for kind in ("dead", "cancelled")
    }
    finished: dict[str, tuple[Paid, Paid]] = {}
    submissions, attempts = [], {}
    floor = len(fates)
    for place, (fate, failures) in enumerate(fates, 1):
        id_ = f"t{place}"
        late = floor + place if fate == "waiting" else place
        submissions.append(Submission(late, None if fate == "refused" else id_, f"r{place}"))
        if fate in ("waiting", "refused"):
            ids["refused"] |= {f"r{place}"} if fate == "refused" else set()
            continue
        ids["accepted"].add(id_)
        for stage in ("stage1", "stage2")[: REACHED.get(fate, 0)]:
            attempts[AttemptsKey(stage, "b", id_)] = paid_history(f"{stage}-{id_}", failures)
        if fate in ("analyzed", "dead2", "cancelled2", "finished", "cached"):
            ids["analyzed"].add(id_)
        if fate[:-1] in lost:
            lost[fate[:-1]][f"stage{fate[-1]}"].add(id_)
        if fate in ("finished", "cached"):
            cost = Decimal("0.0007") + failures * Decimal("0.0003")
            stage = Paid(failures + 1, cost, cached=False)
            nothing = Paid(0, Decimal(0), cached=True)
            finished[id_] = (stage, stage) if fate == "finished" else (nothing, nothing)
    record = BatchRecord(
        "b",
        tuple(submissions),
        floor,
        frozenset(ids["accepted"]),
        frozenset(ids["analyzed"]),
        finished,
        frozenset(ids["refused"]),
        *({stage: frozenset(found) for stage, found in each.items()} for each in lost.values()),
    )
    return Story(replace(record, awaited=record.in_flight), attempts)


FATES = st.lists(st.tuples(Fate, st.integers(0, 3)), min_size=1, max_size=30)


@settings(deadline=None)
@given(FATES)
def test_a_history_that_is_in_order_balances(fates: list[tuple[str, int]]) -> None:
    story = story_of(fates)
    assert story.problems() == []
    names = [fate for fate, _ in fates]
    assert story.record.ingested == ("waiting" not in names)
    unended = {"waiting", "accepted", "analyzed"} & set(names)
    assert story.record.complete == (not unended)


@settings(deadline=None)
@given(FATES)
def test_a_submission_sent_again_changes_nothing(fates: list[tuple[str, int]]) -> None:
    story = story_of(fates)
    again = [s._replace(sequence=s.sequence + 100) for s in story.record.submissions]
    story.record = replace(story.record, submissions=(*story.record.submissions, *again))
    assert story.problems() == []


def _change(story: Story, **values: Any) -> None:
    story.record = replace(story.record, **values)


def _lose_accepted(story: Story) -> str:
    _change(story, accepted=story.record.accepted - {"t1"}, analyzed=frozenset(), dead={})
    _change(story, finished={})
    return "t1"


def _lose_in_flight(story: Story) -> str:
    """Its card and its analysis are gone, and no consumer will see it again."""
    finished = {id_: paid for id_, paid in story.record.finished.items() if id_ != "t1"}
    _change(story, finished=finished, awaited=frozenset())
    return "t1"


def _finish_and_die(story: Story) -> str:
    _change(story, dead={"stage2": frozenset({"t1"})})
    return "t1"


def _analyze_and_die(story: Story) -> str:
    _change(story, dead={"stage1": frozenset({"t1"})}, finished={})
    return "t1"


def _finish_and_cancel(story: Story) -> str:
    _change(story, cancelled={"stage2": frozenset({"t1"})})
    return "t1"


def _die_and_cancel(story: Story) -> str:
    t1 = {"stage2": frozenset({"t1"})}
    _change(story, finished={}, dead=t1, cancelled=t1)
    return "t1"


def _cancel_in_both(story: Story) -> str:
    t1 = frozenset({"t1"})
    _change(story, finished={}, cancelled={"stage1": t1, "stage2": t1})
    return "t1"


def _analyze_and_cancel(story: Story) -> str:
    _change(story, finished={}, cancelled={"stage1": frozenset({"t1"})})
    return "t1"


def _cancel_from_nowhere(story: Story) -> str:
    _change(story, cancelled={"stage2": frozenset({"ghost"})})
    return "ghost"


def _accept_from_nowhere(story: Story) -> str:
    _change(story, accepted=story.record.accepted | {"ghost"}, awaited=frozenset({"ghost"}))
    return "ghost"


def _refuse_from_nowhere(story: Story) -> str:
    _change(story, refused=story.record.refused | {"ghost"})
    return "ghost"


def _analyze_from_nowhere(story: Story) -> str:
    _change(story, analyzed=story.record.analyzed | {"ghost"})
    return "ghost"


def _finish_from_nowhere(story: Story) -> str:
    nothing = Paid(0, Decimal(0), cached=True)
    _change(story, finished={**story.record.finished, "ghost": (nothing, nothing)})
    return "ghost"


def _die_from_nowhere(story: Story) -> str:
    _change(story, dead={"stage1": frozenset({"ghost"})})
    return "ghost"


def _misplace(story: Story) -> str:
    _change(story, misplaced=frozenset({"t1"}))
    return "t1"


def _pay_twice(story: Story) -> str:
    key = AttemptsKey("stage1", "other", "t1")
    story.attempts[key] = history(attempt(fingerprint="stage1-t1"))
    return "t1"


def _forget_a_call(story: Story) -> str:
    del story.attempts[AttemptsKey("stage2", "b", "t1")]
    return "t1"


def _raise_the_price(story: Story) -> str:
    key = AttemptsKey("stage1", "b", "t1")
    dearer = attempt(fingerprint="stage1-t1", cost_usd=Decimal("0.0008"))
    story.attempts[key] = history(*story.attempts[key].attempts[:-1], dearer)
    return "t1"


FAULTS = [
    (_lose_accepted, "submissions"),
    (_lose_in_flight, "terms"),
    (_finish_and_die, "terms"),
    (_analyze_and_die, "terms"),
    (_die_from_nowhere, "terms"),
    (_finish_and_cancel, "terms"),
    (_die_and_cancel, "terms"),
    (_cancel_in_both, "terms"),
    (_analyze_and_cancel, "terms"),
    (_cancel_from_nowhere, "terms"),
    (_accept_from_nowhere, "submissions"),
    (_refuse_from_nowhere, "submissions"),
    (_analyze_from_nowhere, "outputs"),
    (_finish_from_nowhere, "outputs"),
    (_misplace, "outputs"),
    (_pay_twice, "fingerprints"),
    (_forget_a_call, "money"),
    (_raise_the_price, "money"),
]


@pytest.mark.parametrize(("fault", "identity"), FAULTS, ids=lambda f: getattr(f, "__name__", f))
@settings(deadline=None)
@given(fates=FATES)
def test_what_is_lost_doubled_or_invented_is_named(
    fault: Callable[[Story], str], identity: str, fates: list[tuple[str, int]]
) -> None:
    story = story_of([("finished", 0), *fates])
    id_ = fault(story)
    assert identity in {p.identity for p in story.problems() if any(id_ in i for i in p.ids)}


@settings(deadline=None)
@given(FATES)
def test_one_fault_blames_no_other_term(fates: list[tuple[str, int]]) -> None:
    story = story_of([("finished", 0), *fates])
    _forget_a_call(story)
    assert story.named() == {"t1"}


@pytest.mark.parametrize(
    ("outcome", "is_unequal"), [("uncertain", False), ("billed", True), ("unbilled", True)]
)
def test_only_an_uncertain_call_may_turn_out_to_have_cost_something(
    outcome: Outcome, is_unequal: bool
) -> None:
    """Its answer may come after another replica has made the card."""
    story = story_of([("finished", 0)])
    key = AttemptsKey("stage1", "b", "t1")
    [paid] = story.attempts[key].attempts
    late = attempt(outcome, fingerprint="stage1-t1", cost_usd=Decimal("0.0005"), error="late")
    story.attempts[key] = history(late, paid)
    stage1, stage2 = story.record.finished["t1"]
    _change(story, finished={"t1": (stage1._replace(calls=2), stage2)})
    assert story.named() == ({"t1"} if is_unequal else set())


@pytest.mark.parametrize(("outcome", "is_unequal"), [("uncertain", False), ("unbilled", True)])
def test_a_card_may_lack_a_call_only_beside_an_uncertain_one(
    outcome: Outcome, is_unequal: bool
) -> None:
    """Who lost its claim publishes, while another replica asks again."""
    story = story_of([("finished", 0)])
    key = AttemptsKey("stage1", "b", "t1")
    [paid] = story.attempts[key].attempts
    own = attempt(outcome, fingerprint="stage1-t1", cost_usd=paid.cost_usd, error="claim lost")
    story.attempts[key] = history(own, paid)
    assert story.named() == ({"t1"} if is_unequal else set())


def test_a_submission_beyond_ingest_is_in_flight_and_none_before_it_is() -> None:
    waiting = BatchRecord("b", (Submission(8, "t", "r"),), ingest_floor=7)
    assert batch_problems(waiting, {}) == []
    assert not waiting.ingested
    [problem] = batch_problems(replace(waiting, ingest_floor=8), {})
    assert (problem.identity, problem.ids) == ("submissions", ("t",))


def test_a_refusal_sent_again_is_in_flight_by_its_last_submission() -> None:
    first, again = Submission(3, None, "r"), Submission(9, None, "r")
    assert batch_problems(BatchRecord("b", (first, again), ingest_floor=5), {}) == []


def test_a_readable_submission_may_have_been_refused_by_its_bytes() -> None:
    record = BatchRecord("b", (Submission(1, "t", "r"),), 1, refused=frozenset({"r"}))
    assert batch_problems(record, {}) == []


def test_origins_are_not_checked_once_submissions_are_forgotten() -> None:
    old = story_of([("finished", 0)])
    record = replace(
        old.record, submissions=(), accepted=frozenset(), analyzed=frozenset(), forgotten=True
    )
    assert batch_problems(record, old.attempts) == []
    assert batch_problems(replace(record, forgotten=False), old.attempts)


def test_money_may_differ_by_the_rounding_of_the_wire_only() -> None:
    story = story_of([("finished", 0)])
    first, second = story.record.finished["t1"]
    for gap, expected in (("1e-17", []), ("1e-9", ["money"])):
        paid = first._replace(cost_usd=first.cost_usd + Decimal(gap))
        record = replace(story.record, finished={"t1": (paid, second)})
        assert [p.identity for p in batch_problems(record, story.attempts)] == expected


BILLED = {"fingerprint": "f", "cost_usd": Decimal("0.001")}


def test_attempts_are_tallied_by_how_they_ended() -> None:
    earlier = NOON - timedelta(seconds=5)
    found = tally(
        [
            history(attempt(**BILLED), attempt("throttled", fingerprint="f")),
            history(attempt("uncertain", fingerprint="f"), attempt("started", fingerprint="f")),
            history(attempt("unbilled", fingerprint="f", started_at=earlier)),
            history(attempt("failed", fingerprint="f")),
            history(attempt("started"), attempt("failed")),
        ]
    )
    assert found == Tally(
        billed=1,
        unbilled=1,
        uncertain=3,
        throttled=1,
        cost_usd=Decimal("0.001"),
        first_at=earlier,
    )
    assert found.calls == 5


RECORDED = Tally(billed=10, throttled=2, cost_usd=Decimal("0.010"))
UNSURE = replace(RECORDED, uncertain=3, unbilled=1)

PROVIDER_CASES = [
    ("equal", RECORDED, (12, "0.010"), (12, "0.010"), 0),
    ("a call that nobody recorded", RECORDED, (13, "0.010"), (13, "0.010"), 1),
    ("a recorded call that nobody saw", RECORDED, (11, "0.010"), (11, "0.010"), 1),
    ("a charge that nobody recorded", RECORDED, (12, "0.011"), (12, "0.011"), 1),
    ("a recorded cost that nobody charged", RECORDED, (12, "0.009"), (12, "0.009"), 1),
    ("both", RECORDED, (20, "0.02"), (20, "0.02"), 2),
    ("no uncertain call arrived", UNSURE, (12, "0.010"), (12, "0.010"), 0),
    ("all uncertain calls arrived and were billed", UNSURE, (16, "0.013"), (16, "0.013"), 0),
    ("more than all uncertain calls", UNSURE, (17, "0.013"), (17, "0.013"), 1),
    ("uncertain calls take nothing back", UNSURE, (16, "0.009"), (16, "0.009"), 1),
    ("work went on between two looks", RECORDED, (9, "0.007"), (15, "0.013"), 0),
]


@pytest.mark.parametrize(
    ("recorded", "before", "after", "expected"),
    [case[1:] for case in PROVIDER_CASES],
    ids=[case[0] for case in PROVIDER_CASES],
)
def test_the_provider_may_differ_by_the_uncertain_calls_only(
    recorded: Tally, before: tuple[int, str], after: tuple[int, str], expected: int
) -> None:
    looks = [Seen(calls, Decimal(usd)) for calls, usd in (before, after)]
    problems = provider_problems(looks[0], recorded, looks[1])
    assert [p.identity for p in problems] == ["provider"] * expected
