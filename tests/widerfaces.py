"""A ground truth of WIDER FACE's form for one image, or what is nearly one."""

import numpy as np
from scipy.io import savemat

from ctnet.eval import widerface


def small_truth(folder, event="0--Parade", name="a", faces=((1, 2, 30, 40),), chosen=(1,), **changed):
    def cell(values):
        array = np.empty((len(values), 1), object)
        array[:, 0] = values
        return array

    event_list, file_list = cell([np.array([event])]), cell([cell([np.array([name])])])
    boxes = cell([cell([np.array(faces, np.int32).reshape(-1, 4)])])
    content = {"event_list": event_list, "file_list": file_list, "face_bbx_list": boxes, **changed}
    folder.mkdir(exist_ok=True)
    savemat(folder / "wider_face_val.mat", content)
    for setting in widerface.SETTINGS:
        picked = cell([cell([np.array(chosen, np.int32).reshape(-1, 1)])])
        savemat(folder / f"wider_{setting}_val.mat", {"gt_list": picked})
    return folder
