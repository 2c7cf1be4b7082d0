"""The files of conf/debug do on real runs what they are made for."""

from supernet.track.jsonlines import read_rows
from tests.commands import finished

CELL = "|nor_conv_3x3~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|"


def test_debug_overfit_a_network_learns_its_images_by_heart(tmp_path):
    folder = finished("retrain", "debug=overfit", f"architecture={CELL}", cwd=tmp_path)
    training = [row for row in read_rows(folder / "metrics.jsonl") if "accuracy" in row]
    assert training[-1]["stage"] == "retrain/0" and training[-1]["accuracy"] == 1.0


def test_debug_one_epoch_goes_through_a_stage_in_one_epoch(tmp_path):
    folder = finished("derive", "debug=one_epoch", "method=spos", cwd=tmp_path)
    searched = [
        row for row in read_rows(folder / "metrics.jsonl") if row["stage"].startswith("search")
    ]
    assert searched[-1]["epoch"] == 1
    assert (folder / "architecture.json").exists()
