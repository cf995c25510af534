"""A key that a provider quotes at every opportunity stands in nothing that a whole run leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
import urllib.request
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import pytest
from looking import submit, wait_until_completed
from running_pipeline import Pipeline, cardflow, environment, invented_words, running_pipeline
from truth import HONEST

from services.simulator.asked import Asked, read_call
from services.simulator.completions import SimulatedModel
from services.simulator.knowledge import Knowledge

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

KEY = "sk-or-v1-7f3e9c0b5a6d48e1b2c3/d4e5f60718293a4b"
"""With a slash, which some servers escape in JSON."""
WORDS = invented_words(12)
BATCH = "secrets"


class Quoting:
    """A server that answers as the simulator does, and quotes the key wherever one can.

    What it does with a term is decided by the term's place in the list.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.with_key = 0
        self.url = ""
        self._model = SimulatedModel(Knowledge.shipped())
        self._refused: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked = read_call(await reader.readexactly(length))
            self.calls += 1
            self.with_key += f"Bearer {KEY}".encode() in head
            writer.write(self._answer(head, asked))
            await writer.drain()
        finally:
            writer.close()

    def _answer(self, head: bytes, asked: Asked) -> bytes:
        place = WORDS.index(asked.term)
        said = {"error": {"message": f"your key {KEY} is odd"}}
        match place:
            case 0:
                return _http(400, said, escaped=True)
            case 1:
                return _http(500, said)
            case 2:
                return head  # What we sent, sent back: no HTTP answer.
            case 3 if asked.term not in self._refused:
                self._refused.add(asked.term)
                return _http(429, said, f"Retry-After: 0.1\r\nX-Quoted: {KEY}")
            case 4:
                return _http(200, self._completion(asked, text=f"I was given {KEY}."))
            case 5:
                return _http(200, self._completion(asked, refusal=f"Not for {KEY}"))
            case 6:
                return _http(200, self._completion(asked), f"X-Generation-Id: {KEY}")
            case 7:
                return _http(302, said, f"Location: https://elsewhere.test/?key={KEY}")
            case _:
                return _http(200, self._completion(asked))

    def _completion(
        self, asked: Asked, *, text: str | None = None, refusal: str | None = None
    ) -> object:
        content = text or self._model.complete(asked, HONEST, 0).content
        message = {"role": "assistant", "content": content, "refusal": refusal}
        named = dict.fromkeys(("id", "model", "provider"), KEY)
        return {**named, "choices": [{"finish_reason": "stop", "message": message}]}


def _http(status: int, body: object, more: str = "X-None: 1", *, escaped: bool = False) -> bytes:
    """Some servers escape slashes in JSON."""
    raw = json.dumps(body).encode()
    raw = raw.replace(b"/", rb"\/") if escaped else raw
    head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n{more}"
    return f"{head}\r\n\r\n".encode() + raw


@contextmanager
def quoting() -> Iterator[Quoting]:
    """In a thread of its own: the test waits for commands meanwhile."""
    server, loop = Quoting(), asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        listening.close()
        loop.run_until_complete(asyncio.sleep(0.1))
        loop.close()


def forms(key: str) -> list[bytes]:
    """As it is, escaped, and the inside of its base64 at each of the three offsets."""
    raw = key.encode()
    coded = [base64.b64encode(b"x" * offset + raw)[4:-4] for offset in range(3)]
    urlsafe = [base64.urlsafe_b64encode(b"x" * offset + raw)[4:-4] for offset in range(3)]
    spelt = [raw, raw.replace(b"/", rb"\/"), raw.replace(b"/", b"%2F"), raw.hex().encode()]
    return [*spelt, *coded, *urlsafe]


def places_of(key: str, artefacts: dict[str, bytes]) -> list[str]:
    """The names of those that hold the key in any form; archives are looked into."""
    found = []
    for name, raw in artefacts.items():
        parts = [raw]
        if zipfile.is_zipfile(BytesIO(raw)):
            with zipfile.ZipFile(BytesIO(raw)) as archive:
                parts += [archive.read(inner) for inner in archive.namelist()]
        if any(form in part for form in forms(key) for part in parts):
            found.append(name)
    return found


