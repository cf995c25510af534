"""Budgets on the command line: setting them, showing accounts, working them out anew."""
