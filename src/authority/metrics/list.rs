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

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
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

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, labels, help }
}

/// All of them, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    gauge("mayfly_issuing", &[], "1 while the server issues credentials, otherwise 0"),
    counter("mayfly_credentials_issued", &[], "Credentials ever issued"),
    gauge(
        "mayfly_credentials",
        &[],
        "Credentials that have not expired, including revoked ones; an expired credential counts until the ledger removes it",
    ),
    gauge("mayfly_tasks", &[], "Tasks in memory: open tasks, and tasks that ended within the last ten minutes"),
    counter("mayfly_refusals", &["reason"], "Refusals since the server started, by reason"),
    counter(
        "mayfly_exchanges",
        &["environment", "upstream", "outcome"],
        "Exchanges since the server started; each exchange of a batch or of a stream counts separately",
    ),
    counter("mayfly_calls", &["method", "code"], "gRPC calls that ended since the server started, by method and status code"),
    histogram(
        "mayfly_call_seconds",
        &["method"],
        "Latency of answers since the server started: of each call with a single answer, and of each exchange of a stream",
    ),
    counter(
        "mayfly_handshakes_refused",
        &["listener", "clause"],
        "TLS handshakes that were refused since the server started, by listener and clause",
    ),
    counter("mayfly_revocations", &[], "Revocations and locks since the server started"),
    gauge("mayfly_rules", &[], "Revocation rules in effect"),
    gauge("mayfly_locks", &[], "Locks in effect"),
    gauge("mayfly_followers", &[], "Registered followers"),
    gauge(
        "mayfly_followers_beyond",
        &[],
        "Followers that showed since the server started that they have seen more of the ledger than the server has: the server runs on an older copy",
    ),
    gauge("mayfly_followers_stale", &[], "Followers from which the server has not heard for feed.max_age"),
    gauge("mayfly_approvals_waiting", &[], "Requested approvals that nobody has given or refused yet"),
    counter("mayfly_break_glass_opened", &[], "Break-glass tasks ever opened"),
    counter("mayfly_break_glass_uses", &[], "Credentials ever issued, and actions ever authorized, in break-glass"),
    gauge("mayfly_break_glass_open", &[], "Break-glass tasks that are open or wait for their second person"),
    gauge("mayfly_break_glass_unreviewed", &[], "Break-glass tasks that have ended and are not reviewed"),
    counter("mayfly_policy_differences", &["would"], "Decisions that the shadow policy set would have made differently"),
    gauge("mayfly_ledger_generation", &[], "The current generation of the ledger"),
    gauge("mayfly_ledger_durable", &[], "Records of the current generation that are durable"),
    gauge(
        "mayfly_ledger_appended",
        &[],
        "Records of the current generation that the fold has accepted, whether durable yet or not",
    ),
    gauge("mayfly_ledger_append_longest_seconds", &[], "The longest durable write since the server started"),
    gauge("mayfly_ledger_append_age_seconds", &[], "How long the present commit has taken so far; 0 while there is none"),
    histogram("mayfly_ledger_append_seconds", &[], "Duration of durable writes since the server started"),
    gauge("mayfly_audit_export_behind", &[], "Records that the continuous export has not delivered yet"),
    gauge("mayfly_audit_export_failing", &[], "1 while the continuous export cannot proceed"),
    counter(
        "mayfly_audit_export_cut",
        &[],
        "Records that were too large for the export's destination: only their seq and event were exported",
    ),
    counter("mayfly_webhook_delivered", &["webhook"], "Events that the receiver accepted since the server started"),
    counter("mayfly_webhook_failed", &["webhook"], "Delivery attempts that failed since the server started"),
    counter("mayfly_webhook_given_up", &["webhook"], "Events ever given up without delivery"),
    gauge("mayfly_webhook_behind", &["webhook"], "Records that the webhook has not processed yet"),
    gauge("mayfly_leases", &[], "Open leases"),
    gauge("mayfly_leases_failing", &[], "Leases whose object at the upstream could not be removed yet"),
    gauge("mayfly_store_bytes", &[], "Bytes that the store occupies on its disk"),
    gauge("mayfly_store_free_bytes", &[], "Bytes that are free on the disk of the store"),
    gauge("mayfly_waiting", &[], "Exchanges that were read and wait for their decision"),
    gauge("mayfly_certificate_ends_seconds", &[], "Expiry of the server's own certificate, in seconds since 1970"),
    counter("mayfly_certificate_renewals", &[], "Renewals of the server's own certificate since the server started"),
    gauge(
        "mayfly_certificate_source_failing",
        &[],
        "1 while the files or the agent that provide the server's own certificate do not provide a usable one",
    ),
    gauge(
        "mayfly_source_failing",
        &["source", "name"],
        "1 while a file or a service that the server reads again cannot be read; its previous contents stay in use",
    ),
    gauge(
        "mayfly_policy_drift",
        &[],
        "Differences between the ledger, which is authoritative, and the files of policies and registrations",
    ),
    counter(
        "mayfly_config_reloads",
        &["outcome"],
        "Reloads of the configuration since the server started, by whether the new configuration was taken or refused",
    ),
    counter("mayfly_log_lines_dropped", &[], "Log lines that were dropped since the process started, because nobody read stderr"),
    counter(
        "mayfly_audit_reads_unrecorded",
        &[],
        "Reads of the audit since the server started that have no record, because none became durable within half a second",
    ),
    counter("mayfly_backups", &[], "Backups that were sent completely since the server started"),
    counter("mayfly_trace_spans_sent", &[], "Spans that the collector accepted since the server started"),
    counter(
        "mayfly_trace_spans_dropped",
        &["why"],
        "Spans that the collector did not get or accept: the queue was full, the collector was unreachable, or it rejected them",
    ),
    counter("mayfly_trace_calls_over_rate", &[], "Calls that were not traced because of traces.per_second"),
    gauge("mayfly_trace_failing", &[], "1 while the collector does not accept traces"),
];
