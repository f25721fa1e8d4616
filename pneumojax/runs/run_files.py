"""What the JSON files of a run hold, checked when read: they may be damaged, or foreign."""

from typing import Any

FIGURES = ('mean_dice', 'all_empty_dice', 'positive_dice', 'sensitivity', 'specificity', 'auc')


def check(name: str, value: Any) -> None:
    """Raises ValueError, with what is wrong, where a file of this name does not hold that.

    Args:
      name: of the file; nothing is known of other names than the three below.
      value: what JSON gave.
    """
    known = {
        'thresholds.json': _thresholds, 'evaluation.json': _evaluation, 'split.json': _split,
    }  # fmt: skip
    if name in known:
        _require(isinstance(value, dict), 'a JSON object', 'it')
        known[name](value)


def is_metrics_row(row: Any) -> bool:
    """Whether a line of metrics.jsonl is one: a step and whose figures these are, at least."""
    return (
        isinstance(row, dict) and _is_count(row.get('step')) and isinstance(row.get('split'), str)
    )


def _thresholds(value):
    for key in ('top', 'bottom'):
        _require(_is_number(value.get(key)), 'a number', key)
    for key in ('area', 'reference_pixels', 'step', 'image_size'):
        _require(_is_count(value.get(key)), 'a whole number', key)
    _require(value.get('weights') in ('average', 'last'), "'average' or 'last'", 'weights')
    _require(_are_texts(value.get('flips')), 'a list of names', 'flips')


def _evaluation(value):
    for key in ('n', 'n_positive', 'step'):
        _require(_is_count(value.get(key)), 'a whole number', key)
    _figures(value, 'it')
    _require(isinstance(value.get('thresholds', ''), str), 'a text', 'thresholds')
    variants = value.get('variants', {})
    _require(isinstance(variants, dict), 'an object', 'variants')
    for label, figures in variants.items():
        _require(isinstance(figures, dict), 'an object', label)
        _figures(figures, label)


def _figures(value, where):
    for key in FIGURES:
        figure = value.get(key)
        _require(isinstance(figure, dict), f'an object {key!r} in it', where)
        numbers = [figure.get(part) for part in ('value', 'low', 'high')]
        sound = all(n is None or _is_number(n) for n in numbers)
        sound = sound and (numbers[1] is None) == (numbers[2] is None)
        _require(sound, 'value, low and high, numbers or null', key)


def _split(value):
    for key in ('train', 'validation'):
        _require(_are_texts(value.get(key)), 'a list of ImageIds', key)


def _is_number(value):
    return type(value) in (int, float) and abs(value) < 1 << 60  # which infinity and NaN are not


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 60


def _are_texts(value):
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _require(sound, expected, where):
    if not sound:
        raise ValueError(f'{where} should be {expected}')
