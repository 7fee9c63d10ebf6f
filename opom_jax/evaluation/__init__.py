"""How well masks protect: identification, and tables of it."""
