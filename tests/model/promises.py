"""The promises as claims about a world: what is broken now, and what is broken at its end.

P1 nothing lost, P2 nothing twice, P3 nothing paid twice knowingly. A check returns one sentence
for each breach that it finds.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal

from model.provider import FIT_USD, Mood
from model.replica import POLICY, STAGES
from model.world import World

from services.kernel import topology
from services.kernel.contracts.attempt import Attempt
from services.kernel.stream.attempt_changes import TAKEN_OVER, is_answered

_UNKNOWN = ("started", "uncertain", "failed")


def broken(world: World) -> list[str]:
    """What must hold at every moment."""
    return [
        *_nothing_lost(world),
        *_nothing_twice(world),
        *_nothing_paid_twice(world),
        *_every_call_recorded(world),
        *_attempts_bounded(world),
        *_repairs_bounded(world),
        *_budgets_kept(world),
        *(f"a worker ended: {crash}" for crash in world.crashes),
    ]


def broken_at_the_end(world: World) -> list[str]:
    """What must hold when all faults are over and the world had time enough."""
    found = broken(world)
    for service, consumer in world.consumers.items():
        found += [f"P1 {service} never ended {m.subject}" for m in consumer.unanswered.values()]
    if world.was_peaceful:
        found += _each_asked_once(world)
        found += _every_cent_settled(world)
    return found


def _nothing_lost(world: World) -> Iterator[str]:
    letters = world.broker.streams[topology.DEAD_LETTERS.name]
    for stage in STAGES:
        outputs = world.broker.streams[stage.next_stream.name]
        awaited = {
            topology.source_of(message.subject)[0]
            for reads in topology.consumers_of(stage.service)
            for message in world.consumers[reads.durable].unanswered.values()
        } | world.lost_copies
        for subject in world.broker.streams[stage.stream.name].subjects():
            batch, id_ = subject.split(".")[-2:]
            ends = {
                "published": outputs.last(stage.next_subject(batch, id_)),
                "dead": letters.last(topology.dead_subject(stage.service, batch, id_)),
                "cancelled": letters.last(topology.cancelled_subject(stage.service, batch, id_)),
            }
            met = [name for name, stored in ends.items() if stored]
            if len(met) > 1:
                yield f"P1 {subject} is {' and '.join(met)}"
            if not met and subject not in awaited:
                yield f"P1 {subject} is lost: acknowledged without an end"


def _nothing_twice(world: World) -> Iterator[str]:
    for stage in STAGES:
        stream = world.broker.streams[stage.next_stream.name]
        subjects = Counter(stored.subject for stored in stream.messages.values())
        yield from (f"P2 {subject} stands twice" for subject, n in subjects.items() if n > 1)
        for stored in stream.messages.values():
            event = json.loads(stored.data)
            event = event.get("accepted", event)
            if stored.subject != stage.next_subject(event["batch"], event["term_id"]):
                yield f"P2 {stored.subject} holds the result of {event['term_id']}"


def _nothing_paid_twice(world: World) -> Iterator[str]:
    recorded = _by_fingerprint(world)
    for fingerprint, attempts in recorded.items():
        paid = [a for a in attempts if a.outcome == "billed" and a.error is None]
        if len(paid) > 1:
            yield f"P3 {len(paid)} billed successes for {fingerprint[:8]}"
    for fingerprint in {call.fingerprint for call in world.provider.calls}:
        calls = [call for call in world.provider.calls if call.fingerprint == fingerprint]
        attempts = recorded.get(fingerprint, [])
        uncertain = [a for a in attempts if a.outcome in _UNKNOWN]
        if sum(call.is_fit for call in calls) > 1 + len(uncertain):
            yield f"P3 {fingerprint[:8]} was served more often than is recorded"
        charged = sum((call.charged_usd for call in calls), Decimal(0))
        cost = sum((a.cost_usd for a in attempts), Decimal(0))
        unknown = sum(a.generation_id is None for a in uncertain)
        if not cost <= charged <= cost + unknown * FIT_USD:
            yield (
                f"P3 {fingerprint[:8]}: {charged} $ were charged, {cost} $ recorded, "
                f"and {unknown} calls have an unknown cost"
            )
    generations = Counter(
        a.generation_id for attempts in recorded.values() for a in attempts if a.generation_id
    )
    yield from (f"P3 {id_} is recorded {n} times" for id_, n in generations.items() if n > 1)
    yield from (f"P3 {collision}" for collision in world.books.collisions)


def _every_call_recorded(world: World) -> Iterator[str]:
    yield from (f"P3 {call} without a record" for call in world.books.unrecorded)
    recorded = _by_fingerprint(world)
    seen = Counter(call.fingerprint for call in world.provider.calls)
    for fingerprint, calls in seen.items():
        known = sum(attempt.times for attempt in recorded.get(fingerprint, []))
        if known < calls:
            yield f"P3 {calls} calls were made for {fingerprint[:8]}, {known} are on record"


def _attempts_bounded(world: World) -> Iterator[str]:
    """So many for an answer, and as many deaths on the rest of the way, which costs nothing."""
    for key, history in world.ledgers().items():
        for replay in {attempt.replay for attempt in history.attempts}:
            for stretch in _stretches(history.attempts, replay):
                tries = sum(attempt.outcome != "cached" for attempt in stretch)
                if tries > POLICY.max_attempts:
                    yield f"P3 {key}: {tries} attempts in a row at replay {replay}"
    for letter in world.letters():
        *answered, rest = _stretches(letter.record.history.attempts, letter.replays)
        if answered and len(rest) < POLICY.max_attempts:
            yield f"P3 {letter.address} was paid for and is dead: {letter.record.message}"


def _repairs_bounded(world: World) -> Iterator[str]:
    """One for an unfit reply, and none for another reason."""
    for key, history in world.ledgers().items():
        asked = [a for a in history.attempts if a.fingerprint and a.outcome != "throttled"]
        unfit = sum(a.outcome == "billed" and a.error is not None for a in asked)
        repairs = [place for place, attempt in enumerate(asked) if attempt.is_repair]
        if len(repairs) > unfit:
            yield f"{key}: {len(repairs)} repairs of {unfit} unfit replies"
        if any(asked[place - 1].is_repair for place in repairs if place):
            yield f"{key}: a repair of a repair"


def _stretches(attempts: Iterable[Attempt], replay: int) -> list[list[Attempt]]:
    """The attempts of a replay, each stretch up to its answer; the last one has none.

    Throttled ones are none, and no more is a mark that another hand closed: it did nothing.
    """
    stretches: list[list[Attempt]] = [[]]
    for attempt in attempts:
        is_closed_mark = attempt.fingerprint is None and attempt.error == TAKEN_OVER
        if attempt.replay != replay or attempt.outcome == "throttled" or is_closed_mark:
            continue
        stretches[-1].append(attempt)
        if is_answered(attempt):
            stretches.append([])
    return stretches


def _each_asked_once(world: World) -> Iterator[str]:
    """Nothing was lost or cut off and nobody died: one call for each completion, no other."""
    calls = Counter(c.fingerprint for c in world.provider.calls if c.mood in (Mood.FIT, Mood.SLOW))
    yield from (f"{fp[:8]} was asked for {n} times" for fp, n in calls.items() if n > 1)
    for key, history in world.ledgers().items():
        if history.calls > 1 or history.uncertain:
            yield f"{key} records {history.calls} calls, {history.uncertain} of them uncertain"
    yield from (f"{letter.address} died in peace" for letter in world.letters())


def _budgets_kept(world: World) -> Iterator[str]:
    """Nothing was charged that the account had not set aside, and never more than the limit."""
    accounts = world.accounts()
    day = world.limits.day_usd
    day_usd = sum((a.total_usd for k, a in accounts.items() if ".day." in k), Decimal(0))
    stage_usd = sum((a.total_usd for k, a in accounts.items() if ".stage." in k), Decimal(0))
    batch_usd = sum((a.total_usd for k, a in accounts.items() if ".batch." in k), Decimal(0))
    charged = sum((call.charged_usd for call in world.provider.calls), Decimal(0))
    for kind, usd in (("day", day_usd), ("stage", stage_usd), ("batch", batch_usd)):
        if charged > usd:
            yield f"P4 {charged} $ were charged, {kind} accounts have {usd} $"
    for key, account in accounts.items():
        limit = day if ".day." in key else account.limit_usd if ".batch." in key else None
        if limit is not None and account.total_usd > limit:
            yield f"P4 {key}: {account.total_usd} $ of {limit} $"


def _every_cent_settled(world: World) -> Iterator[str]:
    """Nobody died and no write was lost: what was charged is settled, and nothing is uncertain."""
    charged = sum((call.charged_usd for call in world.provider.calls), Decimal(0))
    for kind in ("day", "stage", "batch"):
        found = [a for key, a in world.accounts().items() if f".{kind}." in key]
        settled = sum((a.all_settled_usd for a in found), Decimal(0))
        total = sum((a.total_usd for a in found), Decimal(0))
        if not charged == settled == total:
            yield f"P4 {charged} $ were charged, {kind}: {settled} $ settled, {total} $ in all"


def _by_fingerprint(world: World) -> dict[str, list[Attempt]]:
    found: defaultdict[str, list[Attempt]] = defaultdict(list)
    for history in world.ledgers().values():
        for attempt in history.attempts:
            if attempt.fingerprint is not None:
                found[attempt.fingerprint].append(attempt)
    return found
