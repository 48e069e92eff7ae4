"""Draws the pictures in `photos`: six patterns in colour, 320 by 240, each a formula."""

import math
import struct
import sys
import zlib
from pathlib import Path

sys.dont_write_bytecode = True
WIDTH, HEIGHT = 320, 240


def julia(x, y):
    z, turns = complex((x - WIDTH / 2) / 90, (y - HEIGHT / 2) / 90), 0
    while abs(z) < 2 and turns < 40:
        z, turns = z * z + complex(-0.8, 0.156), turns + 1
    return turns * 6, turns * 3, 255 - turns * 6


PATTERNS = {
    "waves": lambda x, y: (int(127 + 127 * math.sin(x / 17)), int(127 + 127 * math.sin(y / 23)), 160),
    "rings": lambda x, y: (int(127 + 127 * math.cos(math.hypot(x - 160, y - 120) / 7)),) * 2 + (90,),
    "board": lambda x, y: (230, 220, 190) if (x // 40 + y // 40) % 2 else (90, 60, 40),
    "ramp": lambda x, y: (x * 255 // WIDTH, y * 255 // HEIGHT, 255 - x * 255 // WIDTH),
    "julia": julia,
    "weave": lambda x, y: ((x ^ y) & 255, (x * 3 ^ y) & 255, (x ^ y * 3) & 255),
}


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


for name, colour in PATTERNS.items():
    raw, before = bytearray(), bytes(WIDTH * 3)
    for y in range(HEIGHT):
        row = bytes(channel for x in range(WIDTH) for channel in colour(x, y))
        # Each kind of filter in turn, as a real encoder would have them.
        kind = y % 3
        left = bytes(3) + row[:-3]
        raw.append(kind)
        raw += bytes(value - (0, left[i], before[i])[kind] & 255 for i, value in enumerate(row))
        before = row
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(raw), 9)) + chunk(b"IEND", b"")
    (Path(__file__).parent / "photos" / f"{name}.png").write_bytes(png)
