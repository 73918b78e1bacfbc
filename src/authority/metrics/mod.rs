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
pub use list::{METRICS, Metric, MetricKind, MetricName};

use crate::authority::Authority;
use crate::source_health::SourceState;
use crate::webhook::WebhookStatus;
use mayfly_base::refusal::{Fault, Reason};
use mayfly_ledger::record::{Event, Record};
use mayfly_ledger::{State, WRITES_US};
use mayfly_verify::seq::Millis;

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

fn one(value: impl TryInto<u64>) -> Values {
    Values::Numbers(vec![(Vec::new(), value.try_into().unwrap_or(u64::MAX))])
}

/// A single row, or none where there is nothing to measure.
fn one_of(value: Option<impl TryInto<u64>>) -> Values {
    value.map_or_else(|| Values::Numbers(Vec::new()), one)
}

/// Rows with a single label.
fn by(rows: impl IntoIterator<Item = (impl Into<String>, u64)>) -> Values {
    Values::Numbers(rows.into_iter().map(|(label, value)| (vec![label.into()], value)).collect())
}

/// Rows with several labels.
fn by_all<const N: usize>(rows: impl IntoIterator<Item = ([String; N], u64)>) -> Values {
    Values::Numbers(rows.into_iter().map(|(labels, value)| (labels.into(), value)).collect())
}

