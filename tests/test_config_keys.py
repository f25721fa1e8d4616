"""Every key of configs/base.py is read, and explained where it stands."""

import ast
import io
import pathlib
import tokenize

import jax
import ml_collections
import numpy as np
import pytest

from configs import base
from pneumojax import config as config_lib
from pneumojax.data.phantoms import phantom
from pneumojax.evaluation import evaluate
from pneumojax.experiments import ablate
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system.devices import Devices
from pneumojax.training import loop


def keys(config):
    """All dotted keys, `stages` as one."""
    return {*config_lib.flatten(config), 'stages'}


# --- every key is read -------------------------------------------------------------------------


class Recorder:
    """Passes a ConfigDict's values on and notes the dotted keys of those that were asked for."""

    __class__ = ml_collections.ConfigDict  # so that annotations hold for it

    def __init__(self, config, reads, prefix=''):
        self.__dict__.update(_config=config, _reads=reads, _prefix=prefix)

    def __str__(self):
        return str(self._config)

    def __getattr__(self, name):
        if name not in self._config:
            return getattr(self._config, name)  # a method; or no such key
        return self[name]

    def copy_and_resolve_references(self):
        return self  # or what is read from the copy would not be noted

    def __getitem__(self, name):
        value, key = self._config[name], self._prefix + name
        if isinstance(value, ml_collections.ConfigDict) and len(value):
            return Recorder(value, self._reads, f'{key}.')
        self._reads.add(key)
        return value


def traced_only(self, function, name, donate=()):
    """Instead of compiling: traces, which reads all that is read, and answers with ones."""
    answers = []

    def call(*args):
        if not answers:
            answers.append(jax.eval_shape(function, *args))
        return jax.tree.map(lambda s: np.ones(s.shape, s.dtype), answers[0])

    return call


def tiny(tmp_path):
    config = base.get_config()
    config.image_size = 32
    config.batch_size = 4
    config.num_epochs = 2
    config.averaging.start = 1
    config.log_every_steps = 1
    config.model.width = 4
    config.model.stage_sizes = (1, 1, 1, 1)
    config.data.root = str(tmp_path / 'data')
    config.data.cache = str(tmp_path / 'cache')
    config.data.num_folds = 2
    config.data.phantoms.num_images = 16
    config.data.phantoms.size = 32
    config.data.phantoms.positive_share = 0.5
    config.evaluation.bootstrap = 100
    return config


@pytest.mark.slow
def test_every_key_is_read_by_training_and_evaluation(tmp_path, monkeypatch):
    """Three runs that together take all branches. Checking a key does not count as reading it."""
    monkeypatch.setattr(Devices, 'compile', traced_only)
    monkeypatch.setattr(config_lib, 'check', lambda config: None)
    monkeypatch.setattr(phantom, 'check', lambda *args: None)

    first = tiny(tmp_path)
    first.canary = ml_collections.ConfigDict({'nobody_reads_me': 1})
    first.canary.also_a_tuple = (1, 2)
    second = first.copy_and_resolve_references()
    second.init_from = str(tmp_path / 'first')
    second.averaging.kind = 'ema'
    second.optimizer.name = 'adam'
    second.loss.focal = second.loss.classification = 1.0
    first.model.classification_head = second.model.classification_head = 'gate'
    second.augment.window = 32

    reads = set()
    for name, config in (('first', first), ('second', second)):
        run, recorder = Run(tmp_path / name), Recorder(config, reads)
        assert next(run for _, run in layout.runs(recorder, run.path)).path == run.path
        loop.train(recorder, run)
    unlabelled = first.copy_and_resolve_references()
    unlabelled.loss.restoration = 1.0
    loop.train(Recorder(unlabelled, reads), Run(tmp_path / 'unlabelled'))
    evaluate.evaluate(Recorder(first, reads), Run(tmp_path / 'first'))
    assert len(ablate.seeds(Recorder(first, reads))) == first.evaluation.ablation_seeds

    canaries = {'canary.nobody_reads_me', 'canary.also_a_tuple'}
    assert keys(first) - reads == canaries
    assert reads <= keys(first)


# --- every key is explained --------------------------------------------------------------------


def assignments(source):
    """Dotted key -> (first line, last line) for every value that `get_config` sets."""
    (function,) = (n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    names, found = {'config': ''}, {}

    def dotted(target):
        if isinstance(target, ast.Name):
            return names[target.id]
        return f'{dotted(target.value)}{target.attr}.'

    for node in function.body:
        if not isinstance(node, ast.Assign):
            continue
        attributes = [t for t in node.targets if isinstance(t, ast.Attribute)]
        if not attributes:
            continue
        key = dotted(attributes[0])
        names |= {t.id: key for t in node.targets if isinstance(t, ast.Name)}
        is_group = ast.unparse(node.value) == 'ml_collections.ConfigDict()'
        if not is_group:
            found[key.rstrip('.')] = node.lineno, node.end_lineno
    return found


def explained(source):
    """Keys with a comment in their own lines or in the lines of comment right above."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {t.start[0] for t in tokens if t.type == tokenize.COMMENT}
    alone = {
        t.start[0]
        for t in tokens
        if t.type == tokenize.COMMENT and not t.line[: t.start[1]].strip()
    }
    return {
        key
        for key, (first, last) in assignments(source).items()
        if first - 1 in alone or comments & set(range(first, last + 1))
    }


def test_comments_are_found_where_they_are():
    source = (
        'def get_config():\n'
        '    config.a = 1  # one\n'
        '    config.b = 2\n'
        '    # of the group\n'
        '    config.g = g = ml_collections.ConfigDict()\n'
        '    g.c = 3\n'
        '    # this one\n'
        '    g.d = (\n        4  # four\n    )\n'
    )
    assert set(assignments(source)) == {'a', 'b', 'g.c', 'g.d'}
    assert explained(source) == {'a', 'g.d'}


def test_every_key_has_a_comment():
    source = pathlib.Path(base.__file__).read_text()
    assert set(assignments(source)) == keys(base.get_config())
    assert keys(base.get_config()) - explained(source) == set()
