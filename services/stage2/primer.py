"""The primer: the fixed walk into the memory palace that opens every card of a term.

It depends on the part of speech, the number and the term alone, so we write it and pay nobody.
"""

from __future__ import annotations

from services.kernel.contracts.base import PartOfSpeech


def primer(term: str, term_number: int, pos: PartOfSpeech) -> str:
    """Some 60 words: the room, the cabinet, the drawer, the binder, the tab."""
    return (
        "Push open the door of your study and stand still for a breath. Across the room waits the "
        "tall cabinet labelled KOREAN. Walk over, grip the cool brass handle and slide out the "
        f"drawer marked TERMS. Run a finger along the spines to the {pos} binder, lift it out and "
        f"lay it open on the desk. Turn to tab {term_number}. There, in thick ink, stands {term}."
    )
