"""Whether a DICOM header says that the image is a frontal radiograph of an adult's chest.

Tags decide only by words and codes that are known. Sites write BodyPartExamined and ViewPosition as
they like ("W034 Chest", "THORAX_LAT", "POUMON"), so a word that is not known here is a reason for a
note, and an empty tag is none for anything.
"""

import re
import unicodedata
from typing import Literal, NamedTuple

import pydicom

from pneumojax.data.files import headers

Accept = Literal['chest', 'any']  # what to read: frontal chest radiographs alone, or any

REFUSED = 'not a frontal chest radiograph'
# Ours: most chests have an adult's proportions by then, and there is no age at which all do.
# 41 of 984 images of SIIM are of people below it, so a network has seen few.
ADULT_YEARS = 16
_CHEST = ('TORA', 'LUNG', 'PULMO', 'POUMON', 'POLMO', 'RIB', 'BRUSTKORB')  # how words begin
# Defined terms of PS3.16, annex L, and what radiography systems write instead, without plurals.
_OTHER_PARTS = frozenset((
    'ABDOMEN', 'ANKLE', 'ARM', 'BREAST', 'CALCANEUS', 'CLAVICLE', 'COCCYX', 'CSPINE', 'ELBOW',
    'EXTREMITY', 'FEMUR', 'FEET', 'FIBULA', 'FINGER', 'FOOT', 'FOREARM', 'HAND', 'HEAD',
    'HEEL', 'HIP', 'HUMERUS', 'JAW', 'KIDNEY', 'KNEE', 'LEG', 'LSPINE', 'LSSPINE', 'MANDIBLE',
    'MAXILLA', 'NECK', 'ORBIT', 'PATELLA', 'PELVIS', 'RADIUS', 'SACRUM', 'SCAPULA', 'SHOULDER',
    'SINUS', 'SKULL', 'SPINE', 'STERNUM', 'TEETH', 'THIGH', 'THUMB', 'TIBIA', 'TLSPINE', 'TOE',
    'TSPINE', 'ULNA', 'WRIST', 'ZYGOMA',
))  # fmt: skip
_OTHER_WORDS = {
    'EXM': 'EXTREMITY', 'EXTREMITIES': 'EXTREMITY', 'KUB': 'ABDOMEN', 'MAMMA': 'BREAST',
    'PHANTOM': 'PHANTOM', 'CERVICAL': 'CSPINE', 'LUMBAR': 'LSPINE', 'THORACOLUMBAR': 'TLSPINE',
    'VERTEBRA': 'SPINE', 'VERTEBRAE': 'SPINE', 'VERTEBRAL': 'SPINE',
    # German, French, Spanish, Italian; only words that mean nothing else in another language.
    'BECKEN': 'PELVIS', 'BASSIN': 'PELVIS', 'HAENDE': 'HAND', 'HUEFTE': 'HIP', 'HUFTE': 'HIP',
    'HANCHE': 'HIP', 'CADERA': 'HIP', 'KNIE': 'KNEE', 'GENOU': 'KNEE', 'RODILLA': 'KNEE',
    'GINOCCHIO': 'KNEE', 'SCHULTER': 'SHOULDER', 'EPAULE': 'SHOULDER', 'HOMBRO': 'SHOULDER',
    'SPALLA': 'SHOULDER', 'SCHAEDEL': 'SKULL', 'SCHADEL': 'SKULL', 'CRANE': 'SKULL',
    'HWS': 'CSPINE', 'BWS': 'TSPINE', 'LWS': 'LSPINE', 'RACHIS': 'SPINE', 'COLUMNA': 'SPINE',
    'WIRBELSAULE': 'SPINE', 'WIRBELSAEULE': 'SPINE', 'COLONNA': 'SPINE',
}  # fmt: skip
_FRONTAL = {'PA', 'AP', 'FACE', 'FRONTAL', 'POSTEROANTERIOR', 'ANTEROPOSTERIOR'}
_LATERAL = {'LAT', 'LATERAL', 'LATERALE', 'LLAT', 'RLAT', 'PROFIL', 'PERFIL', 'SEITLICH'}
_OBLIQUE = {'OBL', 'OBLIQUE', 'OBLIQUA', 'OBLICUA', 'RAO', 'LAO', 'RPO', 'LPO', 'RLO', 'LLO'}
# In these a patient lies on a side, and the beam is frontal: LLD means left lateral decubitus.
_DECUBITUS = {'LLD', 'RLD', 'DECUB', 'DECUBITUS'}
_MAMMOGRAPHY = {'CC', 'ML', 'LM', 'MLO', 'LMO', 'XCCL', 'XCCM'}
_FRONTAL_CODES = ('Frontal', 'PosteroAnterior', 'AnteroPosterior')  # as pydicom calls them
_CHEST_CODES = ('Chest', 'Lung', 'Rib', 'Heart', 'Mediastinum', 'Bronchus', 'Trachea', 'EntireBody')
_OLD_SNOMED = ('SNM3', '99SDM')  # of the codes of SNOMED RT (SRT)


