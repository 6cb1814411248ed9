#!/usr/bin/env python3
"""Writes a small corpus for each fuzz target into corpus/ (not checked in)."""
import pathlib
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n"


def write(target, name, data):
    folder = ROOT / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def step(kind, data, length=None):
    return bytes([kind]) + struct.pack("<H", len(data) if length is None else length) + data


CLIENT, SERVER = 8, 9
write("http_reader", "one", b"\0" + step(CLIENT, GET) + step(SERVER, OK))
write("http_reader", "two", b"\0" + step(CLIENT, POST) + step(SERVER, CHUNKED) + step(CLIENT, GET) + step(SERVER, OK))
write("http_reader", "gap", b"\0" + step(CLIENT, GET) + step(1, b"", 40) + step(CLIENT, GET) + step(SERVER, OK))
write("http_reader", "joined", b"\1" + step(SERVER, b"tail") + step(CLIENT, GET) + step(SERVER, OK))


def piece(kind, distance, data):
    return bytes([kind, distance & 255, distance >> 8, len(data)]) + data


write("tcp_assembler", "reordered", struct.pack("<I", 2**32 - 3) + piece(2, 4, b"efgh") + piece(2, 0, b"abcd"))
write("tcp_assembler", "lost", struct.pack("<I", 7) + piece(0, 4, b"....") + piece(3, 2, b"cdef") + piece(2, 0, b"ab"))


def packet(flip, seq, ack, flags, data):
    a, b = (bytes([10, 0, 0, 1]), 4000), (bytes([10, 0, 0, 2]), 80)
    if flip:
        a, b = b, a
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0x4000, 64, 6, 0) + a[0] + b[0]
    return ip + struct.pack(">HHIIBBHHH", a[1], b[1], seq, ack, 0x50, flags, 1024, 0, 0) + data


PACKETS = [packet(0, 9, 0, 2, b""), packet(1, 19, 10, 18, b""), packet(0, 10, 20, 24, GET),
           packet(1, 20, 10 + len(GET), 24, OK)]
for order, name in (("<", "little"), (">", "big")):
    head = struct.pack(order + "IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    body = b"".join(struct.pack(order + "IIII", 1, i, len(p), len(p)) + p for i, p in enumerate(PACKETS))
    write("packet_file", f"pcap-{name}", head + body)

    def block(kind, content):
        content += b"\0" * (-len(content) % 4)
        length = struct.pack(order + "I", len(content) + 12)
        return struct.pack(order + "I", kind) + length + content + length

    ng = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    ng += block(1, struct.pack(order + "HHI", 101, 0, 0))
    ng += b"".join(block(6, struct.pack(order + "IIIII", 0, 0, i, len(p), len(p)) + p) for i, p in enumerate(PACKETS))
    write("packet_file", f"pcapng-{name}", ng)
