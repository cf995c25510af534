"""The tables of the exporter's store and the queries on them.

Version 2 (`PRAGMA user_version`). Anyone may read or copy the file while the exporter runs.

`terms`: one row a term of a batch, key `(batch, term_id)`
    deck, term (normal form), homonym, position (in the deck, from 1), pos
    stage1_model, stage2_model      who analysed the term, who wrote its cards
    cost_usd                        both stages together, decimal text: exact to the last digit
    calls, cached                   calls to a provider, completions from our cache; both stages
    submitted_at, finished_at       ISO 8601, UTC, microseconds: sorts as text
    event                           the whole CardsFinished as JSON
    revises, revision               the batch that this one is a revision of and the revision's
                                    number; NULL and 1 where it is none

`cards`: one row a card, key `(batch, term_id, card_type, card_position)`
    card_position                   counts the cards of the term from 1
    card_type                       the column tab_name
    ordinal                         counts the term's cards of this type from 1
    term (with its pronunciation), term_number, primer, front, back, honorific_level
    tags                            JSON list of strings
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 2

_ROOT: Final = "coalesce(revises, batch)"
"""The batch that a term belongs to, over all revisions. Indexes and queries must spell it alike."""

_REVISIONS: Final = (
    # A batch is read in this order without sorting, so that memory stays bounded.
    f"CREATE INDEX terms_by_root ON terms ({_ROOT}, position, submitted_at, term_id)",
    # These hold revisions alone, so that a term that is none costs nothing.
    """
    CREATE INDEX revisions ON terms (batch, position, submitted_at, term_id, revises)
    WHERE revises IS NOT NULL
    """,
    """
    CREATE INDEX newest_revisions ON terms (revises, term_id, revision, deck)
    WHERE revises IS NOT NULL
    """,
)
_REVISES: Final = "revises TEXT"
_REVISION: Final = "revision INTEGER NOT NULL DEFAULT 1"

TABLES: Final = (
    f"""
    CREATE TABLE terms (
        batch TEXT NOT NULL,
        term_id TEXT NOT NULL,
        deck TEXT NOT NULL,
        term TEXT NOT NULL,
        homonym INTEGER,
        position INTEGER NOT NULL,
        pos TEXT NOT NULL,
        stage1_model TEXT NOT NULL,
        stage2_model TEXT NOT NULL,
        cost_usd TEXT NOT NULL,
        calls INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        submitted_at TEXT NOT NULL,
        finished_at TEXT NOT NULL,
        event TEXT NOT NULL,
        {_REVISES},
        {_REVISION},
        PRIMARY KEY (batch, term_id)
    ) STRICT
    """,
    """
    CREATE TABLE cards (
        batch TEXT NOT NULL,
        term_id TEXT NOT NULL,
        card_type TEXT NOT NULL,
        card_position INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        term TEXT NOT NULL,
        term_number INTEGER NOT NULL,
        primer TEXT NOT NULL,
        front TEXT NOT NULL,
        back TEXT NOT NULL,
        tags TEXT NOT NULL,
        honorific_level TEXT NOT NULL,
        PRIMARY KEY (batch, term_id, card_type, card_position),
        FOREIGN KEY (batch, term_id) REFERENCES terms (batch, term_id) ON DELETE CASCADE
    ) STRICT
    """,
    # As terms_by_root, for decks.
    "CREATE INDEX terms_by_deck ON terms (deck, position, submitted_at, term_id)",
    "CREATE INDEX newest_terms ON terms (deck, term_id, finished_at, batch)",
    # Holds all that the totals need: no row, and so no event, is read for them.
    "CREATE INDEX totals ON terms (batch, cost_usd, calls, cached)",
    *_REVISIONS,
    f"PRAGMA user_version = {VERSION}",
)

MIGRATIONS: Final = {
    1: (
        f"ALTER TABLE terms ADD COLUMN {_REVISES}",
        f"ALTER TABLE terms ADD COLUMN {_REVISION}",
        "DROP INDEX terms_by_batch",
        *_REVISIONS,
        "PRAGMA user_version = 2",
    ),
}
"""From a version to the next one, in place. No release before version 2 knew of revisions."""

UPSERT_TERM: Final = """
    INSERT INTO terms VALUES (
        :batch, :term_id, :deck, :term, :homonym, :position, :pos, :stage1_model, :stage2_model,
        :cost_usd, :calls, :cached, :submitted_at, :finished_at, :event, :revises, :revision
    )
    ON CONFLICT (batch, term_id) DO UPDATE SET
        deck = excluded.deck, term = excluded.term, homonym = excluded.homonym,
        position = excluded.position, pos = excluded.pos,
        stage1_model = excluded.stage1_model, stage2_model = excluded.stage2_model,
        cost_usd = excluded.cost_usd, calls = excluded.calls, cached = excluded.cached,
        submitted_at = excluded.submitted_at, finished_at = excluded.finished_at,
        event = excluded.event, revises = excluded.revises, revision = excluded.revision
    WHERE excluded.finished_at > terms.finished_at
