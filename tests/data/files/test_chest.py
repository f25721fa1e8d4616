"""Which radiographs are frontal ones of a chest by their tags, and which are of children."""

import datetime

import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.sr._snomed_dict import mapping as MAPPING
from pydicom.sr.codedict import codes

from pneumojax.data.datasets import folder_dataset, siim
from pneumojax.data.files import chest, inputs
from tests.data.files.test_inputs import make


def header(**tags):
    with pydicom.config.disable_value_validation():
        made = pydicom.Dataset()
        for keyword, value in tags.items():
            setattr(made, keyword, value)
        return made


def coded(value, scheme='SCT'):
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, 'Secret'
    return [item]


@pytest.mark.parametrize(
    'part',
    [
        'CHEST', 'Thorax', 'PORT CHEST', 'W034 Chest', 'CHEST PA AND LAT', 'TORAX', 'TÓRAX',
        'POUMON', 'LUNGE', 'Lungs', 'PULMON', 'THORAX DE FACE', 'RIBS', 'CHESTABDOMEN',
        'NECKCHEST', 'TORACE', 'CHEST/ABD', 'HEAD OF BED CHEST', 'THORACIC', 'RIBCAGE',
        'CHEST PORTABLE 1V', 'HEMITHORAX',
    ],
)  # fmt: skip
def test_words_for_a_chest(part):
    assert chest.why_not(header(BodyPartExamined=part)) is None
    assert chest.notes(header(BodyPartExamined=part, ViewPosition='PA')) == ()


@pytest.mark.parametrize(
    ('part', 'shown'),
    [
        ('HAND', 'HAND'), ('hips', 'HIP'), ('L KNEE', 'KNEE'), ('KNEE_AP', 'KNEE'),
        ('BREAST', 'BREAST'), ('C-SPINE', 'CSPINE'), ('T SPINE', 'TSPINE'),
        ('THORACIC SPINE', 'SPINE'), ('UP_EXM', 'EXTREMITY'), ('THORACOLUMBAR', 'TLSPINE'),
        ('L_SPINE LAT', 'LSPINE'), ('ABDOMEN', 'ABDOMEN'),
        ('HÜFTE', 'HIP'), ('Genou droit', 'KNEE'), ('Feet', 'FEET'), ('FINGERS', 'FINGER'),
        ('LOWER EXTREMITIES', 'EXTREMITY'),
    ],
)  # fmt: skip
def test_words_for_other_parts(part, shown):
    reason = chest.why_not(header(BodyPartExamined=part))
    assert reason == f'not a frontal chest radiograph: body part {shown} by BodyPartExamined'


@pytest.mark.parametrize(
    'part', ['', 'Zzyzx^Jane', '1234', 'UPPER BODY', 'PECTORAL', 'MAIN', 'WHOLE BODY']
)
def test_an_unknown_word_is_a_note_that_does_not_repeat_it(part):
    assert chest.why_not(header(BodyPartExamined=part)) is None
    notes = chest.notes(header(BodyPartExamined=part))
    assert len(notes) == any(letter.isalpha() for letter in part)
    assert all('none that is known' in note and part not in note for note in notes)


@pytest.mark.parametrize(
    ('view', 'expected'),
    [
        ('LL', 'lateral'), ('RL', 'lateral'), ('LATERAL', 'lateral'), ('LAT', 'lateral'),
        ('LEFT LATERAL', 'lateral'), ('RLO', 'oblique'), ('LAO', 'oblique'), ('PA OBL', 'oblique'),
        ('OBLIQUE', 'oblique'), ('PROFIL', 'lateral'), ('MLO', 'breast'), ('CC', 'breast'),
        ('PA', None), ('AP', None), ('', None), ('W034 Chest', None), ('PA AND LAT', None),
        ('AP SUPINE', None), ('LLD', None), ('LAT DECUB', None), ('LORDOTIC', None),
    ],
)  # fmt: skip
def test_views(view, expected):
    reason = chest.why_not(header(ViewPosition=view))
    assert reason is None if expected is None else expected in reason
    note = ' '.join(chest.notes(header(ViewPosition=view)))
    assert note.startswith('lateral decubitus') == (view in ('LLD', 'LAT DECUB'))


@pytest.mark.parametrize(
    ('part', 'expected'),
    [('THORAX_LAT', 'lateral'), ('CHEST OBL', 'oblique'), ('CHEST LAT DECUBITUS', None)],
)
def test_a_view_in_the_body_part(part, expected):
    reason = chest.why_not(header(BodyPartExamined=part))
    assert reason is None if expected is None else f'{expected} view by BodyPart' in reason


@pytest.mark.parametrize('scheme', ['SCT', 'SRT', 'SNM3', '99SDM'])
def test_a_view_by_its_code_alone(scheme):
    """Of CID 4010 only the three views that pydicom's dictionary calls frontal and not oblique."""
    cid = codes.cid4010
    laterals = {'LateralProjection', 'LeftLateral', 'RightLateral'}
    for name in cid.dir():
        code = getattr(cid, name)
        value = code.value if scheme == 'SCT' else MAPPING['SCT'][code.value]
        reason = chest.why_not(header(ViewCodeSequence=coded(value, scheme)))
        frontal = name in ('Frontal', 'PosteroAnterior', 'AnteroPosterior')
        assert (reason is None) == frontal, name
        assert frontal or 'secret' not in reason.lower()
        assert name not in laterals or 'lateral view by ViewCodeSequence' in reason


