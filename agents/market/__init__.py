"""Floor 1: what the market looks like, and an exchange in memory."""
