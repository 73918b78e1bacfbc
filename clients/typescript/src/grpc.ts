/**
 * Calls generated methods over a grpc-js client: the path and the two codecs of each come from its descriptor.
 *
 * @module
 */
import type { CallOptions, Client, ClientDuplexStream, ClientReadableStream, ClientUnaryCall, Metadata, ServiceError } from '@grpc/grpc-js';
import {
  fromBinary, toBinary, type DescMessage, type DescMethodBiDiStreaming, type DescMethodServerStreaming, type DescMethodUnary, type MessageShape,
} from '@bufbuild/protobuf';

const encoder = <D extends DescMessage>(schema: D) => (message: MessageShape<D>) => Buffer.from(toBinary(schema, message));
const decoder = <D extends DescMessage>(schema: D) => (bytes: Buffer) => fromBinary(schema, bytes);
const path = (method: { parent: { typeName: string }; name: string }) => `/${method.parent.typeName}/${method.name}`;

/** Calls a unary method. */
export function callUnary<I extends DescMessage, O extends DescMessage>(
  client: Client, method: DescMethodUnary<I, O>, request: MessageShape<I>, metadata: Metadata, options: CallOptions,
  answered: (error: ServiceError | null, answer?: MessageShape<O>) => void,
): ClientUnaryCall {
  return client.makeUnaryRequest(path(method), encoder(method.input), decoder(method.output), request, metadata, options, answered);
}

/** Calls a server-streaming method. */
export function openServerStream<I extends DescMessage, O extends DescMessage>(
  client: Client, method: DescMethodServerStreaming<I, O>, request: MessageShape<I>, metadata: Metadata,
): ClientReadableStream<MessageShape<O>> {
  return client.makeServerStreamRequest(path(method), encoder(method.input), decoder(method.output), request, metadata);
}

/** Calls a bidirectional streaming method. */
export function openDuplex<I extends DescMessage, O extends DescMessage>(
  client: Client, method: DescMethodBiDiStreaming<I, O>, metadata: Metadata,
): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
  return client.makeBidiStreamRequest(path(method), encoder(method.input), decoder(method.output), metadata);
}
