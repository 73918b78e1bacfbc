//! Numbers for whoever watches a server: what it did and how it stands, in OpenMetrics.
//!
//! They are read when somebody asks, from what is there anyway; the few that are counted are counted where the ledger is followed. So
//! issuing costs nothing more. Labels are of closed lists: reasons of refusals, names of webhooks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::authority::Authority;
use crate::ledger::record::{Event, Record};
use crate::ledger::{State, WRITES_US, Writes};
use crate::refusal::{Fault, Reason};
use crate::webhook::Standing;

/// What numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They only grow.
    Counter,
    /// They go up and down.
    Gauge,
    /// How many there were of which size.
    Histogram,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, without `_total`, which a counter's gets.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// Its label, where it has one.
    pub label: &'static str,
    /// What it is.
    pub help: &'static str,
}

const fn counter(name: &'static str, label: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, label, help }
}

const fn gauge(name: &'static str, label: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, label, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, label: "", help }
}

/// All of them, in the order of the documentation.
pub const METRICS: &[Metric] = &[
    gauge("mayfly_issuing", "", "1 while credentials are issued"),
    counter("mayfly_credentials_issued", "", "Credentials ever issued"),
    gauge("mayfly_credentials", "", "Credentials in memory: those that live, and a few that just ended"),
    gauge("mayfly_tasks", "", "Tasks in memory"),
    counter("mayfly_refusals", "reason", "Refusals since the server started, by reason"),
    counter("mayfly_revocations", "", "Revocations and locks since the server started"),
    gauge("mayfly_rules", "", "Revocation rules in force"),
    gauge("mayfly_locks", "", "Locks in force"),
    gauge("mayfly_followers", "", "Registered followers"),
    gauge(
        "mayfly_followers_beyond",
        "",
        "Followers that have seen more of the ledger than this server has, since it started: it runs on an older copy",
    ),
    gauge("mayfly_followers_stale", "", "Followers that were not heard of for feed.max_age"),
    gauge("mayfly_approvals_waiting", "", "Approvals that nobody decided about yet"),
    counter("mayfly_break_glass_opened", "", "Break-glass tasks ever opened"),
    counter("mayfly_break_glass_uses", "", "Credentials ever issued, and actions ever authorized, in break-glass"),
    gauge("mayfly_break_glass_open", "", "Break-glass tasks that wait or are open"),
    gauge("mayfly_break_glass_unreviewed", "", "Break-glass tasks that are over and that nobody reviewed"),
    counter("mayfly_policy_differences", "would", "Decisions that the set beside the one in force would have made otherwise"),
    gauge("mayfly_ledger_generation", "", "The generation"),
    gauge("mayfly_ledger_durable", "", "Records of this generation that are durable"),
    gauge("mayfly_ledger_appended", "", "Records of this generation that are decided"),
    gauge("mayfly_ledger_append_longest_seconds", "", "The longest durable write since the server started"),
    gauge(
        "mayfly_ledger_append_age_seconds",
        "",
        "How long the commit that is under way has taken so far; 0 while there is none",
    ),
    histogram("mayfly_ledger_append_seconds", "How long durable writes took since the server started"),
    gauge("mayfly_audit_export_behind", "", "Records that the continuous export has yet to hand over"),
    gauge("mayfly_audit_export_failing", "", "1 while the continuous export cannot go on"),
    counter(
        "mayfly_audit_export_cut",
        "",
        "Records that were too large for the export's destination: only their seq and event were handed over",
    ),
    counter("mayfly_webhook_delivered", "webhook", "Events that were taken since the server started"),
    counter("mayfly_webhook_failed", "webhook", "Attempts that failed since the server started"),
    counter("mayfly_webhook_given_up", "webhook", "Events that were ever given up"),
    gauge("mayfly_webhook_behind", "webhook", "Records that a webhook has yet to go through"),
    gauge("mayfly_leases", "", "Open leases"),
    gauge("mayfly_leases_failing", "", "Leases whose undoing failed"),
    gauge("mayfly_store_bytes", "", "What the store takes"),
    gauge("mayfly_store_free_bytes", "", "Free room on its disk"),
    gauge("mayfly_waiting", "", "Exchanges that were read and wait"),
    gauge("mayfly_certificate_ends_seconds", "", "When the server's own certificate ends, seconds since 1970"),
    counter("mayfly_certificate_renewals", "", "Other certificates of its own that the server took in use since it started"),
    gauge(
        "mayfly_certificate_source_failing",
        "",
        "1 while the files or the agent that the server's own certificate comes from give none to use",
    ),
    gauge("mayfly_policy_drift", "", "Differences between the files of policies and registrations and the ledger, which counts"),
    counter("mayfly_config_reloads", "outcome", "Reloads of the configuration since the server started, by whether it was taken"),
    counter("mayfly_log_lines_dropped", "", "Log lines that were dropped since the process started, because nobody read stderr"),
    counter("mayfly_backups", "", "Backups that were handed over whole since the server started"),
    counter("mayfly_trace_spans_sent", "", "Spans that the collector took since the server started"),
    counter(
        "mayfly_trace_spans_dropped",
        "why",
        "Spans that it did not: the queue was full, it was unreachable, or rejected them",
    ),
    counter("mayfly_trace_calls_over_rate", "", "Calls that were to be traced beyond traces.per_second"),
    gauge("mayfly_trace_failing", "", "1 while the collector does not take traces"),
];

