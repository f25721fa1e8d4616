"""How well masks of the exported network agree with those of JAX in float32.

    python -m benchmarks.run agreement --run=RUN [--root=DIR] [--images=200] [--rules T,A,B ...]

Predicts the same radiographs with JAX in float32 and with every other runtime and precision, makes
masks by several rules, the run's own first, and compares them at the original size. Random weights
mark nothing, so this needs a trained run.
"""

import argparse
import pathlib
import tempfile
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.predict import available
from benchmarks.report import Report
from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.evaluation import metrics
from pneumojax.evaluation.rules import AUTHORS, Rule, apply
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.streaming import Item, load
from pneumojax.runs.run import Run

WAYS = (
    ('openvino', 'float32'), ('openvino', 'bfloat16'), ('openvino', 'bfloat16_checked'),
    ('onnxruntime', 'float32'), ('jax', 'bfloat16'),
)  # fmt: skip
RULES = (Rule(0.5, 600, 0.5), AUTHORS, Rule(0.7, 600, 0.3), Rule(0.5, 0, 0.5))


def add_options(parser) -> None:
    """The options of `benchmarks.run agreement`."""
    parser.add_argument('--run', type=pathlib.Path, required=True, help='an evaluated run')
    parser.add_argument('--root', type=pathlib.Path, help='DICOM files; default: phantoms')
    parser.add_argument('--images', type=int, default=200, help='how many (200)')
    parser.add_argument('--size', type=int, default=512, help='pixels of the phantoms (512)')
    parser.add_argument(
        '--rules', type=_rule, nargs='*', default=RULES, metavar='TOP,AREA,BOTTOM',
        help="besides the run's own; area in pixels at 1024 x 1024 (four well-known ones)",
    )  # fmt: skip
    parser.add_argument(
        '--only', default='', help='such as openvino:bfloat16_checked (default: all)'
    )


def _rule(text: str) -> Rule:
    try:
        top, area, bottom = text.split(',')
        return Rule(float(top), int(area), float(bottom))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text}: expected TOP,AREA,BOTTOM: {error}') from None


def measure(options) -> Report:
    """A row for each way to predict and each rule."""
    run = Run(options.run)
    reference = Ensemble([run], 'jax', 'float32', 1)
    ways = {way: Ensemble([run], *way, 1) for way in available(WAYS, options.only)}
    rules = list(dict.fromkeys([reference.rule, *options.rules]))
    scores: dict[Any, list] = {(way, rule): [] for way in ways for rule in rules}
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or pathlib.Path(folder)
        if options.root is None:
            phantom.write_dataset(
                root, num_images=options.images, size=options.size, seed=12, positive_share=0.5
            )
        paths = sorted(root.rglob('*.dcm'))[: options.images]
        for path in tqdm(paths, desc='agreement'):
            loaded = load(Item(str(path), path.name, path.stem), reference.sizes)
            if loaded.radiograph is None:
                raise UsageError(f'{path.name}: {loaded.row["reason"]}')
            expected = [mask for mask, _ in _masks(reference, rules, loaded)]
            for way, ensemble in ways.items():
                found = _masks(ensemble, rules, loaded)
                for rule, true, (mask, again) in zip(rules, expected, found, strict=True):
                    scores[way, rule].append((
                        metrics.dice(mask, true), mask.any(), true.any(), again,
                    ))  # fmt: skip
    rows = [_row(way, rule, np.array(found)) for (way, rule), found in scores.items()]
    return Report(rows, [
        f'{len(paths)} radiographs, {options.root or "drawn"}; run {options.run}, flips '
        f'{list(reference.members[0].flips)}',
        'Dice with the masks of JAX in float32, at the original size. marked: images marked by '
        'either; alone: by only one of the two; again: predicted again in float32.',
    ])  # fmt: skip


def _masks(ensemble, rules, loaded):
    """(mask, whether the image was predicted again) by each rule."""
    image, aspect = loaded.radiograph.image, loaded.radiograph.aspect
    batch = {size: square[None] for size, square in loaded.squares.items()}
    predicted = {size: p[0] for size, p in ensemble.predict(batch).items()}
    found = []
    for ensemble.rule in rules:
        whole, again = ensemble.probability(loaded.squares, predicted, image.shape, aspect)
        found.append((apply(ensemble.rule, whole), again))
    return found


def _row(way, rule, found) -> dict[str, Any]:
    dice, ours, theirs, again = found.T
    marked = (ours > 0) | (theirs > 0)
    return {
        'by': way[0],
        'precision': way[1],
        'rule': f'{rule.top:g}, {rule.area}, {rule.bottom:g}',
        'mean Dice': f'{dice.mean():.5f}',
        'of those marked': f'{dice[marked].mean():.5f}' if marked.any() else None,
        'marked': int(marked.sum()),
        'lowest': f'{dice.min():.3f}',
        'alone': int((ours != theirs).sum()),
        'again': int(again.sum()),
    }
