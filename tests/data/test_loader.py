"""Samples and batches: deterministic, complete, safe to send to other processes."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctnet.codec.affine import fixed_view, transform_boxes
from ctnet.config import Augment, Recipe
from ctnet.data.dataset import open_dataset
from ctnet.data.image import read_image
from ctnet.data.loader import Batch, EpochOrder, collate, training_loader, worker_count
from ctnet.data.sample import TrainingSamples
from ctnet.errors import DataError
from ctnet.families import family_of


@pytest.fixture
def samples(small_set) -> TrainingSamples:
    annotations = open_dataset(small_set, "train")
    encoder = family_of(Recipe()).encoder(len(annotations.categories))
    return TrainingSamples(annotations, (64, 96), encoder, Augment(), seed=5, max_objects=100)


def tensors(batch: Batch) -> list:
    return [batch.images, batch.lighting, batch.image_ids, *batch.targets.maps.values(), *batch.targets.rows.values()]


def test_a_sample_depends_on_seed_epoch_and_index_only(samples):
    first, again = samples[0, 3], pickle.loads(pickle.dumps(samples))[0, 3]
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.targets.maps["heatmap"], again.targets.maps["heatmap"])
    assert not np.array_equal(first.image, samples[1, 3].image)
    assert not np.array_equal(first.image, replace(samples, seed=6)[0, 3].image)


def test_an_image_decoded_smaller_shows_the_same_view(samples, monkeypatch):
    """Large images are decoded at a fraction of their size; objects must stay where their targets are."""
    from ctnet.data import sample

    tiny = replace(samples, input_hw=(32, 32), augment=Augment(crop="none", flip=0, photometric=0, lighting=0))
    reduced = [tiny[0, i].image.astype(float) for i in range(4)]
    asked = []

    def whole(path, reduce=1, value_range=None):
        asked.append(reduce)
        return read_image(path)

    monkeypatch.setattr(sample, "read_image", whole)
    full = [tiny[0, i].image.astype(float) for i in range(4)]
    assert 2 in asked
    for a, b in zip(reduced, full, strict=True):
        inner, shifted = (
            a[4:-4, 4:-4],
            [b[4 + dy : 28 + dy, 4 + dx : 28 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)],
        )
        differences = [np.abs(inner - other).mean() for other in shifted]
        assert np.argmin(differences) == 4  # no shift fits best


def test_targets_lie_on_the_objects_they_belong_to(samples):
    """A plain view of a drawn shape: its box in cells is its box in the image, scaled."""
    plain = replace(samples, augment=Augment(crop="none", flip=0, photometric=0, lighting=0))
    for index, record in enumerate(samples.annotations.images):
        targets = SimpleNamespace(**plain[0, index].targets.rows)
        view = fixed_view((record.height, record.width), (64, 96))
        expected = transform_boxes(record.boxes_xyxy, view.to_input() / 4).clip(0, [23, 15, 23, 15])
        assert np.allclose(targets.size, expected[:, 2:] - expected[:, :2], atol=1e-4)
        middle = np.stack([targets.cell % 24, targets.cell // 24], 1) + targets.offset
        assert np.allclose(middle, (expected[:, :2] + expected[:, 2:]) / 2, atol=1e-4)


def test_rows_are_those_that_the_first_epoch_teaches(samples):
    taught = [samples[0, index].targets.rows for index in range(len(samples))]
    rows = samples.rows()
    assert rows.keys() == taught[0].keys()
    for name, values in rows.items():
        assert np.array_equal(values, np.concatenate([one[name] for one in taught])), name
    few = samples.rows(images=2)
    assert np.array_equal(few["size"], np.concatenate([taught[0]["size"], taught[-1]["size"]]))


def test_every_image_comes_once_an_epoch_in_another_order():
    order = EpochOrder(samples=11, batch_size=4, epochs=3, seed=1)
    batches = list(order)
    assert len(batches) == len(order) == 9
    assert [len(b) for b in batches[:3]] == [4, 4, 3]
    epochs = [[i for batch in batches[e * 3 : e * 3 + 3] for _, i in batch] for e in range(3)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_an_order_can_be_entered_anywhere():
    order = EpochOrder(samples=11, batch_size=4, epochs=3, seed=1)
    assert list(replace(order, first_epoch=1, first_batch=2)) == list(order)[5:]


def test_filled_up_every_batch_has_one_size_and_the_epoch_as_many_of_them():
    plain, filled = (EpochOrder(samples=11, batch_size=4, epochs=2, seed=1, fill=fill) for fill in (False, True))
    assert len(filled) == len(plain)
    for as_it_comes, full in zip(plain, filled, strict=True):
        assert full[: len(as_it_comes)] == as_it_comes
        assert len(full) == 4
    first, *_, last = list(filled)[:3]
    assert last[3] == first[0]
    assert [len(batch) for batch in EpochOrder(samples=3, batch_size=8, epochs=1, seed=1, fill=True)] == [8]


@pytest.mark.parametrize("samples", [1, 5, 8, 13, 16, 17])
@pytest.mark.parametrize(("ranks", "each"), [(2, 4), (3, 1), (4, 2), (5, 3)])
def test_ranks_share_the_batches_of_one_process(samples, ranks, each):
    whole = EpochOrder(samples, ranks * each, epochs=2, seed=1)
    shares = [list(replace(whole, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert {len(share) for share in shares} == {len(whole)}  # all ranks take the same steps
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [key for part in parts for key in part] == batch  # in order, nothing dropped, nothing repeated
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert sizes[0] > 0  # rank 0 draws the first batches
    assert whole.last_batch == len(list(whole)[-1])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_rank_without_images_gets_an_empty_batch(samples, workers):
    order = EpochOrder(samples=4, batch_size=3, epochs=1, seed=2, rank=2, ranks=3)
    batches = list(training_loader(samples, order, workers, pin_memory=False))
    assert [len(batch.images) for batch in batches] == [1, 0]
    for full, empty in zip(tensors(batches[0]), tensors(batches[1]), strict=True):
        assert empty.dtype == full.dtype
        assert empty.dim() == full.dim()


@pytest.mark.parametrize("context", [None, "spawn"])
def test_worker_processes_change_nothing(samples, context):
    order = EpochOrder(len(samples), 5, 1, seed=2)
    alone = list(training_loader(samples, order, 0, pin_memory=False))
    loader = training_loader(samples, order, 2, pin_memory=False)
    loader.multiprocessing_context = context
    together = list(loader)
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_objects_are_padded_to_the_most_in_the_batch(samples):
    drawn = [samples[0, i] for i in range(4)]
    batch = collate(drawn)
    most = max(len(s.targets.rows["valid"]) for s in drawn)
    assert batch.targets.rows["size"].shape == (4, most, 2)
    for i, sample in enumerate(drawn):
        assert batch.targets.rows["valid"][i].sum() == sample.targets.rows["valid"].sum()
    assert batch.images.dtype == torch.uint8


def test_objects_are_padded_to_a_number_that_was_asked_for(samples):
    drawn = [samples[0, i] for i in range(3)]
    batch, wide = collate(drawn), collate(drawn, 40)
    found = batch.targets.rows["valid"].shape[1]
    assert wide.targets.rows["valid"].shape == (3, 40)
    assert torch.equal(wide.targets.rows["size"][:, :found], batch.targets.rows["size"])
    assert not wide.targets.rows["valid"][:, found:].any()


def test_crowds_and_objects_beyond_the_limit_are_left_out(samples):
    annotations = samples.annotations
    index = int(np.argmax([len(r.labels) for r in annotations.images]))
    record = annotations.images[index]
    assert len(record.labels) >= 2
    assert len(replace(samples, max_objects=1)[0, index].targets.rows["valid"]) == 1
    crowded = replace(record, crowd=np.ones(len(record.labels), bool))
    images = (*annotations.images[:index], crowded, *annotations.images[index + 1 :])
    without = replace(samples, annotations=replace(annotations, images=images))
    assert without[0, index].targets.maps["heatmap"].max() == 0


def test_a_broken_image_is_named_with_its_annotations(samples):
    record = samples.annotations.images[2]
    record.path.write_bytes(b"not an image")
    with pytest.raises(DataError) as caught:
        samples[0, 2]
    text = str(caught.value)
    assert record.path.name in text
    assert samples.annotations.source.name in text
    assert f"{record.id}" in caught.value.facts["image_id"]


def test_loader_processes_are_no_more_than_the_cores_this_one_may_use(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert [worker_count(None), worker_count(None, 2), worker_count(None, 8), worker_count(0, 8)] == [3, 1, 1, 0]
