"""What touches the world and never decides."""
