"""Floor 2: how networks learn. Knows arrays, not markets."""
