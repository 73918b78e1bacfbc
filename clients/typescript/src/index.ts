/**
 * Short-lived, task-scoped credentials from mayfly, and their verification.
 *
 * @packageDocumentation
 */
export { Mayfly, type InboundCall, type MayflyOptions, type MayflySettings, type TaskOptions, type Whoami } from './mayfly.js';
export type { CredentialAsk, Kind, SeveralOptions, SubjectToken, UpstreamAsk } from './ask.js';
export type { AwsKeys, Certificate, Credential, Credentials, DatabaseLogin, Outcome, SshCertificate, Use } from './credential.js';
export { META_TASK, type State, type Task, type TaskAsk } from './task.js';
export type { SessionAsk, SessionFetch } from './session.js';
export type { Streaming } from './exchanger.js';
export { CredentialHeaders, Secret } from './secret.js';
export { FileSource, Svid, type SvidFiles, type SvidSource } from './svid.js';
export { WorkloadApiSource } from './workload-api.js';
export {
  ApprovalNeeded, Closed, Denied, InvalidRequest, LimitReached, MayflyError, NotActive, NotAuthenticated, NotFound, ServerCertificateError, Unavailable,
  type ErrorDetails, type FieldViolation,
} from './errors.js';
export { argumentsDigest, argumentsDigestOfJson } from './verify/arguments.js';
export { Verified, type Claims, type Ground } from './verify/claims.js';
export { Refused, type RefusedReason } from './verify/refused.js';
export type { Need } from './verify/check.js';
export { Verifier, type VerifierSettings } from './verify/verifier.js';
export { protect, protectedResourceMetadata, type ProtectOptions, type ResourceMetadata } from './verify/express.js';
