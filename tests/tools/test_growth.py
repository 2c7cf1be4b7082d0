"""That the comparison of growth with its rivals runs each variant and prints its table."""

import sys

import numpy as np

from tools import growth


def test_a_row_of_each_variant_that_is_asked_for(tmp_path, monkeypatch, capsys):
    noise = np.random.default_rng(0)
    arrays = {
        f"{axis}_{part}": values
        for part, count in (("train", 160), ("test", 20))
        for axis, values in (
            ("x", noise.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)),
            ("y", np.arange(count) % 4),
        )
    }
    np.savez(tmp_path / "images.npz", **arrays)
    words = ["growth", "--data", str(tmp_path / "images.npz"), "--folder", str(tmp_path / "runs")]
    words += ["--seeds", "0", "--only", "wider", "--wider", "6", "--settings"]
    words += ["size=tiny", "retrain.epochs=1", "growth.seed_epochs=1", "data.train_limit=160"]
    words += ["growth.models=2"]
    monkeypatch.setattr(sys, "argv", words)
    for _ in range(2):  # the second time from what the folders hold
        growth.main()
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        assert [row.split(" | ")[0] for row in rows] == [
            *("| variant", "| ---", "| petridish", "| wider"),
        ]
    at = words.index("--only")
    words[at : at + 2] = ["--ablations", "--only", "one"]
    growth.main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| petridish", "| one"]