def test_a_region_by_its_code_where_no_word_is_known():
    hand, thorax = coded('85562004'), coded('T-D3000', 'SRT')
    expected = 'body part HAND by AnatomicRegionSequence'
    assert expected in chest.why_not(header(AnatomicRegionSequence=hand))
    assert expected in chest.why_not(header(BodyPartExamined='X', AnatomicRegionSequence=hand))
    assert chest.why_not(header(BodyPartExamined='CHEST', AnatomicRegionSequence=hand)) is None
    assert chest.notes(header(AnatomicRegionSequence=thorax)) == ()
    for name in ('Chest', 'ChestAndAbdomen', 'ApexOfLung', 'Rib', 'EntireBody'):
        code = getattr(codes.cid4031, name).value
        assert chest.why_not(header(AnatomicRegionSequence=coded(code))) is None


def test_codes_that_are_damaged_say_nothing():
    item = pydicom.Dataset()
    item.CodeValue, item.CodingSchemeDesignator = ['399067008', 'R-10236'], 'SCT'
    for value in ([pydicom.Dataset(), item], []):
        assert chest.notes(header(ViewCodeSequence=value, AnatomicRegionSequence=value)) == ()


@pytest.mark.parametrize('accept', ['chest', 'any'])
def test_what_is_refused_can_be_accepted_with_a_note(tmp_path, accept):
    tags = {'BodyPartExamined': 'HAND', 'ViewPosition': 'LL'}
    path = make(tmp_path / 'x', AnatomicRegionSequence=coded('85562004'), **tags)
    if accept == 'chest':
        with pytest.raises(inputs.Skipped, match='body part HAND'):
            inputs.read(path)
        return
    notes = inputs.read(path, accept='any').notes
    assert [note.rpartition(': ')[2] for note in notes] == [
        'the network was trained on chests only', 'the network was trained on frontal views only'
    ]  # fmt: skip


def test_images_to_train_on_are_not_refused(tmp_path):
    """Their masks say what they are good for, and none may vanish from a data set in silence."""
    make(tmp_path / 'a.dcm', BodyPartExamined='HAND', ViewPosition='LL', PatientAge='003Y')
    assert list(folder_dataset.list_files(str(tmp_path)).images) == ['a']
    (tmp_path / 'train-rle.csv').write_text('ImageId,EncodedPixels\na,-1\n')
    assert [e.image_id for e in siim.find(tmp_path).examples] == ['a']


# Children.


@pytest.mark.parametrize(
    ('age', 'expected'),
    [
        ('003Y', True), ('18M', True), ('010D', True), ('012W', True), ('000Y', True), ('15', True),
        ('015Y', True), ('016Y', False), ('191M', True), ('192M', False), ('834W', True),
        ('835W', False), ('999D', True), ('047Y', False), ('47', False), ('3 Y', True),
    ],
)  # fmt: skip
def test_ages(age, expected):
    assert chest.is_child(header(PatientAge=age)) is expected
    # A sound age decides, whatever the dates say.
    dates = {'PatientBirthDate': '19500101', 'StudyDate': '20200101'}
    assert chest.is_child(header(PatientAge=age, **dates)) is expected


@given(st.dates(datetime.date(1900, 1, 1)), st.dates(datetime.date(1900, 1, 1)))
@example(datetime.date(2004, 2, 29), datetime.date(2020, 2, 28))
@example(datetime.date(2004, 2, 29), datetime.date(2020, 2, 29))
@example(datetime.date(2004, 3, 1), datetime.date(2020, 2, 29))
def test_ages_by_the_calendar(birth, study):
    birthdays = sum(
        (birth.month, birth.day) <= (study.month, study.day) if year == study.year else True
        for year in range(birth.year + 1, study.year + 1)
    )
    child = birth <= study and birthdays < 16
    for age in ('', 'Zzyzx', 'Y', '-01Y'):
        stated = header(
            PatientAge=age, PatientBirthDate=f'{birth:%Y%m%d}', StudyDate=f'{study:%Y%m%d}'
        )
        assert chest.is_child(stated) == child


@pytest.mark.parametrize(
    'tags',
    [
        {}, {'PatientBirthDate': '20200101'}, {'StudyDate': '20200101'},
        {'PatientBirthDate': 'Zzyzx', 'StudyDate': '20200101'},
        {'PatientBirthDate': '20200102', 'StudyDate': '20200101'},
    ],
)  # fmt: skip
def test_without_an_age_nothing_is_said(tags):
    assert not chest.is_child(header(**tags))


def test_the_note_about_a_child_says_no_age(tmp_path):
    path = make(tmp_path / 'x', PatientAge='003Y', PatientBirthDate='20170504')
    (note,) = inputs.read(path).notes
    assert note == 'child (below 16 years): how the network does on children is not known'
