"""The model card of a run, filled from its files: nothing in it is written by hand.

The headings follow Mitchell et al., Model Cards for Model Reporting (2019).
"""

import json
import pathlib
import re
from typing import Any

from pneumojax.evaluation import run_facts
from pneumojax.evaluation.run_facts import RunFacts
from pneumojax.evaluation.wording import (
    LIMITS,
    METRIC_NAMES,
    missing_positives,
    probability_sentence,
    rule_sentence,
    subgroups_sentence,
    value_and_interval,
)
from pneumojax.runs.run import Run
from pneumojax.system.text import markdown, visible


def write(run: Run) -> pathlib.Path:
    """Writes the card of an evaluated run.

    Args:
      run: with config.json, split.json, thresholds.json and evaluation.json.

    Returns:
      The path of model_card.md.

    Raises:
      UsageError: the run was not evaluated.
    """
    return run_facts.write(run, 'model_card.md', make(run))


def make(run: Run) -> str:
    """The card as Markdown text, with Hugging Face's head of YAML."""
    facts = run_facts.read(run)
    evaluation, rule = facts.evaluation, facts.rule
    missing = [f'**{sentence}**' for sentence in missing_positives(evaluation)]
    lines = (run_facts.network, run_facts.preparation, run_facts.training, run_facts.weights,
             run_facts.views)  # fmt: skip
    # What is not known is not claimed: without names, an image may show a patient trained on.
    unseen = ' of patients not trained on' if run_facts.are_patients_named(facts) else ''
    return f"""{head(facts)}
# Model card: {markdown(facts.config.name)}

Written by `pneumojax.evaluation.model_card` from the files of the run, at step {rule['step']}.

## Model

{chr(10).join(f'- {line(facts)}' for line in lines)}

## Intended use

Research on the segmentation of pneumothorax in frontal chest radiographs, and teaching.

- Input: one grey radiograph (DICOM or a picture)
- Output: a probability for each pixel, a mask, and for the image a score and a probability
- Rule for masks: {rule_sentence(rule)}
- {probability_sentence(rule.get('probability'))}

Out of scope: any clinical use.

## Data

{_data(facts)}

## Results

On {evaluation['n']} held-out images{unseen}, {evaluation['n_positive']} of them
with pneumothorax. Thresholds {evaluation.get('thresholds', 'not stated')}.
Intervals are bootstrap intervals over patients.

{_table({label: evaluation[name] for name, label in METRIC_NAMES.items()})}
Marking nothing at all scores the second line. Compare the first line with it.
{_sections(facts)}
## Limits

{chr(10).join(f'- {limit}' for limit in (*missing, *LIMITS))}
- The results hold for images like those held out: from the same source, with masks by the same
  readers.
- {subgroups_sentence(evaluation)}

## Licence

Not stated: this program does not know under which licence these weights may be used. Whoever
trained them says so, here and at `license` in the first lines of this file, and minds what the
images and the pretrained weights allow.
"""


def head(facts: RunFacts) -> str:
    """Hugging Face's metadata: YAML between two lines of dashes, its values written as JSON.

    The keys are those of `huggingface_hub.ModelCardData`; `license` is the hub's word for what is
    not known. Metrics that are undefined are left out.
    """
    config, evaluation = facts.config, facts.evaluation
    tags = ['pneumothorax', 'chest-radiograph', 'medical', 'dicom', 'u-net', 'jax', 'flax',
            'research-only']  # fmt: skip
    shown = 'held-out chest radiographs'
    if facts.phantoms:
        tags.append('trained-on-phantoms')
        shown = 'held-out drawn phantoms, no radiographs'
    figures = [(name, label, evaluation[name]) for name, label in METRIC_NAMES.items()]
    for section, metrics in run_facts.sections(evaluation):
        for name, (label, metric) in zip(section.names, metrics.items(), strict=True):
            figures.append((f'{section.key}.{name}', f'{section.title}: {label}', metric))
    metrics = [
        {'type': name, 'name': label, 'value': metric['value'], 'verified': False}
        for name, label, metric in figures
        if metric.get('value') is not None
    ]
    task = {'type': 'image-segmentation', 'name': 'Pneumothorax segmentation'}
    dataset = {
        'type': 'drawn-phantoms' if facts.phantoms else 'chest-radiographs',
        'name': f'{evaluation["n"]} {shown}, {evaluation["n_positive"]} with pneumothorax',
        'split': 'held out',
    }
    lines = [
        '---', 'license: unknown', 'library_name: pneumojax', 'pipeline_tag: image-segmentation',
        'tags:', *(f'- {tag}' for tag in tags), 'model-index:',
        f'- name: {_quoted(config.name)}', '  results:',
        f'  - task: {json.dumps(task)}', f'    dataset: {json.dumps(dataset)}', '    metrics:',
        *(f'    - {json.dumps(metric)}' for metric in metrics), '---',
    ]  # fmt: skip
    return '\n'.join(lines) + '\n'


def _quoted(words: str) -> str:
    """A user's text as a YAML string that stays text for a reader who takes YAML for Markdown."""
    return re.sub(
        r'[<>&\[\]()*`$!|~#]', lambda char: f'\\u{ord(char[0]):04x}', json.dumps(visible(words))
    )


def _data(facts: RunFacts) -> str:
    images = run_facts.images(facts)
    if facts.phantoms:
        return (
            f'**Drawn phantoms, no radiographs**: {images}. The results show that the program '
            'works; they say nothing about real radiographs.'
        )
    return f'A folder of radiographs and masks: {images}.'


def _sections(facts: RunFacts) -> str:
    parts = []
    for section, metrics in run_facts.sections(facts.evaluation):
        table = _table(metrics) if metrics else ''
        note = section.described(facts.evaluation[section.key])
        parts.append(f'\n### {section.title}\n\n{table}\n{note}\n')
    return ''.join(parts)


def _table(metrics: dict[str, Any]) -> str:
    rows = ''.join(f'| {label} | {value_and_interval(metrics[label])} |\n' for label in metrics)
    return f'| metric | value (95 % interval) |\n|---|---|\n{rows}'
