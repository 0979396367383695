"""Floor 1: the forward pass that decides live, in numpy."""
