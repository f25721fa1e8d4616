"""SR: dciodvfy finds no error, and highdicom and dcmtk read what was reported."""

import highdicom
import pydicom
import pytest
from highdicom.sr.enum import ValueTypeValues
from pydicom.sr.codedict import codes

from pneumojax.prediction import reference, seg, sr
from tests.prediction.dicom_objects import ALGORITHM, MALFORMED, SHAPE, errors, header, run

MARKED = sr.Finding(SHAPE, 0.9312345, 523, 12.34, 'right', 'Calibrated.')
EMPTY = sr.Finding(SHAPE, 0.03, 0, 0.0, 'unknown', 'Calibrated.')


def write(path, finding=MARKED, *, with_seg=True, **tags):
    source = header(**tags)
    named = seg.instance(reference.reference(source, SHAPE), 'binary', ALGORITHM, 'x')
    made = sr.make(
        source, finding, segmentation=named if with_seg else None, algorithm=ALGORITHM, key='x'
    )
    reference.write(path, made)
    return highdicom.sr.srread(path), named


def group(report):
    """The only group of measurements, and whether it is about a segment."""
    planar = report.content.get_planar_roi_measurement_groups()
    whole = report.content.get_image_measurement_groups()
    assert len(planar) + len(whole) == 1
    return (*planar, *whole)[0], bool(planar)


def values(found):
    return [(m.name.meaning, m.value, m.unit.value) for m in found.get_measurements()]


def answers(found):
    items = found.get_qualitative_evaluations()
    said = {q.name.meaning: q.value.meaning for q in items}
    assert said.pop('Algorithm Family') == 'Artificial Intelligence'
    return said


def comments(found):
    items = found[0].ContentSequence
    return [
        str(i.value)
        for i in items
        if i.value_type == ValueTypeValues.TEXT and i.name == codes.DCM.Comment
    ]


def test_a_marked_area_is_measured_in_its_segment(tmp_path):
    report, named = write(tmp_path / 'x.dcm')
    found, about_segment = group(report)
    assert about_segment
    assert found.finding_type == codes.SCT.Pneumothorax
    assert values(found) == [
        ('Probability', 0.931234, '1'), ('Area', 523.0, '{pixels}'), ('Area', 12.3, 'mm2'),
    ]  # fmt: skip
    assert answers(found) == {'Pneumothorax': 'Present', 'Laterality': 'Right'}
    (comment,) = comments(found)
    assert comment.startswith('RESEARCH - NOT FOR DIAGNOSIS')
    images = [i for i in found[0].ContentSequence if i.value_type == ValueTypeValues.IMAGE]
    refers = {i.referenced_sop_class_uid.name: i.referenced_sop_instance_uid for i in images}
    assert refers == {
        'Segmentation Storage': named.sop,
        'Digital X-Ray Image Storage - For Presentation': '1.2.3.1',
    }
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    assert {s.SeriesInstanceUID for s in evidence.ReferencedSeriesSequence} == {
        '1.2.3.3', named.series,
    }  # fmt: skip
    assert errors(tmp_path / 'x.dcm', 'SR') == []


def test_without_a_seg_the_image_itself_is_measured(tmp_path):
    report, _ = write(tmp_path / 'x.dcm', with_seg=False)
    found, about_segment = group(report)
    assert not about_segment
    assert len(values(found)) == 3
    assert errors(tmp_path / 'x.dcm', 'SR') == []


def test_nothing_marked_is_no_finding(tmp_path):
    report, _ = write(tmp_path / 'x.dcm', EMPTY)
    found, about_segment = group(report)
    assert not about_segment
    assert found.finding_type is None
    assert answers(found) == {'Pneumothorax': 'Absent'}
    assert values(found) == [
        ('Probability', 0.03, '1'), ('Area', 0.0, '{pixels}'), ('Area', 0.0, 'mm2'),
    ]  # fmt: skip
    assert errors(tmp_path / 'x.dcm', 'SR') == []


def test_what_an_area_means_is_said(tmp_path):
    tags = {'PixelSpacing': None, 'ImagerPixelSpacing': [0.2, 0.2]}
    found, _ = group(write(tmp_path / 'x.dcm', **tags)[0])
    assert 'by ImagerPixelSpacing' in comments(found)[1]
    unknown = MARKED._replace(area_mm2=None, side='unknown')
    found, _ = group(write(tmp_path / 'y.dcm', unknown, PixelSpacing=None)[0])
    assert comments(found)[1].startswith('No area in square millimetres')
    assert answers(found)['Laterality'] == 'Unknown'
    assert [unit for _, _, unit in values(found)] == ['1', '{pixels}']


def test_a_network_of_phantoms_says_so(tmp_path):
    drawn = ALGORITHM._replace(parameters={'trained_on': 'drawn phantoms'})
    made = sr.make(header(), MARKED, segmentation=None, algorithm=drawn, key='x')
    reference.write(tmp_path / 'x.dcm', made)
    found, _ = group(highdicom.sr.srread(tmp_path / 'x.dcm'))
    said = 'RESEARCH - NOT FOR DIAGNOSIS; trained on drawn phantoms. '
    assert comments(found)[0].startswith(said)


def test_dcmtk_prints_it(tmp_path):
    write(tmp_path / 'x.dcm')
    said = run('dsrdump', '--print-all-codes', '--print-long-values', tmp_path / 'x.dcm')
    for line in (
        'Preliminary Flag    : PRELIMINARY', 'Verification Flag   : UNVERIFIED',
        '(111001,DCM,"Algorithm Name")="pneumojax"', '(111003,DCM,"Algorithm Version")="0.1.0"',
        '"weights=stage2@180"', '"top=0.7"', '(122157,DCM,"Probability")="0.931234"',
        'RESEARCH - NOT FOR DIAGNOSIS',
    ):  # fmt: skip
        assert line in said
    assert not any(line.startswith('E:') for line in said.splitlines())


@pytest.mark.parametrize('tags', MALFORMED)
def test_malformed_headers_give_sound_files(tmp_path, tags):
    write(tmp_path / 'x.dcm', **tags)
    assert errors(tmp_path / 'x.dcm', 'SR') == []
    assert pydicom.dcmread(tmp_path / 'x.dcm').SpecificCharacterSet == 'ISO_IR 192'


def test_other_content_has_other_uids():
    def instance(finding=MARKED, **other):
        named = reference.Instance('1.2.3.8', '1.2.3.9')
        arguments = {'segmentation': named, 'algorithm': ALGORITHM, 'key': 'x'} | other
        return sr.make(header(), finding, **arguments).SOPInstanceUID

    later = ALGORITHM._replace(run='stage2@181')
    assert instance() == instance()
    others = instance(segmentation=None), instance(key='y'), instance(algorithm=later)
    assert len({instance(), *others}) == 4
