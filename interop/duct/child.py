"""One end of a natpipe duct in Python, with nothing but the standard library.

    child.py                              the duct that this process was started with (NATPIPE_DUCT)
    child.py --unix PATH | --tcp HOST:PORT

It sends back whatever it receives until the other end closes. A message is the byte 0x54, the length of the payload
in four bytes (big-endian), and the payload, which is JSON.
"""

import json
import os
import socket
import struct
import sys

MAGIC = 0x54
LIMIT = 64 << 20


class Duct:
    def __init__(self, sock):
        self.sock = sock
        self.reads = sock.makefile("rb")

    def send(self, thing):
        payload = json.dumps(thing).encode()
        self.sock.sendall(struct.pack(">BI", MAGIC, len(payload)) + payload)

    def recv(self):
        """The next object; EOFError when the other end has closed."""
        magic, length = struct.unpack(">BI", self._exactly(5))
        if magic != MAGIC:
            raise ValueError(f"a message begins with {magic:#x}")
        if length > LIMIT:
            raise ValueError(f"a message of {length} bytes")
        return json.loads(self._exactly(length))

    def _exactly(self, length):
        found = self.reads.read(length)
        if len(found) < length:
            raise EOFError("the other end is closed")
        return found


def connected(place):
    kind, _, rest = place.partition(":")
    if kind == "fd":
        # The descriptor says itself whether it is a Unix socket.
        return socket.socket(fileno=int(rest))
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def main():
    place = sys.argv[1][2:] + ":" + sys.argv[2] if len(sys.argv) == 3 else os.environ["NATPIPE_DUCT"]
    duct = Duct(connected(place))
    try:
        while True:
            duct.send(duct.recv())
    except EOFError:
        pass


main()
