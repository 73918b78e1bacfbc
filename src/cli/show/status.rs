//! JSON and table forms of the server's status.

use serde::Serialize;

use super::{hex, ms, some_seq, time};
use crate::out::Printable;
use mayfly_authority::admission::admission_queue::REFUSED_WITHIN_US;
use mayfly_proto::mayfly::v1 as pb;

/// The status of the server.
#[derive(Serialize, Debug)]
pub struct StatusView {
    pub version: String,
    pub issuing: bool,
    pub not_issuing_reason: String,
    pub not_issuing_message: String,
    pub started_at: Option<String>,
    pub uptime_ms: Option<i64>,
    pub certificate_not_after: Option<String>,
    pub identity: Option<ServerIdentityView>,
    pub environments: Vec<String>,
    pub environments_not_served: Vec<String>,
    pub own_trust_domain: String,
    pub ledger: LedgerView,
    pub clock: ClockView,
    pub disk: Option<DiskView>,
    pub counts: ObjectCountsView,
    pub load: Option<LoadView>,
    pub warnings: Vec<String>,
    /// The files and services that the server reads again while it runs.
    pub sources: Vec<SourceView>,
    /// Handshakes that were refused since the server's start.
    pub refused_handshakes: Vec<RefusedHandshakesView>,
}

/// Handshakes that one clause refused at one listener.
#[derive(Serialize, Debug)]
pub struct RefusedHandshakesView {
    pub listener: String,
    pub clause: String,
    pub count: u64,
}

/// A file or a service that the server reads again while it runs.
#[derive(Serialize, Debug)]
pub struct SourceView {
    pub kind: String,
    pub name: String,
    pub place: String,
    /// Why the source cannot be read; empty if it can be read.
    pub problem: String,
    pub problem_since: Option<String>,
}

impl From<pb::SourceStatus> for SourceView {
    fn from(s: pb::SourceStatus) -> SourceView {
        SourceView { kind: s.kind, name: s.name, place: s.place, problem: s.problem, problem_since: time(s.problem_since) }
    }
}

/// The server's own SVID and its source.
#[derive(Serialize, Debug)]
pub struct ServerIdentityView {
    pub spiffe_id: String,
    pub source: String,
    pub place: String,
    pub not_before: Option<String>,
    pub not_after: Option<String>,
    pub dns_names: Vec<String>,
    pub renewals: u64,
    pub problem: String,
    pub problem_since: Option<String>,
}

impl From<pb::IdentityStatus> for ServerIdentityView {
    fn from(i: pb::IdentityStatus) -> ServerIdentityView {
        ServerIdentityView {
            spiffe_id: i.spiffe_id,
            source: i.source,
            place: i.place,
            not_before: time(i.not_before),
            not_after: time(i.not_after),
            dns_names: i.dns_names,
            renewals: i.renewals,
            problem: i.problem,
            problem_since: time(i.problem_since),
        }
    }
}

/// The load of the server.
#[derive(Serialize, Debug)]
pub struct LoadView {
    pub waiting: u64,
    pub decision_us: f64,
    /// Exchanges that were refused since the server's start because they would have waited too long.
    pub refused_total: u64,
    /// The same exchanges as counts only, in the order of the classes of `refused_within`, also those with none.
    pub refused: Vec<u64>,
    /// The same exchanges, by the time from when they were read to their refusal; classes with none are left out.
    pub refused_within: Vec<RefusedWithinView>,
}

/// Exchanges that were refused for overload within one class of time.
#[derive(Serialize, Debug, PartialEq)]
pub struct RefusedWithinView {
    /// The end of the class in milliseconds; none for the last class, which has no end.
    pub at_most_ms: Option<f64>,
    pub count: u64,
}

impl From<pb::LoadStatus> for LoadView {
    fn from(l: pb::LoadStatus) -> LoadView {
        let ends = REFUSED_WITHIN_US.iter().map(|us| Some(*us as f64 / 1000.0)).chain(std::iter::repeat(None));
        let classes = ends.zip(&l.refused).map(|(at_most_ms, count)| RefusedWithinView { at_most_ms, count: *count });
        LoadView {
            waiting: l.waiting,
            decision_us: l.decision_ns as f64 / 1000.0,
            refused_total: l.refused.iter().sum(),
            refused_within: classes.filter(|class| class.count > 0).collect(),
            refused: l.refused,
        }
    }
}

/// The ledger and its store.
#[derive(Serialize, Debug)]
pub struct LedgerView {
    pub engine: String,
    pub generation: u32,
    pub durable_seq: u64,
    pub appended_seq: u64,
    pub writer: String,
    pub commit: u64,
    pub header_sha256: String,
    pub snapshot_seq: u64,
    pub oldest_seq: u64,
    pub verified_seq: u64,
    pub oldest_commit: u64,
    pub kept_bytes: u64,
    pub longest_fold_us: u64,
    pub longest_fold_cpu_us: u64,
    pub longest_fold_at: Option<String>,
    pub longest_append_us: u64,
    pub exported_seq: Option<u64>,
    pub export_problem: String,
    pub unindexed_commits: u64,
}

