"""One trained network of an ensemble: which weights, how they predict, and where they come from."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.evaluation.image_probability import Calibration
from pneumojax.evaluation.rules import Rule
from pneumojax.evaluation.wording import learned_from_phantoms
from pneumojax.runs.run import Run
from pneumojax.runtimes import exported
from pneumojax.system.progress import log

FLIPS = ('horizontal', 'vertical')


@dataclasses.dataclass(frozen=True)
class Member:
    """A run with the weights that its thresholds.json was made for, or an exported network.

    Attributes:
      identity: JSON that says which weights these are.
      rule: turns probabilities into masks; None for a run that was not evaluated.
      evaluation: content of its evaluation.json, or None.
      image_size: side of the squares, pixels.
      batch_size: images per prediction step.
      flips: see `models.tta.flip_axes`.
      run, config: None for an exported network.
      folder: of an exported network; None for a run.
      calibration: of the image probability; None where there is none.
    """

    identity: dict[str, Any]
    rule: Rule | None
    evaluation: dict[str, Any] | None
    image_size: int
    batch_size: int
    flips: tuple[str, ...]
    run: Run | None = None
    config: Any = None
    folder: pathlib.Path | None = None
    calibration: Calibration | None = None

    def variables(self) -> dict[str, Any]:
        """Loads the weights.

        Raises:
          UsageError: an exported network, or a run without its checkpoint.
        """
        if self.run is None:
            raise UsageError(
                f'{self.folder} is an exported network, which JAX cannot run; give the run it was '
                'exported from, or --runtime=openvino or --runtime=onnxruntime'
            )
        from pneumojax.models import build  # late: exported networks need no JAX

        step, averaged = self.identity['step'], self.identity['weights'] == 'average'
        shapes = build.variable_shapes(self.config)
        return self.run.checkpoints.load_variables(step, shapes, averaged=averaged)


def read_rule(run: Run) -> Rule:
    """Reads the rule of a run's thresholds.json.

    Raises:
      UsageError: it is missing or malformed.
    """
    try:
        return _rule(run.read_json('thresholds.json'))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f'{run / "thresholds.json"} holds no usable rule ({error}); run --mode=evaluate again'
        ) from None


def read_calibration(run: Run) -> Calibration | None:
    """Reads how a run's thresholds.json calibrates image probabilities, if it does.

    Raises:
      UsageError: it is missing or malformed.
    """
    try:
        return Calibration.from_json(run.read_json('thresholds.json').get('probability'))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f'{run / "thresholds.json"}: probability is no calibration ({error}); '
            'run --mode=evaluate again'
        ) from None


def read_evaluation(run: Run) -> dict[str, Any] | None:
    """Content of a run's evaluation.json; None if there is none."""
    name = 'evaluation.json'
    return run.read_json(name) if (run / name).is_file() else None


def stated_weights(run: Run) -> tuple[int, str, tuple[str, ...], int]:
    """Step, weights, flips and image size that a run's thresholds.json was made for.

    Raises:
      UsageError: it is missing or malformed.
    """
    stated = run.read_json('thresholds.json')
    flips = tuple(stated['flips'])
    if not set(flips) <= set(FLIPS):
        raise UsageError(
            f'{run / "thresholds.json"} does not say which weights it was made for (flips '
            f'{flips}); run --mode=evaluate again'
        )
    return stated['step'], stated['weights'], flips, stated['image_size']


def of_run(run: Run) -> Member:
    """The member that an evaluated run is.

    Raises:
      UsageError: the run is not trained, or not evaluated with the weights it has now.
    """
    config = run.config()
    config_lib.check(config)
    step, weights, flips, size = stated_weights(run)
    latest = _latest(run)
    if size != config.image_size or step not in run.checkpoints.steps():
        raise UsageError(
            f'{run / "thresholds.json"} was made for step {step} at {size} px, but the run is at '
            f'step {latest} and {config.image_size} px; run --mode=evaluate on it again'
        )
    if latest != step:
        log.warning('%s: using step %d, which was evaluated, not %d', run.path, step, latest)
    member = dataclasses.replace(
        _member(run, config, step, weights, flips, read_rule(run)),
        calibration=read_calibration(run),
    )
    evaluated = run.read_json('thresholds.json').get('digest')  # older versions did not state it
    if evaluated not in (None, member.identity['digest']):
        raise UsageError(
            f'{run / "thresholds.json"} was made for other weights than those of step {step} now '
            '(trained again?); run --mode=evaluate on it again'
        )
    return member


def _latest(run: Run) -> int:
    step = run.checkpoints.latest_step()
    if step is None:
        raise UsageError(f'{run.path} has no checkpoint; train it first')
    return step


def to_export(run: Run, config: ml_collections.ConfigDict) -> Member:
    """The member that a trained run is; if it was not evaluated, its config decides."""
    if (run / 'thresholds.json').is_file():
        return of_run(run)
    step = _latest(run)
    averaged = config.evaluation.weights == 'average' and run.checkpoints.has_average(step)
    weights = 'average' if averaged else 'last'
    return _member(run, config, step, weights, tuple(config.tta.flips), None)


def of_export(folder: pathlib.Path) -> Member:
    """The member in a folder that `--mode=export --format=onnx` wrote.

    Raises:
      UsageError: it is damaged, was exported for a fixed batch or another size, or was exported
        before its evaluation.
    """
    stated = exported.describe(folder)
    try:
        rule = _rule(stated['rule']) if stated['rule'] else None
        # Older exports state none.
        calibration = Calibration.from_json(stated.get('probability'))
        size, shape, flips = int(stated['image_size']), stated['shape'], stated['identity']['flips']
        fits = isinstance(shape[0], str) and all(isinstance(d, str) or d == size for d in shape[1:])
        member = Member(
            {'digest': stated['sha256']} | stated['identity'] | {'run': str(folder.resolve())},
            rule, stated['evaluation'], size, int(stated['batch_size']), tuple(flips),
            folder=folder, calibration=calibration,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise UsageError(
            f'{folder / exported.DESCRIPTION} does not describe an exported network: {error}'
        ) from None
    if not fits:
        raise UsageError(
            f'{folder}: exported for inputs of {shape}, but predict needs any batch at {size} px; '
            f'export again with --shape=any,{size},{size}'
        )
    if rule is None:
        raise UsageError(
            f'{folder}: exported without thresholds, before the run was evaluated; '
            'run --mode=evaluate, then export again'
        )
    return member


def _member(
    run: Run,
    config: ml_collections.ConfigDict,
    step: int,
    weights: str,
    flips: tuple[str, ...],
    rule: Rule | None,
) -> Member:
    evaluation = read_evaluation(run)
    identity = {
        'run': str(run.path.resolve()),
        'name': config.name,
        'step': step,
        'weights': weights,
        # Another training in the same directory may end at the same step.
        'digest': run.checkpoints.weights_digest(step, averaged=weights == 'average'),
        'normalization': config.model.normalization,
        'classification_head': config.model.classification_head,
        'flips': list(flips),
        'image_size': config.image_size,
        'phantoms': learned_from_phantoms(config, evaluation),
    }
    return Member(
        identity, rule, evaluation, config.image_size, config.evaluation.batch_size,
        flips, run=run, config=config,
    )  # fmt: skip


def _rule(stated: Mapping[str, Any]) -> Rule:
    stated = {'region': 0} | dict(stated)  # older runs and exports do not state it
    names = [field.name for field in dataclasses.fields(Rule)]
    return Rule(*(stated[name] for name in names))