/// What is counted as the ledger goes on.
pub struct Counted {
    refusals: [AtomicU64; Reason::ALL.len()],
    revocations: AtomicU64,
    pub(crate) backups: AtomicU64,
    reloads: [AtomicU64; 2],
}

impl Default for Counted {
    fn default() -> Counted {
        let refusals = [const { AtomicU64::new(0) }; Reason::ALL.len()];
        Counted { refusals, revocations: AtomicU64::new(0), backups: AtomicU64::new(0), reloads: Default::default() }
    }
}

impl Counted {
    /// The configuration was read again, and taken or refused.
    pub(crate) fn reloaded(&self, taken: bool) {
        let [refused, taken_in] = &self.reloads;
        if taken { taken_in } else { refused }.fetch_add(1, Relaxed);
    }

    /// A durable record that is no issuance.
    pub(crate) fn count(&self, record: &Record) {
        match &record.event {
            Some(Event::Refused(e)) => {
                let place = Reason::ALL.iter().position(|reason| reason.as_str() == e.reason);
                if let Some(counter) = place.and_then(|place| self.refusals.get(place)) {
                    counter.fetch_add(e.count, Relaxed);
                }
            }
            Some(Event::Revoked(_)) => drop(self.revocations.fetch_add(1, Relaxed)),
            _ => {}
        }
    }
}

/// A value, with its label's where it has one.
type Row = (Option<String>, u64);

