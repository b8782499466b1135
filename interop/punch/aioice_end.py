"""One end of a punched UDP hole: ICE by aioice, the conversation before it as docs/protocols/punch.md has it.

aioice_end.py HOST PORT STUN_HOST STUN_PORT TIE: HOST:PORT leads to the other end, TIE decides who controls. It answers each
datagram with "aioice heard " before it, ends when the other end says "bye", and prints the pair that was nominated.
"""

import asyncio
import ipaddress
import struct
import sys

import aioice
from aioice.candidate import candidate_priority

VERSION = 5
HELLO, PING, PONG, OFFER = 1, 2, 3, 4
TCP, KIND, REFLEXIVE, IPV6 = 1, 6, 2, 8


class Channel:
    """Messages with their length in two bytes before them."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def say(self, kind, body=b""):
        message = bytes([VERSION, kind]) + body
        self.writer.write(struct.pack(">H", len(message)) + message)

    async def hear(self):
        (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        message = await self.reader.readexactly(length)
        assert message[0] == VERSION, message
        return message[1], message[2:]


def text(value):
    return bytes([len(value)]) + value.encode()


def hello(tie, connection):
    return struct.pack(">Q", tie) + text(connection.local_username) + text(connection.local_password)


def read_hello(body):
    (tie,), rest = struct.unpack(">Q", body[:8]), body[8:]
    ufrag, rest = rest[1 : 1 + rest[0]].decode(), rest[1 + rest[0] :]
    return tie, ufrag, rest[1 : 1 + rest[0]].decode()


def offer(candidates):
    """That these are all, the candidates, and nothing about the NAT."""
    body = bytes([0, len(candidates)])
    for candidate in candidates:
        flags = REFLEXIVE if candidate.type == "srflx" else 0
        body += bytes([flags]) + ipaddress.IPv4Address(candidate.host).packed + struct.pack(">H", candidate.port)
    return body + b"\0"


def read_offer(body):
    found, rest = [], body[2:]
    for at in range(body[1]):
        flags, size = rest[0], 16 if rest[0] & IPV6 else 4
        address, rest = ipaddress.ip_address(rest[1 : 1 + size]), rest[1 + size :]
        (port,), rest = struct.unpack(">H", rest[:2]), rest[2:]
        if flags & (TCP | IPV6):
            continue
        kind = "srflx" if flags & KIND == REFLEXIVE else "host"
        found.append(aioice.Candidate(str(at), 1, "udp", candidate_priority(1, kind), str(address), port, kind))
    return found


async def answer_pings(channel):
    while True:
        kind, _ = await channel.hear()
        if kind == PING:
            channel.say(PONG)


async def main(host, port, stun_host, stun_port, tie):
    connection = aioice.Connection(ice_controlling=True, stun_server=(stun_host, stun_port), use_ipv6=False)
    channel = Channel(*await asyncio.open_connection(host, port))
    channel.say(HELLO, hello(tie, connection))
    gathering = asyncio.create_task(connection.gather_candidates())
    theirs, known = None, None
    while theirs is None:
        kind, body = await channel.hear()
        if kind == HELLO:
            known = read_hello(body)
            channel.say(PONG)
            await gathering
            channel.say(OFFER, offer(connection.local_candidates))
        elif kind == PING:
            channel.say(PONG)
        elif kind == OFFER:
            theirs = read_offer(body)
    their_tie, connection.remote_username, connection.remote_password = known
    connection.ice_controlling = tie > their_tie
    for candidate in theirs:
        await connection.add_remote_candidate(candidate)
    await connection.add_remote_candidate(None)
    answering = asyncio.create_task(answer_pings(channel))
    await connection.connect()
    heard = b""
    while heard != b"bye":
        heard = await connection.recv()
        await connection.send(b"aioice heard " + heard)
    pair = connection._nominated[1]
    print("controlling" if connection.ice_controlling else "controlled", pair.local_addr[0], pair.remote_addr[0], flush=True)
    answering.cancel()
    await connection.close()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
