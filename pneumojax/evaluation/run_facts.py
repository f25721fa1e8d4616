"""What the files of an evaluated run say about it, as text for its card and its checklists."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import ml_collections

from pneumojax import config as config_lib
from pneumojax.config import ALL_FOLDS
from pneumojax.errors import UsageError
from pneumojax.evaluation.sections.registry import SECTIONS
from pneumojax.evaluation.sections.section import Section
from pneumojax.evaluation.wording import learned_from_phantoms
from pneumojax.runs import layout, run_files
from pneumojax.runs.run import Run
from pneumojax.system.text import markdown


class RunFacts(NamedTuple):
    """The content of the files of an evaluated run."""

    config: ml_collections.ConfigDict  # of the run, or of the last of its stages
    evaluation: dict[str, Any]
    rule: dict[str, Any]  # thresholds.json
    split: dict[str, Any] | None  # None for a k-fold training, whose folds have one each
    external: Mapping[str, dict[str, Any]]  # folder below the run -> its evaluation.json
    files: frozenset[str]  # names in the run directory

    @property
    def phantoms(self) -> bool:
        """Whether the network learned from drawings."""
        return learned_from_phantoms(self.config, self.evaluation)


def write(run: Run, name: str, content: str) -> pathlib.Path:
    """Writes a page about a run into its folder.

    Args:
      run: the folder.
      name: of the file.
      content: Markdown.

    Returns:
      The path of the file.

    Raises:
      UsageError: it cannot be written.
    """
    path = run / name
    try:
        run.write_text(name, content)
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {error.strerror}') from None
    return path


def read(run: Run) -> RunFacts:
    """Reads the files of a run.

    Raises:
      UsageError: the run was not evaluated, or a file is damaged.
    """
    whole = run.config()
    config_lib.check(whole)
    config = layout.last_stage(whole)
    evaluation, rule = run.read_json('evaluation.json'), run.read_json('thresholds.json')
    split = None if config.data.fold == ALL_FOLDS else run.read_json('split.json')
    external = {}
    for path in sorted(run.path.glob('*/evaluation.json')):
        content = Run(path.parent).read_json(path.name)
        if 'external' in content:
            external[path.parent.name] = content
    files = frozenset(path.name for path in run.path.iterdir())
    return RunFacts(config, evaluation, rule, split, external, files)


def sections(evaluation: Mapping[str, Any]) -> Iterator[tuple[Section, dict[str, Any]]]:
    """Each section that an evaluation has, with its metrics by their names in reports.

    Raises:
      UsageError: a metric is not {'value', 'low', 'high'}.
    """
    for section in SECTIONS:
        found = evaluation.get(section.key)
        if found is None:
            continue
        metrics = {}
        for name, label in section.names.items():
            metric = found.get(name) if isinstance(found, dict) else None
            if not run_files.is_figure(metric):
                raise UsageError(
                    f'evaluation.json is damaged: {section.key}.{name} should be value, low and '
                    'high, numbers or null; run --mode=evaluate again'
                )
            metrics[label] = metric
        yield section, metrics


def network(facts: RunFacts) -> str:
    """The architecture in a few words."""
    model = facts.config.model
    plain = model.width == 64 and tuple(model.stage_sizes) == (3, 4, 6, 3)
    narrowed = f', narrowed: width {model.width}, blocks {tuple(model.stage_sizes)}'
    encoder = 'a ResNet34'
    if model.get('encoder', 'resnet34') != 'resnet34':
        encoder, narrowed = 'an EfficientNet-Lite0', f', decoder of width {model.width}'
    head = {
        'auxiliary': ', with a classification head in training',
        'gate': ', gated by a classification head',
    }.get(model.classification_head, '')
    return f'U-Net with {encoder} encoder' + ('' if plain else narrowed) + head


def start(facts: RunFacts) -> str:
    """What the weights were before training."""
    config = facts.config
    if config.init_from:
        return 'the weights of an earlier run'
    if config.model.pretrained:
        return f'pretrained weights ({markdown(pathlib.PurePath(config.model.pretrained).name)})'
    return 'random weights'


def preparation(facts: RunFacts) -> str:
    """What is done to an image before the network sees it."""
    config = facts.config
    return (
        f'Input: {config.image_size} x {config.image_size} px, {config.model.channels} channel(s); '
        'images are resized without distortion and masks mapped back to the original size'
    )


def training(facts: RunFacts) -> str:
    """How long and by which loss the network was trained."""
    config = facts.config
    return (
        f'Trained for {config.num_epochs} epochs from {start(facts)}, batch {config.batch_size}, '
        f'{config.optimizer.name}, {config.loss.bce:g} cross-entropy + {config.loss.dice:g} Dice'
    )


def weights(facts: RunFacts) -> str:
    """Which weights were evaluated."""
    kind = {'mean': 'averaged (SWA)', 'ema': 'moving average (EMA)'}
    averaged = facts.rule['weights'] == 'average'
    return f'Weights: {kind.get(facts.config.averaging.kind, "averaged") if averaged else "last"}'


def views(facts: RunFacts) -> str:
    """Over which views of the image the prediction is averaged."""
    flips = ' and '.join(facts.rule['flips'])
    return (
        f'Prediction: mean of the image and its {flips} flip' if flips else 'Prediction: one view'
    )


def images(facts: RunFacts) -> str:
    """How many images were trained on and held out, and what keeps them apart."""
    config, evaluation = facts.config, facts.evaluation
    folds = config.data.num_folds
    if facts.split is None:
        return (
            f'{evaluation["n"]} images in {folds} folds, {_apart(facts, "in two of them")}; each '
            'image was predicted by the network that was trained on the other folds'
        )
    return (
        f'{len(facts.split["train"])} images trained on, {len(facts.split["validation"])} held out '
        f'({assignment(facts)}; {_apart(facts, "on both sides")})'
    )


def assignment(facts: RunFacts) -> str:
    """Who decided which images are held out."""
    fold = f'fold {facts.config.data.fold} of {facts.config.data.num_folds}'
    stated = data(facts).get('split')
    if stated == 'table':
        return 'as the data set states'
    return fold if stated == 'drawn' else f'{fold}, or as its table states'


def _apart(facts: RunFacts, where: str) -> str:
    named = are_patients_named(facts)
    if named is False:
        return f'the data set names no patients, so images of one may be {where}'
    return f'no patient{"" if named else " that the data set names"} is {where}'


def are_patients_named(facts: RunFacts) -> bool | None:
    """Whether the data set says who is on its images; None if that was not written down."""
    stated = data(facts)
    return stated['patients'] is not None if 'patients' in stated else None


def data(facts: RunFacts) -> dict[str, Any]:
    """What evaluation.json says of the data set; {} in those of earlier versions."""
    return facts.evaluation.get('data', {})
