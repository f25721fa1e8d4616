"""The table of results per image and its file."""

import csv
import dataclasses

import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.evaluation import per_image
from tests.evaluation.tables import table


def images():
    return table([1, 0.123456], [0, 70_000], [0, 12], [0.25, 1], patients=['p', 'q'])


def test_the_file_holds_the_table_but_patients(tmp_path):
    text = per_image.to_csv(images())
    assert text == (
        'ImageId,dice,true_px,predicted_px,probability\n'
        'image 00000,1.000000,0,0,0.250000\nimage 00001,0.123456,70000,12,1.000000\n'
    )
    (tmp_path / 'per_image.csv').write_text(text)
    for path in (tmp_path, tmp_path / 'per_image.csv'):
        read = per_image.read_csv(path)
        assert read.patients == read.image_ids == images().image_ids
        for name in ('dice', 'true_px', 'predicted_px', 'probability'):
            np.testing.assert_array_equal(getattr(read, name), getattr(images(), name))


def test_names_are_no_formulas_and_still_found(tmp_path):
    names = ['=1+1', '@a\nb']
    (tmp_path / 'per_image.csv').write_text(
        per_image.to_csv(dataclasses.replace(images(), image_ids=names)), encoding='utf-8'
    )
    lines = (tmp_path / 'per_image.csv').read_text().splitlines()
    assert [line.split(',')[0] for line in lines] == ['ImageId', "'=1+1", r"'@a\nb"]
    raw = tmp_path / 'of another program.csv'
    with raw.open('w', newline='') as file:
        rows = [['ImageId', 'dice', 'true_px', 'predicted_px', 'probability']]
        csv.writer(file).writerows(rows + [[name, 1, 0, 0, 0.5] for name in names])
    assert per_image.read_csv(raw).image_ids == per_image.read_csv(tmp_path).image_ids


@pytest.mark.parametrize(
    'text',
    [
        '', 'ImageId,dice\na,1\n', 'ImageId,dice,true_px,predicted_px,probability\n',
        'ImageId,dice,true_px,predicted_px,probability\na,1,0\n',
        'ImageId,dice,true_px,predicted_px,probability\na,1,0,0.5,0.5\n',
        'ImageId,dice,true_px,predicted_px,probability\na,1,0,0,nan\n',
    ],
)  # fmt: skip
def test_another_file_is_refused_with_the_columns_that_are_expected(tmp_path, text):
    (tmp_path / 'per_image.csv').write_text(text)
    with pytest.raises(UsageError, match='columns ImageId, dice, true_px, predicted_px, probab'):
        per_image.read_csv(tmp_path)


def test_rows_are_taken_in_the_order_asked_for():
    taken = images().take([1, 0])
    assert (list(taken.image_ids), list(taken.patients)) == (
        ['image 00001', 'image 00000'], ['q', 'p'],
    )  # fmt: skip
    assert taken.positive.tolist() == taken.marked.tolist() == [True, False]