impl Authority {
    /// The present values of all metrics, in the text format of OpenMetrics.
    pub fn metrics(&self) -> Result<String, Fault> {
        let mut registry = Registry::default();
        let hooks = self.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
        let values = METRICS.iter().map(|metric| (metric, self.values(metric.id, &hooks)));
        registry.register_collector(Box::new(MetricsScrape(values.collect())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|e| Fault::new(format!("metrics: {e}")))?;
        Ok(text)
    }

    fn ledger_writes(&self) -> Values {
        let writes = self.ledger.writes_took();
        let histogram = Histogram { bounds_us: &WRITES_US, counts: writes.counts.to_vec(), sum_us: writes.sum_us };
        Values::Histograms(vec![(Vec::new(), histogram)])
    }

    fn call_latencies(&self) -> Values {
        let all = self.call_metrics.latencies();
        Values::Histograms(all.map(|(method, histogram)| (vec![method.to_owned()], histogram)).collect())
    }

    fn refusals(&self) -> Values {
        let all = Reason::ALL.iter().zip(&self.counted.refusals).map(|(reason, n)| (reason, n.load(Relaxed)));
        by(all.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)))
    }

    fn stale_followers(&self, now: Millis) -> Values {
        let stale = |f: &&crate::revocation::feed::FeedFollower| now.since(f.last_seen) > self.followers.max_age_ms();
        one(self.followers.list(now).iter().filter(stale).count())
    }

    fn waiting_approvals(&self, now: Millis) -> Values {
        one(self.ledger.peek(|s| s.approvals.values().filter(|a| a.decided.is_none() && a.expires_at() > now).count()))
    }

    fn reloads(&self) -> Values {
        let [refused, taken] = &self.counted.reloads;
        by([("taken", taken), ("refused", refused)].map(|(what, n)| (what, n.load(Relaxed))))
    }

    fn upstream_calls(&self) -> Values {
        by_all(self.leases.upstream_health().into_iter().flat_map(|one| {
            let row =
                move |(call, outcome, n): (&str, &str, u64)| ([one.upstream.clone(), call.to_owned(), outcome.to_owned()], n);
            one.counts.into_iter().map(row)
        }))
    }

    fn failing_sources(&self) -> Values {
        let failing = |s: SourceState| ([s.kind.as_str().to_owned(), s.name], u64::from(!s.problem.is_empty()));
        by_all(self.sources().into_iter().map(failing))
    }

    fn dropped_spans(&self) -> Values {
        let counts = self.tracer.queue().counts();
        let each = [("full", &counts.full), ("unreachable", &counts.unreachable), ("rejected", &counts.rejected)];
        by(each.into_iter().filter(|_| self.tracer.tells()).map(|(why, n)| (why, n.load(Relaxed))))
    }

    fn values(&self, metric: MetricName, hooks: &[WebhookStatus]) -> Values {
        use MetricName as Name;
        let (durable, now) = (self.ledger.durable(), self.system.wall());
        let state = |look: fn(&State) -> usize| one(self.ledger.peek(look));
        let hook = |value: &dyn Fn(&WebhookStatus) -> u64| by(hooks.iter().map(|h| (h.name.clone(), value(h))));
        // A server without a collector has no spans to count.
        let spans = |n: u64| one_of(self.tracer.tells().then_some(n));
        let told = self.tracer.queue().counts();
        match metric {
            Name::Issuing => one(u64::from(self.ledger.stopped().is_none())),
            Name::CredentialsIssued => one(self.ledger.peek(|s| s.issued)),
            Name::Credentials => state(|s| s.credentials.len()),
            Name::Tasks => state(|s| s.tasks.len()),
            Name::Refusals => self.refusals(),
            Name::Exchanges => by_all(self.exchange_metrics.counts()),
            Name::Calls => by_all(self.call_metrics.counts().map(|(method, code, n)| ([method.to_owned(), code.to_owned()], n))),
            Name::CallSeconds => self.call_latencies(),
            Name::HandshakesRefused => {
                let counts = self.refused_handshakes.counts().into_iter();
                by_all(counts.map(|(listener, clause, n)| ([listener.to_owned(), clause.to_owned()], n)))
            }
            Name::Revocations => one(self.counted.revocations.load(Relaxed)),
            Name::Rules => state(|s| s.rules.len()),
            Name::Locks => state(|s| s.rules.locks()),
            Name::Followers => one(self.followers.list(now).len()),
            Name::FollowersBeyond => one(self.followers.beyond().len()),
            Name::FollowersStale => self.stale_followers(now),
            Name::ApprovalsWaiting => self.waiting_approvals(now),
            Name::BreakGlassOpened => one(self.ledger.peek(|s| s.break_glass_tasks.opened)),
            Name::BreakGlassUses => one(self.ledger.peek(|s| s.break_glass_tasks.uses)),
            Name::BreakGlassOpen => one(self.ledger.peek(|s| s.break_glass_tasks.iter().filter(|(_, g)| !g.over(now)).count())),
            Name::BreakGlassUnreviewed => {
                one(self.ledger.peek(|s| s.break_glass_tasks.iter().filter(|(_, g)| g.unreviewed(now)).count()))
            }
            Name::PolicyDifferences => {
                let counts = self.decider.audits.counts();
                by([("refuse", counts.refuses), ("permit", counts.permits)])
            }
            Name::LedgerGeneration => one(durable.generation()),
            Name::LedgerDurable => one(durable.count()),
            Name::LedgerAppended => one(self.ledger.peek(|s| s.head.count())),
            Name::LedgerAppendLongestSeconds => one(self.ledger.longest().append_us),
            Name::LedgerAppendAgeSeconds => one(self.ledger.commit_age_us()),
            Name::LedgerAppendSeconds => self.ledger_writes(),
            Name::AuditExportBehind => {
                let at = self.exported.lock().as_ref().map(|e| e.seq);
                one_of(at.map(|at| durable.as_u64().saturating_sub(at.as_u64())))
            }
            Name::AuditExportFailing => one_of(self.exported.lock().as_ref().map(|e| u64::from(!e.problem.is_empty()))),
            Name::AuditExportCut => one_of(self.exported.lock().as_ref().map(|e| e.cut)),
            Name::WebhookDelivered => hook(&|h| h.delivered),
            Name::WebhookFailed => hook(&|h| h.failed),
            Name::WebhookGivenUp => hook(&|h| h.dead),
            Name::WebhookBehind => hook(&|h| durable.as_u64().saturating_sub(h.seq.as_u64())),
            Name::Leases => state(|s| s.leases.len()),
            Name::LeasesFailing => one(self.leases.failing()),
            Name::UpstreamsAwaitingSignIn => one(self.awaiting_sign_in()),
            Name::SecretsToRotate => one(self.secrets_to_rotate()),
            Name::SecretRotationsFailing => one(self.rotations.failing()),
            Name::UpstreamCalls => self.upstream_calls(),
            Name::UpstreamUnanswering => by(self.leases.upstream_health().into_iter().map(|u| (u.upstream, u64::from(u.open)))),
            Name::StoreBytes => one(self.ledger.store().bytes()),
            Name::StoreFreeBytes => one_of(self.ledger.store().reserve().and_then(|reserve| reserve.free())),
            Name::Waiting => one(self.intake.load().waiting),
            Name::CertificateEndsSeconds => {
                one_of(self.own.get().and_then(|own| own.ends()).map(|ends| ends.0.saturating_mul(1_000)))
            }
            Name::CertificateRenewals => one_of(self.own.get().map(|own| own.renewing().renewals)),
            Name::CertificateSourceFailing => one_of(self.own.get().map(|own| u64::from(!own.renewing().problem.is_empty()))),
            Name::SourceFailing => self.failing_sources(),
            Name::PolicyDrift => one(self.drift.load().len()),
            Name::ConfigReloads => self.reloads(),
            Name::LogLinesDropped => one(mayfly_base::log_queue::dropped()),
            Name::AuditReadsUnrecorded => one(self.audit_reads.unrecorded()),
            Name::Backups => one(self.counted.backups.load(Relaxed)),
            Name::TraceSpansSent => spans(told.sent.load(Relaxed)),
            Name::TraceSpansDropped => self.dropped_spans(),
            Name::TraceCallsOverRate => spans(told.over_rate.load(Relaxed)),
            Name::TraceFailing => spans(u64::from(told.failing.load(Relaxed))),
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
