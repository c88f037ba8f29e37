"""Scoring the network between epochs, and keeping the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctnet.config import Recipe
from ctnet.detect.detector import prepare_detector
from ctnet.devices import OpenDevice
from ctnet.engine.model_card import write_model_card
from ctnet.engine.processes.world import World
from ctnet.engine.report import Reporter
from ctnet.engine.samples import write_prediction_sheet
from ctnet.engine.state import TrainingState
from ctnet.engine.stop import Stopped
from ctnet.eval.coco import CocoMetrics, align_categories, percent, relabel
from ctnet.eval.evaluate import evaluate, only
from ctnet.eval.keypoints import aligned_points
from ctnet.eval.protocol import protocol_of, sentence
from ctnet.eval.report import evaluation_document, write_report
from ctnet.eval.scorer import COCO, Scorer
from ctnet.types import AnnotationSet, Category, Detections
from ctnet.weights.ctnet_file import Weights, read_weights, save_weights
from ctnet.weights.fit import load_exactly


@dataclass
class Validation:
    """Evaluates on one set; without a set it keeps the latest weights as the best.

    So it does where `trained_on`, the number of its images that are trained on, is a tenth of them or more: the best
    AP on those is that of the weights that remember them best.

    All ranks take part in every call: each detects on its share of the images, rank 0 scores and writes.
    """

    recipe: Recipe
    categories: tuple[Category, ...]
    annotations: AnnotationSet | None
    device: OpenDevice
    reporter: Reporter
    world: World
    workers: int = 0
    scorer: Scorer = COCO
    trained_on: int = 0

    def __post_init__(self) -> None:
        images = len(self.annotations.images) if self.annotations else 0
        self.protocol = {
            **protocol_of(self.recipe, self.recipe.evaluation, images),
            "trained_on": self.trained_on,
        }
        self._keep_latest = self.trained_on > 0 and 10 * self.trained_on >= images
        self._latest: tuple[int, dict[int, Detections], CocoMetrics] | None = None  # on rank 0
        if self.annotations is not None:
            self._alignment = align_categories(self.categories, self.annotations.categories)
            for warning in (*self._alignment.warnings, *self.scorer.notes(self.annotations)):
                self.reporter.message(f"warning: {warning}")

    def run(
        self, state: TrainingState, folder: Path, epoch: int, on_image: Callable[[], None]
    ) -> dict[str, float | None]:
        """Return the numbers of the state's weights, saving these when the primary one is the best so far.

        `on_image` is called regularly and may raise Stopped on some ranks; then it is raised on all. Empty
        without a validation set.
        """
        if self.annotations is None:
            state.best = {"step": state.step}
            self._save(state, folder, {})
            return {}
        numbers = self._measure(state, on_image)
        primary = self.scorer.primary
        is_best = self._keep_latest or not state.best or (numbers[primary] or 0.0) >= (state.best.get(primary) or 0.0)
        if is_best:
            state.best = {**numbers, "step": state.step, "epoch": epoch}
            self._save(state, folder, numbers)
        if self._latest is not None:
            self._draw(folder, epoch, self._latest[1])
        best = "  (best)" if is_best else ""
        self.reporter.message(f"epoch {epoch}: {self.scorer.sentence(numbers)}{best}")
        return numbers

    @property
    def per_class(self) -> dict[str, dict[str, float | int | None]]:
        """The numbers of each class at the latest evaluation of this process, on rank 0; empty before one."""
        return self._latest[2].per_class if self._latest is not None else {}

    def _draw(self, folder: Path, epoch: int, found: dict[int, Detections]) -> None:
        assert self.annotations is not None
        sheet = folder / "samples" / f"val_epoch_{epoch:03d}.jpg"
        write_prediction_sheet(sheet, only(self.annotations, found), found, self.annotations.categories)

    def _measure(self, state: TrainingState, on_image: Callable[[], None]) -> dict[str, float | None]:
        """Return the numbers, on every rank."""
        found = self._detect(state, on_image)

        def score() -> dict[str, float | None]:
            assert self.annotations is not None
            metrics = self.scorer.score(only(self.annotations, found), found, self.recipe.evaluation.max_detections)
            self._latest = (state.step, found, metrics)
            return metrics.numbers()

        return self.world.broadcast_from_rank0(score)

    def _detect(self, state: TrainingState, on_image: Callable[[], None]) -> dict[int, Detections]:
        """Return the detections of all ranks' images, in the data set's labels and order. Raises Stopped."""
        assert self.annotations is not None
        annotations = self.annotations
        precision = self.recipe.train.amp
        detector = prepare_detector(state.evaluated_network, state.family, self.categories, self.device, precision)
        self.protocol["precision"] = detector.precision

        def progress(done: int, total: int) -> None:
            self.reporter.progress("evaluate", done, total, {})
            on_image()

        def detect() -> dict[int, Detections] | None:
            rank_info, settings = self.world.rank_info, self.recipe.evaluation
            try:
                return evaluate(detector, annotations, settings, self.workers, progress, rank_info.rank, rank_info.size)
            except Stopped:
                return None

        parts = self.world.gather(self.world.run_on_all_ranks(detect))
        found: dict[int, Detections] = {}
        for part in parts:
            if part is None:
                raise Stopped
            found |= part
        found = {image.id: found[image.id] for image in annotations.images if image.id in found}
        self.protocol["images"] = len(found)
        self.protocol["unreadable"] = len(annotations.images) - len(found)
        found = relabel(found, self._alignment)
        if annotations.keypoints is not None:
            found, _ = aligned_points(found, state.family.keypoints, annotations.keypoints)
        return found

    def _save(self, state: TrainingState, folder: Path, numbers: dict[str, Any]) -> None:
        if not (self.world.leads and self.recipe.train.checkpoints):
            return
        info = {"metrics": numbers, "step": state.step, "protocol": self.protocol}
        tensors, keypoints = state.evaluated_network.state_dict(), state.family.keypoints
        weights = Weights(tensors, self.recipe, self.categories, info, keypoints=keypoints)
        save_weights(folder / "checkpoints" / "best.safetensors", weights)
        write_model_card(folder, self.recipe, self.categories, self.protocol, numbers, self.per_class)

    def report(self, state: TrainingState, folder: Path) -> Path | None:
        """Return the page of a report on the best weights, written to `eval/`.

        None without a validation set, and on all ranks but 0.
        """
        if self.annotations is None:
            return None
        best_file = folder / "checkpoints" / "best.safetensors"
        kept = self.recipe.train.checkpoints
        if kept and self.world.broadcast_from_rank0(
            lambda: self._latest is None or self._latest[0] != state.best.get("step")
        ):
            tensors = self.world.broadcast_from_rank0(lambda: dict(read_weights(best_file).tensors))
            load_exactly(state.evaluated_network, tensors, best_file)
            self._measure(state, on_image=lambda: None)
        if self._latest is None:
            return None
        _, found, metrics = self._latest
        document = evaluation_document(
            str(best_file),
            self.annotations,
            metrics,
            self.protocol,
            (*self._alignment.warnings, *self.scorer.notes(self.annotations)),
        )
        primary = self.scorer.primary
        score = percent(metrics.numbers()[primary])
        self.reporter.message(f"best weights: {primary} {score}  ({sentence(self.protocol)})")
        return write_report(folder / "eval", only(self.annotations, found), found, metrics, document, self.recipe.name)
