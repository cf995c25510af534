"""The server's part: streams, buckets and direct reads, with the answers of a real server.

It answers requests at the level of the client's connection, so nats-py's own JetStream context and
buckets stand on it unchanged, and raise their own errors. The streams are made from what
`provision` would give to a server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nats.js.api import Header, StreamConfig

from services.kernel import topology
from services.kernel.provisioning.provision import bucket_config, stream_config
from services.kernel.settings import NatsSettings

Headers = Mapping[str, str]
_DIRECT_GET = "$JS.API.DIRECT.GET."
_PURGE = "$JS.API.STREAM.PURGE."
_EXPECTED = Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value


class Reply(NamedTuple):
    """What goes back over the wire."""

    data: bytes
    headers: Headers | None = None


@dataclass(frozen=True)
class Stored:
    """One message of a stream."""

    subject: str
    data: bytes
    headers: Headers
    sequence: int
    at_s: float


@dataclass
class Stream:
    """One stream or bucket. While `is_full` it takes nothing; `listeners` hear what it took."""

    config: StreamConfig
    clock: Callable[[], float]
    messages: dict[int, Stored] = field(default_factory=dict)
    is_full: bool = False
    listeners: list[Callable[[Stored], None]] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)
    _sequence: int = 0

    def last(self, subject: str) -> Stored | None:
        """The newest message of a subject, unless its age has passed."""
        stored = self.messages.get(self._last.get(subject, 0))
        if stored and self.config.max_age and self.clock() >= stored.at_s + self.config.max_age:
            self.drop(stored)
            return None
        return stored

    def subjects(self) -> dict[str, Stored]:
        """The newest message of every subject."""
        newest = {subject: self.last(subject) for subject in list(self._last)}
        return {subject: stored for subject, stored in newest.items() if stored}

    def drop(self, stored: Stored) -> None:
        self.messages.pop(stored.sequence, None)
        if self._last.get(stored.subject) == stored.sequence:
            del self._last[stored.subject]

    def publish(self, subject: str, data: bytes, headers: Headers) -> Reply:
        old = self.last(subject)
        expected = headers.get(_EXPECTED)
        found = old.sequence if old else 0
        if expected is not None and int(expected) != found:
            return _refusal(400, 10071, f"wrong last sequence: {found}")
        if old and self.config.discard_new_per_subject:
            return _refusal(503, 10077, "maximum messages per subject exceeded")
        if self.is_full:
            return _refusal(503, 10077, "maximum bytes exceeded")
        if old and self.config.max_msgs_per_subject == 1:
            self.drop(old)
        self._sequence += 1
        stored = Stored(subject, data, dict(headers), self._sequence, self.clock())
        self.messages[stored.sequence] = stored
        self._last[subject] = stored.sequence
        for listener in self.listeners:
            listener(stored)
        return _json({"stream": self.config.name, "seq": stored.sequence})

    def purge(self, subject: str, below: int) -> Reply:
        purged = [m for m in self.messages.values() if m.subject == subject and m.sequence < below]
        for stored in purged:
            self.drop(stored)
        return _json({"success": True, "purged": len(purged)})


class Broker:
    """All streams and buckets, and who answers to which subject."""

    def __init__(self, settings: NatsSettings, clock: Callable[[], float]) -> None:
        configs = [stream_config(stream, settings) for stream in topology.STREAMS]
        configs += [bucket_config(bucket, settings) for bucket in topology.BUCKETS]
        self.streams = {str(c.name): Stream(c, clock) for c in configs}
        self.on_ack: Callable[[str, bytes], None] = lambda _subject, _payload: None
        self._by_prefix = {
            pattern.partition("*")[0].partition(">")[0]: self.streams[str(config.name)]
            for config in configs
            for pattern in config.subjects or []
        }

    def bucket(self, bucket: topology.Bucket) -> Stream:
        return self.streams[f"KV_{bucket.name}"]

    def keys(self, bucket: topology.Bucket) -> dict[str, Stored]:
        """The living keys of a bucket with their values."""
        prefix = f"$KV.{bucket.name}."
        return {
            subject.removeprefix(prefix): stored
            for subject, stored in self.bucket(bucket).subjects().items()
            if "KV-Operation" not in stored.headers
        }

    def receive(self, subject: str, payload: bytes, headers: Headers | None) -> Reply:
        """Does what a request asks for, and answers it."""
        if subject.startswith("$JS.ACK."):
            self.on_ack(subject, payload)
            return Reply(b"")
        if subject.startswith(_DIRECT_GET):
            name, _, wanted = subject.removeprefix(_DIRECT_GET).partition(".")
            return self._read(self.streams[name].last(wanted))
        if subject.startswith(_PURGE):
            asked = json.loads(payload)
            return self.streams[subject.removeprefix(_PURGE)].purge(asked["filter"], asked["seq"])
        stream = next(s for prefix, s in self._by_prefix.items() if subject.startswith(prefix))
        plain = {getattr(k, "value", k): v for k, v in (headers or {}).items()}
        return stream.publish(subject, payload, plain)

    @staticmethod
    def _read(stored: Stored | None) -> Reply:
        if stored is None:
            return Reply(b"", {"Status": "404", "Description": "Message Not Found"})
        place = {"Nats-Subject": stored.subject, "Nats-Sequence": str(stored.sequence)}
        return Reply(stored.data, {**stored.headers, **place})


def _refusal(code: int, err_code: int, description: str) -> Reply:
    return _json({"error": {"code": code, "err_code": err_code, "description": description}})


def _json(content: dict[str, Any]) -> Reply:
    return Reply(json.dumps(content).encode())
