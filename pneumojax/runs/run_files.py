"""Checks of a run's JSON files when they are read: they may be damaged, or written by others."""

from typing import Any

FIGURES = ('mean_dice', 'all_empty_dice', 'positive_dice', 'sensitivity', 'specificity', 'auc')


def check(name: str, value: Any) -> None:
    """Raises ValueError, which says what is wrong, when a file does not hold what it should.

    Args:
      name: of the file; only `thresholds.json`, `evaluation.json` and `split.json` are checked.
      value: its parsed JSON.
    """
    known = {
        'thresholds.json': _check_thresholds, 'evaluation.json': _check_evaluation,
        'split.json': _check_split,
    }  # fmt: skip
    if name in known:
        _require(isinstance(value, dict), 'it', 'a JSON object')
        known[name](value)


def is_metrics_row(row: Any) -> bool:
    """Whether this is a row of metrics.jsonl: it has at least a step and the name of a split."""
    return (
        isinstance(row, dict) and _is_count(row.get('step')) and isinstance(row.get('split'), str)
    )


def is_figure(figure: Any) -> bool:
    """Whether this is a metric with its interval, each a number or None."""
    if not isinstance(figure, dict):
        return False
    value, low, high = (figure.get(part) for part in ('value', 'low', 'high'))
    valid = all(n is None or _is_number(n) for n in (value, low, high))
    return valid and (low is None) == (high is None)


def _check_thresholds(value: dict[str, Any]) -> None:
    for key in ('top', 'bottom'):
        _require(_is_number(value.get(key)), key, 'a number')
    for key in ('area', 'reference_pixels', 'step', 'image_size'):
        _require(_is_count(value.get(key)), key, 'a whole number')
    _require(value.get('weights') in ('average', 'last'), 'weights', "'average' or 'last'")
    _require(_are_texts(value.get('flips')), 'flips', 'a list of names')
    calibration = value.get('probability')
    if calibration is not None:
        _require(isinstance(calibration, dict), 'probability', 'an object')
        for key in ('slope', 'intercept'):
            _require(_is_number(calibration.get(key)), f'probability.{key}', 'a number')
        for key in ('images', 'positives'):
            _require(_is_count(calibration.get(key)), f'probability.{key}', 'a whole number')
        fits = 0 < calibration['positives'] < calibration['images']
        _require(fits, 'probability.positives', 'above 0 and below probability.images')


def _check_evaluation(value: dict[str, Any]) -> None:
    for key in ('n', 'n_positive', 'step'):
        _require(_is_count(value.get(key)), key, 'a whole number')
    _check_figures(value, 'it')
    _require(isinstance(value.get('thresholds', ''), str), 'thresholds', 'a text')
    for key in ('variants', 'trained_on', 'data'):
        _require(isinstance(value.get(key, {}), dict), key, 'an object')
    data = value.get('data', {})
    for key in ('masks', 'split'):
        _require(isinstance(data.get(key), str | None), f'data.{key}', 'a text or null')
    patients = data.get('patients') or {}
    valid = isinstance(patients, dict) and all(map(_is_count, patients.values()))
    _require(valid, 'data.patients', 'whole numbers or null')
    if trained_on := value.get('trained_on'):
        for key in ('n', 'n_positive'):
            _require(_is_count(trained_on.get(key)), f'trained_on.{key}', 'a whole number')
    variants = value.get('variants', {})
    for label, figures in variants.items():
        _require(isinstance(figures, dict), label, 'an object')
        _check_figures(figures, label)


def _check_figures(value: dict[str, Any], where: str) -> None:
    for key in FIGURES:
        if not isinstance(value.get(key), dict):
            raise ValueError(f'{where} should hold an object {key!r}')
        _require(is_figure(value[key]), key, 'value, low and high, numbers or null')


def _check_split(value: dict[str, Any]) -> None:
    for key in ('train', 'validation'):
        _require(_are_texts(value.get(key)), key, 'a list of ImageIds')


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1 << 60  # excludes infinity and NaN


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 60


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def _require(valid: bool, where: str, expected: str) -> None:
    if not valid:
        raise ValueError(f'{where} should be {expected}')
