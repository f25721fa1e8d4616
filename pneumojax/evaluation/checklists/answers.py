"""What a run can say to the items of a checklist: nothing that is not in its files.

Each function returns Markdown for one cell of a table, '' where the files do not say.
"""

import contextlib
import functools
import importlib.metadata
import platform
from typing import Any

from pneumojax import __version__
from pneumojax.evaluation import run_facts
from pneumojax.evaluation.run_facts import RunFacts
from pneumojax.evaluation.wording import (
    METRIC_NAMES,
    missing_positives,
    probability_sentence,
    rule_sentence,
    value_and_interval,
)
from pneumojax.system.text import markdown

_PACKAGES = ('jax', 'flax', 'optax', 'numpy', 'opencv-python', 'pydicom')


def method(facts: RunFacts) -> str:
    """Which method it is."""
    return f'Deep learning: {run_facts.network(facts)}; it segments pneumothorax'


def summary(facts: RunFacts) -> str:
    """The figures that an abstract has."""
    return f'{numbers(facts)}. {_figures(facts, *METRIC_NAMES)}'


def source(facts: RunFacts) -> str:
    """What is known of where images come from."""
    if facts.phantoms:
        return '**Drawn phantoms, no radiographs**'
    return f'A folder of images; masks: {_masks(facts)}'


def selection(facts: RunFacts) -> str:
    """Which of the images that were there were used."""
    if count := facts.config.data.num_examples:
        return f'A random subset of {count} labelled images, seed {facts.config.data.split_seed}'
    return 'All labelled images that the data set names to train on or hold out'


def preprocessing(facts: RunFacts) -> str:
    """From the file to the network."""
    return f'{run_facts.preparation(facts)}. {normalization(facts)}'


def normalization(facts: RunFacts) -> str:
    """How intensities are scaled."""
    return f'Intensities: 0 to 1, then `{facts.config.model.normalization}` normalisation'


def parts(facts: RunFacts) -> str:
    """Which parts of an image are used."""
    window = facts.config.augment.window
    return f'Training: {f"windows of {window} px" if window else "whole images"}; evaluation: whole'


def reference_standard(facts: RunFacts) -> str:
    """What the predicted masks are compared with."""
    return f'The masks as given: {_masks(facts)}. An image is positive if its mask is not empty'


def test_masks(facts: RunFacts) -> str:
    """Where the masks of held-out images come from."""
    return f'As given in the same data set as those trained on: {_masks(facts)}'


def partitions(facts: RunFacts) -> str:
    """How images were assigned."""
    text = run_facts.images(facts)
    if run_facts.data(facts).get('split') == 'table':
        return text
    return f'{text}; seed {facts.config.data.split_seed}'


def disjoint(facts: RunFacts) -> str:
    """Whether a patient may be on two sides."""
    named = run_facts.are_patients_named(facts)
    if named is None:
        return 'Patients, as far as the data set names them'
    return 'Patients' if named else 'Images: the data set names no patients'


def sample_size(facts: RunFacts) -> str:
    """How many images there are; nobody says that they are enough."""
    n, positive = facts.evaluation['n'], facts.evaluation['n_positive']
    return f'{n} held-out images, {positive} of them positive; the run has no calculation of size'


def model(facts: RunFacts) -> str:
    """The network, its input and its output."""
    return f'{run_facts.network(facts)}. {run_facts.preparation(facts)}. {output(facts)}'


def software(facts: RunFacts) -> str:
    """What evaluated the run."""
    del facts  # the files do not say: this is what writes the table
    return f'In evaluation: {_versions()}'


def initialization(facts: RunFacts) -> str:
    """What the weights were before training."""
    return f'{run_facts.start(facts).capitalize()}, seed {facts.config.seed}'


def training(facts: RunFacts) -> str:
    """The settings of training that papers list; `settings` says where the others are."""
    config = facts.config
    optimizer, augment = config.optimizer, config.augment
    decay = f', weight decay {optimizer.weight_decay:g}' if optimizer.weight_decay else ''
    chances = {
        'left-right flip': augment.flip, 'upside-down flip': augment.vertical_flip,
        'intensity': augment.intensity, 'distortion': augment.warp,
        'shift, scale and rotation': augment.affine, 'crop': augment.crop,
    }  # fmt: skip
    drawn = ', '.join(f'{name} {chance:g}' for name, chance in chances.items() if chance)
    return (
        f'{run_facts.training(facts)}, learning rate {optimizer.learning_rate:g} to '
        f'{optimizer.final_learning_rate:g} (cosine){decay}. Augmentation, with its probability: '
        f'{drawn or "none"}. All settings: `config.json`'
    )


