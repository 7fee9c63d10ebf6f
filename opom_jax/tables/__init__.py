"""The paper's tables and figures, each a function of a `Study` and `Options` to a `Sheet`.

A study is a world (people, surrogates, targets) and a folder in which masks and ranks are kept, so
that what one table has made the next one reads.
"""

from collections.abc import Callable
from functools import partial

from opom_jax.tables.diversity import table_6
from opom_jax.tables.efficiency import figure_6
from opom_jax.tables.figures import figure_2, figure_4, figure_8
from opom_jax.tables.frames import figure_7
from opom_jax.tables.options import Options
from opom_jax.tables.protection import table_2, table_4
from opom_jax.tables.sheet import Sheet
from opom_jax.tables.study import Study

Make = Callable[[Study, Options], Sheet]
# Tables 3 and 5 are 2 and 4 on the celebrities.
TABLES: dict[int, Make] = {
    2: table_2,
    3: partial(table_2, number=3),
    4: table_4,
    5: partial(table_4, number=5),
    6: table_6,
}
FIGURES: dict[int, Make] = {
    2: figure_2,
    4: figure_4,
    6: figure_6,
    7: figure_7,
    8: figure_8,
}
