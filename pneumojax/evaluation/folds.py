"""A k-fold training evaluated as one: every image by the network that did not see its patient.

The rule for the images of fold k is chosen on the other folds' images, so it is never scored on
images it was tuned on. (The networks of the other folds did learn from fold k's images. A rule is
three numbers, and what it could carry over is far below the width of the intervals.)
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_collections
import numpy as np

from pneumojax.data import dataset as dataset_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import evaluate as evaluate_lib
from pneumojax.evaluation import scores, thresholds
from pneumojax.evaluation.results import Evaluation
from pneumojax.models import build
from pneumojax.runs import layout
from pneumojax.runs.run import Run


def evaluate(config: ml_collections.ConfigDict, run: Run) -> dict[str, Any]:
    """Pools the folds of a k-fold training, each evaluated before, and writes the results.

    Writes the files that `evaluate.evaluate` writes, except scores.npz. Where there are stages, the
    last one counts, and the others stand beside it as variants.

    Args:
      config: with `data.fold` -1.
      run: the run directory that holds fold0, fold1, ...

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: a fold is not trained, or the folds are not of one data set and kind.
    """
    folds = [list(layout.runs(fold, path)) for fold, path in layout.children(config, run.path)]
    pools = [Pool(stage) for stage in zip(*folds, strict=True)]
    results = {}
    for pool in pools:
        for variant, scored in pool.scores.items():
            label = variant.label if len(pools) == 1 else f'{pool.config.name} {variant.label}'
            own = pool is pools[-1] and variant == list(pool.scores)[-1]
            result = evaluate_lib.evaluate_variant(
                config, scored, pool.dataset, pool.folds, pool.levels(variant) if own else None
            )
            results[variant._replace(label=label.removesuffix(' final'))] = result
    last, chosen = pools[-1], list(results)[-1]
    return evaluate_lib.write(run, Evaluation(
        layout.last_stage(config), last.dataset, results,
        lambda indices: last.predict(chosen, indices), last.history(),
        step=max(fold.step for fold in last.trained),
        about={
            'folds': [{'run': str(fold.run.path.relative_to(run.path)), 'step': fold.step}
                      for fold in last.trained],
            'thresholds':
                'of each fold chosen on the other folds: never on images they are judged on',
        },
    ))  # fmt: skip


class Pool:
    """The same stage of every fold: all images, in the data set's order.

    Args:
      stages: (configuration, run) of each fold.

    Raises:
      UsageError: a fold is not trained, or the folds are not of one data set and kind.
    """

    def __init__(self, stages: Sequence[tuple[ml_collections.ConfigDict, Run]]):
        self.trained = [scores.load_trained(config, run) for config, run in stages]
        self.config, run, dataset, _ = self.trained[0]
        held_out = [fold.dataset.validation for fold in self.trained]
        rows = np.concatenate(held_out)
        ids = [[e.image_id for e in fold.dataset.examples] for fold in self.trained]
        if any(other != ids[0] for other in ids) or sorted(rows) != list(range(len(ids[0]))):
            raise UsageError(
                f'{run.path} and the other folds do not hold out every image of one data set once; '
                'train all folds with the same config.data'
            )
        order = np.argsort(rows)
        self.folds = np.repeat(np.arange(len(held_out)), [len(part) for part in held_out])[order]
        self.dataset = dataset._replace(train=rows[:0], validation=rows[order])
        kept = [scores.of_run(fold, keep=True) for fold in self.trained]
        if any(list(other) != list(kept[0]) for other in kept):
            raise UsageError(
                f'{run.path} and the other folds do not all have averaged weights; '
                'finish their training first'
            )
        self.scores = {
            variant: scores.concatenate([fold[variant] for fold in kept]).take(order)
            for variant in kept[0]
        }

    def levels(self, variant: scores.Variant) -> Callable[[int], np.ndarray]:
        """The levels of each image, see `levels.of`, by its own fold's network."""
        files = [scores.read_levels(fold, variant) for fold in self.trained]
        place = np.empty(len(self.folds), np.int64)
        for number in range(len(files)):
            mine = self.folds == number
            # The order within a fold is that of its validation images.
            held_out = self.trained[number].dataset.validation
            place[mine] = np.argsort(held_out)
        return lambda i: files[self.folds[i]][place[i]]

    def predict(
        self, variant: scores.Variant, indices: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, probabilities at the original size), each by its own fold's network."""
        predictor = scores.Predictor(self.config, variant.flips)
        shapes, found = build.variable_shapes(self.config), {}
        for number, (_, run, dataset, step) in enumerate(self.trained):
            mine = [i for i in indices if self.folds[i] == number]
            if mine:
                variables = run.checkpoints.load_variables(step, shapes, averaged=variant.averaged)
                found |= dict(predictor(variables, dataset, mine))
        for index in indices:
            yield int(index), found[index]

    def history(self) -> list[dict[str, Any]]:
        """Mean learning curves of the folds, as lines of metrics.jsonl."""
        mean = []
        for split in ('train', 'validation'):
            curves = [[r for r in fold.run.metrics() if r['split'] == split]
                      for fold in self.trained]  # fmt: skip
            for rows in zip(*curves, strict=False):  # one fold may have a few steps more
                row: dict[str, Any] = {'split': split}
                for key in rows[0]:
                    values = [r.get(key) for r in rows]
                    if all(isinstance(v, (int, float)) for v in values):
                        row[key] = float(np.mean(values))
                mean.append(row)
        return mean


def check(config: ml_collections.ConfigDict) -> None:
    """Fails before any fold is trained if the data set states its own split.

    Raises:
      UsageError: the folds would not hold out every image once.
    """
    count = config.data.num_folds
    folds = [dataset_lib.examples(layout.fold_config(config, fold)) for fold in range(count)]
    if not any(example.side for example in folds[0]):
        return
    held_out = [e.image_id for fold in folds for e in fold if e.side == 'validation']
    if sorted(held_out) != sorted(example.image_id for example in folds[0]):
        raise UsageError(
            f'config.data.table states one split, so the {count} folds would not hold out every '
            'image once; give it a column fold instead of split, or train without :folds'
        )


def evaluate_one(config: ml_collections.ConfigDict, run: Run) -> None:
    """Evaluates one fold, unless that was done at its newest checkpoint with the same settings."""
    done = (run / 'evaluation.json').is_file() and (run / 'thresholds.json').is_file()
    step = run.checkpoints.latest_step()
    if done and step is not None:
        same_step = run.read_json('evaluation.json').get('step') == step
        rule = run.read_json('thresholds.json')
        same_rule = rule.get('kind') == config.evaluation.rule
        same_rule &= rule.get('search') == thresholds.SEARCH_VERSION
        same_rule &= 'probability' in rule  # earlier versions calibrated none
        if config.evaluation.rule == 'risk':
            same_rule &= rule.get('risk', {}).get('miss') == config.evaluation.miss
        if same_step and same_rule and scores.are_kept(scores.load_trained(config, run)):
            return
    evaluate_lib.evaluate(config, run, keep=True)
