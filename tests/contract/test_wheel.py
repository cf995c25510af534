"""The wheel as somebody installs it: in an empty environment, used from another folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from services.cli.machine.nats_server import EmbeddedServer, free_port
from services.kernel.topology import SERVICES

REPOSITORY = Path(__file__).parents[2]
STARTED_WITHIN_S = 30.0


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """The standard output of a command that has to succeed."""
    ended = subprocess.run(
        [str(part) for part in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(),
        timeout=100,
    )
    assert ended.returncode == 0, f"{command}:\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def environment(**added: str) -> dict[str, str]:
    """Ours without anything that would let the checkout or our settings shine through."""
    hidden = ("PYTHON", "CARDFLOW_", "OPENROUTER_", "VIRTUAL_ENV", "COVERAGE_", "COV_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    return kept | added


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    run(*build, "--outdir", out, REPOSITORY)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel and what it depends on, no more."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    uv = find_uv_bin()
    run(uv, "venv", "--quiet", "--python", sys.executable, venv)
    python = venv / "bin" / "python"
    pinned = REPOSITORY / "requirements.lock"
    run(uv, "pip", "install", "--quiet", "--python", python, "--constraint", pinned, wheel)
    return venv / "bin"


@pytest.fixture(scope="module")
def nats_url(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that the installed command has provisioned."""
    folder = tmp_path_factory.mktemp("nats")
    server = EmbeddedServer(folder / "nats", port=free_port(), sync_always=False)
    with server.running():
        run(installed / "cardflow", "provision", "--nats", server.url, cwd=folder)
        yield server.url


def test_it_holds_the_whole_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        path.relative_to(REPOSITORY).as_posix()
        for path in (REPOSITORY / "services").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packaged = {name for name in inside if name.startswith("services/")}
    assert packaged == shipped
    assert {name for name in shipped if not name.endswith(".py")} >= {
        "services/kernel/korean/data/lexicon.txt",
        "services/simulator/data/analyses.jsonl",
        "services/simulator/data/beginner_terms.csv",
    }
    others = {name.split("/")[0] for name in inside - packaged}
    assert len(others) == 1
    assert others.pop().endswith(".dist-info")


def test_it_says_its_licence_and_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        assert "LICENSE" in texts
        entry_points = archive.read(texts["entry_points.txt"]).decode()
    assert "cardflow = services.cli.main:main" in entry_points


def test_the_command_helps_from_any_folder(installed: Path, tmp_path: Path) -> None:
    text = run(installed / "cardflow", "--help", cwd=tmp_path)
    assert "submit" in text
    assert "dead-letters" in text
    assert list(tmp_path.iterdir()) == []


def test_every_module_finds_what_it_needs_in_the_declared_dependencies(
    installed: Path, tmp_path: Path
) -> None:
    script = (
        "import importlib, pkgutil, services\n"
        "names = [m.name for m in pkgutil.walk_packages(services.__path__, 'services.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
        "print(services.__file__, len(names))\n"
    )
    place, count = run(installed / "python", "-c", script, cwd=tmp_path).split()
    assert Path(place).is_relative_to(installed.parent)
    assert int(count) > 50


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return json.load(answer)["status"] == "ready"
    except (urllib.error.URLError, ConnectionError):
        return False


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while not is_ready(port):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("command", ["cardflow", "faststream"])
def test_a_service_runs_until_sigterm_and_ends_well(
    command: str, service: str, installed: Path, nats_url: str, tmp_path: Path
) -> None:
    target = service if command == "cardflow" else f"services.{service}.app:app"
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [installed / command, "run", target],
            cwd=tmp_path,
            env=environment(CARDFLOW_NATS__URL=nats_url, CARDFLOW_HTTP__PORT=str(port)),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until_ready(process, port, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert '"event": "service.stopped"' in log.read_text()
