"""Reading a model that answers with nine-column TSV text instead of JSON."""

from __future__ import annotations

from services.kernel.contracts.card import CARD_TYPES, COLUMNS
from services.kernel.errors import ReplyRejected
from services.stage2.prompt import CardReply, CardsReply


def looks_like_columns(text: str) -> bool:
    """JSON begins with a brace; rows have tabs."""
    return "{" not in text and "\t" in text


def read_columns(text: str) -> CardsReply:
    """Raises ReplyRejected (`columns`) for a row that has not nine columns or no card type."""
    rows = [line for line in text.splitlines() if "\t" in line]
    cards = [_card(row) for row in rows if not _is_header(row)]
    if not 1 <= len(cards) <= len(CARD_TYPES):
        raise ReplyRejected("columns", f"found {len(cards)} rows of cards")
    return CardsReply(cards=cards)


def _is_header(row: str) -> bool:
    return row.split("\t")[0].strip().lower() == COLUMNS[0]


def _card(row: str) -> CardReply:
    cells = [cell.strip() for cell in row.split("\t")]
    if len(cells) == len(COLUMNS) - 1:
        cells.append("")  # The last column may be empty, and its tab lost.
    if len(cells) != len(COLUMNS):
        raise ReplyRejected("columns", f"a row has {len(cells)} columns, expected {len(COLUMNS)}")
    by_name = dict(zip(COLUMNS, cells, strict=True))
    card_type = next((t for t in CARD_TYPES if t.lower() == by_name["tab_name"].lower()), None)
    if card_type is None:
        raise ReplyRejected("columns", f"{by_name['tab_name']!r} is no card type")
    return CardReply(
        tab_name=card_type,
        front=by_name["front"],
        back=by_name["back"],
        tags=[tag.strip() for tag in by_name["tags"].split(",") if tag.strip()],
        honorific_level=by_name["honorific_level"],
    )
