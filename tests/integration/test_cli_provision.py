"""`cardflow provision` makes what is missing and reports drift; a check changes nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess

import nats
from running_pipeline import cardflow, environment

from services.kernel.topology import BUCKETS, SERVICES, STREAMS, consumers_of

EVERYTHING = len(STREAMS) + len(BUCKETS) + sum(len(consumers_of(name)) for name in SERVICES)


def provision(url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cardflow("provision", "--nats", url, *arguments),
        capture_output=True,
        text=True,
        env=environment() | settings,
        timeout=60,
        check=False,
    )


def test_check_reports_and_changes_nothing_and_provision_is_idempotent(nats_server: str) -> None:
    for _ in range(2):
        checked = provision(nats_server, "--check", "--json")
        assert checked.returncode == 1
        drift = json.loads(checked.stdout)["drift"]
        assert len(drift) == EVERYTHING
        assert {d["setting"] for d in drift} == {"exists"}
    made = provision(nats_server)
    assert made.returncode == 0
    assert made.stdout.count("created") == EVERYTHING
    again = provision(nats_server)
    assert (again.returncode, again.stdout.strip()) == (0, "Everything is as the topology says.")
    assert provision(nats_server, "--check").returncode == 0


def test_drift_is_named_and_a_changed_bound_is_brought_up_to_date(nats_server: str) -> None:
    provision(nats_server)
    bound = {"CARDFLOW_NATS__STREAM_MAX_MIB": "300"}
    checked = provision(nats_server, "--check", **bound)
    assert checked.returncode == 1
    assert "stream TERMS: max_bytes is" in checked.stdout
    assert "changed to" in provision(nats_server, **bound).stdout
    asyncio.run(_delete_consumer(nats_server))
    missing = provision(nats_server, "--check", "--json", **bound)
    assert [(d["kind"], d["name"]) for d in json.loads(missing.stdout)["drift"]] == [
        ("consumer", "stage1")
    ]


async def _delete_consumer(url: str) -> None:
    nc = await nats.connect(url)
    await nc.jetstream().delete_consumer("TERMS", "stage1")
    await nc.close()


def test_without_a_server_it_says_what_to_do() -> None:
    done = provision("nats://127.0.0.1:1")
    assert done.returncode == 2
    assert "no NATS server at nats://127.0.0.1:1" in done.stderr
    assert "cardflow up" in done.stderr
