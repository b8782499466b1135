"""The rate of pika, written as well as its blocking connection allows. Arguments: the broker's port, `confirmed`, `unconfirmed` or
`calls`, how many. Prints how many a second."""

import sys
import threading
import time
import uuid

import pika
import yaml

from seedlike import Response, connect

port, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
TEXT = "a message of some length, as they are"
Loader = getattr(yaml, "CLoader", yaml.Loader)
Dumper = getattr(yaml, "CDumper", yaml.Dumper)


def pushes(confirmed):
    connection = connect(port)
    channel = connection.channel()
    queue = channel.queue_declare("", exclusive=True).method.queue
    if confirmed:
        channel.confirm_delivery()
    begun = time.perf_counter()
    for _ in range(count):
        channel.basic_publish("", queue, yaml.dump(TEXT, Dumper=Dumper), mandatory=confirmed)
    while channel.queue_declare(queue, passive=True).method.message_count < count:
        pass
    return count / (time.perf_counter() - begun)


def serve(queue, ready):
    channel = connect(port).channel()
    channel.queue_declare(queue)
    channel.basic_qos(prefetch_count=64)

    def process(channel, method, properties, body):
        text = yaml.dump(Response(200, yaml.load(body, Loader=Loader)), Dumper=Dumper)
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, text, reply)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(queue, process)
    ready.set()
    channel.start_consuming()


def calls():
    queue, ready = str(uuid.uuid4()), threading.Event()
    threading.Thread(target=serve, args=(queue, ready), daemon=True).start()
    ready.wait()
    connection = connect(port)
    channel = connection.channel()
    replies = channel.queue_declare("", exclusive=True).method.queue
    answers = {}
    channel.basic_consume(replies, lambda _c, _m, p, body: answers.update({p.correlation_id: body}), auto_ack=True)
    begun = time.perf_counter()
    for _ in range(count):
        correlation = str(uuid.uuid4())
        properties = pika.BasicProperties(reply_to=replies, correlation_id=correlation)
        channel.basic_publish("", queue, yaml.dump(TEXT, Dumper=Dumper), properties)
        while correlation not in answers:
            connection.process_data_events(time_limit=1)
        assert yaml.load(answers.pop(correlation), Loader=Loader).data == TEXT
    return count / (time.perf_counter() - begun)


print(calls() if what == "calls" else pushes(what == "confirmed"))
