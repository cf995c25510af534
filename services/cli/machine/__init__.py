"""Everything on one machine: nats-server, the provider's simulator, each service as a child."""
