"""Deterministic simulation: the whole daemon in virtual time against a misbehaving exchange, from one seed."""
