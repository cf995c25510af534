"""A service that looks at what it stands on: told once, in /readyz, and never repaired by it."""

from __future__ import annotations

import asyncio

import pytest
from delivering import eventually
from nats.js import JetStreamContext
from structlog.testing import capture_logs
from test_service_app import accept, analyses, running, settings_for, stage1_service

from services.kernel import topology
from services.kernel.provisioning.pausing import pause, resume
from services.kernel.provisioning.provision import provision
from services.kernel.provisioning.watching import Watch, used_by
from services.kernel.settings import KernelSettings, NatsSettings

SETTINGS = NatsSettings(stream_max_mib=64, watch_interval_s=1)


def quick(url: str) -> KernelSettings:
    settings = settings_for(url)
    nats = settings.nats.model_copy(update={"watch_interval_s": 1.0})
    return settings.model_copy(update={"nats": nats})


@pytest.mark.parametrize("service", topology.SERVICES)
def test_a_service_needs_what_it_reads_and_writes(service: topology.ServiceName) -> None:
    used = used_by(service)
    assert {service, topology.CONSUMERS[service].stream, "DEAD_LETTERS", "KV_ATTEMPTS"} <= used
    assert ("KV_COMPLETIONS" in used) == (service in ("stage1", "stage2"))


@pytest.mark.parametrize(
    ("stream", "consumer", "name"),
    [
        ("TERMS", "stage1", "consumer stage1"),
        ("ANALYSES", None, "stream ANALYSES"),
        ("DEAD_LETTERS", None, "stream DEAD_LETTERS"),
        ("KV_CLAIMS", None, "bucket KV_CLAIMS"),
    ],
)
async def test_what_is_missing_makes_it_unready_until_it_is_there_again(
    stream: str, consumer: str | None, name: str, nats_server: str, js: JetStreamContext
) -> None:
    async with running(stage1_service(), quick(nats_server)) as replica:
        if consumer:
            await js.delete_consumer(stream, consumer)
        else:
            await js.delete_stream(stream)

        async def is_told() -> bool:
            return f"{name}: missing" in (await replica.reasons()).get(name, "")

        await eventually(is_told)
        assert "run `cardflow provision`" in (await replica.reasons())[name]
        await asyncio.sleep(0)
        assert await provision(js, SETTINGS, check_only=True)  # It creates nothing.
        await provision(js, SETTINGS)
        await eventually(replica.is_ready)
        await accept(js, "t1")

        async def is_analyzed() -> bool:
            return await analyses(js) == 1

        await eventually(is_analyzed)


async def test_an_altered_promise_makes_it_unready_and_an_altered_bound_does_not(
    nats_server: str, js: JetStreamContext
) -> None:
    async with running(stage1_service(), quick(nats_server)) as replica:
        config = (await js.stream_info("TERMS")).config
        await js.update_stream(config.evolve(max_bytes=topology.MIB))
        config = (await js.stream_info("ANALYSES")).config
        await js.update_stream(config.evolve(discard_new_per_subject=False))

        async def is_told() -> bool:
            return "discard_new_per_subject" in (await replica.reasons()).get("stream ANALYSES", "")

        await eventually(is_told)
        assert "stream TERMS" not in await replica.reasons()


async def test_it_is_told_once_a_change_and_not_once_a_look(js: JetStreamContext) -> None:
    watch = Watch("stage1", SETTINGS)
    with capture_logs() as logs:
        for _ in range(3):
            await watch._look(js)
        await js.delete_consumer("TERMS", "stage1")
        for _ in range(3):
            await watch._look(js)
        await provision(js, SETTINGS)
        for _ in range(3):
            await watch._look(js)
    assert [line["event"] for line in logs] == ["drift.noticed", "drift.ended"]
    assert logs[0]["drift"] == ["consumer stage1: missing"]


async def test_a_pause_is_told_once_and_leaves_it_ready(js: JetStreamContext) -> None:
    watch = Watch("stage1", SETTINGS)
    with capture_logs() as logs:
        await pause(js, "stage1")
        for _ in range(3):
            await watch._look(js)
        assert watch.reasons() == {}
        await resume(js, "stage1")

        async def has_ended() -> bool:
            await watch._look(js)
            return logs[-1]["event"] == "service.resumed"

        await eventually(has_ended)
    assert [line["event"] for line in logs] == ["service.paused", "service.resumed"]
    assert logs[0]["until"] == "until resumed"
    assert logs[0]["hint"] == "cardflow resume stage1"
