//! The list of metrics.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that grows and shrinks.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The metrics. The code that reads their values names each of them, so that none is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described by its help text below")]
pub enum MetricName {
    Issuing,
    CredentialsIssued,
    Credentials,
    Tasks,
    Refusals,
    Exchanges,
    Calls,
    CallSeconds,
    HandshakesRefused,
    Revocations,
    Rules,
    Locks,
    Followers,
    FollowersBeyond,
    FollowersStale,
    ApprovalsWaiting,
    BreakGlassOpened,
    BreakGlassUses,
    BreakGlassOpen,
    BreakGlassUnreviewed,
    PolicyDifferences,
    LedgerGeneration,
    LedgerDurable,
    LedgerAppended,
    LedgerAppendLongestSeconds,
    LedgerAppendAgeSeconds,
    LedgerAppendSeconds,
    AuditExportBehind,
    AuditExportFailing,
    AuditExportCut,
    WebhookDelivered,
    WebhookFailed,
    WebhookGivenUp,
    WebhookBehind,
    Leases,
    LeasesFailing,
    UpstreamsAwaitingSignIn,
    SecretsToRotate,
    SecretRotationsFailing,
    UpstreamCalls,
    UpstreamUnanswering,
    StoreBytes,
    StoreFreeBytes,
    Waiting,
    CertificateEndsSeconds,
    CertificateRenewals,
    CertificateSourceFailing,
    SourceFailing,
    PolicyDrift,
    ConfigReloads,
    LogLinesDropped,
    AuditReadsUnrecorded,
    Backups,
    TraceSpansSent,
    TraceSpansDropped,
    TraceCallsOverRate,
    TraceFailing,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The metric, for the code that reads its value.
    pub id: MetricName,
    /// The name, without the suffix `_total` of a counter.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

impl Metric {
    /// The name of the metric's series, without the suffixes of a histogram.
    pub fn series(&self) -> String {
        format!("{}{}", self.name, if self.kind == MetricKind::Counter { "_total" } else { "" })
    }
}

const fn counter(id: MetricName, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { id, name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(id: MetricName, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { id, name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(id: MetricName, name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { id, name, kind: MetricKind::Histogram, labels, help }
}

/// All of them, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    gauge(MetricName::Issuing, "mayfly_issuing", &[], "1 while the server issues credentials, otherwise 0"),
    counter(MetricName::CredentialsIssued, "mayfly_credentials_issued", &[], "Credentials ever issued"),
    gauge(
        MetricName::Credentials,
        "mayfly_credentials",
        &[],
        "Credentials that have not expired, including revoked ones; an expired credential counts until the ledger removes it",
    ),
    gauge(
        MetricName::Tasks,
        "mayfly_tasks",
        &[],
        "Tasks in memory: open tasks, and tasks that ended within the last ten minutes",
    ),
    counter(MetricName::Refusals, "mayfly_refusals", &["reason"], "Refusals since the server started, by reason"),
    counter(
        MetricName::Exchanges,
        "mayfly_exchanges",
        &["environment", "upstream", "outcome"],
        "Exchanges since the server started; each exchange of a batch or of a stream counts separately",
    ),
    counter(
        MetricName::Calls,
        "mayfly_calls",
        &["method", "code"],
        "gRPC calls that ended since the server started, by method and status code",
    ),
    histogram(
        MetricName::CallSeconds,
        "mayfly_call_seconds",
        &["method"],
        "Latency of answers since the server started: of each call with a single answer, and of each exchange of a stream",
    ),
    counter(
        MetricName::HandshakesRefused,
        "mayfly_handshakes_refused",
        &["listener", "clause"],
        "TLS handshakes that were refused since the server started, by listener and clause",
    ),
    counter(MetricName::Revocations, "mayfly_revocations", &[], "Revocations and locks since the server started"),
    gauge(MetricName::Rules, "mayfly_rules", &[], "Revocation rules in effect"),
    gauge(MetricName::Locks, "mayfly_locks", &[], "Locks in effect"),
    gauge(MetricName::Followers, "mayfly_followers", &[], "Registered followers"),
    gauge(
        MetricName::FollowersBeyond,
        "mayfly_followers_beyond",
        &[],
        "Followers that showed since the server started that they have seen more of the ledger than the server has: the server runs on an older copy",
    ),
    gauge(
        MetricName::FollowersStale,
        "mayfly_followers_stale",
        &[],
        "Followers from which the server has not heard for feed.max_age",
    ),
    gauge(
        MetricName::ApprovalsWaiting,
        "mayfly_approvals_waiting",
        &[],
        "Requested approvals that nobody has given or refused yet",
    ),
    counter(MetricName::BreakGlassOpened, "mayfly_break_glass_opened", &[], "Break-glass tasks ever opened"),
    counter(
        MetricName::BreakGlassUses,
        "mayfly_break_glass_uses",
        &[],
        "Credentials ever issued, and actions ever authorized, in break-glass",
    ),
    gauge(
        MetricName::BreakGlassOpen,
        "mayfly_break_glass_open",
        &[],
        "Break-glass tasks that are open or wait for their second person",
    ),
    gauge(
        MetricName::BreakGlassUnreviewed,
        "mayfly_break_glass_unreviewed",
        &[],
        "Break-glass tasks that have ended and are not reviewed",
    ),
    counter(
        MetricName::PolicyDifferences,
        "mayfly_policy_differences",
        &["would"],
        "Decisions that the shadow policy set would have made differently",
    ),
    gauge(MetricName::LedgerGeneration, "mayfly_ledger_generation", &[], "The current generation of the ledger"),
    gauge(MetricName::LedgerDurable, "mayfly_ledger_durable", &[], "Records of the current generation that are durable"),
    gauge(
        MetricName::LedgerAppended,
        "mayfly_ledger_appended",
        &[],
        "Records of the current generation that the fold has accepted, whether durable yet or not",
    ),
    gauge(
        MetricName::LedgerAppendLongestSeconds,
        "mayfly_ledger_append_longest_seconds",
        &[],
        "The longest durable write since the server started",
    ),
    gauge(
        MetricName::LedgerAppendAgeSeconds,
        "mayfly_ledger_append_age_seconds",
        &[],
        "How long the present commit has taken so far; 0 while there is none",
    ),
    histogram(
        MetricName::LedgerAppendSeconds,
        "mayfly_ledger_append_seconds",
        &[],
        "Duration of durable writes since the server started",
    ),
    gauge(
        MetricName::AuditExportBehind,
        "mayfly_audit_export_behind",
        &[],
        "Records that the continuous export has not delivered yet",
    ),
    gauge(MetricName::AuditExportFailing, "mayfly_audit_export_failing", &[], "1 while the continuous export cannot proceed"),
    counter(
        MetricName::AuditExportCut,
        "mayfly_audit_export_cut",
        &[],
        "Records that were too large for the export's destination: only their seq and event were exported",
    ),
    counter(
        MetricName::WebhookDelivered,
        "mayfly_webhook_delivered",
        &["webhook"],
        "Events that the receiver accepted since the server started",
    ),
    counter(
        MetricName::WebhookFailed,
        "mayfly_webhook_failed",
        &["webhook"],
        "Delivery attempts that failed since the server started",
    ),
    counter(MetricName::WebhookGivenUp, "mayfly_webhook_given_up", &["webhook"], "Events ever given up without delivery"),
    gauge(MetricName::WebhookBehind, "mayfly_webhook_behind", &["webhook"], "Records that the webhook has not processed yet"),
    gauge(MetricName::Leases, "mayfly_leases", &[], "Open leases"),
    gauge(
        MetricName::LeasesFailing,
        "mayfly_leases_failing",
        &[],
        "Leases whose object at the upstream could not be removed yet",
    ),
    gauge(
        MetricName::UpstreamsAwaitingSignIn,
        "mayfly_upstreams_awaiting_sign_in",
        &[],
        "Active upstreams that issue nothing until somebody signs in at their authorization server",
    ),
    gauge(
        MetricName::SecretsToRotate,
        "mayfly_secrets_to_rotate",
        &[],
        "Static secrets whose rotation was requested, or is overdue by the schedule, and not done",
    ),
    gauge(
        MetricName::SecretRotationsFailing,
        "mayfly_secret_rotations_failing",
        &[],
        "Static secrets of which a step of the rotation failed, and is tried again",
    ),
    counter(
        MetricName::UpstreamCalls,
        "mayfly_upstream_calls",
        &["upstream", "call", "outcome"],
        "Calls to an upstream since the server started, to make or to undo a credential, by their outcome: done, refused, unanswered",
    ),
    gauge(
        MetricName::UpstreamUnanswering,
        "mayfly_upstream_unanswering",
        &["upstream"],
        "1 while exchanges for the upstream are refused at once, because it did not answer the last calls",
    ),
    gauge(MetricName::StoreBytes, "mayfly_store_bytes", &[], "Bytes that the store occupies on its disk"),
    gauge(MetricName::StoreFreeBytes, "mayfly_store_free_bytes", &[], "Bytes that are free on the disk of the store"),
    gauge(MetricName::Waiting, "mayfly_waiting", &[], "Exchanges that were read and wait for their decision"),
    gauge(
        MetricName::CertificateEndsSeconds,
        "mayfly_certificate_ends_seconds",
        &[],
        "Expiry of the server's own certificate, in seconds since 1970",
    ),
    counter(
        MetricName::CertificateRenewals,
        "mayfly_certificate_renewals",
        &[],
        "Renewals of the server's own certificate since the server started",
    ),
    gauge(
        MetricName::CertificateSourceFailing,
        "mayfly_certificate_source_failing",
        &[],
        "1 while the files or the agent that provide the server's own certificate do not provide a usable one",
    ),
    gauge(
        MetricName::SourceFailing,
        "mayfly_source_failing",
        &["source", "name"],
        "1 while a file or a service that the server reads again cannot be read; its previous contents stay in use",
    ),
    gauge(
        MetricName::PolicyDrift,
        "mayfly_policy_drift",
        &[],
        "Differences between the ledger, which is authoritative, and the files of policies, registrations and bindings",
    ),
    counter(
        MetricName::ConfigReloads,
        "mayfly_config_reloads",
        &["outcome"],
        "Reloads of the configuration since the server started, by whether the new configuration was taken or refused",
    ),
    counter(
        MetricName::LogLinesDropped,
        "mayfly_log_lines_dropped",
        &[],
        "Log lines that were dropped since the process started, because nobody read stderr",
    ),
    counter(
        MetricName::AuditReadsUnrecorded,
        "mayfly_audit_reads_unrecorded",
        &[],
        "Reads of the audit since the server started that have no record, because none became durable within half a second",
    ),
    counter(MetricName::Backups, "mayfly_backups", &[], "Backups that were sent completely since the server started"),
    counter(
        MetricName::TraceSpansSent,
        "mayfly_trace_spans_sent",
        &[],
        "Spans that the collector accepted since the server started",
    ),
    counter(
        MetricName::TraceSpansDropped,
        "mayfly_trace_spans_dropped",
        &["why"],
        "Spans that the collector did not get or accept: the queue was full, the collector was unreachable, or it rejected them",
    ),
    counter(
        MetricName::TraceCallsOverRate,
        "mayfly_trace_calls_over_rate",
        &[],
        "Calls that were not traced because of traces.per_second",
    ),
    gauge(MetricName::TraceFailing, "mayfly_trace_failing", &[], "1 while the collector does not accept traces"),
];
