"""From files to a batch on the streams, and following it to its end."""
