/**
 * A credential in use, for as long as the block that asked for it.
 *
 * @module
 */
import { inspect } from 'node:util';
import { kindName, type Kind } from './ask.js';
import { LifeBound, Novelty, type Issued } from './gen/mayfly/v1/issued_pb.js';
import { millis, type Holding } from './issuance.js';
import { CredentialHeaders, Secret } from './secret.js';

/**
 * How a use went: the HTTP status of the upstream, or one of the words. 401 and 403 count as refused, other statuses from 400 on as failed,
 * and all others as accepted.
 */
export type Outcome = number | 'accepted' | 'refused' | 'failed';

/**
 * Several credentials, one for each request and in their order. Releasing them, or the end of an `await using` block, releases all.
 */
export type Credentials<Asks extends readonly unknown[]> = { readonly [N in keyof Asks]: Credential } & AsyncDisposable & { release(): Promise<void> };

/** Credentials as one thing to release. */
export function together(all: Credential[]): Credential[] & AsyncDisposable & { release(): Promise<void> } {
  const release = async () => { await Promise.all(all.map((one) => one.release())); };
  return Object.defineProperties(all, { release: { value: release }, [Symbol.asyncDispose]: { value: release } }) as ReturnType<typeof together>;
}

/** One use of a credential. */
export interface Use {
  /** How it went. */
  readonly outcome: Outcome;
  /** The tool that used the credential. Absent: the tool it was asked for. */
  readonly tool?: string;
}

/** A login to a database. */
export interface DatabaseLogin {
  readonly host: string;
  readonly port: number;
  /** May be empty. */
  readonly database: string;
  readonly user: string;
  readonly password: Secret;
  /** The roots of the server's certificate, PEM. Empty: those of the system. */
  readonly serverCaPem: string;
  /** The server takes no TLS, as only one on the host of mayfly may. */
  readonly plaintext: boolean;
}

/** An X.509 certificate for the key of the request. */
export interface Certificate {
  /** The certificate and its chain without the root, DER, leaf first. */
  readonly chain: readonly Uint8Array[];
  /** The root, DER. */
  readonly root: Uint8Array;
}

/** An SSH certificate for the key of the request. */
export interface SshCertificate {
  /** As in a `-cert.pub` file. */
  readonly certificate: string;
  /** The key of the authority, as in `authorized_keys`. */
  readonly authority: string;
  /** The names under which it may log in. */
  readonly principals: readonly string[];
}

/** Temporary AWS keys. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
  readonly sessionToken: Secret;
  /** May be empty. */
  readonly region: string;
}

/** The client that a credential came from. */
export interface Giver {
  /** Notes a use. */
  use(holding: Holding, use: Use): void;
  /** Replaces the credential by a new one. */
  renew(holding: Holding): Promise<void>;
  /** Notes that one holder released the credential. */
  leave(holding: Holding): Promise<void>;
}

/**
 * A credential. `await using` releases it at the end of the block; where that syntax is not available, call {@link Credential.release}.
 *
 * When printed, logged or serialized, it shows ids and times, and never the secret part.
 */
export class Credential implements AsyncDisposable {
  readonly #holding: Holding;
  readonly #giver: Giver;
  #left: Promise<void> | undefined;

  /** @internal */
  constructor(holding: Holding, giver: Giver) {
    this.#holding = holding;
    this.#giver = giver;
  }

