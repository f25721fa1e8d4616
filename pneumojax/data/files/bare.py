"""Recognises data sets without the file header of DICOM Part 10, as old archives hold them."""

from typing import Literal

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

BYTES = 512  # from the start of a file that are enough
_LONG = {vr.value for vr in EXPLICIT_VR_LENGTH_32}
_SHORT = {vr.value for vr in VR} - _LONG
_UNDEFINED = 0xFFFFFFFF
_IMAGE_GROUP = 0x28


def is_data_set(head: bytes) -> bool:
    """Whether a file starts with a data set instead of the preamble of a DICOM file.

    There is no mark to go by. So two elements or more are asked for, from group 0002 (the meta
    information) or 0008 on, in ascending order and with lengths that even short values have.

    Args:
      head: the first `BYTES` of the file, or all if it is shorter.
    """
    group = {b'\x02\0': 0x02, b'\x08\0': 0x08, b'\0\x08': 0x08}.get(head[:2])
    if group is None or head[128:132] == b'DICM':
        return False
    order: Literal['little', 'big'] = 'big' if head[0] == 0 else 'little'
    explicit = head[4:6].decode('latin-1') in _LONG | _SHORT
    if not explicit and (order == 'big' or group == 0x02):
        return False
    at, last, count = 0, (0, -1), 0
    while at + 12 <= len(head):
        tag = _number(head, at, 2, order), _number(head, at + 2, 2, order)
        if group == 0x02 and tag[0] != group:
            break  # behind the meta information, another encoding may follow
        if tag <= last:
            return False
        if tag[0] > _IMAGE_GROUP:
            break
        vr = head[at + 4 : at + 6].decode('latin-1')
        if not explicit:
            start, length = at + 8, _number(head, at + 4, 4, order)
        elif vr in _LONG:
            start, length = at + 12, _number(head, at + 8, 4, order)
        elif vr in _SHORT:
            start, length = at + 8, _number(head, at + 6, 2, order)
        else:
            return False
        count, last = count + 1, tag
        if length == _UNDEFINED:
            break  # a sequence
        if length % 2 or length > 1 << 16:
            return False
        at = start + length
    return count > 1


def _number(head: bytes, at: int, size: int, order: Literal['little', 'big']) -> int:
    return int.from_bytes(head[at : at + size], order)
