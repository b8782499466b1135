"""aioice gathers candidates with a STUN server. Arguments: its address and port. Prints the candidates as JSON."""

import asyncio
import json
import sys

from aioice import Connection


async def main():
    connection = Connection(ice_controlling=True, stun_server=(sys.argv[1], int(sys.argv[2])), use_ipv6=False)
    await connection.gather_candidates()
    print(json.dumps([[candidate.type, candidate.host, candidate.port] for candidate in connection.local_candidates]))
    await connection.close()


asyncio.run(main())
