"""What a prediction's folder holds, for tests that compare it."""

import csv
import hashlib

import pydicom


def results(folder):
    with open(folder / 'results.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def contents(folder):
    """Checksums; of DICOM SEG, which holds the time of its making, instance and pixels."""

    def content(path):
        if path.suffix == '.dcm':
            dataset = pydicom.dcmread(path)
            return dataset.SOPInstanceUID.encode() + dataset.PixelData
        return path.read_bytes()

    return {
        str(path.relative_to(folder)): hashlib.sha256(content(path)).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name != '.journal.jsonl'
    }
