"""The analyses that ship: true facts about the words of the beginners' list."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

Analysis = dict[str, Any]
"""The fields of an analysis as a model replies them."""

_OURS = ("homonym", "hint")
"""Fields that tell entries of one spelling apart; no part of a reply."""


class Knowledge:
    """Entries by spelling; homographs are told apart by their number, else by their hint."""

    def __init__(self, entries: Iterable[Analysis]) -> None:
        self._by_term: dict[str, list[Analysis]] = defaultdict(list)
        for entry in entries:
            self._by_term[entry["term"]].append(entry)

    @classmethod
    def shipped(cls) -> Knowledge:
        text = (files("services.simulator") / "data" / "analyses.jsonl").read_text("utf-8")
        return cls(json.loads(line) for line in text.splitlines() if line.strip())

    def find(
        self, term: str, homonym: int | None = None, hint: str | None = None
    ) -> Analysis | None:
        """What is known of a term; None when nothing is, or only of homographs of other numbers."""
        entries = self._by_term.get(term, [])
        if homonym is not None:
            numbered = [entry for entry in entries if entry.get("homonym") == homonym]
            entries = numbered or [entry for entry in entries if entry.get("homonym") is None]
        if len(entries) > 1 and hint:
            entries = [entry for entry in entries if _hint_fits(entry, hint)] or entries
        if not entries:
            return None
        return {name: value for name, value in entries[0].items() if name not in _OURS}


def _hint_fits(entry: Analysis, hint: str) -> bool:
    seen = hint.casefold().strip()
    own = str(entry.get("hint") or entry["primary_meaning"]).casefold()
    return seen in own or own in seen or seen == entry.get("hanja")
