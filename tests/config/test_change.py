import pytest

from ctnet.config import Recipe, changed


def test_only_the_named_values_change_and_the_original_stays():
    recipe = Recipe()
    other = changed(recipe, {"name": "x", "data.image_size": (64, 96), "data.workers": 0, "evaluation.flip": True})
    assert (other.name, other.data.image_size, other.data.workers, other.evaluation.flip) == ("x", (64, 96), 0, True)
    assert recipe == Recipe()
    assert changed(other, {"name": recipe.name, "data": recipe.data, "evaluation": recipe.evaluation}) == recipe


@pytest.mark.parametrize("key", ["dat.image_size", "data.image_sizes", "none"])
def test_a_key_that_the_settings_do_not_have_is_a_bug_of_the_caller(key):
    with pytest.raises(KeyError):
        changed(Recipe(), {key: 1})
