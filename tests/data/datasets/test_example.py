"""One labelled image: a doubt about it is a warning that names its file."""

import numpy as np

from pneumojax.data.datasets import example
from tests.data.files.dicom_writing import RAMP, write


def test_doubts_about_an_image_are_a_warning_for_each_file(tmp_path, caplog):
    tags = {'RescaleSlope': 0, 'RescaleIntercept': 0}
    for name in ('a', 'b'):
        path = str(write(tmp_path / f'{name}.dcm', RAMP, **tags))
        image = example.read(example.Example(name, path, (), name))
        np.testing.assert_array_equal(image, RAMP)
    assert [record.getMessage() for record in caplog.records] == [
        f'ImageId {name}: {tmp_path / name}.dcm: RescaleSlope is 0: the rescale is ignored'
        for name in ('a', 'b')
    ]
    caplog.clear()
    example.read(example.Example('c', str(write(tmp_path / 'c.dcm', RAMP)), (), 'c'))
    assert not caplog.records
