"""Dead letters: found, shown, sent again, set aside."""
