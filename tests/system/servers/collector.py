"""A collector of OpenTelemetry: OTLP over gRPC, by the published package of its messages.

Prints the port that it has taken, then each span that it is sent as a line of JSON.
"""

import json
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def plain(attributes):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


class Collector(service.TraceServiceServicer):
    def Export(self, request, _):
        for resource_spans in request.resource_spans:
            resource = plain(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.keep(resource, span)
        return messages.ExportTraceServiceResponse()

    def keep(self, resource, span):
        seen = {
            "resource": resource,
            "name": span.name,
            "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            "trace": span.trace_id.hex(),
            "id": span.span_id.hex(),
            "parent": span.parent_span_id.hex(),
            "attributes": plain(span.attributes),
            "status": Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
            "took": span.end_time_unix_nano - span.start_time_unix_nano,
        }
        print(json.dumps(seen), flush=True)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
service.add_TraceServiceServicer_to_server(Collector(), server)
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
