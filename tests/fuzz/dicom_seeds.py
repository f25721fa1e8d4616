"""DICOM files to start from: phantoms in every encoding that can be written here, pydicom's own
small files, and what this package writes."""

import io
import pathlib
import zlib

import cv2
import gdcm
import numpy as np
import pydicom
import pydicom.data
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames

from pneumojax.data.phantoms import phantom

NAME = 'ZZName^Patient'  # must appear in no message
_LARGEST = 120_000  # bytes of a seed: larger ones only make the search slower


def phantoms() -> dict[str, bytes]:
    """One picture in every encoding; 'what it is' -> file."""
    grey = phantom.draw(np.random.default_rng(1), 64, True).image[:, :50].copy()
    deep = grey.astype(np.uint16) * 16 + 3
    made = {}
    for bits, pixels in ((8, grey), (12, deep)):
        for syntax in (
            uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian,
            uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless,
            uid.JPEG2000Lossless,
        ):  # fmt: skip
            made[f'{bits} {syntax.name}'] = as_bytes(dataset(pixels, bits, syntax))
        for option, syntax in (
            ('JPEGLosslessProcess14_1', uid.JPEGLosslessSV1),
            ('JPEGLosslessProcess14', uid.JPEGLossless),
        ):
            plain = as_bytes(dataset(pixels, bits, uid.ExplicitVRLittleEndian))
            made[f'{bits} {syntax.name}'] = by_gdcm(plain, option)
    code = cv2.imencode('.jpg', grey)[1].tobytes()
    for syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        one = dataset(grey, 8, syntax, frame=code)
        made[f'jpeg {syntax.name}'] = as_bytes(one)
    signed = (deep.astype(int) - 2000).astype(np.int16)
    tags = {
        'PhotometricInterpretation': 'MONOCHROME1', 'PixelPaddingValue': -1997,
        'RescaleSlope': '2', 'RescaleIntercept': '-1000', 'WindowCenter': ['40', '1'],
        'WindowWidth': ['3000', '2'],
    }  # fmt: skip
    made['window'] = as_bytes(dataset(signed, 16, uid.ExplicitVRLittleEndian, **tags))
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'US', [256, 0, 12])
    item.add_new('LUTData', 'US', list(range(0, 4096, 16)))
    tags = {'VOILUTSequence': [item], 'ModalityLUTSequence': [item]}
    made['tables'] = as_bytes(dataset(grey, 8, uid.ImplicitVRLittleEndian, **tags))
    return made


