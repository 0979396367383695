"""Mirrors outward. Never on the decision path."""
