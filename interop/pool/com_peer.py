"""A member as the seed's system is one: aiohttp and msgpack, the maps and the bookkeeping of its published `com`.

    com_peer.py bind             listens at a free port, prints it, and answers until standard input ends
    com_peer.py client PORT      connects, asks, is asked, and prints what came back as JSON
    com_peer.py unix-client PATH the same over a Unix socket, with the delimiter
"""

import asyncio
import json
import os
import sys

import aiohttp
import aiohttp.web
import msgpack

DELIMITER = b"d\xff\xcfCO)\xfe="


class Member:
    """One connection: what is sent, and the replies that are waited for."""

    def __init__(self, send):
        self.send = send
        self.waiting = {}

    async def ask(self, msg):
        tag = os.urandom(16)
        queue = self.waiting[tag] = asyncio.Queue()
        await self.send(msgpack.dumps({"msg": msg, "done": True, "stag": tag}, use_bin_type=True))
        answers, came, count = [], 0, None
        while count is None or came < count:
            part = await queue.get()
            came += 1
            if part["done"]:
                count = part["count"]
            if not part.get("eof"):
                answers.append(part["msg"])
        return answers

    async def heard(self, data):
        data = msgpack.loads(data, raw=False)
        if "rtag" in data:
            self.waiting[data["rtag"]].put_nowait(data)
            return
        base = {"rtag": data.get("stag")}
        msg = data["msg"]
        if isinstance(msg, dict) and "stream" in msg:
            for n in range(1, msg["stream"] + 1):
                await self.reply({"msg": n, "done": False, "count": n, **base})
            await self.reply({"msg": "", "done": True, "count": msg["stream"] + 1, "eof": True, **base})
        else:
            await self.reply({"msg": msg, "done": True, "count": 1, **base})

    async def reply(self, part):
        await self.send(msgpack.dumps(part, use_bin_type=True))


async def reading(ws, member):
    tasks = set()
    async for message in ws:
        if message.type == aiohttp.WSMsgType.BINARY:
            task = asyncio.ensure_future(member.heard(message.data))
            tasks.add(task)
            task.add_done_callback(lambda task: (tasks.discard(task), task.result()))


async def talk(member):
    said = {
        "echo": await member.ask("No one expects the Spanish Inquisition!"),
        "stream": await member.ask({"stream": 3}),
        "none": await member.ask({"none": True}),
        "bytes": [bytes(answer).hex() for answer in await member.ask(b"\x00\xff")],
        "many": len([await member.ask(n) for n in range(100)]),
        "meta": await member.ask({"meta": {"role": "seed"}}) and await member.ask("meta"),
    }
    print(json.dumps(said), flush=True)


async def client(port):
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}/ws") as ws:
            member = Member(ws.send_bytes)
            read = asyncio.ensure_future(reading(ws, member))
            await talk(member)
            await read


async def unix_client(path):
    reader, writer = await asyncio.open_unix_connection(path)

    async def send(data):
        writer.write(data + DELIMITER)
        await writer.drain()

    async def read():
        while True:
            try:
                data = await reader.readuntil(DELIMITER)
            except asyncio.IncompleteReadError:
                return
            await member.heard(data[: -len(DELIMITER)])

    member = Member(send)
    task = asyncio.ensure_future(read())
    await talk(member)
    await task


async def bind():
    async def handle(request):
        ws = aiohttp.web.WebSocketResponse(heartbeat=5.0)
        await ws.prepare(request)
        await reading(ws, Member(ws.send_bytes))
        return ws

    app = aiohttp.web.Application()
    app.router.add_get("/ws", handle)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    role = sys.argv[1]
    asyncio.run(bind() if role == "bind" else client(int(sys.argv[2])) if role == "client" else unix_client(sys.argv[2]))
