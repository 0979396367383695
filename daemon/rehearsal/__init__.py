"""A local exchange that speaks the wire protocol of a real one."""
