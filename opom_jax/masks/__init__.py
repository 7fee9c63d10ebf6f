"""The heart: objectives over feature subspaces, sign updates, and masks for many people at once."""
