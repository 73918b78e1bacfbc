//! Checks the sections of OIDC issuers and the files that they name. No network access: a start does not wait for the issuers either.

use super::{ConfigValidator, Severity};
use crate::config::{IssuerKeySource, OidcIssuer};
use crate::files::{self, FileProblem};
use crate::https;
use mayfly_base::limits;
use mayfly_identity::oidc::{IssuerKeys, IssuerUse};

impl ConfigValidator<'_> {
    pub(super) fn oidc_issuers(&mut self) {
        for (place, issuer) in self.config.oidc_issuers.iter().enumerate() {
            self.oidc_issuer(place, issuer);
        }
        self.attestation_rules();
    }

    /// A rule after a wider one of the same issuer never applies, since the first matching rule is used.
    fn attestation_rules(&mut self) {
        let rules = self.config.own_domain.as_ref().map_or(Vec::new(), |own| own.attest_rules.clone());
        for (at, rule) in rules.iter().enumerate() {
            let issuer = self.config.oidc_issuers.iter().map(|known| &known.issuer).find(|issuer| issuer.name == rule.issuer);
            let Some(platform) = issuer.and_then(|issuer| issuer.jobs.as_ref()).map(|jobs| jobs.platform) else { continue };
            if let Some(wider) = rules.iter().take(at).find(|before| before.includes(rule, platform)) {
                let what = format!(
                    "rule {} is never the first that fits, since rule {} before it is for every job that it is for",
                    rule.name, wider.name
                );
                let remedy = "put the narrower rule first, or have its jobs ask for it: mayfly ci login --rule";
                self.in_list(Severity::Warning, ("attestation", at), what, remedy);
            }
        }
    }

    fn oidc_issuer(&mut self, place: usize, configured: &OidcIssuer) {
        let issuer = &configured.issuer;
        let name = &issuer.name;
        let said = |problem: &FileProblem| format!("{name}: {}: {}", problem.path.display(), problem.what);
        let known = &self.config.server.environments;
        let strays = issuer.environments.iter().filter(|e| !known.contains(e)).cloned().collect::<Vec<_>>();
        if !strays.is_empty() {
            let remedy = format!("known: {}", known.join(", "));
            let what = format!("{name} names environment {}, which server.environments has not", strays.join(", "));
            self.in_list(Severity::Error, ("oidc_issuers.environments", place), what, remedy);
        }
        match &configured.ca_file {
            Some(path) => {
                if let Err(problem) = https::roots(path) {
                    self.in_list(Severity::Error, ("oidc_issuers.ca_file", place), said(&problem), problem.remedy);
                }
            }
            None if asks_over_tls(configured) && mayfly_base::system_roots::system_roots().is_none() => {
                let what = format!("{name} has no ca_file, and this system has no file of roots");
                let remedy = "name a file of roots as ca_file, or install the system's";
                self.in_list(Severity::Error, ("oidc_issuers.ca_file", place), what, remedy);
            }
            None => {}
        }
        if let IssuerKeySource::File(path) = &configured.keys {
            let read = files::read(path, limits::OIDC_DOCUMENT_BYTES).map_err(|problem| (said(&problem), problem.remedy));
            let keys = read.and_then(|(document, _)| {
                let remedy = "a JWK set with the issuer's public keys".to_owned();
                IssuerKeys::parse(&document).map_err(|e| (format!("{name}: {} {e}", path.display()), remedy))
            });
            if let Err((what, remedy)) = keys {
                self.in_list(Severity::Error, ("oidc_issuers.jwks", place), what, remedy);
            }
        }
        let bounded = issuer.scopes_claim.is_some() || !issuer.rights.is_empty();
        if issuer.serves(IssuerUse::Subject) && !bounded {
            let what = format!("{name} has neither scopes_claim nor rights: policy alone bounds what is done for its users");
            let remedy = "name the claim that holds their scopes, or rights of their groups";
            self.in_list(Severity::Warning, ("oidc_issuers", place), what, remedy);
        }
    }
}

fn asks_over_tls(configured: &OidcIssuer) -> bool {
    let url = match &configured.keys {
        IssuerKeySource::File(_) => return false,
        IssuerKeySource::Url(url) => url,
        IssuerKeySource::Discovered => &configured.issuer.issuer,
    };
    url.starts_with("https:")
}
