"""Venues: two verbs, events and send."""
