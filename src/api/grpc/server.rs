//! ServerService: the state of the server.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::wire;
use super::request_checks::{self, refused};
use super::{backup, webhook};
use mayfly_authority::admission::operators::OperatorScope;
use mayfly_authority::authority::Authority;
use mayfly_authority::source_health::{SourceKind, SourceState};
use mayfly_authority::tasks::Actor;
use mayfly_base::limits;
use mayfly_base::plural::{counted, one_or};
use mayfly_base::refusal::Error;
use mayfly_ledger::State;
use mayfly_ledger::recovery::open::writer_number;
use mayfly_ledger::revocation::Target;
use mayfly_ledger::state::TaskPhase;
use mayfly_ledger::upstream::findings::UpstreamFinding;
use mayfly_policy::admin;
use mayfly_proto::mayfly::v1 as pb;
use mayfly_proto::mayfly::v1::server_service_server::ServerService;
use mayfly_verify::seq::{Millis, Seq};

/// The service.
pub struct ServerApi(pub Arc<Authority>);

/// Counts tasks, in pieces.
#[derive(Default)]
struct TaskCount {
    open: u64,
    held: u64,
    openers: BTreeSet<Box<str>>,
}

impl TaskCount {
    fn walk(&mut self, state: &State, at: &mut u32, (now, sees): (Millis, &OperatorScope<admin::Observe>)) -> u32 {
        let places = state.tasks.places();
        let end = at.saturating_add(limits::LIST_WALK as u32).min(places);
        for task in (*at..end).filter_map(|slot| state.tasks.at(slot)).filter(|t| sees.has(&t.terms.environment)) {
            match state.tasks.phase(task, now) {
                TaskPhase::Over(_) => continue,
                TaskPhase::Held => self.held += 1,
                TaskPhase::Active | TaskPhase::PendingApproval => {}
            }
            self.open += 1;
            // A caller with a live credential is counted by its credentials, which do not tell their environments.
            if !sees.everywhere() || state.credentials.live_of(&task.terms.opener) == 0 {
                self.openers.insert((*task.terms.opener).into());
            }
        }
        *at = end;
        places
    }
}

