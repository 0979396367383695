"""Venues: where facts come from and where commands go."""