def model_selection(facts: RunFacts) -> str:
    """Which weights and which rule."""
    return f'{run_facts.weights(facts)}, of step {facts.rule["step"]}. {_choice(facts)}'


def ensembling(facts: RunFacts) -> str:
    """What is averaged."""
    text = run_facts.views(facts)
    if facts.split is None:
        text += f'; for other images, mean of the {facts.config.data.num_folds} folds'
    return text


def metric_names(facts: RunFacts) -> str:
    """Which metrics were computed and are defined."""
    evaluation = facts.evaluation
    names = [name for key, name in METRIC_NAMES.items() if _is_defined(evaluation[key])]
    for section, metrics in run_facts.sections(evaluation):
        defined = [label for label, metric in metrics.items() if _is_defined(metric)]
        names += [f'{section.title}: {label}' for label in defined]
    return '; '.join(names)


def uncertainty(facts: RunFacts) -> str:
    """How the intervals were made."""
    unit = 'images' if run_facts.are_patients_named(facts) is False else 'patients'
    return (
        f'95 % percentile bootstrap over {unit}, {facts.config.evaluation.bootstrap} resamples, '
        f'seed {facts.config.seed}; exact (Clopper and Pearson) for a share of exactly 0 or 1'
    )


def robustness(facts: RunFacts) -> str:
    """What else was evaluated on the same images."""
    labels = list(facts.evaluation.get('variants', {}))
    shown = ', '.join(map(markdown, labels[:-1]))
    return f'Also evaluated: {shown} (`variants` in `evaluation.json`)' if shown else ''


def internal_testing(facts: RunFacts) -> str:
    """What the held-out images were."""
    return f'{run_facts.images(facts)}. {_figures(facts, "mean_dice", "positive_dice")}'


def external_testing(facts: RunFacts) -> str:
    """External evaluations whose files are in the run directory."""
    return '. '.join(
        f'`{markdown(name)}`: {found["n"]} images, {found["n_positive"]} positive, mean Dice '
        + value_and_interval(found['mean_dice'])
        for name, found in facts.external.items()
    )


def numbers(facts: RunFacts) -> str:
    """Images, positives and patients of each side."""
    evaluation = facts.evaluation
    patients = run_facts.data(facts).get('patients') or {}
    sides = []
    for name, side in (('trained on', 'trained_on'), ('held out', 'held_out')):
        count = evaluation if side == 'held_out' else evaluation.get(side)
        if count:
            whom = f' of {patients[side]} patients' if patients.get(side) else ''
            sides.append(f'{count["n"]} images{whom} {name}, {count["n_positive"]} positive')
    return '; '.join(sides)


def subgroups(facts: RunFacts) -> str:
    """Whether groups of patients were evaluated."""
    found = (facts.evaluation.get('subgroups') or {}).get('groupings') or {}
    with_groups = [n for n, of in found.items() if isinstance(of, dict) and of.get('groups')]
    shown = ', '.join(map(markdown, with_groups))
    return f'By {shown}: see `subgroups` in `evaluation.json`' if shown else ''


def performance(facts: RunFacts) -> str:
    """All figures with their intervals."""
    text = _figures(facts, *METRIC_NAMES)
    more = [section.title for section, _ in run_facts.sections(facts.evaluation)]
    return f'{text}. More in `report.html`: {"; ".join(more)}' if more else text


def diagnostic_accuracy(facts: RunFacts) -> str:
    """Of the image as a whole."""
    return _figures(facts, 'sensitivity', 'specificity', 'auc')


def failures(facts: RunFacts) -> str:
    """Files that show them."""
    files = {
        'contact_sheet.png': 'worst cases', 'per_image.csv': 'Dice of every image',
        'per_lesion.csv': 'every lesion, found or missed',
    }  # fmt: skip
    return '; '.join(f'`{name}`: {what}' for name, what in files.items() if name in facts.files)


def limitations(facts: RunFacts) -> str:
    """Those that the run knows of itself."""
    found = missing_positives(facts.evaluation)
    if facts.phantoms:
        found.append('Trained on drawn phantoms: this says nothing about real radiographs.')
    if run_facts.are_patients_named(facts) is False:
        found.append('The data set names no patients, so images of one may be on both sides.')
    return ' '.join(found)


