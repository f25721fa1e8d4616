"""A prediction's folder that is continued after its files were damaged."""

import json
import pathlib
import shutil

import cv2
import numpy as np

from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.evaluation.rules import Rule
from pneumojax.prediction import predict
from pneumojax.runs.run import Run
from tests.fuzz import mutate
from tests.fuzz.runs import small_config
from tests.fuzz.worker import Wrong, refused

_WRITTEN = ('results.csv', 'submission.csv', 'masks', 'seg', 'report.html')


class FakeEnsemble:
    """Brighter is more probable: no network, and no time."""

    sizes, batch_size, rule = (32,), 4, Rule(0.6, 0, 0.5)
    identity = (
        {
            'run': 'r', 'name': 'fuzz', 'step': 1, 'weights': 'last', 'flips': [],
            'image_size': 32, 'phantoms': True,
        },
    )  # fmt: skip

    learned_from_phantoms = ()
    runtime = {'name': 'none', 'precision': 'float32'}  # noqa: RUF012
    evaluation = stated_calibration = None

    def __init__(self, *_):
        pass

    def predict(self, batch):
        """float32 of the squares."""
        return {size: images.astype(np.float32) / 256 for size, images in batch.items()}

    def image_probability(self, score):
        """Not calibrated."""
        return score

    def probability(self, images, predicted, shape, aspect):
        """As the true one does for one member."""
        from pneumojax.data import geometry

        return geometry.unfit(predicted[32], shape, aspect), False


class Prediction:
    """Journal, statement, tables or pictures of a finished prediction, damaged."""

    def __init__(self, folder: pathlib.Path):
        from tests.fuzz import dicom_seeds

        predict.Ensemble = FakeEnsemble
        self.source, self.whole, self.copy = (folder / n for n in ('in', 'whole', 'copy'))
        self.source.mkdir()
        rng = np.random.default_rng(5)
        for i in range(3):
            grey = phantom.draw(rng, 64, True).image[:, : 64 - i].copy()
            syntax = dicom_seeds.uid.ExplicitVRLittleEndian
            made = dicom_seeds.dataset(grey, 8, syntax, SOPInstanceUID=f'1.2.{i}')
            (self.source / f'im{i}.dcm').write_bytes(dicom_seeds.as_bytes(made))
        cv2.imwrite(str(self.source / 'p.png'), phantom.draw(rng, 64, True).image)
        (self.source / 'notes.txt').write_text('hello')
        self.run = Run(folder / 'run')
        self.run.start(small_config())
        predict.predict([self.run], self.source, self.whole)
        self.files = {
            str(path.relative_to(self.whole)): path.read_bytes()
            for path in sorted(self.whole.rglob('*'))
            if path.is_file()
        }
        self.expected = contents(self.whole)

    def make(self, rng: np.random.Generator) -> dict[str, bytes]:
        """One or two files damaged, the journal most often."""
        case = {}
        for name in rng.choice(sorted(self.files), int(rng.integers(1, 3))):
            name = '.journal.jsonl' if rng.integers(2) else str(name)
            content = self.files[name]
            if name == '.journal.jsonl' and rng.integers(2):
                lines = content.splitlines(keepends=True)
                which = int(rng.integers(len(lines)))
                text, _, end = lines[which].rpartition(b'\t')
                row = mutate.tree(rng, json.loads(text))
                lines[which] = json.dumps(row).encode() + b'\t' + end
                case[name] = b''.join(lines)
            elif name == 'predict.json' and rng.integers(2):
                case[name] = mutate.json_bytes(rng, json.loads(content))
            else:
                case[name] = mutate.data(rng, content)
        return case

    def check(self, case: dict[str, bytes]) -> str:
        """Continue: the results must be those of an undamaged prediction."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)
        for name, content in case.items():
            (self.copy / name).write_bytes(content)
        try:
            status = predict.predict([self.run], self.source, self.copy)
        except UsageError as error:
            return refused(error)
        if status or contents(self.copy) != self.expected:
            different = set(contents(self.copy).items()) ^ set(self.expected.items())
            raise Wrong(f'other results: {sorted({name for name, _ in different})}')
        return 'the results of an undamaged one'


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """What was predicted; of SEG files, which hold the time of their making, the pixels."""
    import pydicom

    found = {}
    for name in _WRITTEN:
        path = folder / name
        for file in [path] if path.is_file() else sorted(path.iterdir()):
            content = file.read_bytes()
            if file.suffix == '.dcm':
                content = pydicom.dcmread(file).PixelData
            found[str(file.relative_to(folder))] = content
    return found


MAKE = {'prediction': Prediction}
