"""Floor 5: offline work that runs without the daemon."""
