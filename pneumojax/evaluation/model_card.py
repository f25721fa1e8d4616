"""The model card of a run, filled from its files: nothing in it is written by hand.

The headings follow Mitchell et al., Model Cards for Model Reporting (2019).
"""

import html
import pathlib
import re
from typing import Any

import ml_collections

from pneumojax.config import ALL_FOLDS
from pneumojax.errors import UsageError
from pneumojax.evaluation.wording import (
    LIMITS,
    METRIC_NAMES,
    learned_from_phantoms,
    missing_positives,
    rule_sentence,
    value_and_interval,
)
from pneumojax.runs import layout
from pneumojax.runs.run import Run
from pneumojax.system import text


def write(run: Run) -> pathlib.Path:
    """Writes the card of an evaluated run.

    Args:
      run: with config.json, split.json, thresholds.json and evaluation.json.

    Returns:
      The path of model_card.md.

    Raises:
      UsageError: the run was not evaluated.
    """
    path = run / 'model_card.md'
    try:
        run.write_text(path.name, make(run))
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {error.strerror}') from None
    return path


def make(run: Run) -> str:
    """The card as Markdown text."""
    config = layout.last_stage(run.config())
    evaluation, rule = run.read_json('evaluation.json'), run.read_json('thresholds.json')
    metrics = '\n'.join(
        f'| {label} | {value_and_interval(evaluation.get(name) or {})} |'
        for name, label in METRIC_NAMES.items()
    )
    missing = [f'**{sentence}**' for sentence in missing_positives(evaluation)]
    return f"""# Model card: {_plain(config.name)}

Written by `pneumojax.evaluation.model_card` from the files of the run, at step {rule['step']}.

## Model

{_model(config, rule)}

## Intended use

Research on the segmentation of pneumothorax in frontal chest radiographs, and teaching.

- Input: one grey radiograph (DICOM or a picture)
- Output: a probability for each pixel, a mask, and a score for the image
- Rule for masks: {rule_sentence(rule)}

Out of scope: any clinical use.

## Data

{_data(config, run, evaluation)}

## Results

On {evaluation['n']} held-out images of patients not trained on, {evaluation['n_positive']} of them
with pneumothorax. Thresholds {evaluation.get('thresholds', 'not stated')}.
Intervals are bootstrap intervals over patients.

| metric | value (95 % interval) |
|---|---|
{metrics}

Marking nothing at all scores the second line. Compare the first line with it.

## Limits

{chr(10).join(f'- {limit}' for limit in (*missing, *LIMITS))}
- The results hold for images like those held out: from the same source, with masks by the same
  readers.
- Subgroups (age, sex, view, device, drains in place) were not measured separately.
"""


def _plain(words: str) -> str:
    """A user's text with its Markdown and HTML escaped (CommonMark 0.31, 2.4 and 2.5)."""
    escaped = re.sub(r'([\\`*_{}\[\]()#|~!$])', r'\\\1', text.visible(words))
    return html.escape(escaped, quote=False)


def _model(config: ml_collections.ConfigDict, rule: dict[str, Any]) -> str:
    model = config.model
    plain = model.width == 64 and tuple(model.stage_sizes) == (3, 4, 6, 3)
    narrowed = f', narrowed: width {model.width}, blocks {tuple(model.stage_sizes)}'
    if config.init_from:
        start = 'the weights of an earlier run'
    elif model.pretrained:
        start = f'pretrained weights ({_plain(pathlib.PurePath(model.pretrained).name)})'
    else:
        start = 'random weights'
    flips = ' and '.join(rule['flips'])
    lines = [
        'U-Net with a ResNet34 encoder' + ('' if plain else narrowed),
        f'Input: {config.image_size} x {config.image_size} px, {model.channels} channel(s); images '
        'are resized without distortion and masks mapped back to the original size',
        f'Trained for {config.num_epochs} epochs from {start}, batch {config.batch_size}, '
        f'{config.optimizer.name}, {config.loss.bce:g} cross-entropy + {config.loss.dice:g} Dice',
        f'Weights: {"averaged (SWA)" if rule["weights"] == "average" else "last"}',
        f'Prediction: mean of the image and its {flips} flip' if flips else 'Prediction: one view',
    ]
    return '\n'.join(f'- {line}' for line in lines)


def _data(config: ml_collections.ConfigDict, run: Run, evaluation: dict[str, Any]) -> str:
    folds = config.data.num_folds
    if config.data.fold == ALL_FOLDS:
        images = (
            f'{evaluation["n"]} images in {folds} folds, no patient in two of them; each image was '
            'predicted by the network that was trained on the other folds'
        )
    else:
        split = run.read_json('split.json')
        images = (
            f'{len(split["train"])} images trained on, {len(split["validation"])} held out (fold '
            f'{config.data.fold} of {folds}, or as its table states; no patient is on both sides)'
        )
    if learned_from_phantoms(config, evaluation):
        return (
            f'**Drawn phantoms, no radiographs**: {images}. The results show that the program '
            'works; they say nothing about real radiographs.'
        )
    return f'A folder of radiographs and masks: {images}.'