def odd() -> dict[str, bytes]:
    """What real files do, and few readers expect: bits elsewhere, tables, grey in colour."""
    grey = phantom.draw(np.random.default_rng(1), 64, True).image[:, :50].copy()
    deep = grey.astype(np.uint16) * 16 + 3
    signed = (deep.astype(int) - 2000).astype(np.int16)
    explicit, implicit = uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian
    made = {}
    for high in (15, 13, 11, 10):
        shift = max(high - 11, 0)
        for kind, pixels in (('unsigned', deep), ('signed', signed)):
            for syntax in (explicit, uid.RLELossless):
                one = dataset(pixels << shift, 12, syntax, HighBit=high)
                made[f'{kind} high bit {high} {syntax.name}'] = as_bytes(one)
    for syntax in (uid.JPEGLSLossless, uid.JPEG2000Lossless):  # the stream has more bits
        one = dataset(deep << 4, 16, syntax)
        one.BitsStored, one.HighBit = 12, 11
        made[f'16 bits in 12 {syntax.name}'] = as_bytes(one)
    tags = {
        'slope 0': {'RescaleSlope': '0', 'RescaleIntercept': '-1024'},
        'rescaled': {'RescaleSlope': '-0.5', 'RescaleIntercept': '10'},
        'window': {'WindowCenter': '100', 'WindowWidth': '200', 'VOILUTFunction': 'LINEAR_EXACT'},
        'two': {'WindowCenter': '9', 'WindowWidth': '20', 'VOILUTFunction': ['LINEAR'] * 2},
        'curve': {'WindowCenter': ['50', '9'], 'WindowWidth': '99', 'VOILUTFunction': 'SIGMOID'},
        'inverse': {'PresentationLUTShape': 'INVERSE'},
        'negative': {'PresentationLUTShape': 'IDENTITY'},
        'padding': {'PixelPaddingValue': 0, 'PixelPaddingRangeLimit': 9},
    }  # fmt: skip
    for name, values in tags.items():
        for bits, pixels in ((8, grey), (12, deep)):
            made[f'{name} {bits}'] = as_bytes(dataset(pixels, bits, explicit, **values))
            one = dataset(pixels, bits, explicit, PhotometricInterpretation='MONOCHROME1', **values)
            made[f'{name} {bits} inverted'] = as_bytes(one)
    one = dataset(grey, 8, explicit, PhotometricInterpretation=' monochrome2')
    made['case'] = as_bytes(one)
    made['padding of the other sign'] = as_bytes(
        dataset(signed, 16, implicit, PixelPaddingValue=-1997)
    ).replace((-1997).to_bytes(2, 'little', signed=True), (63539).to_bytes(2, 'little'))
    for name, descriptor, data, vr in (
        ('first -1024', [256, -1024, 12], list(range(0, 4096, 16)), 'SS'),
        ('short', [256, 0, 16], list(range(100)), 'US'),
        ('packed', [256, 0, 8], bytes(range(256)), 'US'),
        ('full', [0, 0, 16], list(range(1 << 16)), 'US'),
        ('bits', [256, 0, 255], list(range(256)), 'US'),
    ):
        item = pydicom.Dataset()
        item.add_new('LUTDescriptor', vr, descriptor)
        item.add_new('LUTData', 'OW' if isinstance(data, bytes) else 'US', data)
        for keyword in ('VOILUTSequence', 'ModalityLUTSequence'):
            values = {keyword: [item], 'RescaleIntercept': '-1024', 'RescaleSlope': '1'}
            for syntax in (explicit, implicit):
                one = dataset(deep >> 1, 12, syntax, **values)
                made[f'LUT {name} {keyword} {syntax.name}'] = as_bytes(one)
    empty = pydicom.Dataset()
    for keyword in ('VOILUTSequence', 'ModalityLUTSequence'):
        one = dataset(grey, 8, explicit, **{keyword: [empty]})
        made[f'LUT empty {keyword}'] = as_bytes(one)
    return made | in_colour(grey) | bare(grey)


def in_colour(grey: np.ndarray) -> dict[str, bytes]:
    """A grey picture stored as three channels or by a palette."""
    explicit, made = uid.ExplicitVRLittleEndian, {}
    three = np.stack([grey] * 3, -1)
    for name, pixels, planar in (
        ('RGB', three, 0), ('RGB', np.moveaxis(three, -1, 0), 1),
        ('YBR_FULL', np.stack([grey, grey * 0 + 128, grey * 0 + 128], -1), 0),
        ('RGB', three + np.array([0, 0, 40], np.uint8), 0),
    ):  # fmt: skip
        one = dataset(grey, 8, explicit, PhotometricInterpretation=name, SamplesPerPixel=3)
        one.PlanarConfiguration, one.PixelData = planar, pixels.tobytes()
        made[f'colour {len(made)}'] = as_bytes(one)
    for red in (range(256), range(255, -1, -1), [0] * 256):
        one = dataset(grey, 8, explicit, PhotometricInterpretation='PALETTE COLOR')
        for colour, values in (('Red', red), ('Green', range(256)), ('Blue', range(256))):
            keyword = f'{colour}PaletteColorLookupTable'
            one.add_new(f'{keyword}Descriptor', 'US', [256, 0, 16])
            one.add_new(f'{keyword}Data', 'OW', np.array(values, '<u2').__mul__(257).tobytes())
        made[f'palette {len(made)}'] = as_bytes(one)
    return made


def bare(grey: np.ndarray) -> dict[str, bytes]:
    """Data sets without a preamble, and a macOS companion file."""
    made = {'apple': b'\0\x05\x16\x07\0\x02\0\0Mac OS X        ' + bytes(100)}
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian):
        one = dataset(grey, 8, syntax)
        del one.file_meta
        buffer = io.BytesIO()
        implicit = syntax == uid.ImplicitVRLittleEndian
        one.save_as(buffer, implicit_vr=implicit, little_endian=True)
        made[f'bare {syntax.name}'] = buffer.getvalue()
    return made


def bundled() -> dict[str, bytes]:
    """pydicom's files of up to 120 kB that are DICOM files."""
    folder = pathlib.Path(pydicom.data.__file__).parent
    found = {}
    for path in sorted(folder.rglob('*')):
        if path.is_file() and 132 < path.stat().st_size <= _LARGEST:
            content = path.read_bytes()
            if content[128:132] == b'DICM' or path.suffix == '.dcm':
                found[str(path.relative_to(folder))] = content
    return found


