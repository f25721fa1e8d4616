"""Predictions by JAX, and what their folders hold, for tests that compare them."""

import csv
import hashlib

import pydicom

from pneumojax.prediction import predict as predict_lib
from pneumojax.prediction.options import Options


def predict(runs, source, output, **options):
    """Predicts with JAX, whichever other runtimes are installed: tests compare to the last bits."""
    return predict_lib.predict(runs, source, output, Options(runtime='jax', **options))


def results(folder):
    with open(folder / 'results.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Checksums; of DICOM objects, which hold the time of their making, instance and pixels."""

    def content(path):
        if path.suffix == '.dcm':
            dataset = pydicom.dcmread(path)
            return dataset.SOPInstanceUID.encode() + dataset.get('PixelData', b'')
        return path.read_bytes()

    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != '.journal.jsonl'
    }