/// The clocks.
#[derive(Serialize, Debug)]
pub struct ClockView {
    pub wall: Option<String>,
    pub ledger: Option<String>,
    pub skew_ms: Option<i64>,
    pub allowed_skew_ms: Option<i64>,
}

/// The store's disk.
#[derive(Serialize, Debug)]
pub struct DiskView {
    pub free_bytes: u64,
    pub reserve_bytes: u64,
    pub store_bytes: u64,
}

/// The numbers of live objects.
#[derive(Serialize, Debug)]
pub struct ObjectCountsView {
    pub credentials: u64,
    pub tasks: u64,
    pub held_tasks: u64,
    pub callers: u64,
    pub rules: u64,
    pub locks: u64,
    pub followers: u64,
    pub stale_followers: u64,
    /// Followers that have seen a higher sequence number than this server has.
    pub followers_beyond: u64,
    pub leases: u64,
    pub leases_failing: u64,
    pub connections: u64,
    pub upstreams: u64,
    pub trust_domains: u64,
    pub request_ids: u64,
}

impl From<pb::GetStatusResponse> for StatusView {
    fn from(s: pb::GetStatusResponse) -> StatusView {
        let issuing = s.issuing.unwrap_or_default();
        let clock = s.clock.unwrap_or_default();
        StatusView {
            version: s.version,
            issuing: issuing.issuing,
            not_issuing_reason: issuing.reason,
            not_issuing_message: issuing.message,
            started_at: time(s.started_at),
            uptime_ms: ms(s.uptime),
            certificate_not_after: time(s.certificate_not_after),
            identity: s.identity.map(ServerIdentityView::from),
            environments: s.environments,
            environments_not_served: s.environments_not_served,
            own_trust_domain: s.own_trust_domain,
            ledger: s.ledger.unwrap_or_default().into(),
            clock: ClockView {
                wall: time(clock.wall),
                ledger: time(clock.ledger),
                skew_ms: ms(clock.skew),
                allowed_skew_ms: ms(clock.allowed_skew),
            },
            disk: s.disk.map(|d| DiskView {
                free_bytes: d.free_bytes,
                reserve_bytes: d.reserve_bytes,
                store_bytes: d.store_bytes,
            }),
            counts: s.counts.unwrap_or_default().into(),
            load: s.load.map(LoadView::from),
            warnings: s.warnings,
            sources: s.sources.into_iter().map(SourceView::from).collect(),
            refused_handshakes: s
                .refused_handshakes
                .into_iter()
                .map(|r| RefusedHandshakesView { listener: r.listener, clause: r.clause, count: r.count })
                .collect(),
        }
    }
}

impl From<pb::LedgerStatus> for LedgerView {
    fn from(l: pb::LedgerStatus) -> LedgerView {
        LedgerView {
            engine: l.engine,
            generation: l.generation,
            durable_seq: l.durable_seq,
            appended_seq: l.appended_seq,
            writer: l.writer,
            commit: l.commit,
            header_sha256: hex(&l.header_sha256),
            snapshot_seq: l.snapshot_seq,
            oldest_seq: l.oldest_seq,
            verified_seq: l.verified_seq,
            oldest_commit: l.oldest_commit,
            kept_bytes: l.kept_bytes,
            longest_fold_us: l.longest_fold_us,
            longest_fold_cpu_us: l.longest_fold_cpu_us,
            longest_fold_at: time(l.longest_fold_at),
            longest_append_us: l.longest_append_us,
            exported_seq: some_seq(l.exported_seq),
            export_problem: l.export_problem,
            unindexed_commits: l.unindexed_commits,
        }
    }
}

impl From<pb::Counts> for ObjectCountsView {
    fn from(c: pb::Counts) -> ObjectCountsView {
        ObjectCountsView {
            credentials: c.credentials,
            tasks: c.tasks,
            held_tasks: c.held_tasks,
            callers: c.callers,
            rules: c.rules,
            locks: c.locks,
            followers: c.followers,
            stale_followers: c.stale_followers,
            followers_beyond: c.followers_beyond,
            leases: c.leases,
            leases_failing: c.leases_failing,
            connections: c.connections,
            upstreams: c.upstreams,
            trust_domains: c.trust_domains,
            request_ids: c.request_ids,
        }
    }
}

impl Printable for StatusView {
    fn name(&self) -> String {
        if self.issuing { "issuing".to_owned() } else { self.not_issuing_reason.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_for_overload_name_their_class_of_time() {
        let load =
            LoadView::from(pb::LoadStatus { waiting: 1, decision_ns: 2_500, refused: vec![0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3] });
        assert_eq!((load.decision_us, load.refused_total), (2.5, 5));
        let within = |at_most_ms, count| RefusedWithinView { at_most_ms, count };
        assert_eq!(load.refused_within, [within(Some(0.5), 2), within(None, 3)]);
    }
}
