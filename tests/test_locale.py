"""File names outside ASCII, in a locale without UTF-8 and as bytes that are no UTF-8."""

import ast
import os
import subprocess
import sys

import cv2
import numpy as np

from tests.waiting import PATIENCE

PROGRAM = """
import os, sys
from pneumojax.data.cache import records
from pneumojax.data.datasets import example, folder_dataset, splits
from pneumojax.data.files import inputs
from pneumojax.prediction.folder import OutputFolder

assert sys.getfilesystemencoding() == 'ascii'
found = folder_dataset.find('.')
print([(e.image_id.encode(), int(example.load(e)[1].sum())) for e in found])
records.cache_key(found, 32)
splits.split(found, 0, 2, 0)
names = inputs.image_ids(inputs.find('.'))
print([name.encode() for name in names.values()])
folder = OutputFolder('out', {}, ())
os.mkdir('out')
for name in names.values():
    (folder / f'{name}.txt').touch()
sys.stdout.flush()
print('the log has ' + next(file for file in names if not file.isascii()), file=sys.stderr)
"""


def test_names_in_a_locale_without_utf8(tmp_path):
    root = os.fsencode(tmp_path)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:7, 3:7] = 255
    code = cv2.imencode('.png', mask)[1].tobytes()
    os.mkdir(root + b'/masks')
    for name in ('é.png'.encode(), b'\xff.png'):
        for folder in (b'/', b'/masks/'):
            with open(root + folder + name, 'wb') as file:
                file.write(code)
    environment = {
        **os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0',
        'PYTHONIOENCODING': 'ascii',
        'PYTHONPATH': os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM], cwd=tmp_path, env=environment,
        capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    pairs, names = (ast.literal_eval(line) for line in done.stdout.decode('ascii').splitlines())
    assert pairs == [(b'\\xff', 16), ('é'.encode(), 16)]
    assert set(names) == {b'_xff', 'é'.encode(), b'_xff-2', 'é-2'.encode()}
    assert 'é.txt'.encode() in os.listdir(root + b'/out')
