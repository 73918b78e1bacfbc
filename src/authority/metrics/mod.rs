//! The metrics of a server, in OpenMetrics.
//!
//! Metrics are read when a scraper asks. Most are derived from existing state, or counted by the code that follows the ledger; calls and
//! exchanges are counted by atomics at fixed places. The values of labels are from closed lists or bounded in number, so a caller cannot
//! create a series.
//!
//! - [`METRICS`]: the list. [`calls`], [`exchanges`], [`handshakes`]: the counters. [`latency`]: histograms.

pub mod calls;
pub mod exchanges;
pub mod handshakes;
pub mod latency;
mod list;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use latency::Histogram;
pub use list::{METRICS, Metric, MetricKind};

use crate::authority::Authority;
use crate::source_health::SourceState;
use crate::webhook::WebhookStatus;
use mayfly_base::refusal::{Fault, Reason};
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::{State, WRITES_US};

/// The counters of refusals, revocations, backups and reloads.
pub struct EventCounters {
    refusals: [AtomicU64; Reason::ALL.len()],
    revocations: AtomicU64,
    pub(crate) backups: AtomicU64,
    reloads: [AtomicU64; 2],
}

impl Default for EventCounters {
    fn default() -> EventCounters {
        let refusals = [const { AtomicU64::new(0) }; Reason::ALL.len()];
        EventCounters { refusals, revocations: AtomicU64::new(0), backups: AtomicU64::new(0), reloads: Default::default() }
    }
}

impl EventCounters {
    /// Counts a reload of the configuration, which was applied or refused.
    pub fn reloaded(&self, taken: bool) {
        let [refused, taken_in] = &self.reloads;
        if taken { taken_in } else { refused }.fetch_add(1, Relaxed);
    }

