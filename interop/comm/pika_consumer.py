"""A consumer as seed 003's are. Arguments: the broker's port, the queue. Prints `ready`, then each pushed body as JSON.

A call says what is to be answered: {code: …, data: …}, {raise: text}, or anything else for an echo. It loads YAML as those
programs do, which builds any object: nothing that natpipe sends may need that."""

import json
import sys

import pika
import yaml

from seedlike import ExceptionResponse, Response, connect

connection = connect(sys.argv[1])
channel = connection.channel()
channel.queue_declare(sys.argv[2], auto_delete=False)
channel.basic_qos(prefetch_count=1)


def answer(body):
    if isinstance(body, dict) and "raise" in body:
        return ExceptionResponse(500, ValueError(body["raise"]))
    if isinstance(body, dict) and "code" in body:
        return Response(body["code"], body["data"])
    return Response(200, body)


def process(channel, method, properties, body):
    data = yaml.load(body, Loader=yaml.Loader)
    if properties.reply_to:
        text = yaml.dump(answer(data))
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, text, reply)
    else:
        print(json.dumps(data), flush=True)
    channel.basic_ack(method.delivery_tag)


channel.basic_consume(sys.argv[2], process)
print("ready", flush=True)
channel.start_consuming()
