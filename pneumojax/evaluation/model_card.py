"""The model card of a run, filled from its files: nothing in it is written by hand.

The headings follow Mitchell et al., Model Cards for Model Reporting (2019).
"""

import os
import pathlib

from pneumojax.config import ALL_FOLDS
from pneumojax.errors import UsageError
from pneumojax.evaluation.wording import FIGURES, LIMITS, dropped
from pneumojax.runs import layout
from pneumojax.runs.run import Run


def write(run: Run, path: str | os.PathLike | None = None) -> pathlib.Path:
    """Writes the card of an evaluated run.

    Args:
      run: with config.json, split.json, thresholds.json and evaluation.json.
      path: of the Markdown file; `model_card.md` in the run by default.

    Returns:
      The path.

    Raises:
      UsageError: the run was not evaluated.
    """
    path = pathlib.Path(path or run / 'model_card.md')
    try:
        path.write_text(make(run), encoding='utf-8')
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {error.strerror}') from None
    return path


def make(run: Run) -> str:
    """The card as Markdown text."""
    config = layout.last_stage(run.config())
    evaluation = run.read_json('evaluation.json')
    rule = run.read_json('thresholds.json')
    return f"""# Model card: {config.name}

Written by `pneumojax.evaluation.model_card` from the files of the run, at step {rule['step']}.

## Model

{_model(config, rule)}

## Intended use

Research on the segmentation of pneumothorax in frontal chest radiographs, and teaching. In: one
grey radiograph (DICOM, PNG or JPEG). Out: a probability for each pixel, a mask, and a score for the
image. The mask follows this rule: an image is left empty when fewer than {rule['area']} pixels (at
1024 x 1024, scaled to its size) reach {rule['top']:g}; else every pixel that reaches
{rule['bottom']:g} is marked{dropped(rule)}.

Out of scope: any clinical use.

## Data

{_data(config, _images(config, run, evaluation))}

## Figures

On {evaluation['n']} held-out images, {evaluation['n_positive']} of them with pneumothorax, of
patients that were not trained on. Thresholds: {evaluation.get('thresholds', 'not stated')}.
Intervals are 95 % bootstrap intervals over patients.

| figure | value | 95 % interval |
|---|---|---|
{_figures(evaluation)}

Marking nothing at all scores the second line: read the first one against it.

## Limits

{chr(10).join(f'- {limit}' for limit in LIMITS)}
- The figures hold for images like those held out: the same source, and masks by the same readers.
- Subgroups (age, sex, view, device, drains in place) were not measured apart.
"""


def _model(config, rule):
    model = config.model
    plain = model.width == 64 and tuple(model.stage_sizes) == (3, 4, 6, 3)
    start = 'an earlier stage at a lower resolution' if config.init_from else (
        f'pretrained weights ({pathlib.PurePath(model.pretrained).name})'
        if model.pretrained else 'random weights'
    )  # fmt: skip
    flips = ' and '.join(rule['flips'])
    lines = [
        'U-Net with a ResNet34 encoder'
        + ('' if plain else f', narrowed: width {model.width}, blocks {tuple(model.stage_sizes)}'),
        f'Input: {config.image_size} x {config.image_size} px, {model.channels} channel(s); images '
        'are fitted without distortion and masks mapped back to the original size',
        f'Trained for {config.num_epochs} epochs from {start}, batch {config.batch_size}, '
        f'{config.optimizer.name}, {config.loss.bce:g} cross-entropy + {config.loss.dice:g} Dice',
        f'Weights: {"averaged (SWA)" if rule["weights"] == "average" else "last"}',
        f'Prediction: mean of the image and its {flips} flip' if flips else 'Prediction: one view',
    ]
    return '\n'.join(f'- {line}' for line in lines)


def _images(config, run, evaluation):
    if config.data.fold == ALL_FOLDS:
        return (
            f'{evaluation["n"]} images in {config.data.num_folds} folds, no patient in two of '
            'them; each image was predicted by the network that was trained on the other folds'
        )
    split = run.read_json('split.json')
    return (
        f'{len(split["train"])} images trained on, {len(split["validation"])} held out (fold '
        f'{config.data.fold} of {config.data.num_folds}, or what its table states; no patient is '
        'on both sides)'
    )


def _data(config, images):
    if config.data.phantoms.num_images:
        return (
            f'**Drawn phantoms, no radiographs**: {images}. The figures say that the '
            'program works; they say nothing about real radiographs.'
        )
    return f'A folder of radiographs and masks: {images}.'


def _figures(evaluation):
    lines = []
    for key, label in FIGURES.items():
        figure = evaluation.get(key) or {}
        if figure.get('value') is None:
            lines.append(f'| {label} | not defined | |')
        else:
            low, high = figure.get('low'), figure.get('high')
            interval = '' if low is None else f'{low:.3f} to {high:.3f}'
            lines.append(f'| {label} | {figure["value"]:.3f} | {interval} |')
    return '\n'.join(lines)