@pytest.mark.parametrize("form", forms(KEY))
def test_a_key_that_stands_somewhere_is_found(form: bytes) -> None:
    assert places_of(KEY, {"there": b"before" + form + b"after", "not": b"there"}) == ["there"]


def test_a_key_in_an_archive_is_found() -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", f"a {KEY}")
    assert places_of(KEY, {"there": packed.getvalue()}) == ["there"]


def test_the_key_stands_in_nothing_that_a_run_leaves(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    settings = {
        "CARDFLOW_PROVIDER__API_KEY_FILE": str(key_file),
        "CARDFLOW_RETRY__BASE_S": "0.05",
        "CARDFLOW_RETRY__MAX_ATTEMPTS": "3",
        "CARDFLOW_LOG__LEVEL": "debug",
    }
    data = tmp_path / "data"
    with quoting() as server:
        flags = ("--base-url", server.url, "--model", "quoting/1")
        with running_pipeline(
            data, *flags, settings=settings, log=tmp_path / "data.log"
        ) as pipeline:
            submit(pipeline.nats_url, BATCH, WORDS)
            wait_until_completed(pipeline, BATCH, within_s=60)
            letters = pipeline.json("dead-letters", "list", "--batch", BATCH)
            artefacts = {
                **_commands(pipeline, settings, letters),
                **_probes(pipeline),
                **_read(Path("/proc").glob("[0-9]*/cmdline")),
                **_read(Path("/proc").glob("[0-9]*/environ")),
                **_read(tmp_path.glob("data/*")),  # endpoints.json goes when the run ends.
            }
        artefacts |= {"up": "".join(pipeline.printed).encode()}
        artefacts |= _read(tmp_path.rglob("*"))
    assert server.calls == server.with_key > len(WORDS)
    assert {letter["term"] for letter in letters} == {WORDS[i] for i in (0, 1, 2, 4, 5, 7)}
    looked_into = " ".join(artefacts)
    for part in ("jetstream", "cards.sqlite", ".apkg", "endpoints.json", ".log", "metrics"):
        assert part in looked_into
    assert b"[redacted]" in b"".join(artefacts.values())
    assert places_of(KEY, artefacts) == [str(key_file)]


def _commands(
    pipeline: Pipeline, settings: dict[str, str], letters: list[dict[str, str]]
) -> dict[str, bytes]:
    """What every command prints that shows something, with the key at hand and without."""
    shown = [("dead-letters", "show", letter["id"]) for letter in letters]
    told = {
        " ".join(command): pipeline.run(*command, exit_code=None).encode()
        for command in (
            ("status", BATCH, "--json"),
            ("audit", "--json"),
            ("dead-letters", "list", "--json"),
            ("export", "--batch", BATCH, "--output", str(pipeline.data / "all.jsonl")),
            *shown,
        )
    }
    for command in (("doctor",), ("settings",), ("settings", "--json")):
        given = {"CARDFLOW_PROVIDER__API_KEY": KEY, "OPENROUTER_API_KEY": KEY}
        kept = {k: v for k, v in settings.items() if not k.endswith("_FILE")}
        done = subprocess.run(
            cardflow(*command), capture_output=True, env=environment() | kept | given, check=False
        )
        told[f"{command} with the key"] = done.stdout + done.stderr
    return told


def _probes(pipeline: Pipeline) -> dict[str, bytes]:
    told = {}
    for replica in pipeline.replicas():
        for path in ("/metrics", "/livez"):
            with urllib.request.urlopen(f"{replica.http_url}{path}", timeout=5) as answer:
                told[f"{replica.label} {path}"] = answer.read()
    return told


def _read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Files by their path, but for what has gone or is somebody else's."""
    told = {}
    for path in paths:
        with suppress(OSError):
            told[str(path)] = path.read_bytes()
    return told
