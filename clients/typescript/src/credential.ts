/**
 * A credential in somebody's hands, for as long as the block that it was asked for in.
 *
 * @module
 */
import { inspect } from 'node:util';
import { kindName, type Kind } from './ask.js';
import { LifeBound, Novelty, type Issued } from './gen/mayfly/v1/issued_pb.js';
import { millis, type Holding } from './issuance.js';
import { CredentialHeaders, Secret } from './secret.js';

/** How a use went: the upstream's HTTP status, or what it comes to. 401 and 403 are refused, 400 and above failed, all else accepted. */
export type Outcome = number | 'accepted' | 'refused' | 'failed';

/** One use of a credential. */
export interface Use {
  /** How it went. */
  readonly outcome: Outcome;
  /** The tool that used it. Absent: the one that it was asked for. */
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
  /** Roots of the server's certificate, PEM. Empty: the system's. */
  readonly serverCaPem: string;
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
  /** The authority's key, as in `authorized_keys`. */
  readonly authority: string;
  /** The names that it may log in as. */
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

/** What a credential hangs on: the client that it came from. */
export interface Giver {
  /** Notes a use. */
  use(holding: Holding, use: Use): void;
  /** Gets another one in its place. */
  renew(holding: Holding): Promise<void>;
  /** One holder less. */
  leave(holding: Holding): Promise<void>;
}

/**
 * A credential. `await using` gives it back at the end of the block; where that syntax is not had, {@link Credential.release} does.
 *
 * Printed, logged or serialized it shows ids and times, and never what makes it usable.
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

  /** Its id: `jti` of a JWT. A name, not a secret. */
  get credentialId(): string {
    return this.#issued.credentialId;
  }

  /** The task that it hangs on, also where that was opened with it. */
  get taskId(): string {
    return this.#issued.taskId;
  }

  /** The upstream that it is for. */
  get upstream(): string {
    return this.#issued.upstream;
  }

  /** What it is. */
  get kind(): Kind | undefined {
    return kindName(this.#issued.kind);
  }

  /** The scopes: those that were asked for. */
  get scopes(): readonly string[] {
    return this.#issued.scopes;
  }

  /** When it ends by itself, by the server's clock. */
  get expiresAt(): Date {
    return new Date(millis(this.#issued.expiresAt));
  }

  /** What is left of its life, seconds; by the wall clock or the monotonic one, whichever says less. */
  get remaining(): number {
    return Math.max(0, this.#holding.current.left) / 1000;
  }

  /** How long it lives from the decision, seconds. */
  get lifetime(): number {
    return this.#holding.current.life / 1000;
  }

  /** What bounded its life, for people: like `upstream` or `the approval appr_…`. */
  get boundBy(): string {
    return this.#issued.boundBy || (LifeBound[this.#issued.bound] ?? '').toLowerCase();
  }

  /** The approval that was used. Empty: none was needed. */
  get approvalId(): string {
    return this.#issued.approvalId;
  }

  /** It was issued for an earlier try of the same request. */
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
   * The headers that show it, like `{ authorization: "Bearer …" }`; ready for `fetch`.
   *
   * @throws TypeError - it is of a kind that goes into no header
   */
  get headers(): CredentialHeaders {
    const { headerName, scheme, token } = this.#bearer;
    return new CredentialHeaders({ [headerName]: scheme === '' ? token : `${scheme} ${token}` });
  }

  /** Where to send it, and nowhere else: a URL without a slash at its end. */
  get baseUrl(): string {
    return this.#bearer.baseUrl.replace(/\/+$/, '');
  }

  /** The token itself, for what takes no headers. */
  get token(): Secret {
    return new Secret(this.#bearer.token);
  }

  /** For the kinds postgres, mysql and redis. */
  get login(): DatabaseLogin {
    const { host, port, database, user, password, serverCaPem } = this.#of('databaseLogin', 'login');
    return { host, port, database, user, password: new Secret(password), serverCaPem };
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

  /** For the kind secret, where it goes into no header. */
  get staticSecret(): Secret {
    return new Secret(this.#of('staticSecret', 'static secret').value);
  }

  /**
   * Says how a use of it went, for the audit. It returns at once; reports go out in the background, and only a server of the upstream is heard.
   * After a 401 nobody else is given this credential.
   */
  used(use: Use): void {
    this.#giver.use(this.#holding, use);
  }

  /**
   * Gets a new one in its place, decided anew for the same things and the life that was asked for; what this object shows is then the new one.
   * Everybody who holds it has it. A task that was opened with it is extended with it.
   *
   * @throws Denied, NotActive - it can't be renewed; the old one stays good until it ends
   */
  renew(): Promise<void> {
    return this.#giver.renew(this.#holding);
  }

  /**
   * The upstream refused it: nobody else is given it.
   *
   * @internal
   */
  doubt(): void {
    this.#holding.refused = true;
  }

  /** Gives it back. It is of no use from then on, unless others hold it too. Never rejects; a repeat does nothing. */
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