impl ServerApi {
    async fn status(&self, actor: &Actor) -> Result<pb::GetStatusResponse, Error> {
        let a = &self.0;
        let sees = a.scope::<admin::Observe>(request_checks::operator(actor)?)?;
        // Otherwise, a grant that just ended would be told of some seconds later.
        a.look_at_connections().await;
        let (wall, steady) = (a.system.shown(), a.system.steady());
        let (began, began_steady) = a.began;
        let up = steady.saturating_sub(began_steady);
        let stopped = a.ledger.stopped();
        let own = a.own.get();
        let (compiled, left) = (a.catalog.now(), self.not_served(&sees));
        let served = compiled.environments().map(|(name, _)| name).filter(|name| sees.has(name) && a.decider.serves(name));
        let served = served.map(str::to_owned).collect();
        Ok(pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(wire::timestamp(began)),
            uptime: Some(wire::duration(up)),
            issuing: Some(pb::Issuing {
                issuing: stopped.is_none(),
                reason: stopped.as_ref().map_or_else(String::new, |no| no.reason.as_str().to_owned()),
                message: stopped.map_or_else(String::new, |no| match &no.way_out {
                    Some(way_out) => format!("{no}; {way_out}"),
                    None => no.to_string(),
                }),
            }),
            ledger: Some(self.ledger()),
            clock: Some(pb::ClockStatus {
                wall: Some(wire::timestamp(wall)),
                ledger: Some(wire::timestamp(a.ledger.peek(|s| s.time))),
                skew: Some(wire::duration(wall.0.abs_diff(began.plus(up).0))),
                allowed_skew: Some(wire::duration(a.ledger.allowed_skew_ms())),
            }),
            disk: self.disk(),
            counts: Some(self.counts(a.system.wall(), &sees).await),
            certificate_not_after: own.and_then(|o| o.ends()).map(wire::timestamp),
            environments: served,
            environments_not_served: left.into_iter().map(|(name, _)| name).collect(),
            // The server issues no SVIDs in this version.
            own_trust_domain: String::new(),
            load: Some(self.load()),
            warnings: [self.locked(&sees).await, self.warnings(&sees)].concat(),
            identity: own.map(|own| wire::own_svid_to_pb(own)),
            refused_handshakes: refused_handshakes(a),
            sources: self.sources(&sees).into_iter().map(wire::read_source_to_pb).collect(),
        })
    }

    /// Also available while nothing can be written, since the status is needed most then.
    fn ledger(&self) -> pb::LedgerStatus {
        let store = self.0.ledger.store();
        let durable = self.0.ledger.durable();
        let exported = self.0.exported.lock().clone().unwrap_or_default();
        let (before, longest) = (Seq::start_of(1), self.0.ledger.longest());
        let (removed, head) = self.0.ledger.peek(|s| (s.removed.before, s.position));
        let unindexed_commits = self.0.ledger.unindexed(removed, head);
        self.0.ledger.peek(|s| {
            let chain = s.writers.get(&writer_number());
            pb::LedgerStatus {
                engine: store.engine().to_owned(),
                generation: durable.generation().into(),
                durable_seq: durable.as_u64(),
                appended_seq: s.head.as_u64(),
                writer: writer_number().to_string(),
                commit: chain.map_or(0, |c| c.number),
                header_sha256: chain.map_or_else(Vec::new, |c| c.hash.to_vec()).into(),
                snapshot_seq: s.snapshot.map_or(0, |taken| taken.seq.as_u64()),
                oldest_seq: s.removed.seq.max(before).next().map_or(0, Seq::as_u64),
                verified_seq: self.0.ledger.verified().as_u64(),
                oldest_commit: s.removed.before.max(1),
                kept_bytes: s.kept_bytes(),
                longest_fold_us: longest.fold_us,
                longest_fold_cpu_us: longest.fold_cpu_us,
                longest_fold_at: longest.folded_at.map(wire::timestamp),
                longest_append_us: longest.append_us,
                exported_seq: exported.seq.as_u64(),
                export_problem: exported.problem,
                unindexed_commits,
            }
        })
    }

    /// Environments that were removed from the configuration, with the number of their live credentials.
    fn not_served(&self, sees: &OperatorScope<admin::Observe>) -> Vec<(String, u64)> {
        self.0.environments_not_served().into_iter().filter(|(name, _)| sees.has(name)).collect()
    }

    /// The locks that refuse every new grant, or every one of an environment. A restore leaves one when the remains cannot be read.
    async fn locked(&self, sees: &OperatorScope<admin::Observe>) -> Vec<String> {
        let compiled = self.0.catalog.now();
        let environments = compiled.environments().filter(|(name, _)| sees.has(name));
        let mut targets = vec![(Target::Everything, "on everything refuses all new grants".to_owned())];
        targets.extend(
            environments.map(|(name, _)| {
                (Target::Environment(name.into()), format!("on environment {name} refuses all new grants there"))
            }),
        );
        // Also when nothing can be written the status is told, so this does not wait for the ledger.
        let lock = |target: &Target| self.0.ledger.peek(|s| s.rules.get(target).and_then(|entry| entry.lock));
        let locks: Vec<(Seq, String)> = targets.into_iter().filter_map(|(t, what)| Some((lock(&t)?, what))).collect();
        let made = self.0.made(locks.iter().map(|(seq, _)| *seq)).await;
        let warning = |(seq, what): &(Seq, String)| {
            let cause = made.get(seq).and_then(|made| wire::RuleCause::of(&made.record, made.at));
            let cause = cause.map_or_else(String::new, |c| format!(", since {}: {}", c.at, c.reason));
            format!(
                "a lock {what} (number {seq}){cause}; mayfly lock list shows it, mayfly lock lift {seq} --reason TEXT lifts it"
            )
        };
        locks.iter().take(limits::PAGE_DEFAULT).map(warning).collect()
    }

    fn warnings(&self, sees: &OperatorScope<admin::Observe>) -> Vec<String> {
        let compiled = self.0.catalog.now();
        let of = |upstream: &str| compiled.upstream(upstream).is_none_or(|r| sees.has(&r.upstream.environment));
        let found = self.0.stopping_soon().into_iter().filter(|(name, _)| of(name)).take(limits::PAGE_DEFAULT);
        let at = |f: &UpstreamFinding| f.at.map_or_else(String::new, |at| format!(" ({at})"));
        let mut warnings: Vec<String> = found.map(|(name, f)| format!("upstream {name}: {}{}", f.text, at(&f))).collect();
        warnings.extend(self.not_served(sees).into_iter().map(|(name, live)| {
            format!(
                "environment {name} is not in server.environments and is not served; {live} live credentials of it remain until they \
                 expire or are revoked: mayfly revoke --environment {name} --reason TEXT"
            )
        }));
        warnings.extend(self.0.own.get().map(|own| own.warnings(self.0.system.shown())).unwrap_or_default());
        // The server's own SVID has its warning above.
        let sources = self.sources(sees).into_iter().filter(|source| source.kind != SourceKind::OwnSvid);
        warnings.extend(sources.filter_map(|source| source.warning()).take(limits::PAGE_DEFAULT));
        let beyond = self.0.followers.beyond();
        if let Some(one) = beyond.first() {
            warnings.push(format!(
                "{} {} seen more of the ledger than this server has (follower {} of {}: seq {}; this server stood at {}): an older \
                 copy of the data directory was started, and revocations are missing: put the newest one back, or mayfly server recover",
                counted(beyond.len(), "follower"),
                one_or(beyond.len(), "has", "have"),
                one.name,
                one.who.name(),
                one.seen,
                one.head
            ));
        }
        let unreviewed = self
            .0
            .ledger
            .peek(|s| s.break_glass_tasks.iter().filter(|(_, g)| sees.has(&g.environment) && g.unreviewed(s.time)).count());
        if unreviewed > 0 {
            let are = one_or(unreviewed, "is", "are");
            let tasks = counted(unreviewed, "break-glass task");
            warnings.push(format!("{tasks} {are} not reviewed: mayfly report unreviewed"));
        }
        let (removed, head) = self.0.ledger.peek(|s| (s.removed.before, s.position));
        let unindexed = self.0.ledger.unindexed(removed, head);
        if unindexed > limits::INDEX_WARN_COMMITS {
            warnings.push(format!(
                "the index of history is being built: {unindexed} commits are not in it yet, so what is asked about them is told to ask again"
            ));
        }
        let cut = self.0.exported.lock().as_ref().map_or(0, |exported| exported.cut);
        if cut > 0 {
            let (records, were) = (counted(cut, "record"), one_or(cut, "was", "were"));
            let their = one_or(cut, "its", "their");
            warnings.push(format!("{records} {were} too large for the audit export; only {their} seq and event were exported"));
        }
        let hooks = self.0.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
        warnings.extend(hooks.iter().filter(|hook| webhook::concerns(hook, sees)).filter_map(troubled));
        let drift = self.0.drift.load();
        // The differences between files and ledger name upstreams and environments of all teams.
        let drift = drift.iter().filter(|_| sees.everywhere()).take(limits::PAGE_DEFAULT);
        warnings.extend(drift.map(|what| format!("policy files: {what}; the ledger counts")));
        warnings
    }

    /// The sources that this operator may see. The files of policies name upstreams and environments of all.
    fn sources(&self, sees: &OperatorScope<admin::Observe>) -> Vec<SourceState> {
        let hooks = self.0.webhooks.get().map(|tellers| tellers.standing()).unwrap_or_default();
        let hidden = |name: &str| hooks.iter().any(|hook| hook.name == name && !webhook::concerns(hook, sees));
        let mut sources = self.0.sources();
        sources.retain(|source| match source.kind {
            SourceKind::Webhook => !hidden(&source.name),
            SourceKind::PolicyFiles => sees.everywhere(),
            _ => true,
        });
        sources
    }

    fn load(&self) -> pb::LoadStatus {
        let load = self.0.intake.load();
        pb::LoadStatus { waiting: load.waiting, decision_ns: load.decision_ns, refused: load.refused.to_vec() }
    }

    fn disk(&self) -> Option<pb::DiskStatus> {
        let store = self.0.ledger.store();
        let reserve = store.reserve()?;
        Some(pb::DiskStatus {
            free_bytes: reserve.free().unwrap_or(0),
            reserve_bytes: reserve.held(),
            store_bytes: store.bytes(),
        })
    }

    /// Counts credentials, tasks, leases and upstreams of the environments that the operator may see; all other numbers are those of the
    /// whole server.
    async fn counts(&self, now: Millis, sees: &OperatorScope<admin::Observe>) -> pb::Counts {
        let a = &self.0;
        let (mut tasks, mut at) = (TaskCount::default(), 0);
        while at < a.ledger.peek(|s| tasks.walk(s, &mut at, (now, sees))) {
            tokio::task::yield_now().await;
        }
        let followers = a.followers.list(now);
        let stale = followers.iter().filter(|f| now.since(f.last_seen) > a.followers.max_age_ms()).count();
        let verdicts = a.decider.verdicts.counts();
        let compiled = a.catalog.now();
        let seen = |upstream: &str| compiled.upstream(upstream).is_some_and(|r| sees.has(&r.upstream.environment));
        // Reads the state itself.
        let secrets_to_rotate = a.secrets_to_rotate() as u64;
        let counted = a.ledger.peek(|s| pb::Counts {
            credentials: s.credentials.len() as u64,
            tasks: tasks.open,
            held_tasks: tasks.held,
            callers: (s.credentials.callers() + tasks.openers.len()) as u64,
            rules: s.rules.len() as u64,
            locks: s.rules.locks() as u64,
            followers: followers.len() as u64,
            stale_followers: stale as u64,
            followers_beyond: a.followers.beyond().len() as u64,
            leases: s.leases.len() as u64,
            leases_failing: a.leases.failing() as u64,
            secrets_to_rotate,
            secret_rotations_failing: a.rotations.failing() as u64,
            connections: a.peers.len(),
            upstreams: s.upstreams.len() as u64,
            trust_domains: s.bundles.values().filter(|b| !b.removed).count() as u64,
            request_ids: s.credentials.all_remembered(),
            verdicts_remembered: verdicts.hits,
            verdicts_asked: verdicts.misses + verdicts.not_cacheable,
        });
        if sees.everywhere() {
            return counted;
        }
        a.ledger.peek(|s| pb::Counts {
            credentials: s.credentials.by_upstream().iter().filter(|(name, _)| seen(name)).map(|(_, (live, _))| live).sum(),
            callers: tasks.openers.len() as u64,
            leases: s.leases.values().filter(|lease| seen(&lease.upstream)).count() as u64,
            upstreams: s.upstreams.keys().filter(|name| seen(name)).count() as u64,
            ..counted
        })
    }
}

