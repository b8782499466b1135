"""Python's multiprocessing.Pipe in the plays of the bench: mp_pipe.py MODE SIZE COUNT prints seconds."""

import multiprocessing
import os
import sys
import time


def pin(core):
    if core < os.cpu_count():
        os.sched_setaffinity(0, {core})


def child(end, mode, size, count):
    pin(1)
    message = b"x" * size
    end.send(message)
    for _ in range(count):
        end.recv()
        if mode == "round-trip":
            end.send(message)
    if mode == "one-way":
        end.send(message)


def main():
    pin(0)
    mode, size, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=child, args=(theirs, mode, size, count))
    process.start()
    message = b"x" * size
    ours.recv()
    begun = time.perf_counter()
    for _ in range(count):
        ours.send(message)
        if mode == "round-trip":
            ours.recv()
    if mode == "one-way":
        ours.recv()
    print(time.perf_counter() - begun)
    process.join()


main()
