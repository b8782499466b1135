"""A member written on `websockets`: asks natpipe, and answers what it is asked. Prints what came back as JSON."""

import asyncio
import json
import os
import sys

import msgpack
import websockets


async def main(url, token):
    headers = {"Authorization": f"Bearer {token}"}
    async with websockets.connect(url, additional_headers=headers) as ws:
        tag = os.urandom(16)
        await ws.send(msgpack.dumps({"msg": {"n": [1, 2.5, None, "é"]}, "done": True, "stag": tag, "meta": {"lang": "python"}}))
        mine = []
        async for data in ws:
            part = msgpack.loads(data)
            if "rtag" in part:
                assert part["rtag"] == tag, part
                mine.append(part)
                print(json.dumps(part["msg"]), flush=True)
            else:
                answer = {"msg": ["python", part["msg"]], "done": True, "rtag": part["stag"], "count": 1}
                await ws.send(msgpack.dumps(answer))


asyncio.run(main(sys.argv[1], sys.argv[2]))
