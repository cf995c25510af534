"""What `doctor` looks at in a running pipeline. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import httpx
from nats.js import JetStreamContext

from services.cli.letters.letters import Wanted, read_letters
from services.cli.machine.machine_checks import Finding
from services.cli.machine.provider_health import paused_by_hand
from services.kernel.errors import SettingsError
from services.kernel.nats_faults import NATS_FAULTS
from services.kernel.provisioning.pausing import until_words
from services.kernel.provisioning.provision import provision
from services.kernel.settings import KernelSettings, NatsSettings, load_settings
from services.kernel.stream.reading import connected

_TIMEOUT_S: Final = 5.0
_DRIFTS_SHOWN: Final = 5


def skipped(reason: str) -> list[Finding]:
    """The checks of a pipeline, none of them made."""
    return [Finding(name, "skipped", reason) for name in ("nats", *_NEED_NATS)]


async def check_nats(url: str) -> list[Finding]:
    """The server, JetStream, the streams, and the dead letters that wait."""
    try:
        settings = load_settings(KernelSettings).nats
        async with connected(url) as nc:
            place = nc.connected_url.hostname if nc.connected_url else "a server"
            version = nc.connected_server_version
            seen = f"nats-server {version.major}.{version.minor}.{version.patch} at {place}"
            reached = Finding("nats", "ok", seen)
            return [reached, *await _check_jetstream(nc.jetstream(timeout=_TIMEOUT_S), settings)]
    except SettingsError as error:
        unreached = Finding("nats", "fail", str(error))
        return [unreached, *_unmade(_NEED_NATS, "NATS can't be asked")]


async def _check_jetstream(js: JetStreamContext, settings: NatsSettings) -> list[Finding]:
    try:
        account = await js.account_info()
    except NATS_FAULTS as error:
        advice = "start nats-server with -js, or a `jetstream` block in its configuration"
        off = Finding("jetstream", "fail", f"no answer: {error!r}", advice)
        return [off, *_unmade(_NEED_JETSTREAM, "JetStream does not answer")]
    on = Finding("jetstream", "ok", f"{account.streams} streams, {account.storage:,} bytes")
    return [
        on,
        await _check_topology(js, settings),
        await _check_pauses(js),
        await _check_dead_letters(js),
    ]


async def _check_topology(js: JetStreamContext, settings: NatsSettings) -> Finding:
    drifts = await provision(js, settings, check_only=True)
    if not drifts:
        return Finding("topology", "ok", "streams, consumers and buckets are as they should be")
    more = "" if len(drifts) <= _DRIFTS_SHOWN else f" and {len(drifts) - _DRIFTS_SHOWN} more"
    seen = "; ".join(map(str, drifts[:_DRIFTS_SHOWN])) + more
    is_missing = any(drift.setting == "exists" for drift in drifts)
    return Finding("topology", "fail" if is_missing else "warn", seen, "run `cardflow provision`")


async def _check_pauses(js: JetStreamContext) -> Finding:
    paused = await paused_by_hand(js)
    if not paused:
        return Finding("pauses", "ok", "no service is paused")
    seen = ", ".join(f"{service} {until_words(until)}" for service, until in paused.items())
    return Finding("pauses", "warn", f"paused: {seen}", f"run `cardflow resume {' '.join(paused)}`")


async def _check_dead_letters(js: JetStreamContext) -> Finding:
    letters = await read_letters(js, Wanted())
    waiting = sum(not letter.is_discarded for letter in letters.readable) + len(letters.unreadable)
    if not waiting:
        return Finding("dead letters", "ok", "none wait")
    return Finding("dead letters", "warn", f"{waiting:,} wait", "see `cardflow dead-letters list`")


async def check_services(services: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """/readyz of each replica that `cardflow up` started."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        return [await _check_service(client, service) for service in services]


async def _check_service(client: httpx.AsyncClient, service: Mapping[str, Any]) -> Finding:
    name = f"{service['name']} {service['replica']}"
    advice = "see its log in the folder logs of --data"
    if not service.get("http_url"):
        return Finding(name, "skipped", "it serves no probes")
    url = f"{service['http_url']}/readyz"
    try:
        answer = await client.get(url)
        body = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        return Finding(name, "fail", f"{url} did not answer: {error!r}", advice)
    if answer.is_success:
        return Finding(name, "ok", "ready")
    dependencies = body.get("dependencies", {}) if isinstance(body, dict) else {}
    down = [f"{what}: {why}" for what, why in dependencies.items() if why != "ok"]
    return Finding(name, "fail", "; ".join(down) or f"not ready: {answer.status_code}", advice)


_NEED_JETSTREAM: Final = ("topology", "pauses", "dead letters")
_NEED_NATS: Final = ("jetstream", *_NEED_JETSTREAM)


def _unmade(names: Sequence[str], reason: str) -> list[Finding]:
    return [Finding(name, "skipped", reason) for name in names]
