"""reporting.md: the checklists that journals ask for, filled from a run as far as it knows.

What only people know is marked, never guessed.
"""

import pathlib

from pneumojax.evaluation import run_facts
from pneumojax.evaluation.checklists import items
from pneumojax.evaluation.checklists.items import Item
from pneumojax.evaluation.run_facts import RunFacts
from pneumojax.runs.run import Run
from pneumojax.system.text import markdown

AUTHORS = '**Authors:**'  # before what people have to add


def write(run: Run) -> pathlib.Path:
    """Writes reporting.md of an evaluated run.

    Args:
      run: with config.json, split.json, thresholds.json and evaluation.json.

    Returns:
      Its path.

    Raises:
      UsageError: the run was not evaluated.
    """
    return run_facts.write(run, 'reporting.md', make(run))


def make(run: Run) -> str:
    """Both checklists as Markdown text."""
    facts = run_facts.read(run)
    return f"""# Reporting checklists: {markdown(facts.config.name)}

Filled from the files of the run, at step {facts.rule['step']}. The files know nothing of
patients, readers or hospitals. What people have to add is marked with {AUTHORS} Item numbers are
those of the publications, in our own words: read the originals, and submit their forms.

## CLAIM 2024

[Tejani et al., Radiology: Artificial Intelligence 2024;6(4):e240300](https://doi.org/10.1148/ryai.240300)

{_table(items.CLAIM, facts)}
## TRIPOD+AI

[Collins et al., BMJ 2024;385:e078378](https://doi.org/10.1136/bmj-2023-078378)

{_table(items.TRIPOD_AI, facts)}"""


def _table(checklist: dict[str, tuple[Item, ...]], facts: RunFacts) -> str:
    lines = ['| | item | answer |', '|---|---|---|']
    for section, found in checklist.items():
        lines.append(f'| | **{section}** | |')
        lines += [f'| {i.number} | {i.item} | {_answer(i, facts)} |' for i in found]
    return '\n'.join(lines) + '\n'


def _answer(item: Item, facts: RunFacts) -> str:
    known = item.answer(facts) if item.answer else ''
    asked = f'{AUTHORS} {item.authors}' if item.authors else ''
    return '<br>'.join(filter(None, (known, asked))) or f'{AUTHORS} the run does not say'
