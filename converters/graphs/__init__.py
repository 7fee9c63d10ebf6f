"""Translators of files that hold a whole network, operators and weights, into `graph.Graph`."""
