"""One end of a duct by Python's ductworks, which sends back whatever it receives:

    ductworks_end.py parent|child unix PATH
    ductworks_end.py parent|child tcp HOST PORT

A parent prints its address: a path, or HOST:PORT.
"""

import sys

from ductworks.message_duct import MessageDuctChild, MessageDuctParent, RemoteDuctClosed


def parent(kind, where):
    if kind == "unix":
        duct = MessageDuctParent.psuedo_anonymous_parent_duct(bind_address=where[0])
    else:
        duct = MessageDuctParent.psuedo_anonymous_tcp_parent_duct(where[0], int(where[1]))
    duct.bind()
    address = duct.listener_address
    print(address if kind == "unix" else f"{address[0]}:{address[1]}", flush=True)
    assert duct.listen(), "nobody came"
    return duct


def child(kind, where):
    if kind == "unix":
        duct = MessageDuctChild.psuedo_anonymous_child_duct(where[0])
    else:
        duct = MessageDuctChild.psuedo_anonymous_tcp_child_duct(where[0], int(where[1]))
    duct.connect()
    return duct


def main():
    role, kind, where = sys.argv[1], sys.argv[2], sys.argv[3:]
    duct = parent(kind, where) if role == "parent" else child(kind, where)
    try:
        while True:
            duct.send(duct.recv())
    except RemoteDuctClosed:
        duct.close()


main()
