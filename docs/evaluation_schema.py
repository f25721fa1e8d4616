"""The JSON Schema (draft 2020-12) of evaluation.json, made from the metrics and sections."""

import json
import pathlib
from typing import Any

from pneumojax.evaluation import metrics
from pneumojax.evaluation.sections.registry import SECTIONS
from pneumojax.evaluation.wording import METRIC_NAMES

FILE = pathlib.Path(__file__).parent / 'reference' / 'evaluation.schema.json'
_FIGURE = {'$ref': '#/$defs/figure'}
_COUNT = {'type': 'integer', 'minimum': 0}
_TEXT = {'type': 'string'}


def schema() -> dict[str, Any]:
    """The schema. Objects are open: a later version may add keys, but removes and renames none."""
    sections = {
        section.key: {
            'title': section.title,
            'description': section.note,
            **_object({name: _FIGURE | {'title': section.names[name]} for name in section.metrics}),
        }
        for section in SECTIONS
    }
    figures = {name: _FIGURE | {'title': METRIC_NAMES[name]} for name in metrics.METRICS}
    counts = {'n': _COUNT, 'n_positive': _COUNT}
    optional = {
        'trained_on': _object(counts),
        'phantoms': {'type': 'boolean', 'description': 'Trained on drawings; absent if not.'},
        'data': _object({
            'masks': {'enum': ['files', 'run-length codes', None]},
            'split': {'enum': ['table', 'drawn']},
            'patients': _or_null(_object({'trained_on': _COUNT, 'held_out': _COUNT})),
        }),
        'weights': {'enum': ['average', 'last']},
        'flips': {'type': 'array', 'items': {'enum': ['horizontal', 'vertical']}},
        'folds': {'type': 'array', 'items': _object({'run': _TEXT, 'step': _COUNT})},
        'variants': {'type': 'object', 'additionalProperties': {'$ref': '#/$defs/figures'}},
        'external': _object({
            'input': _TEXT,
            'digest': _TEXT,
            'networks': {'type': 'array', 'items': {'type': 'object'}, 'minItems': 1},
            'rule': {'type': 'object'},
            'runtime': {'type': 'object'},
            'version': _TEXT,
            'left_out': _object({'same_image_id': _COUNT, 'same_file': _COUNT}),
            'compared_with': _TEXT,
            'patients': _TEXT,
            'patients_trained_on': _COUNT,
        }, {'probability': {'type': ['object', 'null']}}),
        **sections,
    }  # fmt: skip
    required = {**figures, **counts, 'step': _COUNT, 'thresholds': _TEXT}
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': 'evaluation.json of pneumojax',
        **_object(required, optional),
        '$defs': {'figure': _figure(), 'figures': _object(figures)},
    }


def text() -> str:
    """The content of `FILE`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + '\n'


def _figure() -> dict[str, Any]:
    """A value with its 95 % interval; null where it is undefined."""
    number, null = {'type': 'number'}, {'type': 'null'}
    interval = [{'properties': {'low': kind, 'high': kind}} for kind in (number, null)]
    parts = {'value': _or_null(number), 'low': {}, 'high': {}}
    # How the interval was made, where it is no bootstrap's.
    made = {'interval': {'const': 'exact'}}
    return _object(parts, made) | {'additionalProperties': False, 'oneOf': interval}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        'type': 'object',
        'required': list(required),
        'properties': {**required, **(optional or {})},
    }


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {'anyOf': [schema, {'type': 'null'}]}
