from ctnet.errors import listed, nearest


def test_the_nearest_name_is_found_in_whatever_case_and_a_far_one_is_not():
    assert nearest("VALID", ["train", "valid"]) == "valid"
    assert nearest("Yoolo", ["coco", "YOLO"]) == "YOLO"
    assert nearest("zebra", ["train", "valid"]) is None
    assert nearest("x", []) is None


def test_a_long_list_names_how_many_more_there_are():
    assert listed([]) == ""
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
