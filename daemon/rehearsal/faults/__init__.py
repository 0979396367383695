"""What goes wrong on a real exchange, on request; in no path where it was not asked for."""
