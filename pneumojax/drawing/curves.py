"""One picture of how a run learned and what it can do: `curves.png`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pneumojax.drawing.figures import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    missing,
    new_figure,
    style_axes,
)

SPLITS = {'train': BLUE, 'validation': ORANGE}
History = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Panels:
    """What the panels show. A panel without data says so.

    Attributes:
      history: the objects of `metrics.jsonl`: 'step' and 'split', and any of 'epoch' (from 0),
        'loss', 'dice', 'positive_dice', 'learning_rate'. Where a step was written twice, the later
        object counts.
      roc: (1 - specificity, sensitivity), see `metrics.roc`; None when one class is missing.
      auc: area under it.
      sweep: (threshold, mean Dice, positive-only Dice or None), see `thresholds.sweep`.
      chosen: (top, bottom) of the rule in use, marked in the sweep.
      dice: [N] one Dice per image.
      true_px: [N] pixels in the true mask.
      predicted_px: [N] pixels in the predicted mask.
    """

    history: History = ()
    roc: tuple[np.ndarray, np.ndarray] | None = None
    auc: float | None = None
    sweep: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    chosen: tuple[float, float] | None = None
    dice: Sequence[float] | np.ndarray = ()
    true_px: Sequence[int] | np.ndarray = ()
    predicted_px: Sequence[int] | np.ndarray = ()


def draw_curves(panels: Panels, title: str = '') -> Figure:
    """Six panels: loss, Dice while training, by threshold and by size, ROC, and sizes.

    Args:
      panels: what to show.
      title: heading.

    Returns:
      A figure apart from pyplot's global state.
    """
    dice, true_px, predicted_px = (
        np.asarray(column, float) for column in (panels.dice, panels.true_px, panels.predicted_px)
    )
    all_empty = float((true_px == 0).mean()) if true_px.size else None
    figure = new_figure((13.5, 8.2), title)
    axes = figure.subplots(2, 3).ravel()
    for one in axes:
        style_axes(one)
    _loss(axes[0], panels.history)
    _dice(axes[1], panels.history, all_empty)
    _sweep(axes[2], panels, all_empty)
    _roc(axes[3], panels.roc, panels.auc)
    _dice_by_size(axes[4], dice, true_px)
    _areas(axes[5], true_px, predicted_px)
    return figure


def _loss(axes: Axes, history: History) -> None:
    axes.set_title('Loss')
    highest = 0
    for split in _splits(history):
        step, loss = _series(history, split, 'loss')
        if len(step):
            smooth = _line(axes, step, loss, split, SPLITS.get(split, GREEN))
            highest = max(highest, smooth.max())
    if not highest:
        missing(axes, 'no loss recorded')
        return
    step, rate = _series(history, 'train', 'learning_rate')
    if len(step) > 1 and rate.max() > 0:
        # Its shape is what matters beside a loss; the peak is named, so no second axis.
        label, height = f'learning rate (peak {rate.max():.2g})', rate / rate.max() * highest
        axes.plot(step, height, color=FAINT, linewidth=1.2, linestyle=':', label=label)
    axes.set(ylim=(0, highest * 1.08), ylabel='loss')
    _steps(axes, history)
    _legend(axes)


def _dice(axes: Axes, history: History, all_empty: float | None) -> None:
    axes.set_title('Validation Dice while training')
    lines = 0
    for split in _splits(history):
        if split == 'train':  # of augmented batches: not to be compared with the others
            continue
        colour = SPLITS.get(split, GREEN)
        for key, name, style in (('dice', 'all images', '-'), ('positive_dice', 'positives', '--')):
            step, value = _series(history, split, key)
            if len(step):
                label = name if split == 'validation' else f'{split}, {name}'
                _line(axes, step, value, label, colour, linestyle=style)
                lines += 1
    if not lines:
        missing(axes, 'no Dice recorded')
        return
    _baseline(axes, all_empty)
    axes.set(ylim=(0, 1.02), ylabel='Dice')
    _steps(axes, history)
    _legend(axes)


def _sweep(axes: Axes, panels: Panels, all_empty: float | None) -> None:
    axes.set_title('Dice by threshold')
    if panels.sweep is None:
        missing(axes, 'no threshold was tried')
        return
    threshold, mean, on_positives = panels.sweep
    axes.plot(threshold, mean, color=BLUE, linewidth=2, label='all images')
    if on_positives is not None:
        axes.plot(threshold, on_positives, color=ORANGE, linewidth=2, label='positives only')
    _baseline(axes, all_empty)
    if panels.chosen is not None:
        top, bottom = panels.chosen
        names = [(top, 'chosen', 'center')]
        if top != bottom:
            names = [(bottom, 'bottom ', 'right'), (top, ' top', 'left')]
        for edge, name, side in names:
            axes.axvline(edge, color=FAINT, linewidth=1, linestyle=':')
            axes.text(edge, 1.03, name, color=GREY, fontsize=9, ha=side, va='bottom')
        axes.set_title(axes.get_title(), pad=18)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='threshold', ylabel='Dice')
    _legend(axes)


def _roc(axes: Axes, roc: tuple[np.ndarray, np.ndarray] | None, auc: float | None) -> None:
    axes.set_title('ROC: pneumothorax in the image')
    if roc is None:
        missing(axes, 'needs images with and without pneumothorax')
        return
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle='--')
    axes.plot(*roc, color=BLUE, linewidth=2)
    axes.fill_between(*roc, color=BLUE, alpha=0.07, linewidth=0)
    if auc is not None:
        axes.text(0.96, 0.06, f'AUC {auc:.3f}', ha='right', fontsize=12)
    axes.set(xlim=(-0.01, 1), ylim=(0, 1.01), xlabel='1 − specificity', ylabel='sensitivity')
    axes.set_box_aspect(1)


def _dice_by_size(axes: Axes, dice: np.ndarray, true_px: np.ndarray) -> None:
    axes.set_title('Dice by size of the lesion')
    positive = true_px > 0
    size, score = true_px[positive], dice[positive]
    if not len(size):
        missing(axes, 'no image with pneumothorax')
        return
    hit = score > 0
    axes.scatter(size[hit], score[hit], s=14, color=BLUE, alpha=0.55, linewidths=0)
    if not hit.all():
        label = f'Dice 0: {np.count_nonzero(~hit)} of {len(size)}'
        axes.scatter(
            size[~hit], score[~hit], s=18, color='none', edgecolors=ORANGE, clip_on=False,
            label=label,
        )  # fmt: skip
    if len(size) >= 20:
        parts = np.array_split(np.argsort(size, kind='stable'), min(8, len(size) // 5))
        centres = [np.exp(np.log(size[part]).mean()) for part in parts]
        means = [score[part].mean() for part in parts]
        axes.plot(
            centres, means, color=INK, linewidth=1.8, marker='o', ms=4,
            label='mean of similar sizes',
        )  # fmt: skip
    axes.set(ylim=(-0.02, 1.02), xlabel='pixels in the true mask', ylabel='Dice', xscale='log')
    _ticks(axes, 'x', size)
    if axes.get_legend_handles_labels()[0]:
        # Above the points: they may lie anywhere in the panel.
        axes.set_title(axes.get_title(), pad=24)
        axes.legend(
            loc='lower left', bbox_to_anchor=(-0.02, 0.99), ncols=2, frameon=False, fontsize=9,
            borderpad=0.2,
        )  # fmt: skip


def _areas(axes: Axes, true_px: np.ndarray, predicted_px: np.ndarray) -> None:
    axes.set_title('Predicted against true size')
    both = (true_px > 0) & (predicted_px > 0)
    missed = int(((true_px > 0) & (predicted_px == 0)).sum())
    invented = int(((true_px == 0) & (predicted_px > 0)).sum())
    if not true_px.size:
        missing(axes, 'no image evaluated')
        return
    if not both.any():
        missing(axes, f'no lesion found\n{missed} missed, {invented} false alarms')
        return
    sizes = np.concatenate([true_px[both], predicted_px[both]])
    ends = sizes.min() / 1.3, sizes.max() * 1.3
    axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle='--')
    axes.scatter(true_px[both], predicted_px[both], s=14, color=GREEN, alpha=0.55, linewidths=0)
    counts = f'{both.sum()} found\n{missed} missed\n{invented} false alarms'
    axes.text(0.03, 0.97, counts, transform=axes.transAxes, va='top', linespacing=1.4)
    axes.set(xscale='log', yscale='log')
    _ticks(axes, 'x', sizes)
    _ticks(axes, 'y', sizes)
    axes.set(xlabel='pixels in the true mask', ylabel='pixels in the predicted mask')
    axes.set_box_aspect(1)


def _splits(history: History) -> list[str]:
    """'train', 'validation', then any others that were recorded."""
    found = dict.fromkeys(record.get('split') for record in history)
    return [*(s for s in SPLITS if s in found), *(s for s in found if s and s not in SPLITS)]


def _series(history: History, split: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values): the last value written for each step."""
    points = {
        record['step']: record[key]
        for record in history
        if record.get('split') == split and record.get(key) is not None
    }
    steps = sorted(points)
    return np.array(steps, float), np.array([points[step] for step in steps], float)


