"""Reads what an exporter of spans posts, by the protobuf definitions that OpenTelemetry publishes.

Reads an ExportTraceServiceRequest in base64 as a JSON string from stdin, a line each, and answers each with a list of its
spans: ids in hex, attributes as an object, those of the resource beside them. A field that the definitions do not know is
an error.
"""

import base64
import json
import sys

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def check(message):
    assert len(UnknownFieldSet(message)) == 0, message.DESCRIPTOR.full_name
    for field, value in message.ListFields():
        if field.message_type:
            for one in value if field.is_repeated else [value]:
                check(one)


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def read(span, resource, scope):
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "flags": span.flags,
        "name": span.name,
        "kind": Span.SpanKind.Name(span.kind),
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes(span.attributes),
        "links": [{"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()} for link in span.links],
        "status": {"code": Status.StatusCode.Name(span.status.code), "message": span.status.message},
        "resource": attributes(resource.attributes),
        "scope": scope.name,
    }


for line in sys.stdin:
    request = ExportTraceServiceRequest.FromString(base64.b64decode(json.loads(line)))
    check(request)
    spans = [
        read(span, of.resource, scoped.scope) for of in request.resource_spans for scoped in of.scope_spans for span in scoped.spans
    ]
    print(json.dumps(spans), flush=True)
