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
        "The trust domain of this server. The SVIDs that it issues are of `own_domain`.",
    ),
    key(
        "server.environments",
        Names,
        Required,
        "The environments that it serves. Nothing crosses from one to another. One that is taken out is no longer served.",
    ),
    key("server.issuer", HttpsUrl, Required, "Base of `iss`: each environment's issuer is this, a slash and its name."),
    key(
        "server.workers",
        Number(1, l::WORKERS as u64),
        Absent("one for each core that the process may use"),
        "Threads that serve workloads and the public. Operators have one of their own.",
    ),
    key("listen.workload", Address, Is("\"127.0.0.1:7443\""), "gRPC over mTLS, for workloads and relying services."),
    key("listen.admin", Address, Is("\"127.0.0.1:7444\""), "gRPC over mTLS, for operators."),
    key("listen.admin_socket", Path, Absent("no socket"), "Unix socket for operators on this host, who are known by their uid."),
    key("listen.public", Address, Is("\"127.0.0.1:7445\""), "HTTPS for everybody: JWKS, discovery, health."),
    key(
        "listen.metrics",
        Address,
        Absent("no metrics"),
        "`/metrics` in OpenMetrics, with names of environments, upstreams, webhooks and trust domains. Over plain HTTP on a loopback address; on any other one `metrics.tls`, `metrics.token_file` or both are set.",
    ),
    key(
        "tls.certificate",
        Path,
        Absent("from the SPIFFE Workload API"),
        "The server's X.509-SVID with its chain, PEM. Read again when it changes.",
    ),
    key(
        "tls.key",
        Path,
        Absent("from the SPIFFE Workload API"),
        "Its private key, PEM, readable by the server's user only. Goes with `tls.certificate`.",
    ),
    key(
        "workload_api.socket",
        Text("`unix:/PATH`, or `tcp:ADDRESS:PORT` on this host"),
        Absent("`SPIFFE_ENDPOINT_SOCKET`"),
        "The agent of this host, from which comes what `tls` and `bundles.file` leave out: the server's SVID, bundles, or both. docs/spire.md.",
    ),
    key(
        "workload_api.spiffe_id",
        Text("SPIFFE ID"),
        Absent("the agent's first"),
        "Which SVID is the server's, where the agent has several for it.",
    ),
    key("workload_api.hint", Text("text"), Absent("any"), "The same by the hint that the agent gives with it."),
    key(
        "workload_api.start_timeout",
        Duration(1000, l::WORKLOAD_API_START_MS),
        Is("\"1m\""),
        "How long a start waits for the agent and for an SVID to use. Later nothing waits: what was had stays in use until it ends.",
    ),
    key("public_tls.certificate", Path, Absent("that of `tls`"), "Another certificate for the public listener, PEM."),
    key("public_tls.key", Path, Absent("that of `tls`"), "Its private key, PEM. Goes with `public_tls.certificate`."),
    key("bundles.trust_domain", TrustDomain, Required, "A trust domain whose workloads may call."),
    key(
        "bundles.file",
        Path,
        Absent("from the SPIFFE Workload API"),
        "Its bundle: PEM certificates or SPIFFE JWKS. Read again when it changes.",
    ),
    key(
        "oidc_issuers.name",
        Text("1 to 32 lower-case letters, digits, hyphens"),
        Required,
        "A short name, as it stands in SPIFFE IDs and messages.",
    ),
    key("oidc_issuers.issuer", Text("https URL; http on loopback"), Required, "`iss` of its tokens, byte for byte."),
    key("oidc_issuers.environments", Names, Required, "The environments in which its tokens count."),
    key(
        "oidc_issuers.uses",
        Text("list of `login`, `subject`, `attest`"),
        Required,
        "What its tokens are taken for: `login` of people, `subject` tokens that say on whose behalf something is asked for, `attest` of jobs.",
    ),
    key(
        "oidc_issuers.audience",
        Text("text"),
        Absent("none; `login` needs one"),
        "`aud` of tokens that log people in: our client id.",
    ),
    key(
        "oidc_issuers.audiences",
        Text("list of texts"),
        Absent("`aud` is one text, or one in a list from a platform that always gives one"),
        "Takes tokens whose `aud` is a list with ours among them, and what may stand beside ours. Each of those can use the token, too.",
    ),
    key(
        "oidc_issuers.algorithms",
        Text("list of RS, ES and PS with 256, 384 or 512"),
        Is("[\"RS256\", \"ES256\"]"),
        "What its tokens may be signed with.",
    ),
    key(
        "oidc_issuers.jwks",
        Text("URL or path"),
        Absent("where `/.well-known/openid-configuration` says, at the issuer's own host and port"),
        "Where its keys are. Fetched every 5 minutes and for a key that is not known; kept for an hour without an answer.",
    ),
    key(
        "oidc_issuers.ca_file",
        Path,
        Absent("the system's roots"),
        "Roots for its server's certificate, PEM. It speaks TLS 1.3.",
    ),
    key(
        "oidc_issuers.max_life",
        Duration(1000, l::OIDC_TOKEN_LIFE_MS),
        Is("\"1h\""),
        "The longest lifetime of a token: one whose `exp` is later than `iat` plus this duration is refused.",
    ),
    key(
        "oidc_issuers.scopes_claim",
        Text("text"),
        Absent("scopes are not bounded by one"),
        "The claim with the subject's scopes, a list or with spaces between: what is given on its behalf is among them.",
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
        Absent("groups bound nothing but what policy says"),
        "What a group's members may. Where there is a line, nothing is given on a subject's behalf that no line of its groups gives.",
    ),
    key(
        "oidc_issuers.platform",
        Text("`github`, `gitlab`, `buildkite`, `kubernetes`, `other`"),
        Absent("none; `attest` needs it"),
        "Whose jobs its tokens are of: which claims are ids, and what may begin a job. docs/ci.md.",
    ),
    key(
        "oidc_issuers.id_claim",
        Text("text"),
        Absent("that of the platform; `other` needs it"),
        "The claim that is an id nobody else ever gets; `a/b` is `b` in the object `a`.",
    ),
    key(
        "oidc_issuers.key_bound",
        Flag,
        Absent("that of the platform; of `other` false"),
        "`aud` is `server.issuer`, `#` and the thumbprint of the job's key; else `server.issuer` alone.",
    ),
    key(
        "store.engine",
        Engine,
        Is("\"redb\""),
        "`redb`; `sled`, which takes more disk and memory (docs/operations.md); or `memory` for trying things out: no rule, lock or task outlives its process.",
    ),
    key("store.path", Path, Absent("none; `redb` and `sled` need one"), "The data directory. Made where it is missing."),
    key("store.cache", Size(4 * MIB, 64 << 30), Is("\"4MiB\""), "Memory that the engine may use for what it read and wrote."),
    key("store.disk_reserve", Size(8 * MIB, 1 << 40), Is("\"64MiB\""), "Disk kept free so that revoking works when it is full."),
    key(
        "seal.key_file",
        Path,
        Absent("`seal.credential` is needed"),
        "32 random bytes that seal keys in the store. Outside the data directory.",
    ),
    key("seal.credential", Name, Absent("`seal.key_file` is needed"), "The same as a systemd credential: its name."),
    key("policy.files", Paths, Required, "Cedar policies: files, or directories of which every `*.cedar` counts."),
    key("policy.roles", Path, Required, "The roles file: who has which role and belongs to which environment."),
    key("policy.upstreams", Path, Required, "Directory of which every `*.toml` registers one upstream."),
    limit("limits.tasks", l::TASKS, "Live tasks in all."),
    limit("limits.tasks_per_caller", l::TASKS_PER_CALLER, "Live tasks that one caller opened."),
    key(
        "limits.task_bytes",
        Size(MIB, l::TASK_BYTES),
        Ceiling,
        "Memory for terms of tasks in all, above 1 KiB of each, until a task is forgotten: 10 minutes after its end.",
    ),
    key(
        "limits.task_bytes_per_caller",
        Size(MIB, l::TASK_BYTES_PER_CALLER),
        Ceiling,
        "The same of the tasks that one caller opened.",
    ),
    limit("limits.credentials", l::CREDENTIALS, "Live credentials in all."),
    limit("limits.credentials_per_caller", l::CREDENTIALS_PER_CALLER, "Live credentials of one caller."),
    limit(
        "limits.request_ids",
        l::REQUEST_IDS,
        "Request ids remembered in all, 10 minutes at least. About 40 bytes each once what they made has ended.",
    ),
    limit("limits.request_ids_per_caller", l::REQUEST_IDS_PER_CALLER, "Request ids remembered for one caller."),
    limit("limits.rules", l::RULES, "Revocation rules in all, before what callers end themselves is refused. Operators are not."),
    limit(
        "limits.rules_per_caller",
        l::RULES_PER_CALLER,
        "Revocation rules that one caller's own acts may hold in force. Beyond, one lock on the caller takes their place.",
    ),
    limit(
        "limits.changes_per_second",
        l::CHANGES_PER_SECOND as usize,
        "Tasks that one caller opens by themselves, hands on or extends, a second. Ten seconds' worth may come at once.",
    ),
    limit("limits.holds_per_second", l::HOLDS_PER_SECOND as usize, "The same of holding and resuming tasks."),
    limit("limits.heartbeats_per_second", l::HEARTBEATS_PER_SECOND as usize, "The same of signs of life."),
    limit("limits.leases_making", l::LEASES_MAKING, "Credentials that are being made at upstreams, in all."),
    limit("limits.leases_making_per_upstream", l::LEASES_MAKING_PER_UPSTREAM, "The same at one upstream."),
    limit("limits.leases_making_per_batch", l::LEASES_MAKING_PER_BATCH, "The same of one all-or-nothing batch."),
    limit("limits.leases_undoing", l::LEASES_UNDOING, "Leases that are being undone at upstreams, in all."),
    limit("limits.leases_undoing_per_upstream", l::LEASES_UNDOING_PER_UPSTREAM, "The same at one upstream."),
    limit("limits.followers", l::FOLLOWERS, "Registered followers of the revocation feed."),
    limit("limits.followers_per_caller", l::FOLLOWERS_PER_CALLER, "Registered followers of one caller."),
    limit("limits.connections", l::CONNECTIONS, "Open connections of the workload listener."),
    limit("limits.admin_connections", l::ADMIN_CONNECTIONS, "Open connections of the admin listener."),
    limit("limits.public_connections", l::PUBLIC_CONNECTIONS, "Open connections of the public listener."),
    limit("limits.connection_streams", l::CONNECTION_STREAMS as usize, "Calls under way on one connection."),
    limit("limits.handshakes", l::HANDSHAKES, "TLS handshakes under way."),
    limit("limits.stream_in_flight", l::STREAM_IN_FLIGHT, "Exchanges under way on one stream."),
    key(
        "limits.credential_ttl",
        Duration(l::CREDENTIAL_TTL_MIN_MS, l::CREDENTIAL_TTL_MS),
        Ceiling,
        "The longest TTL of a credential.",
    ),
    key("limits.task_ttl", Duration(MINUTE, l::TASK_TTL_MS), Ceiling, "The longest life of a task."),
    key("limits.verdict_cache", Size(MIB, 1 << 30), Is("\"64MiB\""), "Memory for remembered verdicts of policy."),
    key("svid.max_ttl", Duration(MINUTE, l::SVID_MAX_TTL_MS), Ceiling, "An SVID with more life left than this is refused."),
    key("ledger.gather_records", Number(1, l::GATHER_RECORDS as u64), Ceiling, "Records gathered into one commit."),
    key("ledger.gather_wait", Duration(0, 50), Is("\"4ms\""), "The longest wait while gathering."),
    key(
        "ledger.snapshot_every",
        Number(16, l::SNAPSHOT_EVERY_COMMITS),
        Ceiling,
        "Commits between two snapshots of the state. A million records also take one. A start folds the commits after the newest snapshot.",
    ),
    key("ledger.skew", Duration(1000, 5 * MINUTE), Is("\"30s\""), "How far clocks may differ before issuing stops."),
    key("ledger.view_max_age", Duration(1000, MINUTE), Is("\"10s\""), "The oldest view that may be decided on."),
    key(
        "leases.make_timeout",
        Duration(100, l::LEASE_MAKE_MS),
        Ceiling,
        "How long an upstream may take to make a credential. What it made after that is undone.",
    ),
    key(
        "leases.undo_timeout",
        Duration(100, 5 * MINUTE),
        Is("\"20s\""),
        "How long an upstream may take for one attempt to undo, or to say that it is gone.",
    ),
    key(
        "leases.left_behind",
        Duration(l::LEASE_LEFT_MS, 60 * MINUTE),
        Is("\"1m15s\""),
        "When what a server that was killed began to make is undone. Earlier, its credential could still become valid.",
    ),
    key(
        "leases.retry_min",
        Duration(100, MINUTE),
        Is("\"1s\""),
        "The pause after a first attempt to undo that did not take. It grows.",
    ),
    key("leases.retry_max", Duration(1000, 60 * MINUTE), Is("\"5m\""), "The longest pause between two attempts to undo."),
    key("feed.max_age", Duration(5000, 10 * MINUTE), Is("\"30s\""), "How long a follower goes on without a fresh heartbeat."),
    key(
        "audit.keep",
        Keep,
        Is("\"90d\""),
        "How long records stay, or how much of them: a duration of at least 1d, or a size of at least 64MiB. What a start or a live credential needs stays in any case; docs/operations.md says what that is.",
    ),
    key(
        "audit.export_file",
        Path,
        Absent("no such export"),
        "Appends every record to this file as a line of JSON, once it is durable. To rotate it, rename it. docs/audit.md says what is promised.",
    ),
    key(
        "audit.export_syslog",
        Name,
        Absent("no such export"),
        "The same to syslog (RFC 5424): `tcp://HOST:PORT`, `udp://HOST:PORT` or `unix:/dev/log`. At most one `audit.export_…` is set.",
    ),
    key(
        "audit.export_otlp",
        Name,
        Absent("no such export"),
        "The same to an OpenTelemetry collector, as logs: `https://HOST/v1/logs`, or http on this host.",
    ),
    key("audit.export_ca", Path, Absent("those of the system"), "The roots that vouch for the collector, PEM."),
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
        "A trust domain that this server itself is the CA of: people who sign in get SVIDs of it. No bundle is configured for it. docs/people.md.",
    ),
    key(
        "own_domain.login_ttl",
        Duration(l::LOGIN_TTL_MIN_MS, l::LOGIN_TTL_MS),
        Ceiling,
        "The longest life of a person's SVID. Never longer than `svid.max_ttl`.",
    ),
    key(
        "own_domain.device_login",
        Flag,
        Is("false"),
        "People may also sign in by device code (RFC 8628), whose ID tokens are bound to no key: one is taken once, and within two minutes.",
    ),
    key(
        "attestation.name",
        Text("1 to 32 lower-case letters, digits, hyphens"),
        Required,
        "The last segment of the SPIFFE ID of those whom it lets in.",
    ),
    key("attestation.issuer", Text("the name of one of [[oidc_issuers]]"), Required, "Whose tokens. It has the use `attest`."),
    key(
        "attestation.claims",
        Text("table of texts, or of lists of them"),
        Required,
        "What claims have to be, any of these values; `refs/tags/*` is everything below. One is an id that nobody else gets. docs/ci.md.",
    ),
    key(
        "attestation.svid_ttl",
        Duration(l::LOGIN_TTL_MIN_MS, l::LOGIN_TTL_MS),
        Absent("`own_domain.login_ttl`"),
        "The longest life of an SVID.",
    ),
    key("webhooks.name", Name, Required, "What it is called in `mayfly webhook list`. How far it came is kept under this name."),
    key(
        "webhooks.url",
        WebhookUrl,
        Required,
        "Where events are posted: https, or http on this host. Redirects are not followed. docs/webhooks.md says what is posted and promised.",
    ),
    key("webhooks.ca", Path, Absent("none; https needs it"), "The roots that vouch for the receiver, PEM."),
    key(
        "webhooks.secret_file",
        Path,
        Required,
        "What signs: `whsec_` and 24 to 64 bytes in base64, readable by the server's user only. A second line signs too, while secrets change.",
    ),
    key("webhooks.events", Names, Is("[]"), "Which events: types, or groups like `break_glass.*`. None: all."),
    key("webhooks.environments", Names, Is("[]"), "Events of which environments. None: all."),
    key("admin.uids", Numbers, Is("[]"), "Uids that may use the socket beside the server's own."),
    key(
        "admin.single_operator",
        Flag,
        Is("false"),
        "There is one operator only: over the socket nobody else has to approve a change of who operates, who approves or what takes approval.",
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
