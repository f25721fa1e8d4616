"""The files of a run directory: config.json, the small JSON files, checkpoints."""

import contextlib
import dataclasses
import json
import math
import pathlib
import shutil

import numpy as np

from configs import base
from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation import model_card, rules, run_report
from pneumojax.evaluation.checklists import reporting
from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run
from pneumojax.runtimes import ensemble_member
from tests.fuzz import mutate
from tests.fuzz.worker import Wrong, refused


def small_config():
    """A valid configuration of a tiny network."""
    config = base.get_config()
    config.name, config.image_size = 'fuzz', 32
    config.model.width, config.model.stage_sizes, config.model.channels = 4, (1, 1, 1, 1), 1
    return config


class Config:
    """config.json."""

    def __init__(self, folder: pathlib.Path):
        self.run = Run(folder)
        self.good = small_config()
        self.seed = json.loads(config_lib.to_json(self.good))

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """The damaged file."""
        return {'config.json': mutate.json_bytes(rng, self.seed)}

    def check(self, case: dict[str, bytes]) -> str:
        """Read and check it as every mode does, then build what it describes."""
        (self.run / 'config.json').write_bytes(case['config.json'])
        try:
            config = self.run.config()
            config_lib.check(config)
        except UsageError as error:
            return refused(error)
        differences = config_lib.differences(self.good, config)
        if json.loads(case['config.json']) != self.seed and not differences:
            changes = _changes(json.loads(case['config.json']), self.seed)
            changed = {key for key, value in changes if _holds_something(value)}
            if changed - set(config_lib.FREE_KEYS):
                raise Wrong(f'a change was not seen: {sorted(changed)}')
        if any(line.startswith('model.') for line in differences):
            from pneumojax.models import build

            build.variable_shapes(config)
        return 'a usable configuration'


def _holds_something(value) -> bool:
    """Empty groups, however deep, hold no value that could differ."""
    if isinstance(value, dict):
        return any(map(_holds_something, value.values()))
    return value is not None


def _changes(one, other, prefix=''):
    for key in one.keys() | other.keys():
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _changes(a, b, f'{prefix}{key}.')
        elif a != b:
            yield f'{prefix}{key}', a