def settings(facts: RunFacts) -> str:
    """Where all settings are."""
    return f'All settings of `{markdown(facts.config.name)}`: `config.json`'


def availability(facts: RunFacts) -> str:
    """Which weights and which program."""
    digest = facts.rule.get('digest')
    weights = f'Weights of step {facts.rule["step"]}' + (f', SHA-256 {digest}' if digest else '')
    return f'{weights}, for pneumojax {__version__}'


def development_and_evaluation(facts: RunFacts) -> str:
    """What was done here."""
    return f'A model was developed, and evaluated on {facts.evaluation["n"]} held-out images'


def predictors(facts: RunFacts) -> str:
    """What the prediction is made from."""
    return f'The image alone, {facts.config.model.channels} channel(s)'


def building(facts: RunFacts) -> str:
    """The model, its training and its validation."""
    return f'{run_facts.network(facts)}. {training(facts)}. {model_selection(facts)}'


def predictions(facts: RunFacts) -> str:
    """How predictions were made."""
    return f'{run_facts.views(facts)}. {availability(facts)}'


def class_imbalance(facts: RunFacts) -> str:
    """Sampling and losses that treat classes differently."""
    config = facts.config
    shares = ', '.join(f'{share:g}' for share in config.sampling.positive_share)
    sampling = f'epochs with a share of positives of {shares}' if shares else 'no resampling'
    focal = f', {config.loss.focal:g} focal' if config.loss.focal else ''
    loss = f'{config.loss.bce:g} cross-entropy + {config.loss.dice:g} Dice{focal}'
    return f'{sampling.capitalize()}; loss: {loss}'


def output(facts: RunFacts) -> str:
    """What comes out, and the rule for masks."""
    probability = probability_sentence(facts.rule.get('probability'))
    return (
        'A probability for each pixel, a mask, and a probability of the image. '
        f'{rule_sentence(facts.rule)} {_choice(facts)}. {probability}'
    )


def differences(facts: RunFacts) -> str:
    """Between what was trained on and what was evaluated on."""
    same = f'Held-out images: none known, they are of the same data set ({assigned(facts)})'
    more = external_testing(facts)
    return f'{same}. External: {more}' if more else same


def assigned(facts: RunFacts) -> str:
    """Who decided which images are held out."""
    return run_facts.assignment(facts)


def prevalences(facts: RunFacts) -> str:
    """Shares of positive images."""
    sides = {'held out': facts.evaluation, 'trained on': facts.evaluation.get('trained_on')}
    return '; '.join(
        f'{name}: {side["n_positive"] / side["n"]:.1%} positive'
        for name, side in sides.items()
        if side and side['n']
    )


def analyses(facts: RunFacts) -> str:
    """How many images each step had."""
    count, positive = facts.rule.get('images'), facts.rule.get('positives')
    chosen = f'; rule for masks chosen on {count} images, {positive} positive' if count else ''
    return numbers(facts) + chosen


def _choice(facts: RunFacts) -> str:
    """How the rule for masks was chosen."""
    if facts.rule.get('kind') == 'half':
        return 'Rule for masks: fixed, nothing was chosen'
    by = 'risk control' if 'risk' in facts.rule else facts.rule.get('metric', '')
    how = facts.evaluation.get('thresholds', '')
    parts = [f'chosen by {markdown(str(by))}'] * bool(by) + [markdown(how)] * bool(how)
    return f'Rule for masks: {"; ".join(parts) or "not stated"}'


def _is_defined(metric: dict[str, Any]) -> bool:
    return metric.get('value') is not None


@functools.cache
def _versions() -> str:
    found = []
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # by another name
            found.append(f'{name} {importlib.metadata.version(name)}')
    return ', '.join([f'pneumojax {__version__}', *found, f'Python {platform.python_version()}'])


def _masks(facts: RunFacts) -> str:
    masks = run_facts.data(facts).get('masks', 'unknown')
    return {
        'files': 'mask files, one or more for an image',
        'run-length codes': "run-length codes in Kaggle's CSV",
        None: 'no image has one',
    }.get(masks, 'in one of the layouts that can be trained on')


def _figures(facts: RunFacts, *names: str) -> str:
    return '; '.join(
        f'{METRIC_NAMES[name]} {value_and_interval(facts.evaluation[name])}' for name in names
    )
