"""Readers of weight files: a file becomes named NumPy arrays, without the file's own framework."""
