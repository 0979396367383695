"""What decides. Pure: no clock, no network, no event loop; nothing of daemon/."""
