"""Proofs of right: longer than a benchmark, and about what is reached, not how fast."""
