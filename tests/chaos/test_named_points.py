"""A kill at each named point of a term's walk."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from looking import STAGES, submit, wait_until_completed
from promises import Evidence, assert_promises, record_figures, words
from running_pipeline import Pipeline, running_pipeline

from services.kernel.topology import SERVICES

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

TERMS = 10
REPOSITORY = Path(__file__).parents[2]
DYING = Path(__file__).parent / "dying"

# Who dies there, and how many calls each death makes again: a call is lost only between its sending
# and its answer's place in the cache. Each stage takes one message at a time, so that nothing else
# is in flight. The exporter's points stand between the stages': who ran for a while is restarted
# sooner.
POINTS = [
    ("before_call", STAGES, 0),
    ("before_commit", ("exporter",), 0),
    ("after_call", STAGES, 1),
    ("after_commit", ("exporter",), 0),
    ("after_cache_write", STAGES, 0),
    ("before_rename", ("exporter",), 0),
    ("before_publish", STAGES, 0),
    ("after_publish", STAGES, 0),
    ("before_ack", SERVICES, 0),
    ("before_lane", ("ingest", "stage1"), 0),
]
UNCERTAIN = ("before_call", "after_call")


@pytest.fixture(scope="module")
def dying_at(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dying")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, dying_at: Path) -> Iterator[Pipeline]:
    settings = {
        "DYING_AT": str(dying_at),
        "PYTHONPATH": os.pathsep.join(map(str, (DYING, REPOSITORY))),
        "CARDFLOW_NATS__ACK_WAIT_S": "2",
        "CARDFLOW_STAGE1__CONCURRENCY": "1",
        "CARDFLOW_STAGE2__CONCURRENCY": "1",
    }
    flags = ("--latency-ms", "5", "--jitter-ms", "0")
    data = tmp_path_factory.mktemp("points") / "data"
    with running_pipeline(data, *flags, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    "deaths",
    [
        pytest.param(1, id="once"),
        pytest.param(3, id="thrice", marks=[pytest.mark.long, pytest.mark.timeout(300)]),
    ],
)
@pytest.mark.parametrize(("point", "dying", "resent"), POINTS, ids=[p[0] for p in POINTS])
def test_a_death_at_a_named_point_loses_nothing_and_pays_for_nothing_it_has(
    pipeline: Pipeline,
    dying_at: Path,
    seed: int,
    point: str,
    dying: Sequence[str],
    resent: int,
    deaths: int,
) -> None:
    """P1–P3. A call is made again only when its process died after it was sent and before its
    answer was in the cache; what was begun and never answered is uncertain, nothing else is.
    """
    batch = f"{point}-{deaths}"
    terms = words(seed + sum(map(ord, batch)) * 1000, TERMS)
    calls_lost = deaths * len(dying)
    wanted = {f"{service}.{point}": deaths for service in dying}
    evidence = _pass_dying(pipeline, dying_at, batch, terms, wanted, calls_lost)
    record_figures(f"death at {point}", evidence, seed=seed, deaths=wanted)
    assert evidence.resent == resent * calls_lost
    assert evidence.uncertain == (calls_lost if point in UNCERTAIN else 0)
    assert (pipeline.data / "decks" / f"{batch}.apkg").is_file()


@pytest.mark.long
def test_an_answer_that_comes_after_a_lost_one_is_billed_once(
    pipeline: Pipeline, dying_at: Path, seed: int
) -> None:
    """P3: the first death loses a call, which stays uncertain; the second comes when the next call
    is answered, kept and settled. Whoever finds that answer must not settle the lost call with it.
    """
    terms = words(seed + 1, 1)
    wanted = {
        f"{stage}.{point}": 1 for stage in STAGES for point in ("after_call", "before_publish")
    }
    evidence = _pass_dying(pipeline, dying_at, "lost-first", terms, wanted, len(STAGES))
    record_figures("death after a call, then before the publish", evidence, deaths=wanted)
    assert (evidence.resent, evidence.uncertain) == (2, 2)


def _pass_dying(
    pipeline: Pipeline,
    dying_at: Path,
    batch: str,
    terms: Sequence[str],
    wanted: Mapping[str, int],
    calls_lost: int,
) -> Evidence:
    """Lets the batch pass while services die as wanted (SERVICE.POINT: times)."""
    before = len(pipeline.deaths())
    for name, deaths in wanted.items():
        (dying_at / name).write_text(str(deaths))
    urgent = any(name.endswith(".before_lane") for name in wanted)
    submit(pipeline.nats_url, batch, list(terms), "urgent" if urgent else "normal")
    wait_until_completed(pipeline, batch, within_s=30 * max(wanted.values()))
    left = {name: (dying_at / name).read_text() for name in wanted}
    assert left == dict.fromkeys(wanted, "0"), "not all came to where they were to die"
    died = Counter(pipeline.deaths()[before:])
    expected: Counter[tuple[str, int]] = Counter()
    for name, deaths in wanted.items():
        expected[f"{name.partition('.')[0]}-1", -signal.SIGKILL] += deaths
    assert died == expected
    return assert_promises(pipeline, batch, terms, in_flight_at_kills=calls_lost)
