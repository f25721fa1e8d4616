"""Who the patient is, comes out nowhere: not in files, not on the streams, not in messages.

Markers stand in every attribute that names someone, in private tags, in the file's meta information
and, malformed, where numbers and codes belong. Then all that was written is searched for them.
"""

import contextlib
import csv
import pathlib

import numpy as np
import pydicom
import pytest
from pydicom import uid

from pneumojax.data import dataset as dataset_lib
from pneumojax.data.datasets import siim
from pneumojax.errors import UsageError
from pneumojax.experiments import stages
from pneumojax.prediction.options import OBJECTS, Options
from pneumojax.prediction.predict import predict
from tests.data.files.test_inputs import PICTURE, make
from tests.tiny_runs import write_run

MARKER, BIRTH = 'ZZYZX', '19011231'
NAMES = (
    'PatientName', 'OtherPatientNames', 'PatientBirthName', 'PatientMotherBirthName',
    'ReferringPhysicianName', 'PerformingPhysicianName', 'OperatorsName', 'RequestingPhysician',
    'NameOfPhysiciansReadingStudy', 'PhysiciansOfRecord',
)  # fmt: skip
TEXTS = (
    'PatientID', 'OtherPatientIDs', 'IssuerOfPatientID', 'PatientAddress', 'PatientComments',
    'PatientTelephoneNumbers', 'EthnicGroup', 'Occupation', 'AdditionalPatientHistory',
    'AccessionNumber', 'StudyID', 'StudyDescription', 'SeriesDescription', 'ProtocolName',
    'InstitutionName', 'InstitutionAddress', 'StationName', 'DeviceSerialNumber', 'ImageComments',
    'AdmissionID', 'RequestedProcedureDescription', 'PerformedProcedureStepDescription',
    'MilitaryRank', 'MedicalRecordLocator', 'RegionOfResidence', 'CountryOfResidence',
)  # fmt: skip
# Where such texts make a value malformed: pydicom warns, and quotes them.
MALFORMED = (
    'SpecificCharacterSet', 'PatientBirthDate', 'PatientSex', 'PatientAge', 'PatientWeight',
    'StudyDate', 'StudyTime', 'SeriesDate', 'AcquisitionTime', 'InstanceNumber', 'SeriesNumber',
    'BodyPartExamined', 'ViewPosition', 'PatientOrientation', 'PixelSpacing', 'PixelAspectRatio',
    'ImagerPixelSpacing', 'StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID',
)  # fmt: skip
BREAKING = (
    'Modality', 'SOPClassUID', 'WindowCenter', 'RescaleSlope', 'VOILUTFunction', 'NumberOfFrames',
    'PhotometricInterpretation', 'Rows', 'SamplesPerPixel', 'BitsStored', 'PixelPaddingValue',
)  # fmt: skip


