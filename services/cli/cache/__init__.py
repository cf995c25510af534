"""The cache of completions as an operator sees it: looked at, filled, emptied, carried about."""
