"""What an evaluation found, as its files and pictures are written from."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from pneumojax.data.dataset import Dataset
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.scores import Scores, Variant
from pneumojax.evaluation.sections.section import Measured


class Result(NamedTuple):
    """One variant's metrics, and what they were computed from."""

    summary: dict[str, Any]  # see `metrics.summarize`
    images: PerImage
    scores: Scores
    measured: Measured | None = None  # of the run's own variant


class Evaluation(NamedTuple):
    """All that the files of an evaluation are written from."""

    config: ml_collections.ConfigDict  # of the run, or of the last stage of each of its folds
    dataset: Dataset  # its validation images were scored
    results: Mapping[Variant, Result]  # the last one is the run's own
    # From indices to (index, probabilities at the original size), for the pictures.
    predict: Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]]
    history: list[dict[str, Any]]  # lines of metrics.jsonl, for the learning curves
    step: int  # of the checkpoint
    about: dict[str, Any]  # more for evaluation.json
    digest: str | None = None  # of the weights, see `Checkpoints.weights_digest`; None for folds
