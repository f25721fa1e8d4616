"""The pictures of an evaluation: curves.png and contact_sheet.png in the run directory."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pneumojax.data.dataset import Dataset
from pneumojax.data.datasets import example as example_lib
from pneumojax.data.files.silence import silence_libraries
from pneumojax.drawing import calibration, curves, overlay
from pneumojax.evaluation import metrics, thresholds
from pneumojax.runs.run import Run


def write_curves(
    run: Run, judged, rule: thresholds.Rule, title: str, history: list[dict[str, Any]]
) -> None:
    """Learning curves, thresholds, ROC and Dice by size of one evaluated run.

    Args:
      run: where the picture goes.
      judged: an `evaluate.Judged`.
      rule: of thresholds.json, marked in the sweep.
      title: heading.
      history: lines of metrics.jsonl.
    """
    scores = judged.scores
    curves.write_curves(
        run / 'curves.png',
        history=history,
        roc=metrics.roc(scores.probability, scores.true_px > 0),
        auc=judged.summary['auc']['value'],
        sweep=thresholds.sweep(scores.histograms, scores.pixels, rule.area),
        chosen=(rule.top, rule.bottom),
        dice=judged.dice,
        true_px=scores.true_px,
        predicted_px=judged.predicted_px,
        title=title,
    )


def write_calibration(run: Run, judged) -> None:
    """calibration.png: pixel probabilities against the share of pixels inside true masks.

    Args:
      run: where the picture goes.
      judged: an `evaluate.Judged`.
    """
    calibration.write_calibration(
        run / 'calibration.png', judged.scores.histograms.sum(axis=0, dtype=np.int64)
    )


def choose_cases(dice: np.ndarray, true_px: np.ndarray, probability: np.ndarray) -> list[int]:
    """Which images to show: best, middle and worst positives, and the most suspicious negatives.

    Args:
      dice, true_px, probability: [N], of the images.

    Returns:
      Positions, at most 16, without repetition.
    """
    positives = np.flatnonzero(true_px > 0)
    positives = positives[np.argsort(-dice[positives], kind='stable')]
    negatives = np.flatnonzero(true_px == 0)
    negatives = negatives[np.argsort(-probability[negatives], kind='stable')]
    middle = max(0, len(positives) // 2 - 2)
    groups = positives[:4], positives[middle : middle + 4], positives[-4:], negatives[:4]
    return list(dict.fromkeys(int(i) for group in groups for i in group))


@silence_libraries()
def write_contact_sheet(
    run: Run,
    dataset: Dataset,
    judged,
    rule: thresholds.Rule,
    predict: Callable[[np.ndarray], Iterator[tuple[int, np.ndarray]]],
    title: str,
) -> None:
    """Chosen validation images beside their true and predicted outlines.

    Args:
      run: where the picture goes.
      dataset: its validation images are shown.
      judged: an `evaluate.Judged`.
      rule: of thresholds.json; masks and Dice shown are its own.
      predict: from indices to (index, probabilities at the original size).
      title: heading.
    """
    cases = choose_cases(judged.dice, judged.scores.true_px, judged.scores.probability)
    tiles, captions = [], []
    for index, probability in predict(dataset.validation[cases]):
        example = dataset.examples[index]
        image, true = example_lib.load(example)
        predicted = thresholds.apply(rule, probability)
        tiles.append(overlay.panel(image, predicted, true))
        score = metrics.dice(predicted, true)
        captions.append(
            overlay.caption(example.image_id, score, metrics.image_probability(probability))
        )
    overlay.write_png(
        run / 'contact_sheet.png', overlay.contact_sheet(tiles, captions, 4, title=title)
    )
