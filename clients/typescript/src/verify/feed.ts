/**
 * Reads the messages of the feed. A message that is not understood is an error: skipping it could miss a revocation.
 *
 * @module
 */
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import type { HeartbeatEvent, RuleEvent, WatchRevocationsResponse } from '../gen/mayfly/v1/feed_pb.js';
import type { Target as Wire } from '../gen/mayfly/v1/revocation_pb.js';
import { isTrustDomain, spiffeId } from '../spiffe.js';
import { isId } from './claims.js';
import { generationOf } from './follower.js';
import { FOREVER } from './rules.js';
import { svidIssuer, target, type Target } from './target.js';

/** One target of a rule, and until when the rule is kept. */
export interface RuleLine {
  readonly target: Target;
  readonly seq: number;
  readonly until: number;
}

/** The state that a feed begins with, or a part of it. */
export interface Snapshot {
  seq: number;
  readonly rules: RuleLine[];
  readonly holds: string[];
}

/** An event. */
export interface FeedEvent {
  readonly seq: number;
  readonly targets: readonly Target[];
  readonly until: number;
  readonly hold?: string;
  readonly resume?: string;
}

/** The end of one writer's chain of commits. */
export interface ChainHead {
  readonly writer: string;
  readonly commit: bigint;
  /** SHA-256 of that commit's header, hex. */
  readonly hash: string;
}

/** A sign that the feed is complete and fresh. Times are milliseconds. */
export interface Beat {
  /** The ends of the chains of commits, if the message has any. */
  readonly heads?: readonly ChainHead[];
  readonly head: number;
  readonly previous: number;
  readonly freshAt: number;
  readonly maxAge: number;
  readonly timeGeneration: number;
}

/** A message that was read. */
export type Message =
  | { readonly part: Snapshot; readonly last: boolean }
  | { readonly beat: Beat }
  | { readonly previous: number; readonly event: FeedEvent };

/** A message that is not understood. */
export class NotRead extends Error {
  override readonly name = 'NotRead';
}

/** The most chains of commits in a heartbeat: one per replica that ever wrote (mayfly's limit). */
const CHAIN_HEADS = 64;

const bad = (what: string) => new NotRead(`the feed sent ${what}`);

function seqOf(n: bigint): number {
  if (n < 0n || n >= 1n << 53n) throw bad('a seq above 2^53');
  return Number(n);
}

function millis(at: Timestamp): number {
  if (at.seconds < 0n || at.nanos < 0 || at.nanos >= 1e9) throw bad('a moment that is none');
  return Number(at.seconds) * 1000 + Math.floor(at.nanos / 1e6);
}

