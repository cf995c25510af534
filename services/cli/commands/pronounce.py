"""`cardflow pronounce`: how Korean words are said, by the rules of the standard."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from services.cli.common import FAILED, fail, out
from services.cli.printable import printable
from services.kernel.korean.pronunciation import Pronunciation, pronounce

cli = typer.Typer(add_completion=False)


@cli.command(name="pronounce")
def pronounce_command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Korean words; none or - reads standard input."),
    ] = None,
    *,
    explain: Annotated[
        bool, typer.Option("--explain", help="Name the rules at work, with their articles.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each word.")
    ] = False,
) -> None:
    """Say Korean words in Hangul as spoken and in IPA, by the Standard Pronunciation (표준 발음법).

    Each line of standard input is a word. Exit 1: some of them hold no Hangul.

    \b
    cardflow pronounce 국물 꽃잎 --explain
    cardflow pronounce < words.txt --json
    """
    is_whole = True
    for word in _given(words):
        try:
            said = pronounce(word)
        except ValueError as error:
            is_whole = False
            typer.echo(f"cardflow: {printable(str(error))}", err=True)
            continue
        if json:
            typer.echo(json_.dumps(_as_json(said), ensure_ascii=False))
        else:
            out.print(_line(said), markup=False)
            for line in _explained(said) if explain else ():
                out.print(f"  {line}", markup=False)
    if not is_whole:
        raise typer.Exit(FAILED)


def _given(words: list[str] | None) -> Iterator[str]:
    if words and words != ["-"]:
        yield from words
        return
    if not words and sys.stdin.isatty():
        fail("name words, or pipe them in: cardflow pronounce 국물")
    yield from _lines(sys.stdin)


def _lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if word := line.strip():
            yield word


def _line(said: Pronunciation) -> str:
    others = f"   also {', '.join(said.alternatives)}" if said.alternatives else ""
    return f"{printable(said.term)}   {said.surface}   {said.ipa}{others}"


def _explained(said: Pronunciation) -> Iterator[str]:
    for rule in said.rules:
        article = f", art. {rule.article}" if rule.article else ""
        yield f"{rule.before} → {rule.after}: {rule.rule}{article}"


def _as_json(said: Pronunciation) -> dict[str, Any]:
    return {
        "word": said.term,
        "surface": said.surface,
        "ipa": said.ipa,
        "alternatives": list(said.alternatives),
        "rules": [
            {"rule": r.rule, "article": r.article, "before": r.before, "after": r.after}
            for r in said.rules
        ],
        "lexical": [
            {
                "syllable": mark.index + 1,
                "switch": mark.switch,
                "article": mark.article,
                "required": mark.required,
            }
            for mark in said.lexical
        ],
    }
