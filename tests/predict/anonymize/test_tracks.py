"""Detections become tracks, and tracks what is hidden in each frame."""

import numpy as np
import pytest

from ctnet.predict.anonymize.linking import Linker
from ctnet.predict.anonymize.plan import Cuts, plan_frames
from ctnet.types import Detections

FPS = 10.0


def detections(*boxes, scores=None, labels=None):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores or [0.9] * len(boxes), np.float32),
        np.array(labels or [0] * len(boxes), np.int64),
    )


def linked(frames, turns=None):
    linker = Linker(FPS, 0.5)
    for number, found in frames.items():
        linker.add(number, found, None if turns is None else np.array([turns[number]], np.float32))
    return linker.tracks


def moving(frame, start=100.0, speed=4.0, size=40.0):
    return start + speed * frame, 80.0, start + speed * frame + size, 80 + 1.2 * size


def test_objects_that_cross_keep_their_tracks_and_classes_are_never_mixed():
    frames = {
        i: detections(
            moving(i, 20, 8), moving(i, 220, -8), (300, 300, 340, 340), (302, 300, 342, 340), labels=[0, 0, 0, 1]
        )
        for i in range(25)
    }
    tracks = linked(frames)
    assert [len(track.frames) for track in tracks] == [25] * 4
    assert sorted(round(float(track.boxes[-1][0])) for track in tracks) == [28, 212, 300, 302]
    assert [track.label for track in tracks] == [0, 0, 0, 1]


def test_weak_detections_continue_a_track_and_begin_none():
    frames = {i: detections(moving(i), scores=[0.9 if i % 3 == 0 else 0.3]) for i in range(10)}
    (track,) = linked(frames)
    assert track.frames == list(range(10))
    assert linked({i: detections(moving(i), scores=[0.4]) for i in range(10)}) == []


@pytest.mark.parametrize("unseen", [1, 5, 15])
def test_an_object_is_found_again_where_it_moved_to(unseen):
    frames = {i: detections(moving(i, speed=1.5)) for i in range(40) if not 10 <= i < 10 + unseen}
    (track,) = linked(frames)
    places = list(plan_frames([track], 40, (1000, 1000), FPS))
    for number, here in enumerate(places):
        (place,) = here
        x1, y1, x2, _ = moving(number, speed=1.5)
        assert place.box[0] <= x1 + 0.1 and place.box[1] <= y1 + 0.1 and place.box[2] >= x2 - 0.1  # noqa: PT018
        assert place.reason == ("filled" if 10 <= number < 10 + unseen else "found")
        assert place.box[2] - place.box[0] < 1.7 * (x2 - x1)


def test_trembling_boxes_become_smooth_and_still_cover_what_was_found():
    shake = np.random.default_rng(2).uniform(-4, 4, 60)
    tracks = linked({i: detections(moving(i, start=100 + shake[i], speed=3)) for i in range(60)})
    centres = []
    for number, (place,) in enumerate(plan_frames(tracks, 60, (1000, 1000), FPS)):
        box = moving(number, start=100 + shake[number], speed=3)
        assert (place.box[0] <= box[0] + 1e-3) and (place.box[2] >= box[2] - 1e-3)  # noqa: PT018
        centres.append((place.box[0] + place.box[2]) / 2)
    assert np.abs(np.diff(centres, 2)).mean() < 0.6 * np.abs(np.diff(100 + shake, 2)).mean()


def test_turns_go_the_short_way_round():
    turns = {i: 85 + 5 * i if 85 + 5 * i < 90 else 85 + 5 * i - 180 for i in range(6) if i != 2}
    tracks = linked({i: detections(moving(i)) for i in turns}, turns)
    for number, (place,) in enumerate(plan_frames(tracks, 6, (1000, 1000), FPS)):
        assert (place.turn - 85 - 5 * number + 90) % 180 - 90 == pytest.approx(0, abs=6)


def reasons(tracks, count, cuts=(), size_hw=(1000, 1000)):
    return [[place.reason for place in here] for here in plan_frames(tracks, count, size_hw, FPS, cuts)]


def test_both_ends_of_a_track_inside_the_image_are_unsure_for_a_second():
    tracks = linked({i: detections((400, 400, 450, 460)) for i in range(20, 40)})
    assert reasons(tracks, 60) == [[]] * 10 + [["lost"]] * 10 + [["found"]] * 20 + [["lost"]] * 10 + [[]] * 10
    assert (
        reasons(tracks, 60, cuts=(17, 42)) == [[]] * 17 + [["lost"]] * 3 + [["found"]] * 20 + [["lost"]] * 2 + [[]] * 18
    )
    assert reasons(tracks, 60, cuts=(20, 40))[19:41] == [[], *[["found"]] * 20, []]


def test_a_detection_in_a_single_frame_is_hidden_for_three():
    tracks = linked({30: detections((400, 400, 450, 460))})
    assert [number for number, here in enumerate(reasons(tracks, 60)) if here] == [29, 30, 31]


def test_at_the_edge_of_the_image_and_where_another_track_goes_on_nothing_is_lost():
    leaving = linked({i: detections((2, 400, 52, 460)) for i in range(20)})
    assert reasons(leaving, 30)[20:] == [["held"]] * 2 + [[]] * 8
    two = linked({i: detections((400, 400, 450, 460)) for i in range(20)}) + linked(
        {i: detections((402, 402, 452, 462)) for i in range(20, 40)}
    )
    assert all("lost" not in here for here in reasons(two, 40))


def test_boxes_that_are_none_are_left_out_and_a_thousand_objects_are_no_burden():
    nan = float("nan")
    assert linked({0: detections((nan, 0, 1, 1), (5, 5, 5, 9), (9, 9, 3, 3))}) == []
    grid = [(x * 30, y * 30, x * 30 + 20, y * 30 + 20) for x in range(40) for y in range(25)]
    assert len(linked({i: detections(*grid) for i in range(4)})) == 1000


@pytest.mark.parametrize(("back", "tracks"), [(12, 1), (20, 2)])
def test_tracks_outlast_a_flash_and_no_cut(back, tracks):
    linker = Linker(FPS, 0.5)
    for i in range(back + 5):
        if i < 11 or i >= back:
            linker.add(i, detections((400, 400, 450, 460)), None, scene=11 if i >= 11 else 0)
    assert len(linker.tracks) == tracks


def test_cuts_are_where_everything_changes():
    cuts = Cuts()
    rng = np.random.default_rng(0)
    for number in range(12):
        image = np.full((90, 120, 3), 60 if number < 7 else 190, np.uint8)
        image[20:60, 3 * number : 3 * number + 30] = 250
        cuts.add(number, image + rng.integers(0, 6, image.shape, dtype=np.uint8) // 2)
    assert cuts.frames == [7]
