"""`cardflow doctor` beside a real server: what runs is looked at, what is wrong is named."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext
from typer.testing import CliRunner

from services.cli.machine.nats_server import EmbeddedServer, binary, free_port
from services.cli.main import cli
from services.kernel.metrics import Metrics
from services.kernel.probes import serve_probes
from services.kernel.settings import HttpSettings

Doctor = Callable[..., Awaitable[dict[str, dict[str, str]]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The checks by name. The topology is compared with what the fixture `js` provisions."""
    monkeypatch.setenv("CARDFLOW_NATS__STREAM_MAX_MIB", "64")
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str) -> dict[str, dict[str, str]]:
        command = ["doctor", "--json", *arguments]
        result = await asyncio.to_thread(CliRunner().invoke, cli, command)
        answer = json.loads(result.stdout)
        checks = {check["name"]: check for check in answer["checks"]}
        failed = any(check["verdict"] == "fail" for check in checks.values())
        assert (result.exit_code, answer["healthy"]) == (int(failed), not failed)
        return checks

    return run


async def test_a_provisioned_server_is_well(
    js: JetStreamContext, nats_server: str, doctor: Doctor
) -> None:
    found = await doctor("--nats", nats_server)
    assert found["nats"]["seen"].startswith("nats-server 2.")
    names = ("nats", "jetstream", "topology", "dead letters")
    assert [found[name]["verdict"] for name in names] == ["ok"] * 4


async def test_a_server_that_was_not_provisioned_fails_with_the_command_to_run(
    nats_server: str, doctor: Doctor
) -> None:
    topology = (await doctor("--nats", nats_server))["topology"]
    assert topology["verdict"] == "fail"
    assert "SUBMISSIONS" in topology["seen"]
    assert topology["seen"].endswith("more")
    assert topology["advice"] == "run `cardflow provision`"


async def test_a_bound_that_differs_is_a_warning(
    js: JetStreamContext, nats_server: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDFLOW_NATS__MAX_AGE_DAYS", "7")
    topology = (await doctor("--nats", nats_server))["topology"]
    assert topology["verdict"] == "warn"
    assert "max_age" in topology["seen"]


async def test_dead_letters_that_wait_are_counted(
    js: JetStreamContext, nats_server: str, doctor: Doctor
) -> None:
    await js.publish("dead.stage1.b1.new", b'{"version": 2}')
    letters = (await doctor("--nats", nats_server))["dead letters"]
    assert (letters["verdict"], letters["seen"]) == ("warn", "1 wait")


@pytest.fixture
def plain_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server without JetStream."""
    port = free_port()
    server = EmbeddedServer(tmp_path / "plain", port=port)
    command = [binary(), "-a", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        server.wait_until_ready(process)
        yield server.url
    finally:
        process.terminate()
        process.wait(10)


async def test_a_server_without_jetstream_fails(plain_server: str, doctor: Doctor) -> None:
    found = await doctor("--nats", plain_server)
    verdicts = [found[name]["verdict"] for name in ("nats", "jetstream", "topology")]
    assert verdicts == ["ok", "fail", "skipped"]


async def test_each_service_is_asked_whether_it_is_ready(
    js: JetStreamContext, nats_server: str, doctor: Doctor, tmp_path: Path
) -> None:
    async def well() -> dict[str, str | None]:
        return {"nats": None}

    async def unwell() -> dict[str, str | None]:
        return {"nats": "not connected", "store": None}

    ports = [free_port() for _ in range(3)]
    names = ("ingest", "stage1", "stage2")
    services = [
        {"name": name, "replica": 1, "http_url": f"http://127.0.0.1:{port}"}
        for name, port in zip(names, ports, strict=True)
    ]
    services.append({"name": "exporter", "replica": 1, "http_url": None})
    endpoints = {"nats_url": nats_server, "services": services}
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    async with (
        serve_probes(HttpSettings(port=ports[0]), Metrics("ingest"), well),
        serve_probes(HttpSettings(port=ports[1]), Metrics("stage1"), unwell),
    ):
        found = await doctor("--data", str(tmp_path))
    assert found["ingest 1"]["verdict"] == "ok"
    assert found["stage1 1"]["seen"] == "nats: not connected"
    assert "did not answer" in found["stage2 1"]["seen"]
    verdicts = [found[f"{name} 1"]["verdict"] for name in (*names, "exporter")]
    assert verdicts == ["ok", "fail", "fail", "skipped"]


async def test_people_see_what_to_do(nats_server: str, doctor: Doctor) -> None:
    command = ["doctor", "--nats", nats_server]
    shown = (await asyncio.to_thread(CliRunner().invoke, cli, command)).stdout
    assert "→ run `cardflow provision`" in shown
