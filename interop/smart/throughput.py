"""How many messages a second the published package carries: `receive` prints it, `send` sends."""

import asyncio
import sys
import time

import aiomsg


async def main(role, port, messages, size):
    sock = getattr(aiomsg, "Søcket")()
    if role == "send":
        await sock.connect("127.0.0.1", port)
        for n in range(messages):
            await sock.send(b"x" * size)
            if n % 1000 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(3600)
    await sock.bind("127.0.0.1", port)
    await sock.recv()
    begun = time.perf_counter()
    for _ in range(messages - 1):
        await sock.recv()
    print((messages - 1) / (time.perf_counter() - begun), flush=True)
    import os

    os._exit(0)


role, port, messages, size = sys.argv[1:]
asyncio.run(main(role, int(port), int(messages), int(size)))
