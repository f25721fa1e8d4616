"""The items of CLAIM 2024 and TRIPOD+AI, each with what a run can say to it.

Item numbers are those of the publications; the words are ours and short, so read the originals:

- CLAIM: Tejani et al., Checklist for Artificial Intelligence in Medical Imaging: 2024 Update,
  Radiology: Artificial Intelligence 2024;6(4):e240300.
- TRIPOD+AI: Collins et al., BMJ 2024;385:e078378.
"""

from collections.abc import Callable
from typing import NamedTuple

from pneumojax.evaluation.checklists import answers as run
from pneumojax.evaluation.run_facts import RunFacts

Answer = Callable[[RunFacts], str]


class Item(NamedTuple):
    """One line of a checklist.

    Attributes:
      number: as published, such as '12c'.
      item: what it asks for.
      answer: what a run says to it, '' where its files do not say; None: only people know.
      authors: what people have to add; '' if the run's answer may be enough.
    """

    number: str
    item: str
    answer: Answer | None
    authors: str


# fmt: off
CLAIM = {
    'Title and abstract': (
        Item('1', 'AI method named in the title', run.method, 'the title'),
        Item('2', 'Structured abstract', run.summary, 'the abstract'),
    ),
    'Introduction': (
        Item('3', 'Background, intended use, clinical role', None, 'the clinical setting'),
        Item('4', 'Aims and hypotheses', None, 'aims and hypotheses'),
    ),
    'Methods: design': (
        Item('5', 'Prospective or retrospective', None, 'which of them'),
        Item('6', 'Goal of the study', None, 'the goal'),
    ),
    'Methods: data': (
        Item('7', 'Sources of the data', run.source,
             'where and when the images were taken, and whether others can get them'),
        Item('8', 'Which images were eligible', run.selection, 'inclusion and exclusion criteria'),
        Item('9', 'Preprocessing', run.preprocessing, 'what was done to the files before'),
        Item('10', 'Parts of images or data used', run.parts, 'parts left out before'),
        Item('11', 'De-identification', None, 'how it was done'),
        Item('12', 'Missing data', None, 'what was missing, and how it was handled'),
        Item('13', 'Image acquisition', None, 'devices, views and settings'),
    ),
    'Methods: reference standard': (
        Item('14', 'Its definition', run.reference_standard, 'how the masks were made'),
        Item('15', 'Why this one', None, 'the reasons'),
        Item('16', 'Who annotated', None, 'number, qualification and instructions of the readers'),
        Item('17', 'How the test images were annotated', run.test_masks, 'procedure and software'),
        Item('18', 'Variability between and within readers', None,
             'how it was measured, and how differences were settled'),
    ),
    'Methods: partitions': (
        Item('19', 'Assignment to partitions', run.partitions, 'the reasons'),
        Item('20', 'Level at which partitions are disjoint', run.disjoint, ''),
        Item('21', 'Intended size of the test set', run.sample_size, 'why it is enough'),
    ),
    'Methods: model': (
        Item('22', 'Architecture, inputs and outputs', run.model, ''),
        Item('23', 'Software with versions', run.software,
             'hardware; versions in training, if others'),
        Item('24', 'Initialisation', run.initialization,
             'data that earlier weights were trained on'),
    ),
    'Methods: training': (
        Item('25', 'Training: augmentation, hyperparameters', run.training, ''),
        Item('26', 'Selection of the final model', run.model_selection,
             'other settings that were tried, and on which images they were compared'),
        Item('27', 'Ensembling', run.ensembling, ''),
    ),
    'Methods: evaluation': (
        Item('28', 'Metrics', run.metric_names, 'why these'),
        Item('29', 'Uncertainty and significance', run.uncertainty, 'tests of hypotheses, if any'),
        Item('30', 'Robustness or sensitivity analysis', run.robustness, 'what else was tried'),
        Item('31', 'Explainability', None, 'methods, if any, and how they were validated'),
        Item('32', 'Testing on internal data', run.internal_testing, ''),
        Item('33', 'Testing on external data', run.external_testing,
             'the external data, or why there are none'),
        Item('34', 'Registration of a clinical trial', None, 'register and number, if it is one'),
    ),
    'Results: data': (
        Item('35', 'Numbers included and excluded', run.numbers,
             'numbers excluded, with a flow diagram'),
        Item('36', 'Demographic and clinical characteristics', run.subgroups,
             'characteristics in each partition'),
    ),
    'Results: performance': (
        Item('37', 'Performance with uncertainty', run.performance, ''),
        Item('38', 'Diagnostic accuracy with precision', run.diagnostic_accuracy, ''),
        Item('39', 'Failure analysis', run.failures, 'what the failures have in common'),
    ),
    'Discussion': (
        Item('40', 'Limitations', run.limitations, 'limitations of the study'),
        Item('41', 'Implications for practice', None, 'the implications'),
    ),
    'Other information': (
        Item('42', 'Full protocol or technical details', run.settings, 'where the protocol is'),
        Item('43', 'Availability of software, model and data', run.availability,
             'what is available, where, and under which licence'),
        Item('44', 'Funding and role of funders', None, 'funding'),
    ),
}