class Doubt(NamedTuple):
    """Something in a header that speaks against a frontal radiograph of a chest."""

    what: str  # such as 'body part HAND by BodyPartExamined': never free text of the file
    consequence: str  # completes the note
    known: bool  # False for what is only not understood


def why_not(header: pydicom.Dataset) -> str | None:
    """Why a radiograph is no frontal one of a chest, by known words and codes; None otherwise.

    Args:
      header: from `headers.read`.
    """
    for doubt in _doubts(header):
        if doubt.known:
            return f'{REFUSED}: {doubt.what}'
    return None


def notes(header: pydicom.Dataset) -> tuple[str, ...]:
    """What speaks against trusting the network: the part, the view, and a child. Names nobody."""
    found = [f'{doubt.what}: {doubt.consequence}' for doubt in _doubts(header)]
    if is_child(header):
        found.append(
            f'child (below {ADULT_YEARS} years): how the network does on children is not known'
        )
    return tuple(found)


def is_child(header: pydicom.Dataset) -> bool:
    """Whether the patient was younger than `ADULT_YEARS`, as far as the header states an age."""
    years = age(header)
    return years is not None and years < ADULT_YEARS


def age(header: pydicom.Dataset) -> float | None:
    """The patient's age in years, as far as the header states one.

    PatientAge decides; where it makes no sense, PatientBirthDate and StudyDate. An age without a
    unit is in years, as in SIIM's files.
    """
    stated = re.fullmatch(r'(\d{1,3}) *([DWMY]?)', headers.text(header, 'PatientAge').upper())
    if stated:
        per_year = {'D': 365.25, 'W': 365.25 / 7, 'M': 12, 'Y': 1, '': 1}[stated[2]]
        return int(stated[1]) / per_year
    birth, study = (_date(header, keyword) for keyword in ('PatientBirthDate', 'StudyDate'))
    if birth is None or study is None or study < birth:
        return None
    return study[0] - birth[0] - (study[1:] < birth[1:])


def _doubts(header: pydicom.Dataset) -> list[Doubt]:
    return [doubt for doubt in (_part(header), _view(header)) if doubt is not None]


def _part(header: pydicom.Dataset) -> Doubt | None:
    chests_only = 'the network was trained on chests only'
    words = _words(header, 'BodyPartExamined')
    other = next(filter(None, map(_other_part, words)), '')
    chest = any('CHEST' in w or 'THORAX' in w or w.startswith(_CHEST) for w in words)
    thoracic = any('THORA' in word for word in words) and not other.endswith('SPINE')
    if chest or thoracic:
        return None
    if other:
        return Doubt(f'body part {other} by BodyPartExamined', chests_only, known=True)
    name = _coded(header, 'AnatomicRegionSequence', ('cid4031',))
    if name:
        if any(part in name for part in _CHEST_CODES):
            return None
        part = ' '.join(re.findall('[A-Z][a-z]*', name)).upper()
        return Doubt(f'body part {part} by AnatomicRegionSequence', chests_only, known=True)
    if words:
        return Doubt('the body part is none that is known', chests_only, known=False)
    return None


