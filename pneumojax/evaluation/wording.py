"""How figures, rules and limits are worded, the same in every report and table."""

from collections.abc import Mapping
from typing import Any

LIMITS = (
    'Research software, not a medical device: not for diagnosis, triage or treatment.',
    'It knows frontal chest radiographs. On other views, body parts or devices, and on children, '
    'nothing is known about it.',
    'An image without a marked area may show a pneumothorax, above all a small one.',
    'The probability orders images (it is reached by 0.1 % of the pixels); it is not the '
    'probability that the patient has a pneumothorax.',
    'Areas in mm² follow the pixel spacing that the file states, which often holds at the detector '
    'and not in the patient.',
)
FIGURES = {
    'mean_dice': 'Mean Dice (1 where both masks are empty)',
    'all_empty_dice': 'Mean Dice of marking nothing at all',
    'positive_dice': 'Dice on images with pneumothorax',
    'sensitivity': 'Sensitivity',
    'specificity': 'Specificity',
    'auc': 'Area under the ROC curve',
}


def dropped(rule: Mapping[str, Any]) -> str:
    """What a rule says of small regions, to end a sentence with; nothing where it keeps all."""
    if not rule.get('region'):
        return ''
    return f', but connected regions of fewer than {rule["region"]} of these pixels'


def interval(figure: Mapping[str, Any]) -> str:
    """'0.812 (0.790 to 0.830)' of {'value', 'low', 'high'}."""
    if figure.get('value') is None:
        return 'not defined'
    text = f'{figure["value"]:.3f}'
    if figure.get('low') is not None:
        text += f' ({figure["low"]:.3f} to {figure["high"]:.3f})'
    return text
