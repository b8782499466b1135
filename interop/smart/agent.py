"""The published package as a test agent: a source, a sink or an echo, at either end, with TLS or without.

Prints each received payload as a line, and ends after --count messages.
"""

import argparse
import asyncio
import os
import ssl

import aiomsg


def flags():
    parser = argparse.ArgumentParser()
    for name, default in [
        ("role", "connect"),
        ("host", "127.0.0.1"),
        ("port", "25000"),
        ("send-mode", "roundrobin"),
        ("behavior", "sink"),
        ("count", "10"),
        ("prefix", "m"),
        ("delivery", "at-most-once"),
        ("identity", None),
        ("linger", "1"),
        ("tls", "false"),
        ("tls-cert", None),
        ("tls-key", None),
        ("tls-ca", None),
        ("tls-server-name", None),
    ]:
        parser.add_argument("--" + name, default=default)
    return parser.parse_args()


def context(args):
    if args.tls != "true":
        return None
    if args.role == "bind":
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.load_cert_chain(args.tls_cert, args.tls_key)
        return made
    # The package has no way to say the server's name: the certificate is verified, its name is not.
    made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=args.tls_ca)
    made.check_hostname = False
    return made


async def run(args):
    sock = getattr(aiomsg, "Søcket")(
        send_mode=aiomsg.SendMode.PUBLISH if args.send_mode == "publish" else aiomsg.SendMode.ROUNDROBIN,
        delivery_guarantee=aiomsg.DeliveryGuarantee.AT_LEAST_ONCE
        if args.delivery == "at-least-once"
        else aiomsg.DeliveryGuarantee.AT_MOST_ONCE,
        identity=bytes.fromhex(args.identity) if args.identity else None,
    )
    begin = sock.bind if args.role == "bind" else sock.connect
    await begin(args.host, int(args.port), ssl_context=context(args))
    count = int(args.count)
    if args.behavior == "source":
        for n in range(count):
            await sock.send(f"{args.prefix}{n}".encode())
    else:
        for _ in range(count):
            sender, payload = await sock.recv_identity()
            print(payload.decode(), flush=True)
            if args.behavior == "echo":
                await sock.send(payload, identity=sender)
    await asyncio.sleep(float(args.linger))
    # Closing hangs at times (with a busy connection until its timeout, else for ever): this is the end.
    os._exit(0)


asyncio.run(run(flags()))