def plant(path, source, malformed=()):
    """A file with markers; those `malformed` hold one instead of a sound value."""
    ignore = pydicom.config.IGNORE
    made = pydicom.dcmread(source)

    def put(keyword, value):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        made[tag] = pydicom.DataElement(tag, vr, value, validation_mode=ignore)

    for keyword in NAMES:
        put(keyword, f'{MARKER}^{keyword}')
    for keyword in TEXTS:
        put(keyword, f'{MARKER} {keyword}'[:16])
    put('PatientBirthDate', BIRTH)
    block = made.private_block(0x0099, f'{MARKER} private', create=True)
    block.add_new(1, 'LO', f'{MARKER} in private')
    made.file_meta.SourceApplicationEntityTitle = MARKER
    made.file_meta.ImplementationVersionName = MARKER
    made.file_meta.PrivateInformationCreatorUID = '1.2.3'
    made.file_meta.PrivateInformation = f'{MARKER} '.encode()
    for keyword in malformed:
        tag = pydicom.tag.Tag(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        vr = 'LO' if vr in ('US', 'US or SS') else vr
        value = f'{MARKER} {keyword}'.encode()
        value += b' ' * (len(value) % 2)
        made[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
    with open(path, 'wb') as file:
        pydicom.dcmwrite(file, made)
    return path


def leaks(folder: pathlib.Path, leave_out=()) -> list[str]:
    """Files below a folder in whose name or content a marker is."""
    found = []
    for path in sorted(folder.rglob('*')):
        if path.is_file() and not set(path.relative_to(folder).parts) & set(leave_out):
            content = path.read_bytes().lower() + path.name.lower().encode()
            if MARKER.lower().encode() in content or BIRTH.encode() in content:
                found.append(str(path.relative_to(folder)))
    return found


def forget(capfd, caplog):
    capfd.readouterr()
    caplog.clear()


def assert_silent(capfd, caplog):
    said = ''.join(capfd.readouterr()).lower() + caplog.text.lower()
    assert MARKER.lower() not in said
    assert BIRTH not in said


@pytest.fixture
def files(tmp_path):
    """A folder of files as foreign as they come, and how many of them."""
    source, folder = make(tmp_path / 'plain'), tmp_path / 'in'
    folder.mkdir()
    plant(folder / 'sound.dcm', source)
    for keyword in (*MALFORMED, *BREAKING):
        plant(folder / f'{keyword}.dcm', source, [keyword])
    plant(folder / 'all.dcm', source, MALFORMED)
    whole = (folder / 'sound.dcm').read_bytes()
    for end in (len(whole) - 100, 700, 400, 200):
        (folder / f'cut{end}.dcm').write_bytes(whole[:end])
    (folder / 'no_preamble.dcm').write_bytes(whole[132:])
    for syntax in (uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEG2000, uid.RLELossless):
        made = pydicom.dcmread(folder / 'sound.dcm')
        made.file_meta.TransferSyntaxUID = syntax
        made.PixelData = pydicom.encaps.encapsulate([MARKER.encode() * 100])
        made['PixelData'].is_undefined_length = True
        made.save_as(folder / f'{syntax}.dcm')
    return folder


def test_predict_names_nobody(files, tmp_path, capfd, caplog):
    run, output = write_run(tmp_path / 'run'), tmp_path / 'out'
    forget(capfd, caplog)
    options = Options(OBJECTS, heatmap=True, runtime='jax')
    assert predict([run], files, output, options) == 3
    assert_silent(capfd, caplog)
    assert leaks(output, leave_out=OBJECTS) == []
    assert leaks(tmp_path / 'run') == []
    with open(output / 'results.csv', newline='', encoding='utf-8') as file:
        rows = {row['file']: row for row in csv.DictReader(file)}
    assert set(rows) == {path.name for path in files.iterdir()}
    assert rows['sound.dcm']['status'] == rows['all.dcm']['status'] == 'ok'


@pytest.mark.parametrize('name', OBJECTS)
def test_only_objects_carry_the_patient_as_the_standard_wants(name, files, tmp_path):
    """PS3.3 C.7.1.1 and C.7.2.1: an object of a study is of its patient, or archives refuse it."""
    run = write_run(tmp_path / 'run')  # it marks all that is brighter than nothing
    options = Options((name,), runtime='jax')
    predict([run], files / 'sound.dcm', tmp_path / 'out', options)
    made = pydicom.dcmread(tmp_path / 'out' / name / 'sound.dcm')
    named = {
        element.keyword
        for element in made.iterall()
        if element.VR != 'SQ' and (MARKER in str(element.value) or BIRTH in str(element.value))
    }
    assert named <= {
        'PatientName', 'PatientID', 'PatientBirthDate', 'AccessionNumber', 'StudyID',
        'ReferringPhysicianName',
    }  # fmt: skip
    assert {'PatientName', 'PatientID', 'PatientBirthDate'} <= named
    assert MARKER not in str(made.file_meta)


def test_training_and_evaluation_name_nobody(config, phantoms, tmp_path, capfd, caplog):
    root = tmp_path / 'siim'
    root.mkdir()
    annotations = phantoms / 'train-rle.csv'
    (root / annotations.name).write_bytes(annotations.read_bytes())
    ids = []
    for i, path in enumerate(sorted(phantoms.rglob('*.dcm'))):
        plant(root / path.name, path, ['PatientAge', 'StudyDate', 'SpecificCharacterSet'])
        ids.append(f'{path.stem},{MARKER}-{i // 2}')
    (root / 'patients.csv').write_text('ImageId,PatientId\n' + '\n'.join(ids) + '\n')
    config.data.root, config.data.cache = str(root), str(tmp_path / 'cache')
    config.num_epochs, config.averaging.start = 1, 0
    forget(capfd, caplog)
    stages.train(config, tmp_path / 'run')
    stages.evaluate(config, tmp_path / 'run')
    assert_silent(capfd, caplog)
    assert (tmp_path / 'run' / 'evaluation.json').is_file()
    assert leaks(tmp_path, leave_out=['siim']) == []
    patients = {e.patient_id for e in siim.find(root, root / 'patients.csv').examples}
    assert patients == {f'{MARKER}-{i}' for i in range(20)}  # they were there to be told


def test_errors_of_training_name_nobody(config, phantoms, tmp_path, capfd, caplog):
    root = tmp_path / 'siim'
    (root / 'sub').mkdir(parents=True)
    (root / 'train-rle.csv').write_text(
        'ImageId,EncodedPixels\n' + ''.join(f'im{i},-1\n' for i in range(8))
    )
    source = make(tmp_path / 'plain', np.ascontiguousarray(PICTURE))
    for i in range(8):
        plant(root / f'im{i}.dcm', source)
    config.data.root, config.data.cache = str(root), str(tmp_path / 'cache')
    for keyword in BREAKING:
        plant(root / 'im3.dcm', source, [keyword])
        with contextlib.suppress(UsageError):
            dataset_lib.load(config)
            continue
        with pytest.raises(UsageError) as error:
            dataset_lib.load(config)
        assert MARKER not in str(error.value)
        assert '\n' not in str(error.value)
    assert_silent(capfd, caplog)
    assert leaks(tmp_path, leave_out=['siim']) == []
