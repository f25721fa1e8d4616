"""Ways of damaging bytes, text and JSON; all randomness comes from the generator handed in."""

import copy
import json
from collections.abc import Sequence

import numpy as np

_BORDERS = (0, 1, 2, 7, 8, 9, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 31, (1 << 32) - 1)
_WIDTHS = (1, 2, 4, 8)


def data(rng: np.random.Generator, seed: bytes, others: Sequence[bytes] = (), upto=None) -> bytes:
    """Damages bytes in one to eight places.

    Args:
      rng: decides.
      seed: what to damage.
      others: what pieces may be taken from.
      upto: only the first so many bytes are damaged.
    """
    result = bytearray(seed)
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 2, 3, 6]))):
        end = min(len(result), upto or len(result))
        if not end:
            break
        at = int(rng.integers(end))
        size = int(rng.choice([1, 2, 4, 8, 16, 64, 256, 4096]))
        match rng.integers(9):
            case 0:
                result[at] ^= 1 << int(rng.integers(8))
            case 1:
                result[at] = int(rng.integers(256))
            case 2:
                width = int(rng.choice(_WIDTHS))
                value = int(rng.choice(_BORDERS)) & ((1 << 8 * width) - 1)
                order = 'little' if rng.integers(2) else 'big'
                result[at : at + width] = value.to_bytes(width, order)
            case 3:
                del result[at : at + size]
            case 4:
                result[at:at] = rng.bytes(min(size, 64))
            case 5:
                result[at:at] = result[at : at + size]
            case 6:
                other = int(rng.integers(len(result)))
                result[at : at + size] = result[other : other + size]
            case 7 if others:
                other = others[int(rng.integers(len(others)))]
                start = int(rng.integers(len(other) or 1))
                result[at : at + size] = other[start : start + size]
            case 8 if rng.integers(3) == 0:
                del result[at:]
            case _:
                result[at : at + size] = bytes([int(rng.choice([0, 255]))]) * size
    return bytes(result)


def text(rng: np.random.Generator, seed: str, tokens: Sequence[str]) -> str:
    """Damages text in one to eight places: characters, tokens, lines, or where it ends."""
    for _ in range(int(rng.choice([1, 1, 1, 1, 2, 2, 3, 6]))):
        at, to = sorted(int(n) for n in rng.integers(0, len(seed) + 1, 2))
        token = tokens[int(rng.integers(len(tokens)))]
        lines = seed.splitlines(keepends=True)
        match rng.integers(8):
            case 0:
                seed = seed[:at] + token + seed[at:]
            case 1:
                seed = seed[:at] + token + seed[at + len(token) :]
            case 2:
                seed = seed[:at] + seed[at + 1 :]
            case 3:
                seed = seed[:at] + seed[min(to, at + 40) :]
            case 4:
                seed = seed[:at] if rng.integers(3) == 0 else seed[:at] + seed[at : at + 9] * 2
            case 5 if lines:
                line = lines[int(rng.integers(len(lines)))]
                lines.insert(int(rng.integers(len(lines) + 1)), line)
                seed = ''.join(lines)
            case 6 if lines:
                lines.pop(int(rng.integers(len(lines))))
                seed = ''.join(lines)
            case _:
                odd = chr(int(rng.choice([0, 9, 10, 13, 32, 34, 44, 0x663, 0xFEFF])))
                seed = seed[:at] + odd + seed[at:]
    return seed


STRANGE = (
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, float('nan'), float('inf'), 10**9, 10**18,
    10**30, 10**400, '', '0.5', 'x', '../../../etc/passwd', '<script>alert(1)</script>', 'a\nb',
    '\0', [], [1], [[]], {}, {'a': {}}, [1, 2, 3, 4], ['horizontal'], [10**12] * 4, 'bfloat16',
)  # fmt: skip


def tree(rng: np.random.Generator, seed):
    """Changes, removes or adds values somewhere in what JSON can hold."""
    seed = copy.deepcopy(seed)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        node = seed
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[int(rng.integers(len(keys)))]
            child = node[key]
            if isinstance(child, dict | list) and child and rng.integers(8):
                node = child
                continue
            value = copy.deepcopy(STRANGE[int(rng.integers(len(STRANGE)))])
            match rng.integers(8):
                case 0:
                    del node[key]
                case 1 if isinstance(node, dict):
                    node[f'{key}x'] = value
                case 2 if isinstance(child, int | float) and not isinstance(child, bool):
                    node[key] = child * int(rng.choice([-1, 2, 10**6])) + int(rng.integers(-1, 2))
                case _:
                    node[key] = value
            break
    return seed


def json_bytes(rng: np.random.Generator, seed) -> bytes:
    """JSON of a damaged tree, or damaged JSON."""
    match rng.integers(10):
        case 0:
            depth = int(rng.choice([50, 500, 5_000, 100_000]))
            return b'[' * depth + b']' * depth * int(rng.integers(2))
        case 1 | 2 | 3:
            return data(rng, json.dumps(seed, indent=2).encode())
        case 4:
            return json.dumps(STRANGE[int(rng.integers(len(STRANGE)))]).encode()
        case _:
            return json.dumps(tree(rng, seed)).encode()
