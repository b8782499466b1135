"""Python's `websockets`: an echo server in one process, a client in this one. Prints microseconds for each message.

    bench_echo.py BYTES COUNT IN_FLIGHT
"""

import asyncio
import multiprocessing
import sys
import time

import websockets


def serve(pipe):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async def main():
        async with websockets.serve(echo, "127.0.0.1", 0, compression=None) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            await asyncio.Future()

    asyncio.run(main())


async def ask(port, size, count, window):
    async with websockets.connect(f"ws://127.0.0.1:{port}/", compression=None) as ws:
        message = bytes(size)
        begun = time.perf_counter()
        for _ in range(window):
            await ws.send(message)
        for _ in range(count - window):
            await ws.recv()
            await ws.send(message)
        for _ in range(window):
            await ws.recv()
        return (time.perf_counter() - begun) / count * 1e6


if __name__ == "__main__":
    size, count, window = map(int, sys.argv[1:])
    near, far = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(far,), daemon=True)
    server.start()
    print(asyncio.run(ask(near.recv(), size, count, window)))
