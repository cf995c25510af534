"""The nats-server that ships: found, started, and what it stored survives being killed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import nats
import pytest

from services.cli.machine import nats_server
from services.cli.machine.nats_server import MAX_PAYLOAD_BYTES, EmbeddedServer, binary, free_port
from services.kernel.errors import SettingsError


def test_the_server_of_the_wheel_is_found_beside_python() -> None:
    assert os.access(binary(), os.X_OK)


def test_without_the_wheel_the_one_on_the_path_is_taken_and_else_we_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nats_server.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(SettingsError, match="nats-server was not found"):
        binary()
    own = tmp_path / "bin" / "nats-server"
    own.parent.mkdir()
    own.touch(mode=0o755)
    assert binary() == str(own)


async def test_it_takes_messages_up_to_its_bound(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats", port=free_port())
    with server.running():
        nc = await nats.connect(server.url)
        assert nc.max_payload == MAX_PAYLOAD_BYTES
        await nc.close()
    assert not server.is_listening()


@pytest.mark.parametrize("sync_always", [True, False])
async def test_what_was_acknowledged_survives_a_kill(sync_always: bool, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=sync_always)
    with server.running() as process:
        nc = await nats.connect(server.url, allow_reconnect=False)
        await nc.jetstream().add_stream(name="S", subjects=["s"])
        await nc.jetstream().publish("s", b"kept")
        process.kill()
        process.wait()
        await nc.close()
    with server.running():
        nc = await nats.connect(server.url)
        assert (await nc.jetstream().get_last_msg("S", "s")).data == b"kept"
        await nc.close()


def test_a_server_that_cannot_start_says_where_its_log_is(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = EmbeddedServer(tmp_path / "nats", port=taken.getsockname()[1])
        with pytest.raises(SettingsError, match=r"nats\.log"), server.running():
            pass
    assert "address already in use" in (server.folder / "nats.log").read_text()


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"220 smtp.example.com\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        assert not EmbeddedServer(tmp_path, port=other.getsockname()[1]).is_listening()
        greeter.join()


def test_a_server_that_ignores_sigterm_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nats_server, "_STOP_S", 0.2)
    server = EmbeddedServer(tmp_path / "nats", port=free_port(), sync_always=False)
    with server.running() as process:
        process.send_signal(signal.SIGSTOP)  # SIGSTOP: it can't react to SIGTERM.
    assert process.returncode == -signal.SIGKILL


def test_a_free_port_is_free_and_none_that_outgoing_connections_take() -> None:
    ports = [free_port() for _ in range(20)]
    assert all(15_000 <= port < 32_000 for port in ports)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports[0]))
        taken.listen()
        assert not nats_server.is_free(ports[0])
    assert nats_server.is_free(ports[1])