/** A heartbeat with a missing or negative validity is valid for no time at all. */
function age(span: Duration | undefined): number {
  return span ? Math.max(0, Number(span.seconds)) * 1000 + Math.floor(Math.max(0, span.nanos) / 1e6) : 0;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function digest(bytes: Uint8Array): string {
  if (bytes.length !== 32) throw bad('a digest that has not 32 bytes');
  return hex(bytes);
}

function name(text: string): string {
  // Names contain no control characters: such a rule would match nothing.
  if (text === '' || Buffer.byteLength(text) > 2048 || /\p{Cc}/u.test(text)) throw bad('a target without a name');
  return text;
}

function id(prefix: 'task_' | 'cred_', text: string): string {
  if (!isId(prefix, text)) throw bad(`what is no ${prefix} id`);
  return text;
}

function domain(text: string): string {
  if (!isTrustDomain(text)) throw bad('what is no trust domain');
  return text;
}

function workload(text: string): string {
  try {
    return spiffeId(text).id;
  } catch {
    throw bad('what is no SPIFFE ID');
  }
}

/** On the wire, the issuer of a SPIFFE ID is its trust domain's own id; in claims it is the domain's name. */
const issuer = (issuing: string, sub: string): string =>
  name(sub.startsWith('spiffe://') && issuing.startsWith('spiffe://') ? issuing.slice('spiffe://'.length) : issuing);

function readTarget({ target: aim }: Wire): Target {
  switch (aim.case) {
    case 'credentialId': return target('credential', id('cred_', aim.value));
    case 'taskId': return target('task', id('task_', aim.value));
    case 'caller': return target('caller', workload(aim.value));
    case 'spiffeIdPrefix': return target('prefix', workload(aim.value));
    case 'trustDomain': return target('trust-domain', domain(aim.value));
    case 'trustAnchor': return target('trust-anchor', digest(aim.value.sha256));
    case 'subject': return target('subject', issuer(aim.value.issuer, aim.value.sub), name(aim.value.sub));
    case 'upstream': return target('upstream', name(aim.value));
    case 'upstreamScope': return target('upstream-scope', name(aim.value.upstream), name(aim.value.scope));
    case 'binding': return target('binding', name(aim.value));
    case 'tool': return target('tool', name(aim.value));
    case 'environment': return target('environment', name(aim.value));
    case 'policyBelow': return target('policy-below', name(aim.value.environment), '', Number(aim.value.version));
    case 'signingKey': return target('signing-key', name(aim.value));
    case 'svid': {
      const { trustDomain, issuingKeySha256, serial } = aim.value;
      if (serial.length < 1 || serial.length > 20) throw bad('a serial that has not 1 to 20 bytes');
      return target('svid', hex(serial), svidIssuer(domain(trustDomain), digest(issuingKeySha256)));
    }
    case 'subjectToken': return target('subject-token', name(aim.value.issuer), name(aim.value.id));
    case 'everything': return target('everything');
    default: throw bad('a target of a sort that is not known');
  }
}

const until = (rule: RuleEvent): number => (rule.dropAfter ? millis(rule.dropAfter) : FOREVER);

function beatOf(head: number, previous: number, beat: HeartbeatEvent): Beat {
  if (!beat.freshAt) throw bad('a heartbeat without its time');
  const given = beat.timeGeneration;
  // Without this value, nothing of an older generation is taken for certain.
  const timeGeneration = given > 0 && given < 256 ? given : generationOf(head);
  if (beat.heads.length > CHAIN_HEADS) throw bad('more chains of commits than there can be');
  const heads = beat.heads.map(({ writer, commit, headerSha256 }) => ({ writer, commit, hash: digest(headerSha256) }));
  return { head, previous, freshAt: millis(beat.freshAt), maxAge: age(beat.maxAge), timeGeneration, heads };
}

/**
 * Reads a message.
 *
 * @throws NotRead - its content is unknown, so nothing after it is trusted
 */
export function readMessage(message: WatchRevocationsResponse): Message {
  const [seq, previous] = [seqOf(message.seq), seqOf(message.previousSeq)];
  const { event } = message;
  switch (event.case) {
    case 'snapshot': {
      const lines = event.value.rules.map((rule) => rule.targets.map((one) => ({ target: readTarget(one), seq: seqOf(rule.seq), until: until(rule) })));
      return { part: { seq, rules: lines.flat(), holds: event.value.holds.map((hold) => id('task_', hold.taskId)) }, last: event.value.last };
    }
    case 'heartbeat': return { beat: beatOf(seq, previous, event.value) };
    case 'rule': return { previous, event: { seq, targets: event.value.targets.map(readTarget), until: until(event.value) } };
    case 'hold': return { previous, event: { seq, targets: [], until: 0, hold: id('task_', event.value.taskId) } };
    case 'resume': return { previous, event: { seq, targets: [], until: 0, resume: id('task_', event.value.taskId) } };
    // Locks only prevent new grants, and these are decided by the server.
    case 'lock': case 'lift': return { previous, event: { seq, targets: [], until: 0 } };
    default: throw bad('an event of a sort that is not known');
  }
}
