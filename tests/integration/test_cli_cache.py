"""`cardflow cache` on a real server: counted, listed, warmed, purged, and carried to another."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue
from pipeline_by_hand import cardflow
from running_pipeline import Pipeline, environment, running_pipeline, until
from running_pipeline import cardflow as command_line
from unit.asking_fakes import completion
from unit.term_samples import accepted, analyzed

from services.cli.accounts.accounting import AttemptsKey, fingerprint_problems
from services.cli.cache.purging import read_purges
from services.cli.machine.nats_server import EmbeddedServer, free_port
from services.kernel import topology
from services.kernel.contracts.attempt import Attempt, AttemptHistory
from services.kernel.contracts.cache import CachePurge
from services.kernel.contracts.provenance import StageProvenance
from services.kernel.llm.provider import Completion
from services.kernel.provisioning.provision import provision
from services.kernel.settings import NatsSettings

NOW = datetime.now(UTC)
OLD = NOW - timedelta(days=40)


def kept(prompt: str | None, model: str = "m-1", at: datetime | None = NOW) -> Completion:
    version = prompt and f"{prompt}-1"
    told = {"model": model, "prompt": prompt, "prompt_version": version, "kept_at": at}
    return completion(cost_usd="0.01").model_copy(update=told)


ENTRIES = {
    "a" * 64: kept("analysis"),
    "b" * 64: kept("analysis", "m-2", OLD),
    "c" * 64: kept("cards"),
    "d" * 64: kept("cards", at=OLD),
    "e" * 64: kept(None, at=None),
}


async def fill(js: JetStreamContext) -> KeyValue:
    bucket = await js.key_value("COMPLETIONS")
    for fingerprint, each in ENTRIES.items():
        await bucket.put(fingerprint, each.to_bytes())
    return bucket


async def held(js: JetStreamContext) -> set[str]:
    bucket = await js.key_value("COMPLETIONS")
    found = set()
    for fingerprint in ENTRIES:
        try:
            await bucket.get(fingerprint)
        except KeyNotFoundError:
            continue
        found.add(fingerprint[0])
    return found


async def said(url: str, *arguments: str, exit_code: int = 0, lines: bool = False) -> Any:
    result = await cardflow("cache", *arguments, "--nats", url, "--json")
    assert result.exit_code == exit_code, result.output
    if lines:
        return [json.loads(line) for line in result.stdout.splitlines()]
    return json.loads(result.stdout)


# Looking


async def test_an_empty_cache_is_no_fault(nats_server: str, js: JetStreamContext) -> None:
    assert (await said(nats_server, "stats"))["entries"] == 0
    assert await said(nats_server, "list", lines=True) == []
    assert (await said(nats_server, "purge", "--all", "--yes"))["removed"] == 0
    assert await read_purges(js) == ()


async def test_stats_come_by_stage_and_model_and_add_up(
    nats_server: str, js: JetStreamContext
) -> None:
    bucket = await fill(js)
    await bucket.put("f" * 64, b"from another release")
    await bucket.delete("f" * 63 + "0")  # A marker is no entry.
    stats = await said(nats_server, "stats")
    assert (stats["entries"], stats["unreadable"]) == (6, 1)
    assert stats["cost_usd"] == pytest.approx(0.05)
    assert stats["prompt_tokens"] == 500
    groups = {(g["stage"], g["model"]): g["entries"] for g in stats["groups"]}
    assert groups == {
        ("stage1", "m-1"): 1,
        ("stage1", "m-2"): 1,
        ("stage2", "m-1"): 2,
        ("unknown", "m-1"): 1,
        ("unknown", "unknown"): 1,
    }
    shown = await cardflow("cache", "stats", "--nats", nats_server)
    assert "$0.0500" in shown.stdout


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), "abcde"),
        (("--stage", "stage1"), "ab"),
        (("--stage", "unknown"), "e"),
        (("--model", "m-2"), "b"),
        (("--prompt-version", "cards-1"), "cd"),
        (("--older-than", "30d"), "bd"),
        (("--newer-than", "30d"), "ace"),
        (("--stage", "stage2", "--older-than", "30d"), "d"),
        (("--limit", "2"), "ab"),
    ],
)
async def test_entries_are_listed_as_they_are_chosen(
    filters: tuple[str, ...], expected: str, nats_server: str, js: JetStreamContext
) -> None:
    await fill(js)
    listed = await said(nats_server, "list", *filters, lines=True)
    assert "".join(line["fingerprint"][0] for line in listed) == expected
    shown = await cardflow("cache", "list", *filters, "--nats", nats_server)
    assert len(shown.stdout.splitlines()) == len(expected)


async def test_a_stage_that_is_none_is_refused(nats_server: str, js: JetStreamContext) -> None:
    result = await cardflow("cache", "stats", "--stage", "ingest", "--nats", nats_server)
    assert result.exit_code == 2


# Purging


async def test_only_what_is_chosen_is_taken_out_and_it_is_on_record(
    nats_server: str, js: JetStreamContext
) -> None:
    await fill(js)
    done = await said(nats_server, "purge", "--stage", "stage2", "--older-than", "30d", "--yes")
    assert (done["removed"], done["matched"], done["claimed"]) == (1, 1, 0)
    assert done["cost_usd"] == pytest.approx(0.01)
    assert await held(js) == set("abce")
    assert (await js.stream_info("KV_COMPLETIONS")).state.messages == 4  # No marker stays.
    [purge] = await read_purges(js)
    assert (purge.stage, purge.model) == ("stage2", None)
    assert (await said(nats_server, "purge", "--all", "--yes"))["removed"] == 4
    assert await held(js) == set()
    assert len(await read_purges(js)) == 2


async def test_what_has_a_claim_stays(nats_server: str, js: JetStreamContext) -> None:
    """It was just answered, and its term has yet to be published."""
    await fill(js)
    claims = await js.key_value("CLAIMS")
    await claims.create("a" * 64, b"replica")
    done = await said(nats_server, "purge", "--stage", "stage1", "--yes")
    assert (done["removed"], done["claimed"]) == (1, 1)
    assert await held(js) == set("acde")


@pytest.mark.parametrize("arguments", [(), ("--all", "--stage", "stage1")])
async def test_a_purge_says_what_it_is_to_take_out(
    arguments: tuple[str, ...], nats_server: str, js: JetStreamContext
) -> None:
    await fill(js)
    result = await cardflow("cache", "purge", *arguments, "--yes", "--nats", nats_server)
    assert result.exit_code == 2
    assert await held(js) == set("abcde")


async def test_off_a_terminal_a_purge_needs_a_yes(nats_server: str, js: JetStreamContext) -> None:
    await fill(js)
    result = await cardflow("cache", "purge", "--all", "--nats", nats_server)
    assert result.exit_code == 2
    assert "5 completions, which cost $0.0500; say so with --yes" in result.stderr
    assert await held(js) == set("abcde")


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", "abcde"), (b"y\n", "")])
async def test_on_a_terminal_a_purge_asks(
    answer: bytes, left: str, nats_server: str, js: JetStreamContext
) -> None:
    await fill(js)
    terminal, end = pty.openpty()
    os.write(terminal, answer)
    subprocess.run(  # noqa: ASYNC221
        command_line("cache", "purge", "--all", "--nats", nats_server),
        stdin=end,
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(terminal)
    os.close(end)
    assert await held(js) == set(left)


def billed(at: datetime, **values: Any) -> AttemptHistory:
    attempt = {"outcome": "billed", "fingerprint": "f", "model": "m-1", "cost_usd": Decimal(1)}
    times = {"started_at": at, "finished_at": at + timedelta(seconds=1)}
    return AttemptHistory(attempts=(Attempt.model_validate({**attempt, **times, **values}),))


@pytest.mark.parametrize(
    ("purges", "problems"),
    [
        ([], 1),
        ([{"at": 30}], 0),
        ([{"at": 30, "stage": "stage1", "model": "m-1"}], 0),
        ([{"at": 30, "stage": "unknown"}], 0),
        ([{"at": 30, "kept_before": 20}], 0),
        ([{"at": 30, "kept_before": -20}], 1),
        ([{"at": 30, "stage": "stage2"}], 1),
        ([{"at": 30, "model": "m-2"}], 1),
        ([{"at": -30}, {"at": 90}], 1),
    ],
)
def test_the_audit_knows_what_was_paid_again_after_a_purge(
    purges: list[dict[str, Any]], problems: int
) -> None:
    def at(seconds: float) -> datetime:
        return NOW + timedelta(seconds=seconds)

    moments = ("at", "kept_before")
    read = [
        CachePurge.model_validate({k: at(v) if k in moments else v for k, v in each.items()})
        for each in purges
    ]
    attempts = {
        AttemptsKey("stage1", "b1", "t1"): billed(at(0)),
        AttemptsKey("stage1", "b2", "t1"): billed(at(60)),
    }
    assert len(fingerprint_problems(attempts, read)) == problems


# From one machine to another


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[str]:
    server = EmbeddedServer(tmp_path / "other", port=free_port(), sync_always=False)
    with server.running():
        yield server.url


@pytest.mark.parametrize("name", ["cache.jsonl", "cache.jsonl.gz"])
async def test_what_is_exported_is_imported_once_and_overwrites_nothing(
    name: str, tmp_path: Path, nats_server: str, other_server: str, js: JetStreamContext
) -> None:
    await fill(js)
    path = str(tmp_path / name)
    assert (await said(nats_server, "export", path))["exported"] == 5
    nc = await nats.connect(other_server)
    other = nc.jetstream()
    await provision(other, NatsSettings(stream_max_mib=64))
    bucket = await other.key_value("COMPLETIONS")
    own = kept("analysis", "own").to_bytes()
    await bucket.put("a" * 64, own)
    done = await said(other_server, "import", path)
    assert (done["kept"], done["present"], done["refused"]) == (4, 1, 0)
    assert (await bucket.get("a" * 64)).value == own
    again = await said(other_server, "import", path)
    assert (again["kept"], again["present"]) == (0, 5)
    assert await held(other) == set("abcde")
    over = await said(other_server, "import", path, "--overwrite")
    assert over["overwritten"] == 5
    read = Completion.model_validate_json((await bucket.get("a" * 64)).value or b"")
    assert read == ENTRIES["a" * 64]
    unknown = Completion.model_validate_json((await bucket.get("e" * 64)).value or b"")
    assert unknown.prompt is None
    assert unknown.kept_at is not None  # When the first machine had stored it.
    await nc.close()


async def test_lines_that_are_no_entries_are_named_and_the_others_go_in(
    tmp_path: Path, nats_server: str, js: JetStreamContext
) -> None:
    path = tmp_path / "cache.jsonl"
    good = {"version": 1, "fingerprint": "a" * 64}
    text = json.dumps({**good, "completion": json.loads(kept("cards").to_bytes())})
    path.write_text("\n".join(["# no entry", text, "", '{"fingerprint": "x"}', text]))
    done = await said(nats_server, "import", str(path), exit_code=1)
    assert (done["kept"], done["present"], done["refused"]) == (1, 1, 2)
    assert [refusal["line"] for refusal in done["refusals"]] == [1, 4]
    assert await held(js) == {"a"}


async def test_the_call_that_paid_is_left_behind(
    tmp_path: Path, nats_server: str, js: JetStreamContext
) -> None:
    """Its attempt stands in the ledger of another machine."""
    path = tmp_path / "cache.jsonl"
    paid = kept("cards").model_copy(update={"call_id": "1234abcd"})
    line = {"fingerprint": "a" * 64, "completion": json.loads(paid.to_bytes())}
    path.write_text(json.dumps(line))
    await said(nats_server, "import", str(path))
    bucket = await js.key_value("COMPLETIONS")
    read = Completion.model_validate_json((await bucket.get("a" * 64)).value or b"")
    assert read == paid.model_copy(update={"call_id": None})


async def test_a_file_that_is_not_there_and_a_cache_that_is_full_are_said(
    tmp_path: Path, nats_server: str, js: JetStreamContext
) -> None:
    result = await cardflow("cache", "import", str(tmp_path / "none"), "--nats", nats_server)
    assert result.exit_code == 2
    assert "No such file" in result.stderr
    await fill(js)
    path = str(tmp_path / "cache.jsonl")
    await said(nats_server, "export", path)
    await js.purge_stream("KV_COMPLETIONS")
    config = (await js.stream_info("KV_COMPLETIONS")).config
    await js.update_stream(config.evolve(max_bytes=600))
    result = await cardflow("cache", "import", path, "--nats", nats_server)
    assert result.exit_code == 2
    assert "raise CARDFLOW_NATS__STREAM_MAX_MIB" in result.stderr.replace("\n", " ")


async def test_a_pipe_carries_the_cache(nats_server: str, js: JetStreamContext) -> None:
    await fill(js)
    exported = await cardflow("cache", "export", "-", "--stage", "stage1", "--nats", nats_server)
    assert len(exported.stdout.splitlines()) == 2
    await js.purge_stream("KV_COMPLETIONS")
    imported = await cardflow("cache", "import", "-", "--nats", nats_server, input=exported.stdout)
    assert imported.exit_code == 0, imported.output
    assert await held(js) == set("ab")


# Warming


async def test_events_that_can_t_be_turned_back_are_named(
    nats_server: str, js: JetStreamContext
) -> None:
    event = analyzed()
    provenance = StageProvenance.model_validate(
        {**event.stage1.model_dump(), "fingerprint": "a" * 64}
    )
    good = event.model_copy(update={"stage1": provenance})
    bad = analyzed(
        accepted_as=accepted("물"), metaphor="see https://example.org", korean_keywords=["물"]
    )
    await js.publish(topology.analyzed_subject("b1", event.accepted.term_id), good.to_bytes())
    await js.publish(topology.analyzed_subject("b1", bad.accepted.term_id), bad.to_bytes())
    await js.publish(topology.analyzed_subject("b2", "x"), b"{}")
    warmed = await said(nats_server, "warm", exit_code=1)
    assert (warmed["kept"], warmed["unfit"], warmed["unreadable"]) == (1, 1, 1)
    assert warmed["examples"][0]["reason"] == "today's checks refuse it: markup"
    again = await said(nats_server, "warm", "--batch", "b1", exit_code=1)
    assert (again["kept"], again["present"]) == (0, 1)
    [line] = await said(nats_server, "list", lines=True)
    assert (line["stage"], line["rebuilt"]) == ("stage1", True)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    with running_pipeline(tmp_path / "data", "--latency-ms", "5", "--jitter-ms", "0") as running:
        yield running


def purge_all(pipeline: Pipeline) -> None:
    """Claims of calls that were just answered expire within ack_wait."""

    def is_empty() -> bool:
        pipeline.run("cache", "purge", "--all", "--yes")
        return bool(pipeline.json("cache", "stats")["entries"] == 0)

    until(is_empty, within_s=30, what="an empty cache")


def test_a_machine_that_lost_its_cache_pays_nothing_again_once_it_is_warm(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    path = tmp_path / "words.txt"
    path.write_text("책\n물\n꽃잎\n뷁뷁\n사과\n")
    pipeline.run("submit", str(path), "--batch", "first", "--wait")
    calls = pipeline.simulator()["calls"]
    pipeline.run("drain")
    purge_all(pipeline)
    warmed = pipeline.json("cache", "warm")
    assert (warmed["unfit"], warmed["unreadable"]) == (0, 0)
    assert warmed["kept"] == pipeline.json("cache", "stats")["rebuilt"] == 10
    pipeline.run("resume")
    pipeline.run("submit", str(path), "--batch", "second", "--wait")
    assert pipeline.simulator()["calls"] == calls
    status = pipeline.json("status", "second")
    assert (status["finished"], status["cached"], status["cost_usd"]) == (5, 10, 0)
    purge_all(pipeline)
    pipeline.run("submit", str(path), "--batch", "third", "--wait")
    assert pipeline.simulator()["calls"] == 2 * calls
    pipeline.run("audit")  # Paid for twice, and on record why.
