"""What all replicas share about the model: limits, money, health."""
