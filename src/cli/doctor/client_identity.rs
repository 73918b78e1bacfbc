//! Checks the client's identity: its SVID with the key, and the bundle that the server is verified with.

use super::super::CommandContext;
use super::super::args;
use super::super::context::{MtlsTarget, ServerTarget};
use super::CheckResults;
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::limits;
use mayfly_config::svid_files::{SvidFiles, TlsIdentity};
use mayfly_identity::anchor::TrustAnchor;
use mayfly_identity::bundle::Bundle;
use mayfly_identity::check;
use mayfly_verify::seq::Millis;

/// Checks both, if the connection to the server uses them.
pub(super) fn check_client(target: &ServerTarget, run: &CommandContext, found: &mut CheckResults) {
    let ServerTarget::Mtls(to) = target else {
        found.ok("svid", "none is needed: the server knows us by our uid");
        return;
    };
    let bundle = bundle(to, found);
    match SvidFiles::new(&to.svid, &to.key).load() {
        Err(problem) => found.problem("svid", format!("{}: {}", problem.path.display(), problem.what), problem.remedy),
        Ok(pair) => svid(to, &pair, bundle.as_ref(), run.system.wall(), found),
    }
}

fn bundle(to: &MtlsTarget, found: &mut CheckResults) -> Option<Bundle> {
    let shown = to.bundle.display();
    let mend = format!("write the trust bundle of {} there, PEM or SPIFFE JWKS", to.server_id.trust_domain());
    let document = match args::read_regular(&to.bundle, limits::BUNDLE_BYTES) {
        Ok(document) => document,
        Err(error) => {
            found.problem("bundle", super::says(&error), mend);
            return None;
        }
    };
    match Bundle::parse(to.server_id.trust_domain_owned(), &document) {
        Err(defect) => {
            found.problem("bundle", format!("{shown} {defect}"), mend);
            None
        }
        Ok(bundle) => {
            found.ok("bundle", format!("{shown}: of {}", bundle.trust_domain()));
            Some(bundle)
        }
    }
}

fn svid(to: &MtlsTarget, pair: &TlsIdentity, bundle: Option<&Bundle>, now: Millis, found: &mut CheckResults) {
    let shown = to.svid.display();
    let renew =
        format!("have it written anew, with its key; whether it is accepted then: mayfly svid check {}", shell_quoted(&to.svid));
    let id = match pair.spiffe_id() {
        Ok(id) => id,
        Err(defect) => return found.problem("svid", format!("{shown} is no X.509-SVID: {defect}"), renew),
    };
    let ours = bundle.filter(|bundle| bundle.trust_domain().as_str() == id.trust_domain());
    // The bound on an SVID's remaining lifetime is a setting of the server; the default is the best guess.
    let left =
        pair.chain().certificates().first().and_then(|der| TrustAnchor::from_der(der)).map(|leaf| leaf.not_after().since(now));
    if let Some(left) = left.filter(|left| *left > limits::SVID_MAX_TTL_MS) {
        let (hours, most) = (left / 3_600_000, limits::SVID_MAX_TTL_MS / 3_600_000);
        let text =
            format!("{shown} lives for another {hours} h; a server accepts at most svid.max_ttl, which is {most} h by default");
        return found.warning("svid", text, "have a shorter SVID issued, or have svid.max_ttl raised at the server");
    }
    if let Some(report) = ours.map(|bundle| check::check(pair.chain(), bundle, now, u64::MAX)).filter(|report| !report.accepted) {
        let clause = report.clause.unwrap_or_default();
        let detail = report.detail.map_or_else(String::new, |detail| format!(" ({detail})"));
        return found.problem("svid", format!("{shown}: {clause}{detail}"), renew);
    }
    life(&format!("{shown}: {id}"), pair, now, "whoever renews it has to write it there in time", found);
}

/// Checks whether an SVID is valid now, and for how long. An SVID is renewed at the latest when a third of its lifetime is left.
pub(super) fn life(shown: &str, pair: &TlsIdentity, now: Millis, mend: &str, found: &mut CheckResults) {
    let Some(leaf) = pair.chain().certificates().first().and_then(|der| TrustAnchor::from_der(der)) else { return };
    let (begins, ends) = (leaf.not_before(), leaf.not_after());
    let life = ends.since(begins);
    match () {
        () if begins > now => {
            found.problem(
                "clock",
                format!("{shown} begins at {begins}, and it is {now} by this host's clock"),
                "set the clock: timedatectl",
            );
        }
        () if ends <= now => found.problem("svid", format!("{shown} ended at {ends}, and it is {now}"), mend),
        () if ends.since(now) < life / 6 => {
            found.warning("svid", format!("{shown} ends at {ends} and was not renewed yet"), mend)
        }
        () => found.ok("svid", format!("{shown}, until {ends}")),
    }
}
