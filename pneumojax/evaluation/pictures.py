"""The pictures of an evaluation: curves, calibration, images, subgroups, a contact sheet."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.files.silence import silence_libraries
from pneumojax.drawing import contact_sheet, curves, figures, froc
from pneumojax.drawing import image_level as image_panels
from pneumojax.drawing.calibration import draw_calibration
from pneumojax.drawing.forest import draw_forest
from pneumojax.drawing.overlay import write_png
from pneumojax.evaluation import calibration, metrics, rules, thresholds
from pneumojax.evaluation.per_image import PerImage
from pneumojax.evaluation.results import Evaluation, Result
from pneumojax.evaluation.scores import Scores
from pneumojax.evaluation.sections import image_level
from pneumojax.evaluation.wording import METRIC_NAMES
from pneumojax.runs.run import Run


def write_curves(
    run: Run, result: Result, rule: rules.Rule, title: str, history: list[dict[str, Any]]
) -> None:
    """curves.png: learning curves, thresholds, ROC and Dice by size of one evaluated run.

    Args:
      run: where the picture goes.
      result: of the run.
      rule: of thresholds.json, marked in the sweep.
      title: heading.
      history: lines of metrics.jsonl.
    """
    images = result.images
    panels = curves.Panels(
        history=history,
        roc=metrics.roc(images.score, images.positive),
        auc=result.summary['auc']['value'],
        sweep=thresholds.sweep(result.scores, 0 if rule.marks_nothing else rule.area),
        chosen=None if rule.marks_nothing else (rule.top, rule.bottom),
        dice=images.dice,
        true_px=images.true_px,
        predicted_px=images.predicted_px,
    )
    figures.save(curves.draw_curves(panels, title), run / 'curves.png')


def write_calibration(run: Run, scores: Scores) -> None:
    """calibration.png: pixel probabilities against the share of pixels inside true masks.

    Args:
      run: where the picture goes.
      scores: of its images.
    """
    histogram = scores.histograms.sum(axis=0, dtype=np.int64)
    groups, error = calibration.reliability(histogram), calibration.expected_error(histogram)
    figures.save(draw_calibration(groups, error), run / 'calibration.png')


def write_image_level(run: Run, images: PerImage, sections: Mapping[str, Any], title: str) -> None:
    """image_level.png: calibration, precision, net benefit and predictive values of whole images.

    Args:
      run: where the picture goes.
      images: N images.
      sections: what `registry.summarize` found of them.
      title: heading.
    """
    found, calibration = sections['image_level'], sections.get('calibration')
    panels = image_panels.Panels(
        precision_recall=image_level.precision_recall(images),
        precision=found['auprc']['value'],
        share=float(images.positive.mean()),
        decision_curve=found.get('decision_curve'),
        predictive_values=found['predictive_values'],
    )
    if calibration is not None:
        panels = dataclasses.replace(
            panels,
            before=calibration['score_reliability'],
            after=calibration['reliability'],
            errors=(calibration['score_ece']['value'], calibration['ece']['value']),
        )
    figures.save(image_panels.draw_image_level(panels, title), run / 'image_level.png')


def write_froc(run: Run, sections: Mapping[str, Any]) -> None:
    """froc.png: lesions found against false marks an image, where lesions were measured.

    Args:
      run: where the picture goes.
      sections: what `registry.summarize` found.
    """
    if curve := sections.get('lesions', {}).get('froc'):
        figure = froc.draw_froc(curve['false_marks'], curve['detection'], curve['at'])
        figures.save(figure, run / 'froc.png')


def write_subgroups(run: Run, found: Mapping[str, Any]) -> None:
    """subgroups.png: Dice and AUC of each group, if any is shown.

    Args:
      run: where the picture goes; one of an earlier evaluation is removed.
      found: `subgroups` of evaluation.json.
    """
    path = run / 'subgroups.png'
    path.unlink(missing_ok=True)
    groupings = found.get('groupings', {})
    if any(of['groups'] for of in groupings.values()):
        panels = {name: METRIC_NAMES[name] for name in ('positive_dice', 'auc')}
        figures.save(draw_forest(groupings, panels, 'Subgroups, with 95 % intervals'), path)


def choose_cases(images: PerImage) -> list[int]:
    """Which images to show: best, middle and worst positives, and the most suspicious negatives.

    Returns:
      Positions, at most 16, without repetition.
    """
    positives, negatives = np.flatnonzero(images.positive), np.flatnonzero(~images.positive)
    positives = positives[np.argsort(-images.dice[positives], kind='stable')]
    negatives = negatives[np.argsort(-images.score[negatives], kind='stable')]
    middle = max(0, len(positives) // 2 - 2)
    groups = positives[:4], positives[middle : middle + 4], positives[-4:], negatives[:4]
    return list(dict.fromkeys(int(i) for group in groups for i in group))


@silence_libraries()
def write_contact_sheet(run: Run, evaluation: Evaluation, rule: rules.Rule, title: str) -> None:
    """contact_sheet.png: chosen validation images beside their true and predicted outlines.

    Args:
      run: where the picture goes.
      evaluation: of the run.
      rule: of thresholds.json; the masks and Dice shown are its own.
      title: heading.
    """
    dataset, result = evaluation.dataset, list(evaluation.results.values())[-1]

    def cases() -> Iterator[Case]:
        chosen = dataset.validation[choose_cases(result.images)]
        for index, probability in evaluation.predict(chosen):
            image, true = example_lib.load(dataset.examples[index])
            yield Case(dataset.examples[index].image_id, image, true, probability)

    draw_contact_sheet(run / 'contact_sheet.png', cases(), rule, title)


class Case(NamedTuple):
    """An image to show beside its outlines."""

    image_id: str
    image: np.ndarray  # uint8 [H, W]
    true: np.ndarray  # uint8 0/1 [H, W]
    probability: np.ndarray  # float32 [H, W]


def draw_contact_sheet(
    path: pathlib.Path, cases: Iterable[Case], rule: rules.Rule, title: str
) -> None:
    """Writes images beside their true and predicted outlines, with the Dice of each.

    Args:
      path: of the PNG.
      cases: at most 16.
      rule: makes the masks.
      title: heading.
    """
    tiles, captions = [], []
    for case in cases:
        predicted = rules.apply(rule, case.probability)
        tiles.append(contact_sheet.panel(case.image, predicted, case.true))
        captions.append(contact_sheet.caption(
            case.image_id,
            metrics.dice(predicted, case.true),
            metrics.image_score(case.probability),
        ))  # fmt: skip
    write_png(path, contact_sheet.contact_sheet(tiles, captions, 4, title))
