"""Face networks in Flax NNX: one file a family, one table of specs, one loader."""
