"""Receives a message and a descriptor over the duct that it was started with, and writes into it."""

import json
import os
import socket

sock = socket.socket(fileno=int(os.environ["NATPIPE_DUCT"].removeprefix("fd:")))
data, fds, _, _ = socket.recv_fds(sock, 65536, 4)
assert data[0] == 0x54
text = json.loads(data[5:])
for fd in fds:
    os.write(fd, text.encode())

# And one the other way: with the first byte of a message that is written by itself.
reads, writes = os.pipe()
os.write(writes, b"from Python")
payload = json.dumps("take this").encode()
socket.send_fds(sock, [b"\x54" + len(payload).to_bytes(4, "big") + payload], [reads])
