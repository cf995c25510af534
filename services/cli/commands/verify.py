"""`cardflow verify`: whether an IPA is how a Korean word is said."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from services.cli.common import FAILED, JsonOption, fail, out, print_json
from services.kernel.korean.verdict import Judgement, judge

_MEANING: Final[dict[Judgement, str]] = {
    "correct": "as the standard has it",
    "acceptable": "differs only in what the standard permits, or in what many don't tell apart",
    "unconfirmed": "may be right: what spelling does not show, no list here knows",
    "wrong": "not how it is said",
}

cli = typer.Typer(add_completion=False)


@cli.command()
def verify(
    word: Annotated[str, typer.Argument(metavar="WORD", help="A Korean word.")],
    ipa: Annotated[str, typer.Argument(metavar="IPA", help="Its IPA; brackets may be left out.")],
    *,
    hanja: Annotated[
        str | None,
        typer.Option(
            help="The word's hanja, where known: they tell what is tense.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Judge an IPA: correct, acceptable, unconfirmed or wrong, and where it differs.

    Exit 1: it is wrong.

    \b
    cardflow verify 국물 '[kuŋ.mul]'
    cardflow verify 갈등 '[kal.t͈ɯŋ]' --hanja 葛藤 --json
    """
    try:
        verdict = judge(word, ipa, hanja=hanja)
    except ValueError as error:
        fail(str(error))
    if json:
        print_json(
            {
                "word": word,
                "ipa": ipa,
                "verdict": verdict.judgement,
                "expected": verdict.expected,
                "detail": verdict.detail or None,
            }
        )
    else:
        detail = f": {verdict.detail}" if verdict.detail else ""
        out.print(f"{verdict.judgement} ({_MEANING[verdict.judgement]}){detail}", markup=False)
        if verdict.judgement != "correct":
            out.print(f"expected {verdict.expected}", markup=False)
    if verdict.judgement == "wrong":
        raise typer.Exit(FAILED)