class SmallJson:
    """thresholds.json, evaluation.json, split.json and metrics.jsonl of a run."""

    names = ('thresholds.json', 'evaluation.json', 'split.json', 'metrics.jsonl')

    def __init__(self, folder: pathlib.Path):
        self.run = Run(folder / 'run')
        self.run.start(small_config())
        figure = {'value': 0.8, 'low': 0.7, 'high': 0.9}
        keys = (
            'mean_dice', 'all_empty_dice', 'positive_dice', 'sensitivity', 'specificity', 'auc',
        )  # fmt: skip
        figures = {key: dict(figure) for key in keys}
        self.seeds = {
            'thresholds.json': {
                'top': 0.7, 'area': 800, 'bottom': 0.3, 'reference_pixels': 1048576,
                'kind': 'triplet', 'weights': 'last', 'flips': ['horizontal'], 'step': 7,
                'image_size': 32,
                'probability': {'slope': 0.5, 'intercept': -1.0, 'images': 12, 'positives': 3},
            },
            'evaluation.json': {
                **figures, 'n': 12, 'n_positive': 3, 'step': 7, 'weights': 'last', 'flips': [],
                'thresholds': 'cross-fitted', 'variants': {'last weights': dict(figures)},
                'trained_on': {'n': 30, 'n_positive': 7},
                'data': {'masks': 'files', 'split': 'drawn', 'patients': None},
            },
            'split.json': {'train': ['a', 'b'], 'validation': ['c']},
        }  # fmt: skip
        self.metrics = [{'step': s, 'split': 'train', 'loss': 1 / s} for s in (10, 20, 30)]
        self.probability = np.random.default_rng(0).random((40, 50)).astype(np.float32)

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One of the files, damaged."""
        name = self.names[int(rng.integers(len(self.names)))]
        if name != 'metrics.jsonl':
            return {name: mutate.json_bytes(rng, self.seeds[name])}
        lines = [json.dumps(row).encode() for row in self.metrics]
        lines[int(rng.integers(3))] = mutate.json_bytes(rng, self.metrics[0]).replace(b'\n', b'')
        return {name: b'\n'.join(lines) + b'\n'}

    def check(self, case: dict[str, bytes]) -> str:
        """Read the file where it is used."""
        for name, value in self.seeds.items():
            self.run.write_json(name, value)
        ((name, content),) = case.items()
        (self.run / name).write_bytes(content)
        try:
            return getattr(self, '_' + name.partition('.')[0])()
        except UsageError as error:
            return refused(error)

    def _thresholds(self):
        rule = ensemble_member.read_rule(self.run)
        ensemble_member.stated_weights(self.run)
        calibration = ensemble_member.read_calibration(self.run)
        if calibration is not None:
            found = calibration(np.linspace(0, 1, 20))
            if not (np.isfinite(found).all() and (np.diff(found) >= 0).all()):
                raise Wrong(f'no calibration: {calibration}')
        mask = rules.apply(rule, self.probability)
        with contextlib.suppress(ValueError):
            expected = self._by_hand(dataclasses.asdict(rule))
            if not np.array_equal(mask, expected):
                raise Wrong('the rule was applied otherwise')
        return 'a usable rule'

    def _by_hand(self, rule):
        enough = (self.probability >= rule['top'] - 4e-7).sum() * rule['reference_pixels']
        if enough < rule['area'] * self.probability.size:
            return np.zeros(self.probability.shape, np.uint8)
        sure = np.abs(self.probability - rule['bottom']) > 1e-6
        if not sure.all() or math.isnan(rule['bottom']):
            raise ValueError('too near to say')
        return (self.probability >= rule['bottom']).astype(np.uint8)

    def _evaluation(self):
        text = model_card.make(self.run)
        page = reporting.make(self.run) + run_report.write(self.run).read_text()
        if '<script>alert' in page:
            raise Wrong('markup got into the page')
        return f'a card of {len(text) > 0}'

    def _split(self):
        model_card.make(self.run)
        return 'a card'

    def _metrics(self):
        self.run.forget_metrics_after(20)
        rows = self.run.metrics()
        if any(row['step'] > 20 for row in rows):
            raise Wrong('a later step stays')
        return f'{len(rows)} rows'


class Checkpoint:
    """An Orbax checkpoint with files changed, cut or gone."""

    def __init__(self, folder: pathlib.Path):
        self.whole, self.copy = folder / 'whole', folder / 'copy'
        run = Run(self.whole)
        run.start(small_config())
        rng = np.random.default_rng(0)
        kernel = rng.normal(size=(3, 3, 4, 8)).astype(np.float32)
        self.items = {
            'params': {'conv': {'kernel': kernel, 'bias': np.arange(8, dtype=np.float32)}},
            'batch_stats': {'mean': rng.normal(size=8).astype(np.float32)},
        }
        with checkpoints.Saver(run.checkpoints, keep=1) as saver:
            saver.save(5, self.items)
        root = self.whole / 'checkpoints'
        self.files = {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob('*'))
            if path.is_file()
        }

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One or two files damaged; b'' twice as often means that the file is gone."""
        case = {}
        for name in rng.choice(sorted(self.files), int(rng.integers(1, 3))):
            content = self.files[str(name)]
            if rng.integers(4) == 0:
                case['gone:' + str(name)] = b''
            elif content.startswith(b'{') and rng.integers(2):
                case[str(name)] = mutate.json_bytes(rng, json.loads(content))
            else:
                case[str(name)] = mutate.data(rng, content, list(self.files.values()))
        return case

    def check(self, case: dict[str, bytes]) -> str:
        """Read the newest step; what is loaded must be what was saved."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)
        for name, content in case.items():
            path = self.copy / 'checkpoints' / name.removeprefix('gone:')
            if name.startswith('gone:'):
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        run = Run(self.copy)
        step = run.checkpoints.latest_step()
        if step is None:
            return 'no checkpoint seen'
        try:
            run.checkpoints.epochs_done(step)
            run.checkpoints.items(step)
            loaded = run.checkpoints.load_variables(step, self.items, averaged=False)
        except UsageError as error:
            return refused(error)
        for (a, b), (c, d) in (
            (_of(loaded, 'kernel'), _of(self.items, 'kernel')),
            (_of(loaded, 'bias'), _of(self.items, 'bias')),
        ):
            if a.dtype != c.dtype or a.tobytes() != c.tobytes() or b.tobytes() != d.tobytes():
                raise Wrong('other parameters than were saved')
        return 'what was saved'


def _of(items, name):
    return np.asarray(items['params']['conv'][name]), np.asarray(items['batch_stats']['mean'])


MAKE = {'config': Config, 'small_json': SmallJson, 'checkpoint': Checkpoint}
