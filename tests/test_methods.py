"""One table of methods: every name that other tables know, each once."""

from opom_jax.baselines import settings as baselines
from opom_jax.baselines import specific
from opom_jax.masks import objectives
from opom_jax.masks.generate import Settings
from opom_jax.methods import METHODS, titles


def test_every_name_is_there_once():
    known = {
        Settings: objectives.METHODS,
        baselines.Settings: baselines.NAMES,
        specific.Attack: specific.METHODS,
    }
    for kind, names in known.items():
        assert set(titles(kind).values()) == set(names)
    every = [of.title for of in METHODS.values()]
    assert len(set(every)) == len(every) == sum(map(len, known.values()))


def test_kinds_of_masks():
    of = {
        serves: {n for n, m in METHODS.items() if m.serves == serves}
        for serves in ("person", "everybody", "photo")
    }
    assert of["everybody"] == {"fi_uap_all", "gap"} and of["photo"] == set(specific.METHODS)
    assert sum(map(len, of.values())) == len(METHODS)
