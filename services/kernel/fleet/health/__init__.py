"""How each model at each provider is doing, as the whole fleet knows it."""
