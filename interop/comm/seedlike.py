"""What the programs of seed 003 have in common: the classes of their answers, under the names that stand in their YAML."""

import sys
import types

import pika

module = types.ModuleType("occo.util.communication.comm")


class Response:
    def __init__(self, http_code, data, finalize=True):
        self.http_code, self.data, self.finalize = http_code, data, finalize

    def check(self):
        if 200 <= self.http_code <= 299:
            return
        raise RuntimeError(f"{self.http_code} {self.data}")


class ExceptionResponse(Response):
    def check(self):
        raise self.data


for name in ("occo", "occo.util", "occo.util.communication"):
    sys.modules[name] = types.ModuleType(name)
sys.modules[module.__name__] = module
for cls in (Response, ExceptionResponse):
    cls.__module__ = module.__name__
    setattr(module, cls.__name__, cls)


def connect(port):
    credentials = pika.PlainCredentials("test", "test")
    return pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", int(port), "test", credentials))
