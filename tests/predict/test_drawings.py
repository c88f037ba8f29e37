"""What drawings are called: names come from files."""

from pathlib import Path

import numpy as np

from ctnet.predict.drawings import Drawings
from ctnet.predict.sources import Frame


def test_names_are_numbered_and_short_enough_for_any_file_system(tmp_path):
    drawing = np.zeros((4, 4, 3), np.uint8)
    sources = ["a/cell.png", "b/CELL.png", f"c/{'x' * 250}.png", f"d/{'x' * 250}.png", "e/..png"]
    with Drawings(tmp_path / "out") as drawings:
        names = [drawings.save(Frame(Path(source), index, drawing), drawing) for index, source in enumerate(sources)]
    assert names[:2] == ["cell.png", "CELL-2.png"]
    assert len(set(names)) == len(names)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
