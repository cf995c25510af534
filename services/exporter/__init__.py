"""The last stage: finished cards into the store, and from there into decks."""
