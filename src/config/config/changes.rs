//! The differences between two versions of a configuration, and whether a running server applies them.

use super::build;
use super::keys::{ConfigKey, KEYS};
use super::{BundleFile, Config, LogConfig, OidcIssuer, WebhookConfig};
use mayfly_authority::secrets::hook::RotationHook;

/// When a changed key takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeActivation {
    /// A reload (SIGHUP) applies it.
    Reload,
    /// The next start applies it.
    Restart,
}

/// Keys and whole sections that a reload applies.
const RELOADED: &[&str] = &[
    "attestation",
    "audit.export_ca",
    "audit.export_file",
    "audit.export_otlp",
    "audit.export_syslog",
    "limits.changes_per_second",
    "limits.credential_ttl",
    "limits.credentials",
    "limits.credentials_per_caller",
    "limits.followers",
    "limits.followers_per_caller",
    "limits.heartbeats_per_second",
    "limits.holds_per_second",
    "limits.request_ids",
    "limits.request_ids_per_caller",
    "limits.rules",
    "limits.rules_per_caller",
    "limits.stream_in_flight",
    "limits.task_bytes",
    "limits.task_bytes_per_caller",
    "limits.task_ttl",
    "limits.tasks",
    "limits.tasks_per_caller",
    "log.calls",
    "log.level",
    "oidc_issuers",
    "own_domain.device_login",
    "own_domain.login_ttl",
    "policy",
    "rotation_hooks",
    "traces",
    "webhooks",
];

impl ConfigKey {
    /// When a change of this key takes effect.
    pub fn takes(&self) -> ChangeActivation {
        let section = self.parts().0;
        let reloaded = RELOADED.iter().any(|name| *name == self.path || *name == section);
        if reloaded { ChangeActivation::Reload } else { ChangeActivation::Restart }
    }
}

/// One changed key, or one changed section of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigChange {
    /// `limits.tasks`, or `webhooks.pager`.
    pub what: String,
    /// When the change takes effect.
    pub takes: ChangeActivation,
}

impl Config {
    /// The differences to another version. Values are never included: an address may contain a secret.
    pub fn changes(&self, next: &Config) -> Vec<ConfigChange> {
        let alone = KEYS.iter().filter(|key| self.settings.get(key.path) != next.settings.get(key.path));
        let mut changes: Vec<ConfigChange> =
            alone.map(|key| ConfigChange { what: key.path.to_owned(), takes: key.takes() }).collect();
        let bundle = |b: &BundleFile| (b.trust_domain.clone(), b.clone());
        changes.extend(lists("bundles", &self.bundles, &next.bundles, bundle));
        let issuer = |i: &OidcIssuer| (i.issuer.name.clone(), i.clone());
        changes.extend(lists("oidc_issuers", &self.oidc_issuers, &next.oidc_issuers, issuer));
        let rotation = |h: &RotationHook| (h.upstream.clone(), h.clone());
        changes.extend(lists("rotation_hooks", &self.rotation_hooks, &next.rotation_hooks, rotation));
        let hook = |w: &WebhookConfig| (w.name.clone(), w.clone());
        changes.extend(lists("webhooks", &self.webhooks, &next.webhooks, hook));
        let rules = |config: &Config| config.own_domain.as_ref().map(|own| own.attest_rules.clone()).unwrap_or_default();
        changes.extend(lists("attestation", &rules(self), &rules(next), |rule| (rule.name.clone(), rule.clone())));
        // mayfly's own trust domain, and everything that belongs to it, is set up at the start and not changed afterwards.
        let name = |config: &Config| config.own_domain.as_ref().map(|own| own.trust_domain.clone());
        if name(self) != name(next) {
            let of_it =
                |change: &&mut ConfigChange| change.what.starts_with("attestation.") || change.what.starts_with("own_domain.");
            changes.iter_mut().filter(of_it).for_each(|change| change.takes = ChangeActivation::Restart);
        }
        changes
    }

    /// A copy of this configuration with the changes in `next` that a reload applies.
    pub fn with_reloaded(&self, next: &Config) -> Config {
        let mut merged = self.clone();
        for key in KEYS.iter().filter(|key| key.takes() == ChangeActivation::Reload) {
            match next.settings.get(key.path) {
                Some(value) => drop(merged.settings.insert(key.path, value.clone())),
                None => drop(merged.settings.remove(key.path)),
            }
        }
        let own = next.own_domain.as_ref();
        if let Some(own) = own.filter(|own| self.own_domain.as_ref().is_some_and(|old| old.trust_domain == own.trust_domain)) {
            merged.own_domain = Some(own.clone());
        }
        merged.oidc_issuers.clone_from(&next.oidc_issuers);
        merged.rotation_hooks.clone_from(&next.rotation_hooks);
        merged.webhooks.clone_from(&next.webhooks);
        merged.policy.clone_from(&next.policy);
        merged.audit_export.clone_from(&next.audit_export);
        merged.traces.clone_from(&next.traces);
        merged.log = LogConfig { format: self.log.format, ..next.log.clone() };
        // The settings are complete, so that they always give limits.
        merged.limits = build::limits(&merged.settings).unwrap_or(self.limits);
        merged
    }
}

/// The sections of a list that were added, removed or changed, each by its name; the list itself if only the order changed.
fn lists<T, S: PartialEq>(list: &'static str, before: &[T], next: &[T], named: impl Fn(&T) -> (String, S)) -> Vec<ConfigChange> {
    let of = |sections: &[T]| sections.iter().map(&named).collect::<Vec<_>>();
    let (before, next) = (of(before), of(next));
    let takes = if RELOADED.contains(&list) { ChangeActivation::Reload } else { ChangeActivation::Restart };
    let mut what: Vec<String> = Vec::new();
    for (name, section) in before.iter().chain(&next) {
        let in_both = [&before, &next].iter().all(|side| side.iter().any(|(n, s)| n == name && s == section));
        let named = format!("{list}.{name}");
        if !in_both && !what.contains(&named) {
            what.push(named);
        }
    }
    if what.is_empty() && before != next {
        what.push(list.to_owned());
    }
    what.into_iter().map(|what| ConfigChange { what, takes }).collect()
}
