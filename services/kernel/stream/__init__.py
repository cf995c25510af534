"""Delivery: from a message on a stream to its answer, and nothing of what the message means."""
