//! Checks whether a target is known. A name that must be registered here but is not was probably mistyped: a rule for it would revoke
//! nothing, while the answer would say that something was revoked.

use crate::authority::Authority;
use mayfly_base::document::nearest;
use mayfly_base::refusal::{Error, Reason, Refusal};
use mayfly_ledger::State;
use mayfly_ledger::revocation::Target;
use mayfly_policy::catalog::CompiledCatalog;

/// The existing names of one sort.
struct Names<'a> {
    /// The sort, for use in a sentence.
    sort: &'static str,
    /// The requested name.
    asked: &'a str,
    /// All existing names.
    all: Vec<&'a str>,
    /// The command that lists the existing names.
    list: String,
}

impl Names<'_> {
    fn check(self) -> Result<(), Refusal> {
        if self.all.contains(&self.asked) {
            return Ok(());
        }
        let Names { sort, asked, all, list } = self;
        let near = nearest(asked, all).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Err(unknown(format!("there is no {sort} {asked}{near}"), &list))
    }
}

fn unknown(what: String, list: &str) -> Refusal {
    Refusal::new(Reason::NotFound, format!("{what}; nothing was done")).way_out(format!("{list} shows the known names"))
}

impl Authority {
    /// Refuses targets that have to be registered here and are not known, unless forced. Callers, SPIFFE ID prefixes, subjects and tools
    /// may appear later, and credentials, tasks, SVIDs and subject tokens may have ended: such targets are never refused.
    pub async fn known_or_forced(&self, targets: &[Target], force: bool) -> Result<(), Error> {
        if force {
            return Ok(());
        }
        self.known(targets).await.map_err(|error| match error {
            Error::Refusal(mut no) => {
                let list = no.way_out.take().map(|list| format!("{list}; ")).unwrap_or_default();
                Error::Refusal(no.way_out(format!("{list}--force revokes or locks it all the same")))
            }
            fault => fault,
        })
    }

    /// Like [`Authority::known_or_forced`], for a question that changes nothing: there is nothing to force.
    pub async fn known(&self, targets: &[Target]) -> Result<(), Error> {
        let compiled = self.catalog.now();
        let own_domain = self.own_domain.as_ref().map(|own| own.trust_domain.as_str());
        let all_known = |state: &State| targets.iter().try_for_each(|target| known(state, &compiled, own_domain, target));
        self.ledger.settled(all_known).await?.map_err(Error::Refusal)
    }
}

fn known(state: &State, compiled: &CompiledCatalog, own_domain: Option<&str>, target: &Target) -> Result<(), Refusal> {
    match target {
        Target::Upstream(name) => upstream(state, name).check(),
        Target::UpstreamScope(name, scope) => {
            upstream(state, name).check()?;
            scopes(state, compiled, name, scope)
        }
        Target::Binding(name) => {
            let all = state.bindings.keys().map(|n| &**n).collect();
            Names { sort: "binding", asked: name, all, list: "mayfly binding list".into() }.check()
        }
        Target::Environment(name) => environment(state, compiled, name).check(),
        Target::PolicyBelow(name, version) => {
            environment(state, compiled, name).check()?;
            let newest = state.policies.get(name).map_or(0, |policy| policy.version);
            if *version > newest.saturating_add(1) {
                let what = format!("environment {name} has no policy version {version}, the newest is {newest}");
                return Err(unknown(what, &format!("mayfly policy show {name}")));
            }
            Ok(())
        }
        Target::TrustDomain(name) => trust_domain(state, own_domain, name).check(),
        // Only the trust domain is checked: key and serial of an SVID are not names that are registered here.
        Target::Svid(name, ..) => trust_domain(state, own_domain, name).check(),
        Target::TrustAnchor(digest) => {
            let of_bundle = |b: &mayfly_ledger::state::BundleState| {
                [&b.anchors, &b.kept_out, &b.kept_in].into_iter().any(|roots| roots.contains(digest))
            };
            let of_login = |login: &std::sync::Arc<mayfly_ledger::state::Login>| login.svid.anchor == digest;
            let vouched = state.credentials.any_vouched_by(digest) || state.logins.values().any(of_login);
            if vouched || state.bundles.values().any(of_bundle) {
                return Ok(());
            }
            let digest = data_encoding::HEXLOWER.encode(digest);
            Err(unknown(format!("no trust domain has, or had, a root certificate {digest}"), "mayfly bundle list"))
        }
        Target::SigningKey(kid) => {
            let all = state.keys.keys().map(|n| &**n).collect();
            Names { sort: "key", asked: kid, all, list: "mayfly key list".into() }.check()
        }
        Target::Credential(_)
        | Target::Task(_)
        | Target::Caller(_)
        | Target::Prefix(_)
        | Target::Subject(..)
        | Target::Tool(_)
        | Target::SubjectToken(..)
        | Target::Everything => Ok(()),
    }
}

fn upstream<'a>(state: &'a State, asked: &'a str) -> Names<'a> {
    let all = state.upstreams.keys().map(|n| &**n).collect();
    Names { sort: "upstream", asked, all, list: "mayfly upstream list".into() }
}

/// The registered scopes, and scopes that were registered when a live credential was issued.
fn scopes(state: &State, compiled: &CompiledCatalog, upstream: &str, asked: &str) -> Result<(), Refusal> {
    let Some(registered) = compiled.upstream(upstream) else { return Ok(()) };
    if state.credentials.any_with_scope(upstream, asked) {
        return Ok(());
    }
    let all = registered.upstream.scopes.iter().map(|scope| scope.name.as_str()).collect();
    Names { sort: "scope", asked, all, list: format!("mayfly upstream show {upstream}") }.check()
}

fn environment<'a>(state: &'a State, compiled: &'a CompiledCatalog, asked: &'a str) -> Names<'a> {
    let mut all: Vec<&str> = compiled.environments().map(|(name, _)| name).collect();
    all.extend(state.policies.keys().map(|n| &**n));
    all.extend(state.keys.values().map(|key| &*key.environment));
    Names { sort: "environment", asked, all, list: "mayfly status".into() }
}

/// Trust domains that have, or had, a bundle, and the one that this server is the CA of.
fn trust_domain<'a>(state: &'a State, own_domain: Option<&'a str>, asked: &'a str) -> Names<'a> {
    let mut all: Vec<&str> = state.bundles.keys().map(|n| &**n).chain(own_domain).collect();
    all.extend(state.credentials.trust_domains());
    Names { sort: "trust domain", asked, all, list: "mayfly bundle list".into() }
}
