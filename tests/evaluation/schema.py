"""evaluation.json against its published schema, as an independent library reads it."""

import json
import pathlib

import pytest

SCHEMA = pathlib.Path(__file__).parents[2] / 'docs' / 'reference' / 'evaluation.schema.json'


def problems(report):
    """What is wrong with the content of an evaluation.json, one line each."""
    jsonschema = pytest.importorskip('jsonschema', reason='jsonschema is not installed')
    schema = json.loads(SCHEMA.read_text(encoding='utf-8'))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return [f'{error.json_path}: {error.message}' for error in validator.iter_errors(report)]
