"""The cache as a file: what is written is read, what is no entry is named, disks are full."""

from __future__ import annotations

import errno
import gzip
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asking_fakes import completion

from services.cli.cache.entries import Entry
from services.cli.cache.files import CacheLine, _line, _lines, export_entries
from services.kernel.errors import SettingsError, TransientError

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
PRINT = "0123456789abcdef" * 4
GOOD = CacheLine(fingerprint=PRINT, completion=completion("{}")).to_bytes()


def entry(number: int = 0, *, readable: bool = True) -> Entry:
    kept = completion(f'{{"number": {number}}}') if readable else None
    return Entry(f"{number:064x}", number + 1, 300, NOON, kept)


def in_folder(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def entries(*of: Entry | Exception) -> AsyncIterator[Entry]:
    for each in of:
        if isinstance(each, Exception):
            raise each
        yield each


@pytest.mark.parametrize("name", ["cache.jsonl", "cache.jsonl.gz"])
async def test_a_file_holds_each_readable_entry_with_its_age(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    of = (entry(1), entry(2, readable=False), entry(3))
    assert await export_entries(entries(*of), str(path)) == 2
    raw = path.read_bytes()
    lines = (gzip.decompress(raw) if name.endswith("gz") else raw).splitlines()
    read = [CacheLine.model_validate_json(line) for line in lines]
    assert [line.fingerprint for line in read] == [f"{1:064x}", f"{3:064x}"]
    assert {line.completion.kept_at for line in read} == {NOON}
    assert in_folder(tmp_path) == [name]


async def test_a_full_disk_leaves_the_file_as_it_was_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cache.jsonl"
    path.write_text("before")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(TransientError, match="No space left on device"):
        await export_entries(entries(entry(1), full), str(path))
    assert in_folder(tmp_path) == ["cache.jsonl"]
    assert path.read_text() == "before"


async def test_a_folder_that_is_not_there_is_the_operators_turn(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name another"):
        await export_entries(entries(entry()), str(tmp_path / "none" / "cache.jsonl"))


REFUSED = [
    (b"not json\n", "Invalid JSON"),
    (b"[]\n", "object"),
    (b'{"term": "\xec\xb1\x85"}\n', "fingerprint: Field required"),
    (GOOD.replace(PRINT.encode(), b"0" * 63), "fingerprint: String should match"),
    (GOOD.replace(PRINT.encode(), b"../" * 20 + b"0000"), "fingerprint: String should match"),
    (GOOD.replace(b'"version":1', b'"version":2'), "version: "),
    (GOOD.replace(b'"text":"{}"', b'"text":" "'), "completion.text: is empty"),
    (GOOD.replace(b'"text":"{}"', b'"text":7'), "completion.text: "),
    (GOOD.replace(b'"text":"{}"', b'"text":"\\ud800"'), "Invalid JSON"),
    (GOOD.replace(b'"model":"test/model-served"', b'"model":""'), "a name in it has not"),
    (GOOD.replace(b"0.002", b"-1"), "completion.usage.cost_usd: "),
    (GOOD.replace(b"0.002", b"NaN"), "completion.usage.cost_usd: "),
    (GOOD.replace(b"0.002", b"1e9"), "over 1000 dollars"),
    (b"[" * 100_000 + b"\n", "Invalid JSON"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_a_line_that_is_no_entry_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    read = _line(3, data)
    assert (read.number, read.line) == (3, None)
    assert reason in read.reason


def test_a_line_of_a_newer_release_is_read_as_far_as_it_is_known() -> None:
    newer = GOOD[:-1] + b', "more": {"any": 1}}'
    assert _line(1, newer).line == CacheLine.model_validate_json(GOOD)


def test_an_overlong_line_is_passed_over_and_the_next_ones_are_read() -> None:
    file = io.BytesIO(GOOD + b"\n\n" + b"x" * 3_000_000 + b"\n" + GOOD + b"\n")
    read = list(_lines(file, "cache.jsonl"))
    assert [(line.number, line.line is not None) for line in read] == [
        (1, True),
        (3, False),
        (4, True),
    ]
    assert "longer than" in read[1].reason


def test_a_packed_file_that_was_cut_off_gives_what_it_has_and_says_where() -> None:
    whole = gzip.compress(b"".join(GOOD + b"\n" for _ in range(2_000)), mtime=0)
    cut = gzip.GzipFile(fileobj=io.BytesIO(whole[: len(whole) // 2]))
    *read, last = _lines(cut, "cache.jsonl.gz")  # type: ignore[arg-type]
    assert all(line.line for line in read)
    assert last.number == len(read) + 1
    assert "cut off" in last.reason


def test_age_counts_from_when_an_entry_was_kept_and_else_from_when_it_was_stored() -> None:
    kept = completion().model_copy(update={"kept_at": NOON.replace(year=2025)})
    assert Entry(PRINT, 1, 1, NOON, kept).kept_at.year == 2025
    assert Entry(PRINT, 1, 1, NOON, completion()).kept_at == NOON
    assert Entry(PRINT, 1, 1, NOON, None).kept_at == NOON
