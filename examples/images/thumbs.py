"""Makes a grey thumbnail of each picture, with nothing but Python's standard library.

usage: thumbs.py PICTURES OUT

Pictures are PNG files of 8 bits a channel, without interlacing (PNG, third edition). With BACNODE_PARTITION_COUNT in the
environment every run takes its share of them. Prints a line for each.
"""

import os
import struct
import sys
import zlib
from pathlib import Path

SIDE = 64  # of a thumbnail, at most
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # grey, RGB, grey and alpha, RGB and alpha


def read_png(path):
    """Width, height, channels, and the rows as bytes."""
    data = path.read_bytes()
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG file")
    at, packed, header = 8, b"", None
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        elif kind == b"IEND":
            break
    width, height, depth, colour, _, _, interlaced = header
    if depth != 8 or colour not in CHANNELS or interlaced:
        raise ValueError("only 8 bits a channel, without a palette and interlacing")
    channels = CHANNELS[colour]
    return width, height, channels, unfilter(zlib.decompress(packed), width * channels, height, channels)


def unfilter(raw, stride, height, step):
    """Undoes each row's filter (PNG 9.2)."""
    rows, before = [], bytes(stride)
    for y in range(height):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            left = row[x - step] if x >= step else 0
            above, corner = before[x], before[x - step] if x >= step else 0
            row[x] = row[x] + [0, left, above, (left + above) // 2, paeth(left, above, corner)][kind] & 255
        rows.append(bytes(row))
        before = rows[-1]
    return rows


def paeth(left, above, corner):
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def thumbnail(width, height, channels, rows):
    """The mean brightness of the pixels that fall into each pixel of the thumbnail."""
    scale = max(1, -(-max(width, height) // SIDE))
    small = []
    for top in range(0, height - scale + 1, scale) or [0]:
        line = bytearray()
        for left in range(0, width - scale + 1, scale) or [0]:
            total = count = 0
            for y in range(top, min(top + scale, height)):
                for x in range(left, min(left + scale, width)):
                    pixel = rows[y][x * channels : (x + 1) * channels]
                    # Rec. 601 luma, in thousandths.
                    total += 299 * pixel[0] + 587 * pixel[1] + 114 * pixel[2] if channels >= 3 else 1000 * pixel[0]
                    count += 1000
            line.append(total // count)
        small.append(bytes(line))
    return small


def write_png(path, rows):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def main(pictures, out):
    share = int(os.environ.get("BACNODE_PARTITION_INDEX", 0)), int(os.environ.get("BACNODE_PARTITION_COUNT", 1))
    failed = 0
    for number, path in enumerate(sorted(Path(pictures).glob("*.png"))):
        if number % share[1] != share[0]:
            continue
        try:
            width, height, channels, rows = read_png(path)
        except (ValueError, KeyError, TypeError, struct.error, zlib.error, IndexError) as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            failed = 1
            continue
        small = thumbnail(width, height, channels, rows)
        write_png(Path(out) / path.name, small)
        print(f"{path.name}: {width}x{height} -> {len(small[0])}x{len(small)}")
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
