"""The wording of metrics, rules and limits, the same in every report and table."""

from collections.abc import Mapping
from typing import Any

import ml_collections

from pneumojax.system.text import markdown

LIMITS = (
    'Research software, not a medical device: not for diagnosis, triage or treatment.',
    'For frontal chest radiographs. How it does on other views, body parts or devices, or on '
    'children, is not known.',
    'An image without a marked area may still show a pneumothorax, especially a small one.',
    'The probability of an image is calibrated on the held-out images, with their share of '
    'pneumothorax. Where the share or the images differ, so does the probability.',
    'Areas in mm² use the pixel spacing stated in the file, which often holds at the detector and '
    'not in the patient.',
)
METRIC_NAMES = {
    'mean_dice': 'Mean Dice (1 where both masks are empty)',
    'all_empty_dice': 'Mean Dice of marking nothing at all',
    'positive_dice': 'Dice on images with pneumothorax',
    'sensitivity': 'Sensitivity',
    'specificity': 'Specificity',
    'auc': 'Area under the ROC curve',
}


def rule_sentence(rule: Mapping[str, Any]) -> str:
    """How a rule makes masks, as one sentence.

    Args:
      rule: content of a thresholds.json.
    """
    if rule['area'] > rule['reference_pixels']:
        return 'Every image is left empty: on held-out images no rule was better than that.'
    if not rule['area']:
        sentence = f'Every pixel that reaches a probability of {rule["bottom"]:g} is marked'
    else:
        sentence = _sentence_with_area(rule)
    if rule.get('region'):
        sentence += f', except in connected regions of fewer than {rule["region"]} of these pixels'
    return sentence + '.' + (_guarantee(rule['risk']) if 'risk' in rule else '')


def _sentence_with_area(rule: Mapping[str, Any]) -> str:
    return (
        f'An image is left empty when fewer than {rule["area"]:,} pixels (at 1024 x 1024, scaled '
        f'to its size) reach a probability of {rule["top"]:g}; otherwise every pixel that reaches '
        f'{rule["bottom"]:g} is marked'
    )


def _guarantee(stated: Mapping[str, Any]) -> str:
    return (
        f' With {stated["confidence"]:.0%} confidence, it misses on average at most '
        f'{stated["miss"]:.1%} of a lesion of further patients like the {stated["patients"]} it '
        'was chosen on.'
    )


def probability_sentence(calibration: Mapping[str, Any] | None) -> str:
    """What the probability of an image means, as one sentence.

    Args:
      calibration: 'probability' in a thresholds.json.
    """
    if calibration is None:
        return (
            'The probability of an image is not calibrated: it is the score, which ranks images '
            'and tells no frequency of pneumothorax.'
        )
    images, positives = calibration['images'], calibration['positives']
    return (
        f'The probability of an image is calibrated on {images:,} held-out images, {positives:,} '
        f'of them ({positives / images:.0%}) with pneumothorax; where that share differs, so does '
        'the probability.'
    )


def learned_from_phantoms(
    config: ml_collections.ConfigDict, evaluation: Mapping[str, Any] | None
) -> bool:
    """Whether a run was trained on drawn phantoms. What it started from (`init_from`) is no matter.

    Args:
      config: of the run.
      evaluation: content of its evaluation.json, which knows of phantoms that were drawn before.
    """
    return bool(config.data.phantoms.num_images or (evaluation or {}).get('phantoms'))


def subgroups_sentence(evaluation: Mapping[str, Any]) -> str:
    """Which subgroups were measured separately, and which were not, as Markdown.

    Args:
      evaluation: content of an evaluation.json.
    """
    found = evaluation.get('subgroups', {}).get('groupings', {})
    measured = [markdown(grouping) for grouping, of in found.items() if of['groups']]
    if not measured:
        return 'Subgroups (age, sex, view, device, drains in place) were not measured separately.'
    usual = ('Sex', 'Age', 'View position', 'Manufacturer')
    missing = [name.lower() for name in usual if name not in measured]
    return (
        f'Subgroups were measured separately by: {", ".join(measured)}. Not by others, such as '
        f'{", ".join((*missing, "drains in place"))}, unless one of these says so.'
    )


def missing_positives(evaluation: Mapping[str, Any]) -> list[str]:
    """What a reader must know where there was no pneumothorax to learn or to find.

    Args:
      evaluation: content of an evaluation.json; those of earlier versions lack `trained_on`.
    """
    found = []
    if evaluation.get('trained_on', {}).get('n_positive') == 0:
        found.append(
            'None of the images trained on has a pneumothorax: the network cannot find one.'
        )
    if evaluation['n_positive'] == 0:
        found.append(
            'None of the held-out images has a pneumothorax: a mean Dice of 1 means only that '
            'nothing is marked, and the rule chosen leaves every image empty.'
        )
    return found


def value_and_interval(metric: Mapping[str, Any]) -> str:
    """'0.812 (0.790 to 0.830)' from {'value', 'low', 'high'}, see `metrics.with_intervals`."""
    if metric.get('value') is None:
        return 'not defined'
    text = f'{metric["value"]:.3f}'
    if metric.get('low') is not None:
        exact = ', exact' if metric.get('interval') == 'exact' else ''
        text += f' ({metric["low"]:.3f} to {metric["high"]:.3f}{exact})'
    return text
