"""aionetiface against a STUN server of four sockets: its mapping over UDP and TCP in both forms, and its NAT test.

Arguments: the two addresses and the two ports of the server. Prints JSON.
"""

import asyncio
import json
import sys

from aionetiface import IP4, TCP, UDP, Interface, Pipe
from aionetiface.nic.nat.nat_test import fast_nat_test_round
from aionetiface.protocol.stun.stun_client import STUNClient
from aionetiface.protocol.stun.stun_defs import RFC3489, RFC5389


async def main():
    first, second, port, other = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    nic = await Interface("default")
    said = {}
    for form, mode in (("3489", RFC3489), ("5389", RFC5389)):
        for name, proto in (("udp", UDP), ("tcp", TCP)):
            client = STUNClient(IP4, (first, port), nic, proto=proto, mode=mode)
            said[f"{name}-{form}"] = await client.get_wan_ip()
    corners = [{"ip": ip, "port": number} for ip in (first, second) for number in (port, other)]
    route = await nic.route(IP4).bind()
    pipe = await Pipe(UDP, route=route).connect()
    # It wants two servers to agree: the same one twice.
    said["nat"] = await fast_nat_test_round(pipe, 2, 2, [corners, corners])
    print(json.dumps(said))


asyncio.run(main())
