// Doubles of what a client talks to: an exchange listener that answers what a test wants, and the SPIFFE agent of a machine.
import { readFileSync, rmSync } from 'node:fs';
import { connect, createServer, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net';
import { join } from 'node:path';
import { X509Certificate, createPrivateKey } from 'node:crypto';
import {
  Metadata, Server, ServerCredentials, status as Code, type sendUnaryData, type ServerUnaryCall, type ServerWritableStream,
} from '@grpc/grpc-js';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { anyPack, DurationSchema, timestampFromMs } from '@bufbuild/protobuf/wkt';
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from '#dist/gen/google/rpc/status_pb.js';
import {
  BatchExchangeRequestSchema, BatchExchangeResponseSchema, ExchangeRequestSchema, ExchangeResponseSchema, type BatchExchangeRequest, type ExchangeRequest,
} from '#dist/gen/mayfly/v1/token_service_pb.js';
import { IssuedSchema } from '#dist/gen/mayfly/v1/issued_pb.js';
import { SpiffeWorkloadAPI, X509SVIDResponseSchema } from '#dist/gen/spiffe/workload_pb.js';
import type { SvidPaths, World } from './kit.js';

/** An answer that is a refusal: a code and reason, and when to try again. `silent`: none at all. */
export type Answer = 'issue' | 'silent' | { code: Code; reason?: string; retryMs?: number; message?: string };

/** An exchange listener with the SVID of a real world's CA. */
export class ExchangeDouble {
  readonly asked: { request: ExchangeRequest; at: number }[] = [];
  readonly batches: BatchExchangeRequest[] = [];
  readonly #server = new Server();
  #answers: Answer[] = [];
  port = 0;

  async up(world: World): Promise<this> {
    const { svid, key } = world.mint('mayfly', join(world.folder, 'double'));
    const unary = (name: string) => ({
      path: `/mayfly.v1.TokenService/${name}`, requestStream: false as const, responseStream: false as const, requestSerialize: (b: Buffer) => b,
      requestDeserialize: (b: Buffer) => b, responseSerialize: (b: Buffer) => b, responseDeserialize: (b: Buffer) => b,
    });
    this.#server.addService({ exchange: unary('Exchange'), batch: unary('BatchExchange') }, {
      exchange: (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => this.#exchange(call.request, answer),
      batch: (call: ServerUnaryCall<Buffer, Buffer>, answer: sendUnaryData<Buffer>) => this.#batch(call.request, answer),
    });
    const pair = { private_key: readFileSync(key), cert_chain: readFileSync(svid) };
    const credentials = ServerCredentials.createSsl(readFileSync(world.file('bundle.pem')), [pair], true);
    this.port = await new Promise<number>((resolve, reject) =>
      this.#server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port))));
    return this;
  }

  /** What the next calls are answered; after them everything is issued. */
  next(...answers: Answer[]): void {
    this.asked.length = 0;
    this.batches.length = 0;
    this.#answers = answers;
  }

  down(): void {
    this.#server.forceShutdown();
  }

  #exchange(bytes: Buffer, answer: sendUnaryData<Buffer>): void {
    const request = fromBinary(ExchangeRequestSchema, bytes);
    this.asked.push({ request, at: performance.now() });
    const how = this.#answers.shift() ?? 'issue';
    if (how === 'silent') return;
    if (how !== 'issue') return answer(refusal(how), null);
    answer(null, Buffer.from(toBinary(ExchangeResponseSchema, create(ExchangeResponseSchema, { issued: this.#issued(request) }))));
  }

  #batch(bytes: Buffer, answer: sendUnaryData<Buffer>): void {
    const batch = fromBinary(BatchExchangeRequestSchema, bytes);
    this.batches.push(batch);
    const how = this.#answers.shift() ?? 'issue';
    if (how === 'silent') return;
    if (how !== 'issue') return answer(refusal(how), null);
    const results = batch.exchanges.map((request) => ({ result: { case: 'issued' as const, value: this.#issued(request) } }));
    answer(null, Buffer.from(toBinary(BatchExchangeResponseSchema, create(BatchExchangeResponseSchema, { results }))));
  }

  #issued(request: ExchangeRequest) {
    const now = Date.now();
    return create(IssuedSchema, {
      answer: { case: 'bearerToken' as const, value: { token: 't', headerName: 'authorization', scheme: 'Bearer', baseUrl: 'http://x/' } },
      credentialId: `cred_${request.requestId}`, taskId: 'task_x', issuedAt: timestampFromMs(now), expiresAt: timestampFromMs(now + 60_000),
      scopes: request.scopes, upstream: request.upstream,
    });
  }
}

function refusal({ code, reason = 'NOT_READY', retryMs, message = 'no' }: Exclude<Answer, string>) {
  const info = create(ErrorInfoSchema, { reason, domain: 'mayfly.dev', metadata: { rule: 'the rule', way_out: 'ask somebody', approval_id: 'appr_x' } });
  const details = [anyPack(ErrorInfoSchema, info)];
  if (retryMs !== undefined) {
    const retryDelay = create(DurationSchema, { seconds: BigInt(Math.floor(retryMs / 1000)), nanos: (retryMs % 1000) * 1e6 });
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message, details }))));
  return { code, details: message, metadata };
}

/** The SPIFFE agent of a machine, on a Unix socket. */
export class AgentDouble {
  readonly socket: string;
  readonly #world: World;
  readonly #streams = new Set<ServerWritableStream<Buffer, Buffer>>();
  #server = new Server();
  #svid: SvidPaths;
  asked = 0;
  refused = 0;

  constructor(world: World, svid: SvidPaths) {
    this.#world = world;
    this.#svid = svid;
    this.socket = join(world.folder, 'agent.sock');
  }

  async up(): Promise<void> {
    rmSync(this.socket, { force: true });
    this.#server = new Server();
    const raw = (b: Buffer) => b;
    this.#server.addService({
      fetch: {
        path: `/${SpiffeWorkloadAPI.typeName}/${SpiffeWorkloadAPI.method.fetchX509SVID.name}`, requestStream: false, responseStream: true,
        requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
      },
    }, { fetch: (call: ServerWritableStream<Buffer, Buffer>) => this.#fetch(call) });
    await new Promise<void>((resolve, reject) =>
      this.#server.bindAsync(`unix:${this.socket}`, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve())));
  }

  /** Everybody gets another SVID. */
  rotate(svid: SvidPaths): void {
    this.#svid = svid;
    for (const stream of this.#streams) stream.write(this.#answer());
  }

  down(): void {
    this.#streams.clear();
    this.#server.forceShutdown();
  }

  #fetch(call: ServerWritableStream<Buffer, Buffer>): void {
    this.asked++;
    if (call.metadata.get('workload.spiffe.io')[0] !== 'true') {
      this.refused++;
      return void call.emit('error', { code: Code.INVALID_ARGUMENT, details: 'security header missing from request' });
    }
    this.#streams.add(call);
    call.on('cancelled', () => this.#streams.delete(call));
    call.write(this.#answer());
  }

  #answer(): Buffer {
    const pem = readFileSync(this.#svid.svid, 'utf8');
    const chain = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g)!.map((one) => new X509Certificate(one).raw);
    const key = createPrivateKey(readFileSync(this.#svid.key)).export({ type: 'pkcs8', format: 'der' });
    const spiffeId = new X509Certificate(pem).subjectAltName!.slice('URI:'.length);
    const bundle = new X509Certificate(readFileSync(this.#world.file('bundle.pem'))).raw;
    const own = spiffeId.split('/').slice(0, 3).join('/');
    const home = own === 'spiffe://dev.mayfly.internal';
    const answer = create(X509SVIDResponseSchema, {
      svids: [{ spiffeId, x509Svid: Buffer.concat(chain), x509SvidKey: key, bundle: home ? bundle : Buffer.alloc(0) }],
      federatedBundles: { 'spiffe://dev.mayfly.internal': bundle },
    });
    return Buffer.from(toBinary(X509SVIDResponseSchema, answer));
  }
}

/** A relay before a server whose answers can be lost, and that can be away. */
export class Relay {
  readonly #sockets = new Set<Socket>();
  #listener = createServer((from) => this.#join(from));
  #target: NetConnectOpts = { port: 0 };
  #port = 0;
  #mute = false;

  async up(address: string): Promise<this> {
    const at = address.lastIndexOf(':');
    this.#target = { host: address.slice(0, at), port: Number(address.slice(at + 1)) };
    await new Promise<void>((resolve) => this.#listener.listen(0, '127.0.0.1', resolve));
    this.#port = (this.#listener.address() as AddressInfo).port;
    return this;
  }

  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** From now on nothing that the server answers arrives. */
  mute(): void {
    this.#mute = true;
  }

  /** Nobody gets through, nobody answers. */
  away(): void {
    this.#listener.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  back(): void {
    this.#mute = false;
    this.#listener = createServer((from) => this.#join(from)).listen(this.#port, '127.0.0.1');
  }

  #join(from: Socket): void {
    const to = connect(this.#target);
    for (const [one, other] of [[from, to], [to, from]] as const) {
      this.#sockets.add(one);
      one.on('data', (data) => { if (one === from || !this.#mute) other.write(data); });
      one.on('error', () => undefined);
      one.on('close', () => { this.#sockets.delete(one); other.destroy(); });
    }
  }
}
