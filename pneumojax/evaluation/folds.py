"""A k-fold training judged as one: every image by the network that did not see its patient.

The rule for the images of fold k is chosen on the other folds' images, so the reported figure is
never the one that was tuned. (The networks of the other folds did learn from fold k's images; a
rule is three numbers, and what it could carry over is far below the width of the intervals.)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pneumojax.data import dataset as dataset_lib
from pneumojax.data.dataset import Dataset
from pneumojax.errors import UsageError
from pneumojax.evaluation import evaluate as evaluate_lib
from pneumojax.evaluation import scores
from pneumojax.evaluation.evaluate import held_out, judge, write_figures
from pneumojax.models import build
from pneumojax.runs import layout
from pneumojax.runs.run import Run


def evaluate(config, run: Run) -> dict[str, Any]:
    """Pools the folds of a k-fold training, evaluated one by one before, and writes its figures.

    Writes the files that `evaluate.evaluate` writes, but scores.npz. Where there are stages, the
    last one counts, and the others stand beside it as variants.

    Args:
      config: with `data.fold` -1.
      run: the run directory that holds fold0, fold1, ...

    Returns:
      The content of evaluation.json.

    Raises:
      UsageError: a fold is not trained, or the folds are not of one data set and kind.
    """
    stages = list(zip(*(_leaves(fold, path) for fold, path in _folds(config, run)), strict=True))
    pools = [Pool(stage) for stage in stages]
    results = {}
    for pool in pools:
        for variant, scored in pool.scores.items():
            label = variant.label if len(pools) == 1 else f'{pool.config.name} {variant.label}'
            judged = judge(config, scored, pool.patients, pool.fold)
            results[variant._replace(label=label.removesuffix(' final'))] = judged
    last, chosen = pools[-1], list(results)[-1]
    return write_figures(
        layout.last_stage(config), run, last.dataset, results,
        lambda indices: last.predict(chosen, indices), last.history(),
        step=max(last.steps),
        folds=[{'run': str(r.path.relative_to(run.path)), 'step': s}
               for r, s in zip(last.runs, last.steps, strict=True)],
        thresholds='of each fold chosen on the other folds: never on images they are judged on',
    )  # fmt: skip


class Pool:
    """The same stage of every fold: all images, in the data set's order.

    Args:
      leaves: (configuration, run) of each fold.
    """

    def __init__(self, leaves: Sequence[tuple[Any, Run]]):
        self.configs, self.runs = zip(*leaves, strict=True)
        self.config = self.configs[0]
        found = [held_out(config, run) for config, run in leaves]
        self.datasets, self.steps = zip(*found, strict=True)
        rows = np.concatenate([dataset.validation for dataset in self.datasets])
        ids = [[e.image_id for e in dataset.examples] for dataset in self.datasets]
        if any(other != ids[0] for other in ids) or sorted(rows) != list(range(len(ids[0]))):
            raise UsageError(
                f'{self.runs[0].path} and the other folds do not hold out every image of one data '
                'set once; train all folds with the same config.data'
            )
        order = np.argsort(rows)
        folds = [np.full(len(d.validation), fold) for fold, d in enumerate(self.datasets)]
        self.fold = np.concatenate(folds)[order]
        first: Dataset = self.datasets[0]
        self.dataset = first._replace(train=rows[:0], validation=rows[order])
        self.patients = [example.patient_id for example in first.examples]
        kept = [
            scores.of_run(config, run, dataset, step, keep=True)
            for config, run, dataset, step in zip(
                self.configs, self.runs, self.datasets, self.steps, strict=True
            )
        ]
        if any(list(other) != list(kept[0]) for other in kept):
            raise UsageError(
                f'{self.runs[0].path} and the other folds do not all have averaged weights; '
                'finish their training first'
            )
        self.scores = {
            variant: scores.concatenate([fold[variant] for fold in kept]).take(order)
            for variant in kept[0]
        }

    def predict(
        self, variant: scores.Variant, indices: Sequence[int] | np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index, probabilities at the original size), each by its own fold's network."""
        predictor = scores.Predictor(self.config, variant.flips)
        shapes, found = build.variable_shapes(self.config), {}
        for fold, (run, step) in enumerate(zip(self.runs, self.steps, strict=True)):
            mine = [i for i in indices if self.fold[i] == fold]
            if mine:
                variables = run.checkpoints.load_variables(step, shapes, averaged=variant.averaged)
                found |= dict(predictor(variables, self.datasets[fold], mine))
        for index in indices:
            yield int(index), found[index]

    def history(self) -> list[dict[str, Any]]:
        """Mean learning curves of the folds, as lines of metrics.jsonl."""
        mean = []
        for split in ('train', 'validation'):
            curves = [[r for r in run.metrics() if r['split'] == split] for run in self.runs]
            for rows in zip(*curves, strict=False):  # one fold may have a few steps more
                row: dict[str, Any] = {'split': split}
                for key in rows[0]:
                    values = [r.get(key) for r in rows]
                    if all(isinstance(v, (int, float)) for v in values):
                        row[key] = float(np.mean(values))
                mean.append(row)
        return mean


def _folds(config, run: Run):
    return layout.children(config, run.path)


def _leaves(config, path) -> list[tuple[Any, Run]]:
    return list(layout.runs(config, path))


def check(config) -> None:
    """UsageError where a data set's own split leaves no folds: said before they are trained."""
    parts = [layout.fold_config(config, fold) for fold in range(config.data.num_folds)]
    first = dataset_lib.examples(parts[0])
    if not any(example.side for example in first):
        return
    held_out = [
        example.image_id
        for part in parts
        for example in dataset_lib.examples(part)
        if example.side == 'validation'
    ]
    if sorted(held_out) != sorted(example.image_id for example in first):
        raise UsageError(
            f'config.data.table states one split, so the {len(parts)} folds would not hold out '
            'every image once; give it a column fold instead of split, or train it without :folds'
        )


def evaluate_one(config, run: Run) -> None:
    """Evaluates one fold, unless that was done at its newest checkpoint with the same settings."""
    done = (run / 'evaluation.json').is_file() and (run / 'thresholds.json').is_file()
    step = run.checkpoints.latest_step()
    if done and step is not None:
        same_step = run.read_json('evaluation.json').get('step') == step
        same_rule = run.read_json('thresholds.json').get('kind') == config.evaluation.rule
        if same_step and same_rule:
            dataset, step = held_out(config, run)
            if scores.are_kept(config, run, dataset, step):
                return
    evaluate_lib.evaluate(config, run, keep=True)
