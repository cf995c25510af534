"""Asking a model: cache, limit, provider. Knows nothing of streams or of what is asked."""