def _other_part(word: str) -> str:
    """The known part that a word names, '' if it names none."""
    for form in (word, word.removesuffix('S'), word.removesuffix('ES')):
        if form in _OTHER_PARTS:
            return form
    return _OTHER_WORDS.get(word, '')


def _view(header: pydicom.Dataset) -> Doubt | None:
    frontal_only = 'the network was trained on frontal views only'
    for keyword in ('ViewPosition', 'BodyPartExamined'):
        words = set(_words(header, keyword))
        lateral, oblique = words & _LATERAL, words & _OBLIQUE
        if keyword == 'ViewPosition':
            lateral |= words & {'LL', 'RL'}
            if words and words <= _MAMMOGRAPHY:
                return Doubt('view of a breast by ViewPosition', frontal_only, known=True)
        if words & _DECUBITUS:
            unknown = 'how the network does on them is not known'
            return Doubt(f'lateral decubitus by {keyword}', unknown, known=False)
        if oblique:
            return Doubt(f'oblique view by {keyword}', frontal_only, known=True)
        if lateral and not words & _FRONTAL:
            return Doubt(f'lateral view by {keyword}', frontal_only, known=True)
    name = _coded(header, 'ViewCodeSequence', ('cid4010', 'cid4014'))
    if name and name not in _FRONTAL_CODES:
        kinds = ('oblique', 'Oblique'), ('lateral', 'Lateral')
        kind = next((kind for kind, part in kinds if part in name), 'another')
        return Doubt(f'{kind} view by ViewCodeSequence', frontal_only, known=True)
    return None


def _words(header: pydicom.Dataset, keyword: str) -> list[str]:
    """The words of a text in capitals: without accents, digits and punctuation.

    `C-SPINE`, `T SPINE` and `TH_SPINE` are one word each.
    """
    text = unicodedata.normalize('NFKD', headers.text(header, keyword).upper())
    text = ''.join(letter for letter in text if not unicodedata.combining(letter))
    text = re.sub(r'\b([CTL]|TH|LS|TL)[ _.-]*SPINE', r'\1SPINE', text).replace('THSPINE', 'TSPINE')
    return re.findall('[A-Z]+', text)


def _coded(header: pydicom.Dataset, keyword: str, groups: tuple[str, ...]) -> str:
    """pydicom's name of the first code in a sequence that is in one of these context groups.

    '' if there is none. A damaged item states nothing.
    """
    try:
        items = list(header.get(keyword) or ())
        stated = [
            [headers.text(item, key) for key in ('CodeValue', 'CodingSchemeDesignator')]
            for item in items
        ]
    except Exception:  # whatever pydicom raises on a damaged sequence
        return ''
    if not any(value for value, _ in stated):
        return ''
    from pydicom.sr.codedict import codes  # late: its tables take a tenth of a second
    from pydicom.sr.coding import Code

    for value, scheme in stated:
        # Equality knows which code of SNOMED CT an older one became.
        code = Code(value, 'SRT' if scheme in _OLD_SNOMED else scheme, '')
        for group in groups:
            for name, known in getattr(codes, group).concepts.items():
                if code == known:
                    return name
    return ''


def _date(header: pydicom.Dataset, keyword: str) -> tuple[int, int, int] | None:
    """(year, month, day) of a date; None if it is missing or malformed."""
    date = re.fullmatch(r'(\d{4})[.]?(\d\d)[.]?(\d\d)', headers.text(header, keyword))
    return (int(date[1]), int(date[2]), int(date[3])) if date else None