"""
"""Touches no row when the store holds this term as new as the event, or newer."""

DELETE_CARDS: Final = "DELETE FROM cards WHERE batch = ? AND term_id = ?"

INSERT_CARD: Final = """
    INSERT INTO cards VALUES (
        :batch, :term_id, :card_type, :card_position, :ordinal, :term, :term_number, :primer,
        :front, :back, :tags, :honorific_level
    )
"""

TOTALS: Final = """
    SELECT cost_usd, COUNT(*), SUM(calls), SUM(cached) FROM terms WHERE batch = ? GROUP BY cost_usd
"""
"""Grouped by cost, because SQLite would add decimal text as floating point."""

REVISED_BY: Final = "SELECT revises FROM terms WHERE batch = ? AND revises IS NOT NULL LIMIT 1"
BATCHES: Final = "SELECT DISTINCT batch FROM terms ORDER BY batch"
DECKS: Final = "SELECT DISTINCT deck FROM terms ORDER BY deck"

_CARDS: Final = """
    SELECT t.batch, t.deck, t.term_id, t.term, t.homonym, t.position, t.stage2_model,
           t.finished_at, c.ordinal, c.card_position, c.term, c.term_number, c.card_type,
           c.primer, c.front, c.back, c.tags, c.honorific_level
    FROM terms t CROSS JOIN cards c ON c.batch = t.batch AND c.term_id = t.term_id
"""
_OF_ROOT: Final = "WHERE coalesce(t.revises, t.batch) = ?"
_OF_REVISION: Final = "WHERE t.batch = ? AND t.revises IS NOT NULL"
_OF_DECK: Final = "WHERE t.deck = ?"
_NOT_REMADE: Final = """
    AND NOT EXISTS (
        SELECT 1 FROM terms anew
        WHERE anew.revises = coalesce(t.revises, t.batch) AND anew.term_id = t.term_id
        AND anew.revision > t.revision AND anew.deck = t.deck
    )
"""
"""No revision with a higher number has the term for this deck."""
_NEWEST: Final = """
    AND NOT EXISTS (
        SELECT 1 FROM terms newer WHERE newer.deck = t.deck AND newer.term_id = t.term_id
        AND (newer.finished_at, newer.batch) > (t.finished_at, t.batch)
        AND NOT EXISTS (
            SELECT 1 FROM terms anew
            WHERE anew.revises = coalesce(newer.revises, newer.batch)
            AND anew.term_id = newer.term_id
            AND anew.revision > newer.revision AND anew.deck = newer.deck
        )
    )
"""
"""Among those that are not remade."""
_IN_ORDER: Final = "ORDER BY t.position, t.submitted_at, t.term_id, c.card_position"

CARDS_OF_BATCH: Final = " ".join((_CARDS, _OF_ROOT, _NOT_REMADE, _IN_ORDER))
"""A term that a revision made anew comes once: of the revision with the highest number."""
CARDS_OF_REVISION: Final = " ".join((_CARDS, _OF_REVISION, _IN_ORDER))
CARDS_OF_DECK: Final = " ".join((_CARDS, _OF_DECK, _NOT_REMADE, _NEWEST, _IN_ORDER))
"""A term that several batches put into the deck comes once: the newest, by name on a tie.

Of a batch and its revisions the highest number counts here too, whenever it was finished: the deck
of the batch and this one must not undo each other in Anki.
"""
