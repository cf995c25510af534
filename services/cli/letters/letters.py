"""Dead letters on the stream: finding the ones that a person means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydantic import ValidationError

from services.kernel import topology
from services.kernel.contracts.dead_letter import DeadLetter
from services.kernel.errors import PermanentError, SettingsError
from services.kernel.stream.incoming import replay_count
from services.kernel.stream.reading import messages_of, subjects_of

_CANDIDATES_SHOWN: Final = 10


class LetterNotFound(PermanentError):
    """No dead letter, or more than one, answers to what was asked for."""


@dataclass(frozen=True)
class Letter:
    """A dead letter and where it stands. `sequence` tells it from a later one of the same term."""

    subject: str
    sequence: int
    record: DeadLetter

    @property
    def address(self) -> str:
        """`service/batch/id`: what every command takes for an ID."""
        return address_of(self.subject)

    @property
    def replays(self) -> int:
        """How often its message had been sent again when it was given up on."""
        return replay_count(self.record.original_headers)

    @property
    def is_discarded(self) -> bool:
        return self.record.discarded_at is not None


@dataclass(frozen=True)
class Letters:
    """What was read, oldest first. `unreadable` are of a version that this cardflow can't read."""

    readable: list[Letter] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def address_of(subject: str) -> str:
    return "/".join(subject.split(".")[1:])


@dataclass(frozen=True)
class Wanted:
    """Which letters a command is about: the named ones, or all that match the filters.

    The age of a letter is the time since it was given up on. `cancelled`: the records of cancelled
    terms instead, which are dead letters in everything but their subject.
    """

    ids: Sequence[str] = ()
    batch: str | None = None
    service: str | None = None
    reason: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    all: bool = False
    cancelled: bool = False

    def check(self) -> None:
        """Raises SettingsError for what no dead letter could match."""
        if self.service is not None and self.service not in topology.SERVICES:
            known = ", ".join(topology.SERVICES)
            raise SettingsError(f"there is no service {self.service!r}; use one of {known}")
        if self.batch is not None and not topology.is_batch_name(self.batch):
            raise SettingsError(f"{self.batch!r} is no batch name; see `cardflow status`")

    def check_choice(self) -> None:
        """Raises SettingsError unless letters are named or filtered, one of the two."""
        self.check()
        filters = (self.batch, self.service, self.reason, self.older_than, self.newer_than)
        filtered = self.all or any(each is not None for each in filters)
        if bool(self.ids) == filtered:
            raise SettingsError(
                "name the dead letters by their IDs, or choose them with --batch, --service, "
                "--reason, --older-than, --newer-than or --all"
            )

    @property
    def subjects(self) -> str:
        subject_of = topology.cancelled_subject if self.cancelled else topology.dead_subject
        return subject_of(self.service or "*", self.batch or "*", "*")

    def fits(self, record: DeadLetter, now: datetime) -> bool:
        """Whether reason and age are those that are wanted."""
        age = now - record.last_at
        return (
            (self.reason is None or record.reason == self.reason)
            and (self.older_than is None or age > self.older_than)
            and (self.newer_than is None or age < self.newer_than)
        )


async def read_letters(js: JetStreamContext, wanted: Wanted) -> Letters:
    """All that match the filters, the discarded ones too."""
    wanted.check()
    letters = Letters()
    now = datetime.now(UTC)
    async for message in messages_of(js, topology.DEAD_LETTERS.name, wanted.subjects):
        try:
            record = DeadLetter.model_validate_json(message.data)
        except ValidationError:
            letters.unreadable.append(address_of(message.subject))
            continue
        if wanted.fits(record, now):
            sequence = message.metadata.sequence.stream
            letters.readable.append(Letter(message.subject, sequence, record))
    return letters


async def choose_letters(js: JetStreamContext, wanted: Wanted) -> Letters:
    """The named ones, each once; or those that match and were not discarded."""
    wanted.check_choice()
    if wanted.ids:
        named = [await find_letter(js, id_) for id_ in wanted.ids]
        return Letters(list({letter.subject: letter for letter in named}.values()))
    letters = await read_letters(js, wanted)
    waiting = [letter for letter in letters.readable if not letter.is_discarded]
    return Letters(waiting, letters.unreadable)


async def find_letter(js: JetStreamContext, asked: str, *, cancelled: bool = False) -> Letter:
    """The one letter with this id: `service/batch/id` or the id alone, which may be shortened.

    Raises LetterNotFound, naming the candidates when there are several.
    """
    *place, id_ = asked.strip().split("/")
    wanted = Wanted(cancelled=cancelled)
    subjects = await subjects_of(js, topology.DEAD_LETTERS.name, wanted.subjects)
    found = [s for s in subjects if id_ and _answers(s, place, id_)]
    if not found:
        raise LetterNotFound(f"there is no dead letter {asked!r}; see `cardflow dead-letters list`")
    if len(found) > 1:
        shown = ", ".join(sorted(map(address_of, found))[:_CANDIDATES_SHOWN])
        more = ", …" if len(found) > _CANDIDATES_SHOWN else ""
        raise LetterNotFound(
            f"{asked!r} could be any of {len(found)} dead letters: {shown}{more}; name one of them"
        )
    return await _letter_at(js, found[0])


def _answers(subject: str, place: Sequence[str], id_: str) -> bool:
    *own_place, own_id = subject.split(".")[1:]
    return own_id.startswith(id_.lower()) and (not place or place == own_place)


async def _letter_at(js: JetStreamContext, subject: str) -> Letter:
    try:
        message = await js.get_last_msg(topology.DEAD_LETTERS.name, subject, direct=True)
        record = DeadLetter.model_validate_json(message.data or b"")
    except NotFoundError:
        raise LetterNotFound(f"{address_of(subject)} was taken away just now") from None
    except ValidationError as error:
        raise LetterNotFound(
            f"{address_of(subject)} was written by a newer cardflow; use that one"
        ) from error
    return Letter(subject, message.seq or 0, record)
