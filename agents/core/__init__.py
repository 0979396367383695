"""Floor 0: the facts, the requests and the account. Imports nothing but the standard library's pure part."""
