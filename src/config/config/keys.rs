//! The table of all configuration keys, used for reading, defaults, environment variables and the reference in docs.

pub use super::form::{KeyDefault, ValueForm};
pub use super::lists::{BUNDLES_VARIABLE, LISTS, is_list};
use super::observability;
use mayfly_base::limits as l;

/// A key.
#[derive(Clone, Copy, Debug)]
pub struct ConfigKey {
    /// `section.key`.
    pub path: &'static str,
    /// The form of the value.
    pub form: ValueForm,
    /// The value if the key is not set.
    pub default: KeyDefault,
    /// The description, in one or two sentences.
    pub about: &'static str,
}

pub(super) const fn key(path: &'static str, form: ValueForm, default: KeyDefault, about: &'static str) -> ConfigKey {
    ConfigKey { path, form, default, about }
}

const fn limit(path: &'static str, ceiling: usize, about: &'static str) -> ConfigKey {
    key(path, ValueForm::Number(1, ceiling as u64), KeyDefault::Ceiling, about)
}

const MINUTE: u64 = 60_000;
const MIB: u64 = 1 << 20;

use KeyDefault::{Absent, Ceiling, Is, Required};
use ValueForm::*;

/// All keys, in the order of the reference. The sections in [`LISTS`] may occur several times, each with the same keys.
pub const KEYS: &[ConfigKey] = &[
    key(
        "server.trust_domain",
        TrustDomain,
        Required,
        "The trust domain of the server's own SVID. SVIDs that the server issues are of `own_domain.trust_domain`.",
    ),
    key(
        "server.environments",
        Names,
        Required,
        "The environments that the server serves. No credential, key or task of one environment is valid in another. An environment that is removed from the list is no longer served.",
    ),
    key(
        "server.issuer",
        HttpsUrl,
        Required,
        "The base of `iss`: the issuer of an environment is this URL, a slash and the environment's name.",
    ),
    key(
        "server.workers",
        Number(1, l::WORKERS as u64),
        Absent("one for each core that the process may use"),
        "Threads that serve the workload listener and the public listener. Operators have a separate thread.",
    ),
    key("listen.workload", Address, Is("\"127.0.0.1:7443\""), "gRPC over mTLS, for workloads and relying services."),
    key("listen.admin", Address, Is("\"127.0.0.1:7444\""), "gRPC over mTLS, for operators."),
    key(
        "listen.admin_socket",
        Path,
        Absent("no socket"),
        "Unix socket for operators on this host. The server identifies the caller by its uid.",
    ),
    key("listen.public", Address, Is("\"127.0.0.1:7445\""), "HTTPS for everybody: JWKS, discovery, health."),
    key(
        "listen.metrics",
        Address,
        Absent("no metrics"),
        "`/metrics` in OpenMetrics, with names of environments, upstreams, webhooks and trust domains. On a loopback address, metrics are served over plain HTTP; any other address requires `metrics.tls`, `metrics.token_file` or both.",
    ),
    key(
        "tls.certificate",
        Path,
        Absent("from the SPIFFE Workload API"),
        "The server's X.509-SVID with its chain, PEM. The server reads the file again when it changes.",
    ),
    key(
        "tls.key",
        Path,
        Absent("from the SPIFFE Workload API"),
        "The private key of `tls.certificate`, PEM, readable by the server's user only. Set both keys or neither.",
    ),
    key(
        "workload_api.socket",
        Text("`unix:/PATH`, or `tcp:ADDRESS:PORT` on this host"),
        Absent("`SPIFFE_ENDPOINT_SOCKET`"),
        "The SPIFFE agent of this host. The agent provides the server's SVID if `tls` is not set, and the bundle of each `[[bundles]]` section without `file`. See docs/spire.md.",
    ),
    key(
        "workload_api.spiffe_id",
        Text("SPIFFE ID"),
        Absent("the agent's first"),
        "The SPIFFE ID of the SVID that the server uses, if the agent has several SVIDs for the server.",
    ),
    key(
        "workload_api.hint",
        Text("text"),
        Absent("any"),
        "As `spiffe_id`: selects the SVID by the hint that the agent sends with each SVID.",
    ),
    key(
        "workload_api.start_timeout",
        Duration(1000, l::WORKLOAD_API_START_MS),
        Is("\"1m\""),
        "How long a start waits for the agent and for a usable SVID. A running server does not wait for the agent: its SVID stays in use until the SVID expires.",
    ),
    key(
        "public_tls.certificate",
        Path,
        Absent("that of `tls`"),
        "A certificate for the public listener, instead of the server's SVID, PEM.",
    ),
    key(
        "public_tls.key",
        Path,
        Absent("that of `tls`"),
        "The private key of `public_tls.certificate`, PEM. Set both keys or neither.",
    ),
    key("bundles.trust_domain", TrustDomain, Required, "A trust domain whose workloads may call."),
    key(
        "bundles.file",
        Path,
        Absent("from the SPIFFE Workload API"),
        "The bundle of the trust domain: PEM certificates or SPIFFE JWKS. The server reads the file again when it changes.",
    ),
    key(
        "oidc_issuers.name",
        Text("1 to 32 lower-case letters, digits, hyphens"),
        Required,
        "A short name of the issuer, used in SPIFFE IDs and messages.",
    ),
    key("oidc_issuers.issuer", Text("https URL; http on loopback"), Required, "`iss` of the issuer's tokens, byte for byte."),
    key("oidc_issuers.environments", Names, Required, "The environments in which tokens of the issuer are accepted."),
    key(
        "oidc_issuers.uses",
        Text("list of `login`, `subject`, `attest`"),
        Required,
        "The uses for which tokens of the issuer are accepted: `login` (people sign in), `subject` (subject tokens, which name the subject on whose behalf a caller acts), `attest` (CI jobs and pods sign in).",
    ),
    key(
        "oidc_issuers.audience",
        Text("text"),
        Absent("none; `login` needs one"),
        "`aud` of ID tokens with which people sign in: the client id of mayfly at the provider.",
    ),
    key(
        "oidc_issuers.audiences",
        Text("list of texts"),
        Absent("`aud` is one text, or one in a list from a platform that always gives one"),
        "If this key is set, tokens are accepted whose `aud` is a list that contains the expected audience; the key lists the other audiences that the list may contain. Each of these other recipients can use the token, too.",
    ),
    key(
        "oidc_issuers.algorithms",
        Text("list of RS, ES and PS with 256, 384 or 512"),
        Is("[\"RS256\", \"ES256\"]"),
        "The signature algorithms that are accepted for tokens of the issuer.",
    ),
    key(
        "oidc_issuers.jwks",
        Text("URL or path"),
        Absent("where `/.well-known/openid-configuration` says, at the issuer's own host and port"),
        "The location of the issuer's JWK set. The server fetches it every 5 minutes and when a token names an unknown key, and uses the last keys for an hour if the location does not answer.",
    ),
    key(
        "oidc_issuers.ca_file",
        Path,
        Absent("the system's roots"),
        "Root certificates for the HTTPS server that has the issuer's keys, PEM. That server must support TLS 1.3.",
    ),
    key(
        "oidc_issuers.max_life",
        Duration(1000, l::OIDC_TOKEN_LIFE_MS),
        Is("\"1h\""),
        "The longest lifetime of a token: a token whose `exp` is later than `iat` plus this duration is refused.",
    ),
    key(
        "oidc_issuers.scopes_claim",
        Text("text"),
        Absent("no claim bounds scopes"),
        "The claim with the subject's scopes, as a list or separated by spaces. Only these scopes are granted on the subject's behalf.",
    ),
    key(
        "oidc_issuers.groups_claim",
        Text("text"),
        Absent("no groups"),
        "The claim with the subject's groups: `context.subject.groups`.",
    ),
    key(
        "oidc_issuers.rights",
        Text("list of `{ group, upstream, scopes }`"),
        Absent("groups do not bound scopes; policy can read them"),
        "The scopes that members of a group have. If the list has an entry, only scopes that an entry for one of the subject's groups names are granted on the subject's behalf.",
    ),
    key(
        "oidc_issuers.platform",
        Text("`github`, `gitlab`, `buildkite`, `kubernetes`, `other`"),
        Absent("none; `attest` needs it"),
        "The platform that runs the jobs. The platform determines which claims are ids and which events may start a job. See docs/ci.md.",
    ),
    key(
        "oidc_issuers.id_claim",
        Text("text"),
        Absent("set by the platform; only for `other`, and required there"),
        "The claim with an id that is never reassigned to another project or account; `a/b` is `b` in the object `a`.",
    ),
    key(
        "oidc_issuers.key_bound",
        Flag,
        Absent("set by the platform; only for `other`, `false` there"),
        "If `true`, `aud` is `server.issuer`, `#` and the thumbprint of the job's key; otherwise `aud` is `server.issuer` alone.",
    ),
    key(
        "store.engine",
        Engine,
        Is("\"redb\""),
        "The storage engine: `redb`; `sled`, which takes more disk and memory (docs/operations.md); or `memory` for trying mayfly out, where no rule, lock or task outlives the process.",
    ),
    key(
        "store.path",
        Path,
        Absent("none; `redb` and `sled` need one"),
        "The data directory. The server creates it if it is missing.",
    ),
    key("store.cache", Size(4 * MIB, 64 << 30), Is("\"4MiB\""), "Memory that the engine may use to cache pages."),
    key(
        "store.disk_reserve",
        Size(8 * MIB, 1 << 40),
        Is("\"64MiB\""),
        "Disk space that the server reserves, so that revoking works on a full disk.",
    ),
    key(
        "seal.key_file",
        Path,
        Absent("`seal.credential` is needed"),
        "The file of the sealing key: 32 random bytes, which encrypt the signing keys in the store. The file must lie outside the data directory.",
    ),
    key(
        "seal.credential",
        Name,
        Absent("`seal.key_file` is needed"),
        "The name of a systemd credential that holds the sealing key, instead of a file.",
    ),
    key("policy.files", Paths, Required, "Cedar policies: files, or directories of which every `*.cedar` file is read."),
    key("policy.roles", Path, Required, "The roles file: the roles and the environment of each SPIFFE ID."),
    key("policy.upstreams", Path, Required, "A directory of which every `*.toml` file registers one upstream."),
    key(
        "policy.bindings",
        Path,
        Absent("the files say nothing about bindings"),
        "A directory of which every `*.toml` file is one binding; it may be empty.",
    ),
    limit("limits.tasks", l::TASKS, "Live tasks in all."),
    limit("limits.tasks_per_caller", l::TASKS_PER_CALLER, "Live tasks that one caller opened."),
    key(
        "limits.task_bytes",
        Size(MIB, l::TASK_BYTES),
        Ceiling,
        "Memory for the terms of all tasks, not counting the first 1 KiB of each task. A task counts until 10 minutes after its end.",
    ),
    key(
        "limits.task_bytes_per_caller",
        Size(MIB, l::TASK_BYTES_PER_CALLER),
        Ceiling,
        "As `task_bytes`, for the tasks that one caller opened.",
    ),
    limit("limits.credentials", l::CREDENTIALS, "Live credentials in all."),
    limit("limits.credentials_per_caller", l::CREDENTIALS_PER_CALLER, "Live credentials of one caller."),
    limit(
        "limits.request_ids",
        l::REQUEST_IDS,
        "Request ids that the server remembers in all, each for at least 10 minutes. A request id takes about 40 bytes once the credential or task that it made has ended.",
    ),
    limit("limits.request_ids_per_caller", l::REQUEST_IDS_PER_CALLER, "Request ids remembered for one caller."),
    limit(
        "limits.rules",
        l::RULES,
        "Revocation rules in all. Beyond this number, callers can no longer end their own credentials and tasks; operators can still revoke.",
    ),
    limit(
        "limits.rules_per_caller",
        l::RULES_PER_CALLER,
        "Revocation rules in effect that one caller made by ending its own credentials and tasks. Beyond this number, the caller is locked, and the lock replaces these rules.",
    ),
    limit(
        "limits.changes_per_second",
        l::CHANGES_PER_SECOND as usize,
        "Changes of one caller per second: tasks that it opens by a call of their own, delegates or extends, break-glass tasks that it opens or joins, approvals that it requests. A burst may have ten seconds' worth.",
    ),
    limit("limits.holds_per_second", l::HOLDS_PER_SECOND as usize, "As `changes_per_second`, for holding and resuming tasks."),
    limit("limits.heartbeats_per_second", l::HEARTBEATS_PER_SECOND as usize, "As `changes_per_second`, for heartbeats of tasks."),
    limit("limits.leases_making", l::LEASES_MAKING, "Credentials that are being created at upstreams at once, in all."),
    limit("limits.leases_making_per_upstream", l::LEASES_MAKING_PER_UPSTREAM, "As `leases_making`, at one upstream."),
    limit("limits.leases_making_per_batch", l::LEASES_MAKING_PER_BATCH, "As `leases_making`, for one all-or-nothing batch."),
    limit("limits.leases_undoing", l::LEASES_UNDOING, "Leases whose objects are being removed at upstreams at once, in all."),
    limit("limits.leases_undoing_per_upstream", l::LEASES_UNDOING_PER_UPSTREAM, "As `leases_undoing`, at one upstream."),
    limit("limits.followers", l::FOLLOWERS, "Registered followers of the revocation feed."),
    limit("limits.followers_per_caller", l::FOLLOWERS_PER_CALLER, "Registered followers of one caller."),
    limit("limits.connections", l::CONNECTIONS, "Open connections of the workload listener."),
    limit("limits.admin_connections", l::ADMIN_CONNECTIONS, "Open connections of the admin listener."),
    limit("limits.public_connections", l::PUBLIC_CONNECTIONS, "Open connections of the public listener."),
    limit("limits.connection_streams", l::CONNECTION_STREAMS as usize, "Concurrent calls on one connection."),
    limit("limits.handshakes", l::HANDSHAKES, "Concurrent TLS handshakes of one listener."),
    limit("limits.stream_in_flight", l::STREAM_IN_FLIGHT, "Concurrent exchanges on one stream."),
    key(
        "limits.credential_ttl",
        Duration(l::CREDENTIAL_TTL_MIN_MS, l::CREDENTIAL_TTL_MS),
        Ceiling,
        "The longest lifetime of a credential.",
    ),
    key("limits.task_ttl", Duration(MINUTE, l::TASK_TTL_MS), Ceiling, "The longest lifetime of a task."),
    key("limits.verdict_cache", Size(MIB, 1 << 30), Is("\"64MiB\""), "Memory for cached verdicts of policy."),
    key(
        "svid.max_ttl",
        Duration(MINUTE, l::SVID_MAX_TTL_MS),
        Ceiling,
        "An SVID whose remaining lifetime is longer than this is refused.",
    ),
    key("ledger.gather_records", Number(1, l::GATHER_RECORDS as u64), Ceiling, "The maximum number of records in one commit."),
    key(
        "ledger.gather_wait",
        Duration(0, 50),
        Is("\"4ms\""),
        "The longest time that the writer waits for more records before it starts a commit (group commit).",
    ),
    key(
        "ledger.snapshot_every",
        Number(16, l::SNAPSHOT_EVERY_COMMITS),
        Ceiling,
        "Commits between two snapshots of the state. A snapshot is also written after a million records. A start folds the commits after the newest snapshot.",
    ),
    key(
        "ledger.skew",
        Duration(1000, 5 * MINUTE),
        Is("\"30s\""),
        "How far the wall clock may step against the steady clock before the server stops issuing.",
    ),
    key(
        "ledger.view_max_age",
        Duration(1000, MINUTE),
        Is("\"10s\""),
        "The greatest age of the view of the state on which a decision is based.",
    ),
    key(
        "leases.make_timeout",
        Duration(100, l::LEASE_MAKE_MS),
        Ceiling,
        "How long an upstream may take to create a credential. A credential that it creates later is removed.",
    ),
    key(
        "leases.undo_timeout",
        Duration(100, 5 * MINUTE),
        Is("\"20s\""),
        "How long an upstream may take for one attempt to remove an object, or to report whether the object is gone.",
    ),
    key(
        "leases.left_behind",
        Duration(l::LEASE_LEFT_MS, 60 * MINUTE),
        Is("\"1m15s\""),
        "How long after its start an interrupted creation of a credential is undone, for example if the server was killed. Earlier, the credential could still become valid.",
    ),
    key(
        "leases.retry_min",
        Duration(100, MINUTE),
        Is("\"1s\""),
        "The pause after the first failed attempt to remove an object at an upstream. Later pauses are longer.",
    ),
    key(
        "leases.retry_max",
        Duration(1000, 60 * MINUTE),
        Is("\"5m\""),
        "The longest pause between two attempts to remove an object.",
    ),
    key(
        "upstreams.secrets_dir",
        Path,
        Absent("no registration of a kind whose upstream mayfly logs in to can be used"),
        "The directory with the secrets by which mayfly itself logs in at upstreams: `NAME.toml` for the upstream NAME, with the target that its secrets may be sent to. Only the server's user may read the files, and only it and root may write the directory.",
    ),
    key(
        "feed.max_age",
        Duration(5000, 10 * MINUTE),
        Is("\"30s\""),
        "How long a follower accepts credentials without a fresh heartbeat of the revocation feed.",
    ),
    key(
        "audit.keep",
        Keep,
        Is("\"90d\""),
        "How long records are kept, or how many bytes of them: a duration of at least 1d, or a size of at least 64MiB. Records that a start or a live credential needs are kept in any case (docs/operations.md).",
    ),
    key(
        "audit.export_file",
        Path,
        Absent("no such export"),
        "The server appends every durable record to this file as a line of JSON. To rotate the file, rename it. docs/audit.md has the guarantees.",
    ),
    key(
        "audit.export_syslog",
        Name,
        Absent("no such export"),
        "Exports every record to syslog (RFC 5424): `tcp://HOST:PORT`, `udp://HOST:PORT` or `unix:/dev/log`. At most one of `audit.export_file`, `audit.export_syslog` and `audit.export_otlp` may be set.",
    ),
    key(
        "audit.export_otlp",
        Name,
        Absent("no such export"),
        "Exports every record to an OpenTelemetry collector, as logs: `https://HOST/v1/logs`, or http on this host.",
    ),
    key("audit.export_ca", Path, Absent("those of the system"), "The root certificates for the collector's certificate, PEM."),
    observability::METRICS_TLS,
    observability::METRICS_TOKEN,
    observability::OTLP,
    observability::CA,
    observability::RATIO,
    observability::PER_SECOND,
    observability::FORMAT,
    observability::LEVEL,
    observability::CALLS,
    key(
        "own_domain.trust_domain",
        TrustDomain,
        Absent("nobody signs in"),
        "The trust domain whose CA is the server itself: people and jobs that sign in get SVIDs of this trust domain. This trust domain must not have a section `[[bundles]]`. See docs/people.md and docs/ci.md.",
    ),
    key(
        "own_domain.login_ttl",
        Duration(l::LOGIN_TTL_MIN_MS, l::LOGIN_TTL_MS),
        Ceiling,
        "The longest lifetime of a person's SVID, and never longer than `svid.max_ttl`.",
    ),
    key(
        "own_domain.device_login",
        Flag,
        Is("false"),
        "Whether people may also sign in by device code (RFC 8628). ID tokens of that flow are not bound to a key; each is accepted once, within two minutes of its issue.",
    ),
    key(
        "attestation.name",
        Text("1 to 32 lower-case letters, digits, hyphens"),
        Required,
        "The name of the rule: the last segment of the SPIFFE ID of each job that the rule admits.",
    ),
    key(
        "attestation.issuer",
        Text("the name of one of [[oidc_issuers]]"),
        Required,
        "The issuer of the jobs' tokens. The issuer must have the use `attest`.",
    ),
    key(
        "attestation.claims",
        Text("table of texts, or of lists of them"),
        Required,
        "The claims that a token must have, each with its accepted values; `refs/tags/*` matches everything below `refs/tags/`. At least one claim must be an id that is never reassigned. See docs/ci.md.",
    ),
    key(
        "attestation.svid_ttl",
        Duration(l::LOGIN_TTL_MIN_MS, l::LOGIN_TTL_MS),
        Absent("`own_domain.login_ttl`"),
        "The longest lifetime of the SVID of a job that the rule admits.",
    ),
    key(
        "rotation_hooks.upstream",
        Name,
        Required,
        "The upstream whose secret the program rotates. The command is in the configuration and not in the registration, so that an operator of upstreams cannot run programs.",
    ),
    key(
        "rotation_hooks.command",
        Names,
        Required,
        "The program, an absolute path, and its arguments. Neither the program nor a directory above it may be writable by others than its owner. It gets one JSON object on stdin, writes one to stdout, and has an empty environment.",
    ),
    key(
        "rotation_hooks.timeout",
        Duration(1000, l::HOOK_TIMEOUT_MOST_MS),
        Is("\"30s\""),
        "The time limit of one call. The program and everything that it started are killed then.",
    ),
    key(
        "webhooks.name",
        Name,
        Required,
        "The name of the webhook, as in `mayfly webhook list`. The server stores the webhook's position in the ledger under this name.",
    ),
    key(
        "webhooks.url",
        WebhookUrl,
        Required,
        "The URL to which events are posted: https, or http on this host. Redirects are not followed. docs/webhooks.md describes the requests and the guarantees.",
    ),
    key("webhooks.ca", Path, Absent("none; https needs it"), "The root certificates for the receiver's certificate, PEM."),
    key(
        "webhooks.secret_file",
        Path,
        Required,
        "The file of the secret that signs events: `whsec_` and 24 to 64 bytes in base64, readable by the server's user only. While a secret is rotated, a second line may have another secret, which signs too.",
    ),
    key(
        "webhooks.events",
        Names,
        Is("[]"),
        "The events that the webhook gets: types, or groups like `break_glass.*`. An empty list means all events.",
    ),
    key(
        "webhooks.environments",
        Names,
        Is("[]"),
        "The environments whose events the webhook gets. An empty list means all environments.",
    ),
    key("admin.uids", Numbers, Is("[]"), "Uids that may use `listen.admin_socket`, in addition to the server's own uid."),
    key(
        "admin.single_operator",
        Flag,
        Is("false"),
        "Declares that there is only one operator: over `listen.admin_socket`, changes that otherwise need two operators (docs/policy.md) need no approval.",
    ),
];

impl ConfigKey {
    /// The section, and the name within the section.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').unwrap_or(("", self.path))
    }

    /// The environment variable that overrides the key: `MAYFLY_SERVER_TRUST_DOMAIN`. The list of bundles has a variable of its own, other
    /// lists have none.
    pub fn variable(&self) -> String {
        match self.parts() {
            ("bundles", _) => BUNDLES_VARIABLE.to_owned(),
            (section, _) if is_list(section) => String::new(),
            _ => format!("MAYFLY_{}", self.path.replace('.', "_").to_ascii_uppercase()),
        }
    }
}

/// The key at a path.
pub fn find(path: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|k| k.path == path)
}

/// The names of all sections, each once, in order.
pub fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&'static str> = KEYS.iter().map(|k| k.parts().0).collect();
    sections.dedup();
    sections
}
