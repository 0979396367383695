"""The market as an environment to learn in: the engine's own rooms, one at a time or thousands of copies on bars."""
