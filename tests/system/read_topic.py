"""Prints what is in a topic of Kafka, one record of JSON a line, read by a client that is not ours."""

import json
import sys

from kafka import KafkaConsumer, TopicPartition

brokers, topic = sys.argv[1:]
consumer = KafkaConsumer(bootstrap_servers=brokers, consumer_timeout_ms=10_000, check_crcs=True)
partitions = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or []]
ends = consumer.end_offsets(partitions)
left = {partition for partition in partitions if ends[partition] > 0}
consumer.assign(partitions)
consumer.seek_to_beginning(*partitions)
while left:
    for partition, records in consumer.poll(timeout_ms=1000).items():
        for record in records:
            print(
                json.dumps(
                    {
                        "partition": record.partition,
                        "offset": record.offset,
                        "timestamp": record.timestamp,
                        "key": record.key.decode(),
                        "value": json.loads(record.value),
                    }
                )
            )
        # What is not a record, such as a mark of a transaction, has an offset too.
        if consumer.position(partition) >= ends[partition]:
            left.discard(partition)
consumer.close()