def segmentations() -> dict[str, bytes]:
    """What this package writes."""
    from pneumojax.prediction import reference, seg

    header = dataset(np.zeros((40, 30), np.uint8), 8, uid.ExplicitVRLittleEndian)
    algorithm = reference.Algorithm('0', 'fuzz@1', {})
    mask = np.zeros((40, 30), np.uint8)
    mask[10:20, 5:25] = 1
    return {
        f'seg {kind}': as_bytes(
            seg.make(header, mask * dtype(1), kind=kind, algorithm=algorithm, key='x')
        )
        for kind, dtype in (('binary', np.uint8), ('fractional', np.float32))
    }


def bombs() -> dict[str, bytes]:
    """Small files that ask for much: deflated zeros, deep nesting, and streams that disagree."""
    grey = np.zeros((64, 50), np.uint8)
    deflated = as_bytes(dataset(grey, 8, uid.DeflatedExplicitVRLittleEndian))
    plain = as_bytes(dataset(grey, 8, uid.ExplicitVRLittleEndian))
    start = len(deflated) - len(_deflated_part(deflated))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 24)
    body = b''.join(packer.compress(zeros) for _ in range(200)) + packer.flush()
    found = {'bomb deflated': deflated[:start] + body}
    opening = b'\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff'
    head = plain[: plain.index(b'\x08\0\x16\0')]
    found['bomb nested'] = head + opening * 20_000
    for name, code in (
        ('j2k', dataset(grey, 8, uid.JPEG2000Lossless)),
        ('jls', dataset(grey, 8, uid.JPEGLSLossless)),
    ):
        frame = bytearray(next(generate_frames(code.PixelData, number_of_frames=1)))
        if name == 'j2k':
            at = frame.index(b'\xff\x51') + 6
            frame[at : at + 8] = (60_000).to_bytes(4) * 2
            frame[at + 16 : at + 24] = (60_000).to_bytes(4) * 2
        else:
            at = frame.index(b'\xff\xf7') + 5
            frame[at : at + 4] = (65_000).to_bytes(2) * 2
        code.PixelData = encapsulate([bytes(frame)])
        found[f'bomb {name}'] = as_bytes(code)
    code = dataset(grey, 8, uid.RLELossless)
    segment = b'\x81\0' * 2_000_000
    header = (1).to_bytes(4, 'little') + (64).to_bytes(4, 'little') + bytes(56)
    code.PixelData = encapsulate([header + segment])
    found['bomb rle'] = as_bytes(code)
    return found


def dataset(pixels, bits, syntax, *, frame=None, **tags) -> pydicom.Dataset:
    """A radiograph; `tags` replace what is there, unchecked."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID = uid.ComputedRadiographyImageStorage
    made.SOPInstanceUID, made.StudyInstanceUID = '1.2.3', '1.2.3.4'
    made.SeriesInstanceUID, made.Modality, made.ViewPosition = '1.2.3.5', 'CR', 'PA'
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, 'ZZNAME-ID', '19011231'
    made.SpecificCharacterSet, made.BodyPartExamined = 'ISO_IR 100', 'CHEST'
    made.PixelSpacing = ['0.2', '0.2']
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, 'MONOCHROME2'
    made.BitsAllocated = 8 * pixels.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == 'i')
    big = syntax == uid.ExplicitVRBigEndian
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<')).tobytes()
    made['PixelData'].VR = 'OB' if pixels.itemsize == 1 else 'OW'
    for keyword, value in tags.items():
        setattr(made, keyword, value)
    if frame is not None:
        made.PixelData = encapsulate([frame])
        made['PixelData'].is_undefined_length = True
    elif syntax.is_encapsulated:
        made.compress(syntax, generate_instance_uid=False)
    made.file_meta.TransferSyntaxUID = syntax
    return made


def as_bytes(made: pydicom.Dataset) -> bytes:
    """The file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def by_gdcm(plain: bytes, syntax: str) -> bytes:
    """The file in a transfer syntax that only GDCM writes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = f'{folder}/in', f'{folder}/out'
        pathlib.Path(source).write_bytes(plain)
        reader = gdcm.ImageReader()
        reader.SetFileName(source)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(target)
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return pathlib.Path(target).read_bytes()


def _deflated_part(content: bytes) -> bytes:
    """What follows the file meta information."""
    length = int.from_bytes(content[140:144], 'little')
    return content[144 + length :]
