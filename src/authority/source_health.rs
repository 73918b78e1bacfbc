//! The sources that a server reads again while it runs, and whether each can be read now.
//!
//! A source that can no longer be read ends nothing: its last contents stay in use. An operator therefore has to know of it before these
//! contents are out of date. The code that reads a source reports the result here; `mayfly status`, `mayfly_source_failing` and an alert
//! show it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use mayfly_base::document::terminal_text::one_line;
use mayfly_verify::seq::Millis;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $text:literal, $stays:literal;)*) => {
        /// The kind of a source.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum SourceKind {
            $($(#[$doc])* $name,)*
        }

        impl SourceKind {
            /// All kinds.
            pub const ALL: &'static [SourceKind] = &[$(SourceKind::$name,)*];

            /// The name: a label of metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(SourceKind::$name => $text,)* }
            }

            /// The effect while a source of this kind cannot be read, in words.
            pub const fn meanwhile(self) -> &'static str {
                match self { $(SourceKind::$name => $stays,)* }
            }
        }
    };
}

kinds! {
    /// The server's own SVID.
    OwnSvid => "own_svid", "the one in use is shown until it ends";
    /// The certificate of the public listener.
    PublicCertificate => "public_certificate", "the one in use is shown until it ends";
    /// The bundle of a trust domain, from a file or from the Workload API.
    Bundle => "bundle", "the bundle in force stays, so roots that were added or removed since take no effect";
    /// The SPIFFE Workload API.
    WorkloadApi => "workload_api", "what it gave before stays in use";
    /// The keys of an OIDC issuer.
    OidcIssuer => "oidc_issuer", "the keys at hand are used for an hour, and tokens are refused after that";
    /// The secret and the roots of a webhook.
    Webhook => "webhook", "its events wait";
    /// The files of policies and registrations.
    PolicyFiles => "policy_files", "the ledger is authoritative, and the files cannot be compared with it";
    /// The token of the metrics listener.
    MetricsToken => "metrics_token", "the token that was read last is asked for";
    /// The roots of the collector of traces.
    Traces => "traces", "spans are dropped";
}

/// The present state of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceState {
    /// The kind.
    pub kind: SourceKind,
    /// The trust domain, or the name of the issuer or webhook. Empty for a kind with a single source.
    pub name: String,
    /// The file, or the address.
    pub place: String,
    /// The problem and its remedy, in one line. Empty if the source was read.
    pub problem: String,
    /// The time since which the source cannot be read.
    pub since: Option<Millis>,
}

impl SourceState {
    /// A warning for people: the source, the problem, its beginning, and its effect. `None` if the source was read.
    pub fn warning(&self) -> Option<String> {
        let since = self.since.filter(|_| !self.problem.is_empty())?;
        let name = if self.name.is_empty() { String::new() } else { format!(" of {}", self.name) };
        // Most problems name the place themselves.
        let place = if self.problem.contains(&self.place) { String::new() } else { format!("{}: ", self.place) };
        let (what, meanwhile) = (self.kind.as_str().replace('_', " "), self.kind.meanwhile());
        Some(format!("the {what}{name} cannot be read since {since}: {place}{}; meanwhile {meanwhile}", self.problem))
    }
}

#[derive(Default)]
struct Source {
    place: String,
    problem: String,
    since: Option<Millis>,
}

/// All sources of a server, as many as its configuration names.
#[derive(Default)]
pub struct SourceHealth(Mutex<BTreeMap<(SourceKind, String), Source>>);

impl SourceHealth {
    /// Notes that a source was read and its contents are in use. Returns whether the source could not be read before.
    pub fn readable(&self, kind: SourceKind, name: &str, place: &str) -> bool {
        let mut all = self.0.lock();
        let source = all.entry((kind, name.to_owned())).or_default();
        place.clone_into(&mut source.place);
        source.problem.clear();
        source.since.take().is_some()
    }

    /// Notes that a source could not be read, or that its contents cannot be used. Returns whether the problem is new.
    pub fn unreadable(&self, kind: SourceKind, name: &str, place: &str, problem: &str, now: Millis) -> bool {
        let mut all = self.0.lock();
        let source = all.entry((kind, name.to_owned())).or_default();
        place.clone_into(&mut source.place);
        let before = std::mem::replace(&mut source.problem, one_line(problem));
        source.since.get_or_insert(now);
        before != source.problem
    }

    /// Removes the sources of this kind that the configuration in effect does not name any more.
    pub fn retain(&self, kind: SourceKind, named: impl Fn(&str) -> bool) {
        self.0.lock().retain(|(of, name), _| *of != kind || named(name));
    }

    /// The present state of all sources.
    pub fn all(&self) -> Vec<SourceState> {
        let state = |((kind, name), source): (&(SourceKind, String), &Source)| SourceState {
            kind: *kind,
            name: name.clone(),
            place: source.place.clone(),
            problem: source.problem.clone(),
            since: source.since,
        };
        self.0.lock().iter().map(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_told_of_since_it_first_failed_and_no_longer_when_it_was_read() {
        let (health, kind) = (SourceHealth::default(), SourceKind::Bundle);
        assert!(!health.readable(kind, "example.org", "/a"));
        assert!(health.unreadable(kind, "example.org", "/a", "/a: is empty; fill it", Millis(5_000)));
        assert!(
            !health.unreadable(kind, "example.org", "/a", "/a: is empty; fill it", Millis(6_000)),
            "the same again is no news"
        );
        assert!(health.unreadable(kind, "example.org", "/a", "/a: is gone; put it back", Millis(7_000)));
        let told = health.all().pop().unwrap();
        assert_eq!(told.since, Some(Millis(5_000)), "since the first failure, whatever came after it");
        let warning = told.warning().unwrap();
        for part in ["the bundle of example.org", "1970-01-01T00:00:05", "/a: is gone; put it back", "in force stays"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }
        assert!(health.unreadable(kind, "example.org", "/b", "/b:3: is wrong\n  mend it\n", Millis(8_000)));
        assert_eq!(health.all().pop().unwrap().problem, "/b:3: is wrong; mend it", "a problem is one line of a table");
        assert!(health.readable(kind, "example.org", "/a"));
        assert_eq!(health.all().pop().unwrap().warning(), None);
        health.unreadable(kind, "gone.example", "/b", "x", Millis(1));
        health.retain(kind, |name| name == "example.org");
        assert_eq!(health.all().len(), 1);
    }
}