TRIPOD_AI = {
    'Title and abstract': (
        Item('1', 'Development or evaluation, population and outcome in the title', run.method,
             'the title'),
        Item('2', 'Abstract (it has a checklist of its own)', run.summary, 'the abstract'),
    ),
    'Introduction': (
        Item('3a', 'Healthcare context and reasons', None, 'the context'),
        Item('3b', 'Target population, purpose and users', None, 'population, purpose and users'),
        Item('3c', 'Known health inequalities', None, 'what is known'),
        Item('4', 'Objectives: development, evaluation or both', run.development_and_evaluation,
             'the objectives'),
    ),
    'Methods': (
        Item('5a', 'Sources of the data', run.source, 'origin, and whom the data represent'),
        Item('5b', 'Dates of the data', None, 'first and last date'),
        Item('6a', 'Setting and centres', None, 'setting, number and place of centres'),
        Item('6b', 'Eligibility', run.selection, 'inclusion and exclusion criteria'),
        Item('6c', 'Treatments', None, 'treatments, such as chest drains'),
        Item('7', 'Preparation and quality checks of data', run.preprocessing,
             'checks before, and whether they were the same for all groups'),
        Item('8a', 'Outcome: definition and assessment', run.reference_standard,
             'how and when it was assessed'),
        Item('8b', 'Assessors of the outcome', None, 'their qualification'),
        Item('8c', 'Blinding of that assessment', None, 'what the assessors knew'),
        Item('9a', 'Choice of predictors', run.predictors, 'why no others'),
        Item('9b', 'Definition of predictors', run.preprocessing, 'how the images were taken'),
        Item('9c', 'Assessors of predictors', None, 'if a person has a part in it'),
        Item('10', 'Size of the study', run.sample_size, 'why it is enough'),
        Item('11', 'Missing data', None, 'what was missing, and how it was handled'),
        Item('12a', 'Use of the data, partitions', run.partitions, ''),
        Item('12b', 'Handling of predictors', run.normalization, ''),
        Item('12c', 'Type of model, building, tuning, internal validation', run.building,
             'other settings that were tried'),
        Item('12d', 'Heterogeneity across clusters: method', run.subgroups, 'centres or countries'),
        Item('12e', 'Measures and plots of performance', run.metric_names, 'why these'),
        Item('12f', 'Updating of the model after evaluation', None,
             'recalibration on other data, if any'),
        Item('12g', 'How predictions were calculated', run.predictions, ''),
        Item('13', 'Class imbalance', run.class_imbalance, 'why'),
        Item('14', 'Fairness: approach', run.subgroups, 'what was done, and why'),
        Item('15', 'Output and thresholds', run.output, 'why, for the intended use'),
        Item('16', 'Differences between training and evaluation data', run.differences,
             'differences in setting'),
        Item('17', 'Ethical approval and consent', None,
             'committee, approval, consent or its waiver'),
    ),
    'Open science': (
        Item('18a', 'Funding and role of funders', None, 'funding'),
        Item('18b', 'Conflicts of interest', None, 'conflicts of all authors'),
        Item('18c', 'Protocol', None, 'where it is, or that there is none'),
        Item('18d', 'Registration', None, 'register and number, or that there is none'),
        Item('18e', 'Data sharing', None, 'who can get the data, and how'),
        Item('18f', 'Code sharing', run.availability, 'where the code is'),
    ),
    'Patient and public involvement': (
        Item('19', 'Involvement of patients and the public', None,
             'their part, or that they had none'),
    ),
    'Results': (
        Item('20a', 'Flow of participants', run.numbers, 'numbers excluded, with a flow diagram'),
        Item('20b', 'Characteristics of participants', run.subgroups,
             'characteristics, for each source'),
        Item('20c', 'Evaluation data compared with development data', run.prevalences,
             'other characteristics'),
        Item('21', 'Participants and events in each analysis', run.analyses, ''),
        Item('22', 'The model, for others to use', run.availability,
             'how to get it, and its licence'),
        Item('23a', 'Performance with intervals, also of subgroups', run.performance, ''),
        Item('23b', 'Heterogeneity across clusters: results', run.subgroups,
             'centres or countries'),
        Item('24', 'Updated model and its performance', None, 'if it was updated'),
    ),
    'Discussion': (
        Item('25', 'Interpretation, with fairness', None, 'the interpretation'),
        Item('26', 'Limitations', run.limitations, 'limitations of the study'),
        Item('27a', 'Inputs of poor quality', None, 'how they are recognised and handled in use'),
        Item('27b', 'Interaction and expertise that users need', None,
             'what users must do and know'),
        Item('27c', 'Next steps', None, 'next steps'),
    ),
}
# fmt: on
