"""Traces, read by OpenTelemetry's own messages: what a collector would read of what it is posted."""
import http.server
import threading
import time

import pytest
from google.protobuf import duration_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from conftest import World

TRACE, PARENT = '4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'


class Collector(http.server.BaseHTTPRequestHandler):
    got = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        self.got.append((self.path, self.headers['content-type'], trace_service_pb2.ExportTraceServiceRequest.FromString(body)))
        answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header('content-type', 'application/x-protobuf')
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def told(tmp_path_factory, contract):
    """One exchange in a trace, its answer, and all that the collector got."""
    folder = tmp_path_factory.mktemp('traces')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    World(folder).stop()
    with open(folder / 'world' / 'mayfly.toml', 'a') as config:
        config.write(f'\n[traces]\notlp = "http://127.0.0.1:{server.server_port}/v1/traces"\nratio = 0\n')
    (folder / 'world' / 'ready.json').unlink(missing_ok=True)
    world = World(folder)
    try:
        terms = contract.tasks.TaskTerms(
            purpose='interop', upstreams=[contract.tasks.Allowance(upstream='echo', scopes=['echo:read'])], tools=['search'])
        ask = contract.tokens.ExchangeRequest(
            open_task=terms, upstream='echo', scopes=['echo:read'], tool='search', ttl=duration_pb2.Duration(seconds=60), request_id='t-1')
        with world.channel('agent/demo') as channel:
            tokens = contract.tokens_grpc.TokenServiceStub(channel)
            metadata = [('traceparent', f'00-{TRACE}-{PARENT}-01')]
            issued = tokens.Exchange(ask, timeout=10, metadata=metadata).issued
    finally:
        # What waits is handed over by the stop.
        world.stop()
        server.shutdown()
    yield issued, list(Collector.got)


def spans(got):
    return [span for _, _, request in got for of in request.resource_spans for scope in of.scope_spans for span in scope.spans]


def test_a_request_has_the_path_the_type_and_no_field_that_opentelemetry_does_not_know(told):
    _, got = told
    assert got
    for path, media_type, request in got:
        assert (path, media_type) == ('/v1/traces', 'application/x-protobuf')
        # A field that is not known would be kept aside, and be missing here.
        known = trace_service_pb2.ExportTraceServiceRequest.FromString(request.SerializeToString())
        request.DiscardUnknownFields()
        assert request == known
        [resource] = request.resource_spans
        about = {a.key: a.value.string_value for a in resource.resource.attributes}
        assert about['service.name'] == 'mayfly' and about['service.version'] and about['service.instance.id']


def test_the_call_is_below_its_callers_span_and_its_parts_below_it(told):
    issued, got = told
    [root] = [span for span in spans(got) if span.kind == trace_pb2.Span.SPAN_KIND_SERVER]
    assert (root.name, root.trace_id.hex(), root.parent_span_id.hex()) == ('mayfly.v1.TokenService/Exchange', TRACE, PARENT)
    about = {a.key: a.value for a in root.attributes}
    assert about['rpc.grpc.status_code'].int_value == 0 and about['rpc.grpc.status_code'].WhichOneof('value') == 'int_value'
    assert about['mayfly.seq'].int_value == issued.seq
    assert about['mayfly.credential.id'].string_value == issued.credential_id
    assert about['mayfly.request.id'].string_value == 't-1'
    assert about['mayfly.caller'].string_value == 'spiffe://dev.mayfly.internal/agent/demo'
    parts = [span for span in spans(got) if span.parent_span_id == root.span_id]
    assert {'decide', 'mint', 'durable'} <= {part.name for part in parts}
    now = time.time_ns()
    for part in parts:
        assert part.trace_id == root.trace_id and part.kind == trace_pb2.Span.SPAN_KIND_INTERNAL and len(part.span_id) == 8
        assert root.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano
    assert now - 600_000_000_000 < root.start_time_unix_nano < now
    assert len({span.span_id for span in spans(got)}) == len(spans(got))
    assert root.flags & 1 and root.status.code == trace_pb2.Status.STATUS_CODE_UNSET
