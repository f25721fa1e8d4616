"""Groups of images from the tags of DICOM files and from the columns of a table."""

import numpy as np
import pytest

from pneumojax.data.datasets import subgroups
from pneumojax.errors import UsageError
from tests.data.files.dicom_writing import write

PIXELS = np.zeros((8, 8), np.uint8)


@pytest.mark.filterwarnings('ignore:Invalid value')  # as files are
def test_tags_become_groups_that_name_nobody(tmp_path):
    stated = [
        {'PatientSex': 'F', 'PatientAge': '034Y', 'ViewPosition': 'pa', 'Manufacturer': 'A\x1fB'},
        {'PatientSex': 'm', 'PatientAge': '018M', 'ViewPosition': 'Mrs Jones'},
        {'PatientSex': 'Jones', 'PatientAge': '413', 'Manufacturer': 'x' * 60},
        {'PatientBirthDate': '19400229', 'StudyDate': '20200228', 'PatientName': 'Jones'},
        {'PatientAge': '80'},
        {},
    ]
    paths = [write(tmp_path / f'{k}.dcm', PIXELS, **tags) or tmp_path / f'{k}.dcm'
             for k, tags in enumerate(stated)]  # fmt: skip
    (tmp_path / 'picture.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    paths += [tmp_path / 'picture.png', tmp_path / 'gone.dcm']
    assert subgroups.of_headers([str(path) for path in paths]) == {
        'Sex': ['female', 'male', '', '', '', '', '', ''],
        'Age': ['18-39', '0-17', '', '60-79', '80+', '', '', ''],
        'View position': ['PA', 'other', '', '', '', '', '', ''],
        'Manufacturer': ['A\\x1fB', '', 'x' * 39 + '…', '', '', '', '', ''],
    }
    assert subgroups.of_headers([str(tmp_path / 'picture.png')]) == {}


def test_columns_become_groups(tmp_path):
    path = tmp_path / 'groups.csv'
    rows = [f'{k}.png,P{k},{"ab"[k % 2]},{k % 3},{k * k}' for k in range(40)]
    path.write_text('\n'.join(['ImageId,Patient ID,site,drain,weight', *rows]), encoding='utf-8')
    ids = [str(k) for k in range(30)] + ['elsewhere']
    found = subgroups.of_table(str(path), ids)
    assert list(found) == ['site', 'drain', 'weight']
    assert found['site'] == ['a', 'b'] * 15 + ['']
    assert found['drain'] == ['0', '1', '2'] * 10 + ['']
    quarters = ['0 to 49', 'above 49 to 196', 'above 196 to 484', 'above 484 to 841']
    expected = [quarters[(k > 7) + (k > 14) + (k > 22)] for k in range(30)]
    assert found['weight'] == [*expected, '']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, r'evaluation\.groups: there is no file'),
        ('name,site\na,b\n', 'the column ImageId is missing'),
        ('ImageId,site\nx,1\nx,2\n', 'line 3: ImageId x has another row'),
        ('ImageId,site\nother,1\n', 'none of the 1 images, such as x'),
        ('ImageId,site,Site\nx,1,2\n', 'appears twice'),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / 'groups.csv'
    if content is not None:
        path.write_text(content, encoding='utf-8')
    with pytest.raises(UsageError, match=message):
        subgroups.of_table(str(path), ['x'])
