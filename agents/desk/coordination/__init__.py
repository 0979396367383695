"""How four wishes become one target: a strategy a file, all behind the protocol of `agents.desk.coordinator`."""
