"""Published weights -> Flax: readers of file formats, tables of names, one strict conversion."""
