"""Other backtesters under the same rule. Each file runs in an environment of its own and prints one line of JSON."""
