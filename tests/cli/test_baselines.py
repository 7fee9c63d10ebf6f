"""generate with baselines: the same folder of masks, resumed like any other."""

import json

import numpy as np
import pytest

from opom_jax.baselines import gap

SMALL = {
    "fi_uap_all": ["steps=2"],
    "gd_uap": ["steps=16", "baseline.iterations=1"],
    "gap": ["steps=16", "baseline.epochs=1", "baseline.width=1", "baseline.blocks=0"],
}


def read(workdir) -> tuple[dict, list[dict], np.ndarray]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    made = [np.load(workdir / f"masks/mask_id{line['id']}.npy") for line in lines]
    return json.loads((workdir / "config.json").read_text()), lines, np.stack(made)


@pytest.mark.parametrize("method", SMALL)
def test_masks_of_a_baseline(world, opom, tmp_path, method, monkeypatch):
    flags = [f"--config.{setting}" for setting in SMALL[method]]
    command = world.generate(tmp_path, f"--config.method={method}", *flags)
    answer = opom(*command)
    assert (answer.code, answer.errors, answer.out) == (0, [], f"3 masks: {tmp_path / 'masks'}\n")
    config, lines, made = read(tmp_path)
    assert config["settings"]["method"] == method
    assert made.shape == (3, 3, 112, 112) and made.dtype == np.float32
    assert 0 < np.abs(made).max() <= 8
    universal = method != "gd_uap"
    assert config.get("universal", False) == universal
    assert (made == made[0]).all() == universal
    assert [line["name"] for line in lines] == ["a", "b", "c"]
    assert all(np.all(np.array(line["distance"]) > 0) for line in lines)
    if method == "gd_uap":
        assert [line["iterations"] for line in lines] == [1, 1, 1]
    if method == "gap":  # from its last checkpoint
        monkeypatch.setattr(gap, "_batches", lambda *_: [None])
    (tmp_path / "masks" / "mask_id1.npy").unlink()
    assert opom(*command).code == 0
    np.testing.assert_array_equal(read(tmp_path)[2], made)
    assert opom(*command, "--config.seed=1").code == 2