fn refused_handshakes(authority: &Authority) -> Vec<pb::RefusedHandshakes> {
    let counts = authority.refused_handshakes.counts().into_iter();
    let row = |(listener, clause, count): (&str, &str, u64)| pb::RefusedHandshakes {
        listener: listener.to_owned(),
        clause: clause.to_owned(),
        count,
    };
    counts.map(row).collect()
}

/// The problem of a webhook, in words.
fn troubled(hook: &mayfly_authority::webhook::WebhookStatus) -> Option<String> {
    let name = &hook.name;
    match (&hook.since, hook.dead) {
        (Some(since), _) => Some(format!("webhook {name}: events are not taken since {since}: {}", hook.problem)),
        (None, 0) => None,
        (None, dead) => {
            let (events, were) = (counted(dead, "event"), one_or(dead, "was", "were"));
            Some(format!("webhook {name}: {events} {were} given up: mayfly webhook list -o json"))
        }
    }
}

#[tonic::async_trait]
impl ServerService for ServerApi {
    type BackupStream = ReceiverStream<backup::BackupPiece>;

    async fn backup(&self, request: Request<pb::BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let actor = request_checks::actor(&self.0, &request, "backup")?;
        backup::begin(&self.0, &actor, request.get_ref()).await.map(Response::new).map_err(refused(&self.0, &actor, "backup"))
    }

    async fn get_status(&self, request: Request<pb::GetStatusRequest>) -> Result<Response<pb::GetStatusResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "get_status")?;
        self.status(&actor).await.map(Response::new).map_err(refused(&self.0, &actor, "get_status"))
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "list_webhooks")?;
        webhook::list(&self.0, &actor).await.map(Response::new).map_err(refused(&self.0, &actor, "list_webhooks"))
    }

    async fn test_webhook(&self, request: Request<pb::TestWebhookRequest>) -> Result<Response<pb::TestWebhookResponse>, Status> {
        let actor = request_checks::actor(&self.0, &request, "test_webhook")?;
        let tested = webhook::test(&self.0, &actor, request.get_ref()).await;
        tested.map(Response::new).map_err(refused(&self.0, &actor, "test_webhook"))
    }
}