    /// Counts a durable record that is not an issuance.
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

/// A value with the values of its labels.
type Row = (Vec<String>, u64);

/// The values of all metrics at one scrape.
#[derive(Debug)]
struct MetricsScrape(Vec<(&'static Metric, Values)>);

/// The values of one metric.
#[derive(Debug)]
enum Values {
    Numbers(Vec<Row>),
    Histograms(Vec<(Vec<String>, Histogram)>),
}

impl Collector for MetricsScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (metric, values) in &self.0 {
            let kind = match metric.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
                MetricKind::Histogram => MetricType::Histogram,
            };
            let labelled = |labels: &[String]| -> Vec<(&'static str, String)> {
                metric.labels.iter().copied().zip(labels.iter().cloned()).collect()
            };
            let empty = match values {
                Values::Numbers(rows) => rows.is_empty(),
                Values::Histograms(all) => all.is_empty(),
            };
            if empty {
                continue;
            }
            let mut of = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            match values {
                Values::Numbers(rows) => {
                    for (labels, value) in rows {
                        match labels.is_empty() {
                            true => write(metric, &mut of, *value)?,
                            false => write(metric, &mut of.encode_family(&labelled(labels))?, *value)?,
                        }
                    }
                }
                Values::Histograms(all) => {
                    for (labels, histogram) in all {
                        match labels.is_empty() {
                            true => buckets(&mut of, histogram)?,
                            false => buckets(&mut of.encode_family(&labelled(labels))?, histogram)?,
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn write(metric: &Metric, to: &mut MetricEncoder<'_>, value: u64) -> Result<(), fmt::Error> {
    match metric.kind {
        MetricKind::Counter => to.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        // Durations are kept in microseconds and converted here.
        _ if metric.name.ends_with("_seconds") => to.encode_gauge(&(value as f64 / 1e6)),
        _ => to.encode_gauge(&(value as f64)),
    }
}

fn buckets(to: &mut MetricEncoder<'_>, of: &Histogram) -> Result<(), fmt::Error> {
    let bounds = of.bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(of.counts.iter().copied()).collect();
    to.encode_histogram::<NoLabelSet>(of.sum_us as f64 / 1e6, of.counts.iter().sum(), &buckets, None)
}

fn one(value: impl TryInto<u64>) -> Vec<Row> {
    vec![(Vec::new(), value.try_into().unwrap_or(u64::MAX))]
}

/// Rows with a single label.
fn by(rows: impl IntoIterator<Item = (impl Into<String>, u64)>) -> Vec<Row> {
    rows.into_iter().map(|(label, value)| (vec![label.into()], value)).collect()
}

impl Authority {
    /// The present values of all metrics, in the text format of OpenMetrics.
    pub fn metrics(&self) -> Result<String, Fault> {
        let mut registry = Registry::default();
        let hooks = self.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
        let values = |metric: &'static Metric| match metric.kind {
            MetricKind::Histogram => Values::Histograms(self.histograms(metric.name)),
            _ => Values::Numbers(self.told(metric.name, &hooks)),
        };
        registry.register_collector(Box::new(MetricsScrape(METRICS.iter().map(|metric| (metric, values(metric))).collect())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|e| Fault::new(format!("metrics: {e}")))?;
        Ok(text)
    }

    fn histograms(&self, name: &str) -> Vec<(Vec<String>, Histogram)> {
        match name {
            "mayfly_ledger_append_seconds" => {
                let writes = self.ledger.writes_took();
                let histogram = Histogram { bounds_us: &WRITES_US, counts: writes.counts.to_vec(), sum_us: writes.sum_us };
                vec![(Vec::new(), histogram)]
            }
            "mayfly_call_seconds" => {
                self.call_metrics.latencies().map(|(method, histogram)| (vec![method.to_owned()], histogram)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The rows of metrics that have several labels.
    fn labelled(&self, name: &str) -> Vec<Row> {
        match name {
            "mayfly_exchanges" => self.exchange_metrics.counts().into_iter().map(|(labels, n)| (labels.into(), n)).collect(),
            "mayfly_calls" => {
                let counts = self.call_metrics.counts();
                counts.map(|(method, code, n)| (vec![method.to_owned(), code.to_owned()], n)).collect()
            }
            "mayfly_handshakes_refused" => {
                let counts = self.refused_handshakes.counts().into_iter();
                counts.map(|(listener, clause, n)| (vec![listener.to_owned(), clause.to_owned()], n)).collect()
            }
            "mayfly_source_failing" => {
                let failing = |s: SourceState| (vec![s.kind.as_str().to_owned(), s.name], u64::from(!s.problem.is_empty()));
                self.sources().into_iter().map(failing).collect()
            }
            _ => Vec::new(),
        }
    }

    fn traces_told(&self, name: &str) -> Vec<Row> {
        let counts = self.tracer.queue().counts();
        match name {
            "mayfly_trace_spans_sent" => one(counts.sent.load(Relaxed)),
            "mayfly_trace_spans_dropped" => {
                let each = [("full", &counts.full), ("unreachable", &counts.unreachable), ("rejected", &counts.rejected)];
                by(each.map(|(why, n)| (why, n.load(Relaxed))))
            }
            "mayfly_trace_calls_over_rate" => one(counts.over_rate.load(Relaxed)),
            "mayfly_trace_failing" => one(u64::from(counts.failing.load(Relaxed))),
            _ => Vec::new(),
        }
    }

    fn told(&self, name: &str, hooks: &[WebhookStatus]) -> Vec<Row> {
        let durable = self.ledger.durable();
        let now = self.system.wall();
        let state = |look: fn(&State) -> usize| one(self.ledger.peek(look));
        let each = |value: &dyn Fn(&WebhookStatus) -> u64| by(hooks.iter().map(|h| (h.name.clone(), value(h))));
        match name {
            "mayfly_issuing" => one(u64::from(self.ledger.stopped().is_none())),
            "mayfly_credentials_issued" => one(self.ledger.peek(|s| s.issued)),
            "mayfly_credentials" => state(|s| s.credentials.len()),
            "mayfly_tasks" => state(|s| s.tasks.len()),
            "mayfly_refusals" => {
                let all = Reason::ALL.iter().zip(&self.counted.refusals).map(|(reason, n)| (reason, n.load(Relaxed)));
                by(all.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)))
            }
            "mayfly_revocations" => one(self.counted.revocations.load(Relaxed)),
            "mayfly_rules" => state(|s| s.rules.len()),
            "mayfly_locks" => state(|s| s.rules.locks()),
            "mayfly_followers" => one(self.followers.list(now).len()),
            "mayfly_followers_beyond" => one(self.followers.beyond().len()),
            "mayfly_followers_stale" => {
                let stale = |f: &&crate::revocation::feed::FeedFollower| now.since(f.last_seen) > self.followers.max_age_ms();
                one(self.followers.list(now).iter().filter(stale).count())
            }
            "mayfly_approvals_waiting" => {
                one(self.ledger.peek(|s| s.approvals.values().filter(|a| a.decided.is_none() && a.expires_at() > now).count()))
            }
            "mayfly_break_glass_opened" => one(self.ledger.peek(|s| s.break_glass_tasks.opened)),
            "mayfly_break_glass_uses" => one(self.ledger.peek(|s| s.break_glass_tasks.uses)),
            "mayfly_break_glass_open" => {
                one(self.ledger.peek(|s| s.break_glass_tasks.iter().filter(|(_, g)| !g.over(now)).count()))
            }
            "mayfly_break_glass_unreviewed" => {
                one(self.ledger.peek(|s| s.break_glass_tasks.iter().filter(|(_, g)| g.unreviewed(now)).count()))
            }
            "mayfly_policy_differences" => {
                let counts = self.decider.audits.counts();
                by([("refuse", counts.refuses), ("permit", counts.permits)])
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
                by([("taken", taken), ("refused", refused)].map(|(what, n)| (what, n.load(Relaxed))))
            }
            "mayfly_log_lines_dropped" => one(mayfly_base::log_queue::dropped()),
            "mayfly_audit_reads_unrecorded" => one(self.audit_reads.unrecorded()),
            "mayfly_backups" => one(self.counted.backups.load(Relaxed)),
            name if name.starts_with("mayfly_trace_") && self.tracer.tells() => self.traces_told(name),
            name => self.labelled(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::METRICS;

    #[test]
    fn every_metric_is_documented_and_every_documented_one_is_there() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
        let row = |m: &super::Metric| {
            let labels = if m.labels.is_empty() { String::new() } else { format!("{{{}}}", m.labels.join(",")) };
            format!("| `{}{labels}` | {} |", m.series(), m.help)
        };
        for metric in METRICS {
            assert!(page.contains(&row(metric)), "docs/metrics.md lacks\n{}", row(metric));
        }
        assert_eq!(page.matches("| `mayfly_").count(), METRICS.len(), "docs/metrics.md has one that is not there");
    }
}
