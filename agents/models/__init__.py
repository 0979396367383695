"""Floor 1: networks in torch. They know arrays, not markets."""
