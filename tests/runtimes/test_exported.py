import dataclasses
import hashlib
import json

import pytest

from pneumojax.errors import UsageError
from pneumojax.runtimes import ensemble_member, exported
from tests.tiny_runs import CALIBRATION

GOOD = {
    'identity': {'name': 'x', 'step': 7, 'weights': 'last', 'flips': [], 'image_size': 32},
    'shape': ['batch', 32, 32], 'image_size': 32, 'batch_size': 4, 'evaluation': None,
    'rule': {'top': 0.6, 'area': 300, 'bottom': 0.55, 'reference_pixels': 1 << 20, 'region': 0},
    'sha256': hashlib.sha256(b'network').hexdigest(), 'version': exported.VERSION,
}  # fmt: skip


def write(folder, text):
    (folder / exported.MODEL).write_bytes(b'network')
    (folder / exported.DESCRIPTION).write_text(text)


def test_a_good_description(tmp_path):
    write(tmp_path, json.dumps(GOOD))
    member = ensemble_member.of_export(tmp_path)
    assert (member.image_size, member.batch_size, member.rule.area) == (32, 4, 300)
    assert member.calibration is None  # an earlier version exported it
    write(tmp_path, json.dumps(GOOD | {'probability': CALIBRATION}))
    assert dataclasses.asdict(ensemble_member.of_export(tmp_path).calibration) == CALIBRATION


@pytest.mark.parametrize(
    'text',
    [
        *(json.dumps(GOOD | change) for change in (
            {'batch_size': 0}, {'image_size': -32}, {'batch_size': 1.5}, {'evaluation': 'good'},
            {'evaluation': {'mean_dice': 1}}, {'identity': 3}, {'identity': {'name': 'x'}},
            {'identity': GOOD['identity'] | {'name': 5}},
            {'identity': GOOD['identity'] | {'step': '7'}},
            {'probability': {'slope': 1}}, {'probability': CALIBRATION | {'slope': 0}},
        )),
        *('[' * 100_000 + ']' * 100_000, '[]', '{}', '\0'),
    ],
    ids=lambda text: text[:3] + text[-12:],
)  # fmt: skip
def test_a_description_that_no_export_writes_is_refused(tmp_path, text):
    write(tmp_path, text)
    with pytest.raises(UsageError, match='does not describe an exported network') as e:
        ensemble_member.of_export(tmp_path)
    assert '\n' not in str(e.value)
