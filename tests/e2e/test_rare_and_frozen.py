"""Training with frozen layers, repeated images and weighted classes, resumed, and evaluated in tiles."""

import json

from ctnet.weights.ctnet_file import read_state

TINY = ("model.neck_channels=[16,16,16]", "model.head_channels=16", "data.image_size=64", "data.workers=0")


def test_a_run_with_all_of_them_resumes_and_is_evaluated_in_tiles(small_set, ctnet, tmp_path):
    more = ("train.freeze=backbone", "loss.class_weights=effective", "data.repeat_threshold=0.9", "train.batch_size=4")
    run = tmp_path / "run"
    code, _, err = ctnet("train", "--data", small_set, "--out", run, "--max-steps", 2, *TINY, *more)
    assert code == 0, err
    assert "frozen: backbone" in err
    assert "random weights" in err
    assert "repeat-factor sampling" in err
    weights = read_state(run / "checkpoints" / "last.pt")[1].recipe.loss.class_weights
    assert abs(sum(weights) / len(weights) - 1) < 1e-4
    code, _, err = ctnet("train", "--resume", run, "--max-steps", 4)
    assert code == 0, err
    best = run / "checkpoints" / "best.safetensors"
    code, out, err = ctnet("eval", "--weights", best, "--data", small_set, "--tiles", 64, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["protocol"]["tiles"] == 64
    assert set(document["untiled"]) == set(document["metrics"])
