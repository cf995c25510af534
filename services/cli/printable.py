"""Text that strangers wrote, on a terminal."""

from __future__ import annotations


def printable(text: str, longest: int = 200) -> str:
    """One line of the text, without anything that a terminal would act on; cut at `longest`."""
    safe = "".join(each if each.isprintable() else _escaped(each) for each in text[: longest + 1])
    return safe if len(safe) <= longest else safe[: longest - 1] + "…"


def _escaped(character: str) -> str:
    return " " if character.isspace() else ascii(character)[1:-1]
