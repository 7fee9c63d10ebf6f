"""The paper's tables and figures, each a function of a `Study` to a `Sheet`.

A study is a world (people, surrogates, targets) and a folder in which masks and ranks are kept, so
that what one table has made the next one reads. `TABLES` and `FIGURES` name them all.
"""
