"""Turns to call, within limits that all replicas of a stage keep together."""
