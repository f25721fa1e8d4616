"""How long the search for a rule takes, compared with a loop over rules, images and pixels.

    python -m benchmarks.run threshold_search [--images=1000] [--size=256]

Draws images whose lesions are found well, badly or not at all, with false alarms of all sizes, and
searches 10,000 rules: first two thresholds and an area, then rules that also drop small regions.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from benchmarks.report import Report
from pneumojax.evaluation import thresholds
from pneumojax.evaluation.counts import REGIONS, PixelCounts, pixel_histogram, region_table
from pneumojax.evaluation.metrics import dice
from pneumojax.evaluation.rules import Rule, apply
from pneumojax.evaluation.thresholds import Grid
from pneumojax.system.parallel import cores


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `benchmarks.run threshold_search`."""
    parser.add_argument('--images', type=int, default=1000, help='default: %(default)s')
    parser.add_argument('--size', type=int, default=256, help='pixels a side; default: %(default)s')


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float32 and true mask uint8, [size, size]."""
    field = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 12)
    mask = (field > np.quantile(field, 0.97)) & (rng.random() < 0.3)
    specks = cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), size / 80)
    logits = 4 * mask - 5 + rng.normal() + specks / specks.std()
    return (1 / (1 + np.exp(-logits))).astype(np.float32), mask.astype(np.uint8)


def measure(options: argparse.Namespace) -> Report:
    """Seconds of each step."""
    rng = np.random.default_rng(0)
    pairs = [draw(rng, options.size) for _ in range(options.images)]
    pixels = np.full(options.images, options.size**2)
    rows: list[dict[str, Any]] = []

    def timed(step: str, rules: int | None, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        rows.append({'step': step, 'rules': rules, 'seconds': time.perf_counter() - start})
        return result

    histograms = timed('keep histograms', None, lambda: np.stack(
        [pixel_histogram(*pair) for pair in pairs]))  # fmt: skip
    tables = timed('keep regions', None, lambda: np.stack(
        [region_table(*pair) for pair in pairs]))  # fmt: skip
    counts, with_regions = PixelCounts(histograms, pixels), PixelCounts(histograms, pixels, tables)
    # 20 x 25 x 20 rules, and 10 x 25 x 7 outlines, each with no region dropped or one of REGIONS.
    areas, tried = range(0, 5000, 200), (20 * 25 * 20, 10 * 25 * 7 * (1 + len(REGIONS)))
    plain = Grid([k / 100 for k in range(50, 70)], areas, [k / 100 for k in range(30, 50)])
    dropping = Grid([k / 50 for k in range(35, 45)], areas, [k / 10 for k in range(1, 8)])
    timed('search', tried[0], lambda: thresholds.search(counts, grid=plain))
    timed('search, dropping regions', tried[1],
          lambda: thresholds.search(with_regions, grid=dropping))  # fmt: skip
    parts = np.arange(options.images) % 5
    timed('the same 5 times, scored on the rest', 5 * tried[1],
          lambda: thresholds.cross_fit(with_regions, parts, grid=dropping))  # fmt: skip
    rules = [Rule(0.6, 1000, 0.3, region=region) for region in (0, *REGIONS)]
    slow = timed('a loop over images and rules', len(rules), lambda: [
        np.mean([dice(apply(rule, p), true) for p, true in pairs])
        for rule in rules])  # fmt: skip
    fast = [thresholds.dice_per_image(with_regions, rule)[0].mean() for rule in rules]
    hours = rows[-1]['seconds'] / len(rules) * tried[0] / 3600
    difference = np.abs(np.subtract(slow, fast)).max()
    return Report(rows, [
        f'{options.images} images of {options.size} px on {cores()} cores',
        f'the loop would take {hours:.1f} hours for {tried[0]:,} rules; its mean Dice differs from '
        f"the search's by {difference:.1g} at most",
    ])  # fmt: skip
