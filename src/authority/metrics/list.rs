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
    gauge("mayfly_issuing", &[], "1 while credentials are issued"),
    counter("mayfly_credentials_issued", &[], "Credentials ever issued"),
    gauge("mayfly_credentials", &[], "Credentials in memory: those that live, and a few that just ended"),
    gauge("mayfly_tasks", &[], "Tasks in memory"),
    counter("mayfly_refusals", &["reason"], "Refusals since the server started, by reason"),
    counter(
        "mayfly_exchanges",
        &["environment", "upstream", "outcome"],
        "Exchanges since the server started, each of a batch and of a stream by itself",
    ),
    counter("mayfly_calls", &["method", "code"], "gRPC calls that ended since the server started, by their status code"),
    histogram(
        "mayfly_call_seconds",
        &["method"],
        "How long answers took since the server started: of each call that has one answer, and of each exchange of a stream",
    ),
    counter(
        "mayfly_handshakes_refused",
        &["listener", "clause"],
        "Handshakes that were refused since the server started, by clause",
    ),
    counter("mayfly_revocations", &[], "Revocations and locks since the server started"),
    gauge("mayfly_rules", &[], "Revocation rules in force"),
    gauge("mayfly_locks", &[], "Locks in force"),
    gauge("mayfly_followers", &[], "Registered followers"),
    gauge(
        "mayfly_followers_beyond",
        &[],
        "Followers that have seen more of the ledger than this server has, since it started: it runs on an older copy",
    ),
    gauge("mayfly_followers_stale", &[], "Followers that were not heard of for feed.max_age"),
    gauge("mayfly_approvals_waiting", &[], "Approvals that nobody decided about yet"),
    counter("mayfly_break_glass_opened", &[], "Break-glass tasks ever opened"),
    counter("mayfly_break_glass_uses", &[], "Credentials ever issued, and actions ever authorized, in break-glass"),
    gauge("mayfly_break_glass_open", &[], "Break-glass tasks that wait or are open"),
    gauge("mayfly_break_glass_unreviewed", &[], "Break-glass tasks that are over and that nobody reviewed"),
    counter("mayfly_policy_differences", &["would"], "Decisions that the shadow policy set would have made differently"),
    gauge("mayfly_ledger_generation", &[], "The generation"),
    gauge("mayfly_ledger_durable", &[], "Records of this generation that are durable"),
    gauge("mayfly_ledger_appended", &[], "Records of this generation that are decided"),
    gauge("mayfly_ledger_append_longest_seconds", &[], "The longest durable write since the server started"),
    gauge(
        "mayfly_ledger_append_age_seconds",
        &[],
        "How long the commit that is under way has taken so far; 0 while there is none",
    ),
    histogram("mayfly_ledger_append_seconds", &[], "How long durable writes took since the server started"),
    gauge("mayfly_audit_export_behind", &[], "Records that the continuous export has yet to hand over"),
    gauge("mayfly_audit_export_failing", &[], "1 while the continuous export cannot go on"),
    counter(
        "mayfly_audit_export_cut",
        &[],
        "Records that were too large for the export's destination: only their seq and event were handed over",
    ),
    counter("mayfly_webhook_delivered", &["webhook"], "Events that were taken since the server started"),
    counter("mayfly_webhook_failed", &["webhook"], "Attempts that failed since the server started"),
    counter("mayfly_webhook_given_up", &["webhook"], "Events that were ever given up"),
    gauge("mayfly_webhook_behind", &["webhook"], "Records that a webhook has yet to go through"),
    gauge("mayfly_leases", &[], "Open leases"),
    gauge("mayfly_leases_failing", &[], "Leases whose undoing failed"),
    gauge("mayfly_store_bytes", &[], "What the store takes"),
    gauge("mayfly_store_free_bytes", &[], "Free room on its disk"),
    gauge("mayfly_waiting", &[], "Exchanges that were read and wait"),
    gauge("mayfly_certificate_ends_seconds", &[], "When the server's own certificate ends, seconds since 1970"),
    counter("mayfly_certificate_renewals", &[], "Other certificates of its own that the server took in use since it started"),
    gauge(
        "mayfly_certificate_source_failing",
        &[],
        "1 while the files or the agent that the server's own certificate comes from give none to use",
    ),
    gauge(
        "mayfly_source_failing",
        &["source", "name"],
        "1 while a file or a service that the server reads again cannot be read; what was read before stays in use",
    ),
    gauge("mayfly_policy_drift", &[], "Differences between the files of policies and registrations and the ledger, which counts"),
    counter(
        "mayfly_config_reloads",
        &["outcome"],
        "Reloads of the configuration since the server started, by whether it was taken",
    ),
    counter("mayfly_log_lines_dropped", &[], "Log lines that were dropped since the process started, because nobody read stderr"),
    counter(
        "mayfly_audit_reads_unrecorded",
        &[],
        "Reads of the audit since the server started that the ledger took no record of, because it took none",
    ),
    counter("mayfly_backups", &[], "Backups that were handed over whole since the server started"),
    counter("mayfly_trace_spans_sent", &[], "Spans that the collector took since the server started"),
    counter(
        "mayfly_trace_spans_dropped",
        &["why"],
        "Spans that it did not: the queue was full, it was unreachable, or rejected them",
    ),
    counter("mayfly_trace_calls_over_rate", &[], "Calls that were to be traced beyond traces.per_second"),
    gauge("mayfly_trace_failing", &[], "1 while the collector does not take traces"),
];
