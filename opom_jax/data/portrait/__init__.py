"""A parametric portrait: parameters of a person and of a photo in, an aligned picture out."""
