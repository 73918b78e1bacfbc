//! Checks the connection to the server, the identity that the server sees, and the status that it reports to operators.

use super::super::CommandContext;
use super::super::context::ServerTarget;
use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::remedy;
use super::super::server::ApiClient;
use super::super::show::{author, ms, time, why};
use super::CheckResults;
use mayfly_base::plural::{counted, one_or};
use mayfly_base::refusal::Reason;
use mayfly_proto::mayfly::v1::{
    self as pb, server_service_client::ServerServiceClient, token_service_client::TokenServiceClient,
};

/// Calls the server. `None` if there is no connection.
pub(super) async fn check_connection(target: &ServerTarget, run: &CommandContext, found: &mut CheckResults) -> Option<()> {
    let server = match run.server().await {
        Ok(server) => server,
        Err(error) => {
            found.problem("reach", super::says(&error), mend_of(&error, target));
            return None;
        }
    };
    let who = server.call(pb::WhoamiRequest {}, |c, q| async move { TokenServiceClient::new(c).whoami(q).await }).await;
    match who {
        Err(error) => {
            found.problem("reach", super::says(&error), mend_of(&error, target));
            return None;
        }
        Ok(who) => admitted(&who, target, found),
    }
    status(&server, found).await;
    Some(())
}

fn mend_of(error: &CliError, target: &ServerTarget) -> String {
    match (error.exit(), target) {
        (Exit::NotAuthenticated, _) => {
            "look at svid and bundle above, and whether --server-id names this server; where the server refused the SVID, its log names the clause"
                .to_owned()
        }
        (_, ServerTarget::Unix(path)) => {
            format!("whether it runs, and where its socket is: listen.admin_socket; ls -l {}", path.display())
        }
        (_, ServerTarget::Mtls(to)) => format!(
            "whether it runs and listens there, and what lies between: mayfly server healthcheck; nc -vz {} {}",
            to.host, to.port
        ),
    }
}

fn admitted(who: &pb::WhoamiResponse, target: &ServerTarget, found: &mut CheckResults) {
    found.ok("reach", format!("{}: it takes us for {}", target.address(), author(&who.identity)));
    for lock in &who.locks {
        let mend = format!("whoever may lift it: mayfly lock lift {} --reason TEXT", lock.seq);
        found.problem("policy", format!("a lock keeps us from new grants: {}", why(lock)), mend);
    }
    if !found.has("policy") && who.roles.is_empty() && !who.operator {
        let mend = "the owner of the policy set can add this caller to the roles file: mayfly policy show ENVIRONMENT";
        found.warning("policy", "no policy gives us a role: nothing is granted to us", mend);
    } else if !found.has("policy") {
        found.ok("policy", format!("roles: {}", if who.roles.is_empty() { "operator".to_owned() } else { who.roles.join(", ") }));
    }
}

async fn status(server: &ApiClient, found: &mut CheckResults) {
    let answer =
        server.call(pb::GetStatusRequest {}, |c, q| async move { ServerServiceClient::new(c).get_status(q).await }).await;
    let status = match answer {
        Ok(answer) => answer,
        // The status is for operators, and is served on their listener only.
        Err(error) => {
            let why = match error.exit() {
                Exit::Error | Exit::TryAgain => super::says(&error),
                _ => "it is told to operators only".to_owned(),
            };
            return ["clock", "disk", "issuing"].into_iter().for_each(|check| found.unknown(check, &why));
        }
    };
    clock(&status, found);
    disk(&status, found);
    issuing(&status, found);
    sources(&status, found);
}

/// Reports that all sources of the server can be read. A source that cannot be read is among the server's warnings.
fn sources(status: &pb::GetStatusResponse, found: &mut CheckResults) {
    if !status.sources.is_empty() && status.sources.iter().all(|source| source.problem.is_empty()) {
        let sources = counted(status.sources.len(), "source");
        found.ok("sources", format!("{sources} (files and services that the server reads again) can be read"));
    }
}

fn clock(status: &pb::GetStatusResponse, found: &mut CheckResults) {
    let (clock, issuing) = (status.clock.unwrap_or_default(), status.issuing.clone().unwrap_or_default());
    let (skew, allowed) = (ms(clock.skew).unwrap_or_default(), ms(clock.allowed_skew).unwrap_or_default());
    let shown = time(clock.wall).unwrap_or_default();
    if issuing.reason == Reason::ClockSkew.as_str() || skew.abs() > allowed {
        let what = format!("the server's clock shows {shown}, {skew} ms off what it goes by: {}", issuing.message);
        found.problem("clock", what, "set the server's clock: timedatectl; restart the server when it is right now");
    } else {
        found.ok("clock", format!("the server's clock shows {shown}, {skew} ms off what it goes by"));
    }
}

fn disk(status: &pb::GetStatusResponse, found: &mut CheckResults) {
    let Some(disk) = &status.disk else { return found.ok("disk", "its store has none") };
    let shown = format!("{} MiB free, {} MiB held in reserve", disk.free_bytes >> 20, disk.reserve_bytes >> 20);
    let mend = "free space beside the data directory, or keep less history (audit.keep)";
    if status.issuing.as_ref().is_some_and(|issuing| issuing.reason == Reason::DiskReserve.as_str()) {
        found.problem("disk", format!("{shown}: nothing is issued, revoking works"), mend);
    } else if disk.free_bytes < mayfly_base::limits::DISK_LOW_BYTES * 4 {
        found.warning("disk", shown, mend);
    } else {
        found.ok("disk", shown);
    }
}

fn issuing(status: &pb::GetStatusResponse, found: &mut CheckResults) {
    let known = [Reason::ClockSkew, Reason::DiskReserve].map(Reason::as_str);
    let (issuing, ledger) = (status.issuing.clone().unwrap_or_default(), status.ledger.clone().unwrap_or_default());
    let counts = status.counts.unwrap_or_default();
    if issuing.issuing {
        found.ok("issuing", format!("generation {}, seq {}", ledger.generation, ledger.durable_seq));
    } else if !known.contains(&issuing.reason.as_str()) {
        let reason = Reason::ALL.iter().find(|r| r.as_str() == issuing.reason);
        let mend = reason.map_or("", |reason| remedy::remedy_for(*reason).way_out);
        found.problem("issuing", &issuing.message, mend);
    }
    if !ledger.export_problem.is_empty() {
        found.problem(
            "export",
            &ledger.export_problem,
            "mend what audit.export_… names; nothing is removed before it was exported",
        );
    }
    if counts.followers_beyond > 0 {
        let (n, have) = (counts.followers_beyond, one_or(counts.followers_beyond, "has", "have"));
        let what = format!("{} {have} seen more than this server has: it runs on an older copy", counted(n, "follower"));
        found.problem("rolled back", what, "put the newest data directory back, or run: mayfly server recover");
    }
    if counts.stale_followers > 0 {
        let (n, were) = (counts.stale_followers, one_or(counts.stale_followers, "was", "were"));
        let what = format!("{} {were} not heard of for too long", counted(n, "follower"));
        found.warning("followers", what, "who they are: mayfly follower list");
    }
    if counts.leases_failing > 0 {
        found.warning(
            "leases",
            format!("{} cannot be undone", counted(counts.leases_failing, "lease")),
            "what the upstream says: mayfly lease list --state pending",
        );
    }
    status.warnings.iter().for_each(|what| found.warning("warning", what, ""));
}
