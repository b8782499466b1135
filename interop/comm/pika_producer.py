"""Pushes and calls as seed 003's programs do. Arguments: the broker's port, the queue, `push` or `call`; on standard input a JSON list of
bodies. Prints what each call came to as JSON: ["result", data], or ["error", text]."""

import json
import sys
import uuid

import pika
import yaml

from seedlike import connect

port, queue, what = sys.argv[1:]
connection = connect(port)
channel = connection.channel()
replies = channel.queue_declare("", exclusive=True).method.queue
answers = {}
channel.basic_consume(replies, lambda _c, _m, p, body: answers.update({p.correlation_id: body}), auto_ack=True)

for data in json.load(sys.stdin):
    channel.queue_declare(queue, auto_delete=False)
    if what == "push":
        channel.basic_publish("", queue, yaml.dump(data))
        continue
    correlation = str(uuid.uuid4())
    properties = pika.BasicProperties(reply_to=replies, correlation_id=correlation)
    channel.basic_publish("", queue, yaml.dump(data), properties)
    while correlation not in answers:
        connection.process_data_events(time_limit=1)
    response = yaml.load(answers[correlation], Loader=yaml.Loader)
    try:
        response.check()
        print(json.dumps(["result", response.data]), flush=True)
    except Exception as error:
        print(json.dumps(["error", str(error)]), flush=True)
connection.close()