/// What was seen of each metric.
#[derive(Debug)]
struct Seen {
    numbers: Vec<(&'static Metric, Vec<Row>)>,
    writes: Writes,
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (metric, rows) in self.numbers.iter().filter(|(metric, rows)| !rows.is_empty() || metric.kind == Kind::Histogram) {
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut of = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            if metric.kind == Kind::Histogram {
                buckets(&mut of, &self.writes)?;
            }
            for (label, value) in rows {
                match label {
                    None => write(metric, &mut of, *value)?,
                    Some(label) => write(metric, &mut of.encode_family(&[(metric.label, label.as_str())])?, *value)?,
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &Metric, to: &mut MetricEncoder<'_>, value: u64) -> Result<(), fmt::Error> {
    match metric.kind {
        Kind::Counter => to.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        // Of seconds, microseconds are kept until here.
        _ if metric.name.ends_with("_seconds") => to.encode_gauge(&(value as f64 / 1e6)),
        _ => to.encode_gauge(&(value as f64)),
    }
}

fn buckets(to: &mut MetricEncoder<'_>, writes: &Writes) -> Result<(), fmt::Error> {
    let bounds = WRITES_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(writes.counts).collect();
    to.encode_histogram::<NoLabelSet>(writes.sum_us as f64 / 1e6, writes.counts.iter().sum(), &buckets, None)
}

fn one(value: impl TryInto<u64>) -> Vec<Row> {
    vec![(None, value.try_into().unwrap_or(u64::MAX))]
}

impl Authority {
    /// All metrics, as they stand, in OpenMetrics' text form.
    pub fn metrics(&self) -> Result<String, Fault> {
        let mut registry = Registry::default();
        let hooks = self.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
        let seen = METRICS.iter().map(|metric| (metric, self.told(metric.name, &hooks))).collect();
        registry.register_collector(Box::new(Seen { numbers: seen, writes: self.ledger.writes_took() }));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|e| Fault::new(format!("metrics: {e}")))?;
        Ok(text)
    }

    fn traces_told(&self, name: &str) -> Vec<Row> {
        let counts = self.tracer.queue().counts();
        match name {
            "mayfly_trace_spans_sent" => one(counts.sent.load(Relaxed)),
            "mayfly_trace_spans_dropped" => {
                let each = [("full", &counts.full), ("unreachable", &counts.unreachable), ("rejected", &counts.rejected)];
                each.map(|(why, n)| (Some(why.to_owned()), n.load(Relaxed))).into()
            }
            "mayfly_trace_calls_over_rate" => one(counts.over_rate.load(Relaxed)),
            "mayfly_trace_failing" => one(u64::from(counts.failing.load(Relaxed))),
            _ => Vec::new(),
        }
    }

    fn told(&self, name: &str, hooks: &[Standing]) -> Vec<Row> {
        let durable = self.ledger.durable();
        let now = self.system.wall();
        let state = |look: fn(&State) -> usize| one(self.ledger.peek(look));
        let each = |value: &dyn Fn(&Standing) -> u64| hooks.iter().map(|h| (Some(h.name.clone()), value(h))).collect();
        match name {
            "mayfly_issuing" => one(u64::from(self.ledger.stopped().is_none())),
            "mayfly_credentials_issued" => one(self.ledger.peek(|s| s.issued)),
            "mayfly_credentials" => state(|s| s.credentials.len()),
            "mayfly_tasks" => state(|s| s.tasks.len()),
            "mayfly_refusals" => {
                let all = Reason::ALL.iter().zip(&self.counted.refusals).map(|(reason, n)| (reason, n.load(Relaxed)));
                all.filter(|(_, n)| *n > 0).map(|(reason, n)| (Some(reason.as_str().to_owned()), n)).collect()
            }
            "mayfly_revocations" => one(self.counted.revocations.load(Relaxed)),
            "mayfly_rules" => state(|s| s.rules.len()),
            "mayfly_locks" => state(|s| s.rules.locks()),
            "mayfly_followers" => one(self.followers.list(now).len()),
            "mayfly_followers_beyond" => one(self.followers.beyond().len()),
            "mayfly_followers_stale" => {
                let stale = |f: &&crate::feed::Follower| now.since(f.last_seen) > self.followers.max_age_ms();
                one(self.followers.list(now).iter().filter(stale).count())
            }
            "mayfly_approvals_waiting" => {
                one(self.ledger.peek(|s| s.approvals.values().filter(|a| a.decided.is_none() && a.expires_at() > now).count()))
            }
            "mayfly_break_glass_opened" => one(self.ledger.peek(|s| s.glasses.opened)),
            "mayfly_break_glass_uses" => one(self.ledger.peek(|s| s.glasses.uses)),
            "mayfly_break_glass_open" => one(self.ledger.peek(|s| s.glasses.iter().filter(|(_, g)| !g.over(now)).count())),
            "mayfly_break_glass_unreviewed" => {
                one(self.ledger.peek(|s| s.glasses.iter().filter(|(_, g)| g.unreviewed(now)).count()))
            }
            "mayfly_policy_differences" => {
                let counts = self.decider.audits.counts();
                vec![(Some("refuse".into()), counts.refuses), (Some("permit".into()), counts.permits)]
            }
            "mayfly_ledger_generation" => one(durable.generation()),
            "mayfly_ledger_durable" => one(durable.count()),
            "mayfly_ledger_appended" => one(self.ledger.peek(|s| s.head.count())),
            "mayfly_ledger_append_longest_seconds" => one(self.ledger.longest().append_us),
            "mayfly_ledger_append_age_seconds" => one(self.ledger.commit_age_us()),
            "mayfly_audit_export_behind" => {
                let at = self.exported.lock().as_ref().map(|e| e.seq);
                at.map_or_else(Vec::new, |at| one(durable.as_u64().saturating_sub(at.as_u64())))
            }
            "mayfly_audit_export_cut" => self.exported.lock().as_ref().map_or_else(Vec::new, |e| one(e.cut)),
            "mayfly_audit_export_failing" => {
                self.exported.lock().as_ref().map_or_else(Vec::new, |e| one(u64::from(!e.problem.is_empty())))
            }
            "mayfly_webhook_delivered" => each(&|h| h.delivered),
            "mayfly_webhook_failed" => each(&|h| h.failed),
            "mayfly_webhook_given_up" => each(&|h| h.dead),
            "mayfly_webhook_behind" => each(&|h| durable.as_u64().saturating_sub(h.seq.as_u64())),
            "mayfly_leases" => state(|s| s.leases.len()),
            "mayfly_leases_failing" => one(self.leases.failing()),
            "mayfly_store_bytes" => one(self.ledger.store().bytes()),
            "mayfly_store_free_bytes" => {
                let free = self.ledger.store().reserve().and_then(|reserve| reserve.free());
                free.map_or_else(Vec::new, one)
            }
            "mayfly_waiting" => one(self.intake.load().waiting),
            "mayfly_certificate_ends_seconds" => {
                let ends = self.own.get().and_then(|own| own.ends());
                ends.map_or_else(Vec::new, |ends| one(ends.0.saturating_mul(1_000)))
            }
            "mayfly_certificate_renewals" => self.own.get().map_or_else(Vec::new, |own| one(own.renewing().renewals)),
            "mayfly_certificate_source_failing" => {
                self.own.get().map_or_else(Vec::new, |own| one(u64::from(!own.renewing().problem.is_empty())))
            }
            "mayfly_policy_drift" => one(self.drift.load().len()),
            "mayfly_config_reloads" => {
                let [refused, taken] = &self.counted.reloads;
                [("taken", taken), ("refused", refused)].map(|(what, n)| (Some(what.to_owned()), n.load(Relaxed))).into()
            }
            "mayfly_log_lines_dropped" => one(crate::log_queue::dropped()),
            "mayfly_backups" => one(self.counted.backups.load(Relaxed)),
            name if name.starts_with("mayfly_trace_") && self.tracer.tells() => self.traces_told(name),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::METRICS;

    #[test]
    fn every_metric_is_documented_and_every_documented_one_is_there() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
        let row = |m: &super::Metric| {
            let suffix = if m.kind == super::Kind::Counter { "_total" } else { "" };
            let label = if m.label.is_empty() { String::new() } else { format!("{{{}}}", m.label) };
            format!("| `{}{suffix}{label}` | {} |", m.name, m.help)
        };
        for metric in METRICS {
            assert!(page.contains(&row(metric)), "docs/metrics.md lacks\n{}", row(metric));
        }
        assert_eq!(page.matches("| `mayfly_").count(), METRICS.len(), "docs/metrics.md has one that is not there");
    }
}
