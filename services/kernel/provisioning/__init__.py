"""What the server holds: made, compared, repaired, watched, paused. No message passes here."""
