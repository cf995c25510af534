"""From an analysis to the term's cards."""
