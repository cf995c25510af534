"""What crosses the wire. Frozen; readers ignore unknown fields."""