  get #issued(): Issued {
    return this.#holding.current.issued;
  }

  /** The id of the credential: the `jti` of a JWT. A name, not a secret. */
  get credentialId(): string {
    return this.#issued.credentialId;
  }

  /** The task of the credential, including a task that was opened with it. */
  get taskId(): string {
    return this.#issued.taskId;
  }

  /** The upstream that the credential is for. */
  get upstream(): string {
    return this.#issued.upstream;
  }

  /** The kind of credential. */
  get kind(): Kind | undefined {
    return kindName(this.#issued.kind);
  }

  /** The scopes: those that were asked for. */
  get scopes(): readonly string[] {
    return this.#issued.scopes;
  }

  /** When the credential expires, by the server's clock. */
  get expiresAt(): Date {
    return new Date(millis(this.#issued.expiresAt));
  }

  /** The remaining lifetime in seconds, by the wall clock or the monotonic clock, whichever shows less. */
  get remaining(): number {
    return Math.max(0, this.#holding.current.left) / 1000;
  }

  /** The lifetime counted from the decision, in seconds. */
  get lifetime(): number {
    return this.#holding.current.life / 1000;
  }

  /** The limit that determined the lifetime, for people: for example `upstream` or `the approval appr_…`. */
  get boundBy(): string {
    return this.#issued.boundBy || (LifeBound[this.#issued.bound] ?? '').toLowerCase();
  }

  /** The approval that was used. Empty: none was needed. */
  get approvalId(): string {
    return this.#issued.approvalId;
  }

  /** The credential was issued for an earlier attempt of the same request. */
  get repeated(): boolean {
    return this.#issued.novelty !== Novelty.NEW;
  }

  get #bearer() {
    return this.#of('bearerToken', 'header');
  }

  #of<C extends NonNullable<Issued['answer']['case']>>(wanted: C, what: string): Extract<Issued['answer'], { case: C }>['value'] {
    const { answer } = this.#issued;
    if (answer.case === wanted) return answer.value as never;
    throw new TypeError(`a credential of the kind ${this.kind} has no ${what}: it has a ${answer.case}`);
  }

  /**
   * The headers that present the credential, like `{ authorization: "Bearer …" }`; ready for `fetch`.
   *
   * @throws TypeError - this kind of credential is not sent in a header
   */
  get headers(): CredentialHeaders {
    const { headerName, scheme, token } = this.#bearer;
    return new CredentialHeaders({ [headerName]: scheme === '' ? token : `${scheme} ${token}` });
  }

  /** The only place where the credential may be sent: a URL without a slash at its end. */
  get baseUrl(): string {
    return this.#bearer.baseUrl.replace(/\/+$/, '');
  }

  /** The token itself, for anything that takes no headers. */
  get token(): Secret {
    return new Secret(this.#bearer.token);
  }

  /** For the kinds postgres, mysql and redis. */
  get login(): DatabaseLogin {
    const { host, port, database, user, password, serverCaPem, plaintext } = this.#of('databaseLogin', 'login');
    return { host, port, database, user, password: new Secret(password), serverCaPem, plaintext };
  }

  /** For the kind x509. */
  get certificate(): Certificate {
    const { chain, root } = this.#of('certificate', 'certificate');
    return { chain, root };
  }

  /** For the kind ssh. */
  get sshCertificate(): SshCertificate {
    const { certificate, authority, principals } = this.#of('sshCertificate', 'SSH certificate');
    return { certificate, authority, principals };
  }

  /** For the kind aws. */
  get awsKeys(): AwsKeys {
    const { accessKeyId, secretAccessKey, sessionToken, region } = this.#of('awsKeys', 'AWS keys');
    return { accessKeyId, secretAccessKey: new Secret(secretAccessKey), sessionToken: new Secret(sessionToken), region };
  }

  /** For the kind secret, if it is not sent in a header. */
  get staticSecret(): Secret {
    return new Secret(this.#of('staticSecret', 'static secret').value);
  }

  /**
   * Reports how a use went, for the audit. The method returns at once; reports are sent in the background. mayfly accepts them only from a server
   * of the upstream. After a 401, this credential is given to no other holder.
   */
  used(use: Use): void {
    this.#giver.use(this.#holding, use);
  }

  /**
   * Replaces the credential by a new one, decided anew for the same things and the lifetime that was asked for; this object and those of all other
   * holders then show the new one. A task that was opened with it is extended.
   *
   * @throws Denied, NotActive - it cannot be renewed; the old one stays valid until it expires
   */
  renew(): Promise<void> {
    return this.#giver.renew(this.#holding);
  }

  /**
   * The upstream refused the credential: it is given to no other holder.
   *
   * @internal
   */
  doubt(): void {
    this.#holding.refused = true;
  }

  /**
   * Releases it. After that it can no longer be used, unless others hold it too. Never rejects; calling it again has no effect.
   */
  release(): Promise<void> {
    this.#left ??= this.#giver.leave(this.#holding);
    return this.#left;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }

  toString(): string {
    return this.credentialId;
  }

  toJSON(): object {
    const { credentialId, taskId, upstream, kind, scopes, expiresAt } = this;
    return { credentialId, taskId, upstream, kind, scopes, expiresAt };
  }

  [inspect.custom](): string {
    return `Credential(${this.credentialId} for ${this.upstream}, until ${this.expiresAt.toISOString()})`;
  }
}
