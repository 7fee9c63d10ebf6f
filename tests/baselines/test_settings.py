"""Settings that are out of range."""

import pytest

from opom_jax.baselines.settings import Settings
from opom_jax.errors import InputError


def test_defaults_are_the_paper_s():
    settings = Settings()
    settings.check()
    assert (settings.epsilon, settings.steps, settings.iterations, settings.epochs) == (
        *(8, 16, 10_000, 10),
    )
    assert settings.fi_uap().method == "fi_uap"


@pytest.mark.parametrize(
    "name, value",
    [
        ("method", "fi_uap"),
        ("epsilon", 0.0),
        ("steps", 0),
        ("momentum", 1.0),
        ("iterations", 0),
        ("epochs", 0),
        ("photos_per_step", 0),
        ("learning_rate", float("nan")),
        ("width", 0),
        ("blocks", -1),
    ],
)
def test_out_of_range(name, value):
    with pytest.raises(InputError, match=f"{name}=.* must be "):
        Settings(**{name: value}).check()
