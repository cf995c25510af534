"""Pure Korean: no I/O, no contracts."""