def _line(
    axes: Axes, step: np.ndarray, value: np.ndarray, label: str, colour: str, linestyle: str = '-'
) -> np.ndarray:
    """Draws a series; a long noisy one faintly, with its running mean. Returns what was drawn."""
    if len(step) > 80:
        axes.plot(step, value, color=colour, linewidth=0.8, alpha=0.25)
        window = len(step) // 40 * 2 + 1
        padded = np.pad(value, window // 2, mode='reflect')
        value = np.convolve(padded, np.ones(window) / window, mode='valid')
    marker = 'o' if len(step) <= 12 else None  # a line of one point would not be seen
    axes.plot(
        step, value, color=colour, linewidth=1.8, linestyle=linestyle, marker=marker, ms=4,
        label=label,
    )  # fmt: skip
    return value


def _steps(axes: Axes, history: History) -> None:
    last = max(record['step'] for record in history)
    epochs = 1 + max((record.get('epoch') or 0) for record in history)  # counted from 0 there
    axes.set(xlim=(0, last * 1.03 + 1), xlabel=f'step ({epochs} epoch{"s" * (epochs > 1)})')
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))


def _legend(axes: Axes) -> None:
    axes.legend(fontsize=9, facecolor='white', framealpha=0.85, edgecolor='none')


def _baseline(axes: Axes, all_empty: float | None) -> None:
    if all_empty is not None:
        label = f'nothing predicted ({all_empty:.3f})'
        axes.axhline(all_empty, color=GREY, linewidth=1.2, linestyle='-.', label=label)


def _ticks(axes: Axes, name: Literal['x', 'y'], sizes: np.ndarray) -> None:
    """Whole numbers on a logarithmic axis, enough of them on a short one."""
    low, high = sizes.min() / 1.3, sizes.max() * 1.3
    axes.set(**{f'{name}lim': (low, high)})
    axis = axes.xaxis if name == 'x' else axes.yaxis
    subs = (1, 2, 5) if high / low < 15 else (1, 3) if high / low < 150 else (1,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(_thousands))
    axis.set_minor_formatter(NullFormatter())


def _thousands(value: float, _: int) -> str:
    return f'{value:,.0f}'
