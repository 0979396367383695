"""What goes wrong on a real exchange, on request; loaded and reachable only where it was asked for."""
