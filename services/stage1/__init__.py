"""From an accepted term to its analysis."""
