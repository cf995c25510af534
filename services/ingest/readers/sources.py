"""From what the caller names to a stream that can be read twice."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from services.kernel.errors import SettingsError

_IN_MEMORY_MAX_BYTES = 8 * 1024 * 1024
"""Of a pipe: what is longer waits on disk. Finding the encoding needs one reading beforehand."""


@contextmanager
def open_source(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    """A seekable stream of the source's bytes. A stream that the caller gave stays open.

    Raises `SettingsError` for a path that can't be opened.
    """
    if isinstance(source, Path):
        with _open_path(source) as stream, _seekable(stream) as seekable:
            yield seekable
    else:
        with _seekable(source) as seekable:
            yield seekable


def _open_path(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SettingsError(
            f"{path}: {error.strerror or error}; give the path of a word list that can be read"
        ) from error


@contextmanager
def _seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    if stream.seekable():
        yield stream
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY_MAX_BYTES) as copy:
        shutil.copyfileobj(stream, cast("IO[bytes]", copy))
        copy.seek(0)
        yield cast("BinaryIO", copy)
