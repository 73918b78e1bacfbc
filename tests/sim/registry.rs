//! The naive rules about registry changes, approvals and single-use ids.

use mayfly::ledger::record::*;

use crate::model::{DAY, Line, MINUTE, Model, Says, aims};

/// The sender of a request, and the request id.
pub type Name<'a> = (&'a str, &'a str);

/// The sender and id of a record's request.
pub fn name_of(record: &Record) -> Option<Name<'_>> {
    let request = record.request.as_ref()?;
    let author = match record.author.as_ref()?.who.as_ref()? {
        Author::SpiffeId(id) => id,
        _ => "",
    };
    Some((if request.caller.is_empty() { author } else { &request.caller }, &request.id))
}

impl Model {
    /// The highest number of keys that are active at once for one purpose and environment.
    pub fn most_active(&self) -> usize {
        let added = self.log.iter().filter(|l| l.valid).filter_map(|l| match &l.record.event {
            Some(Event::KeyAdded(k)) => Some(k),
            _ => None,
        });
        let active: Vec<_> = added.filter(|k| self.key(&k.key) == Some(KeyState::Active as i32)).collect();
        let same = |a: &KeyAdded| active.iter().filter(|b| a.purpose == b.purpose && a.environment == b.environment).count();
        active.iter().map(|k| same(k)).max().unwrap_or(0)
    }

    pub fn policy(&self, environment: &str) -> u64 {
        let set = |(_, e): (&Line, &Event)| match e {
            Event::PolicySet(p) if p.environment == environment && !p.audit_only => Some(p.version),
            _ => None,
        };
        self.valid().filter_map(set).last().unwrap_or(0)
    }

    pub fn upstream(&self, name: &str) -> Option<(u64, bool)> {
        let set = |(_, e): (&Line, &Event)| match e {
            Event::UpstreamSet(u) if u.name == name => Some((u.version, !u.disabled && !u.retired)),
            _ => None,
        };
        self.valid().filter_map(set).last()
    }

    pub fn binding(&self, name: &str) -> Option<(u64, bool)> {
        let set = |(_, e): (&Line, &Event)| match e {
            Event::BindingSet(b) if b.name == name => Some((b.version, !b.pending)),
            _ => None,
        };
        self.valid().filter_map(set).last()
    }

    pub fn key(&self, id: &str) -> Option<i32> {
        let mut state = None;
        for (_, e) in self.valid() {
            match e {
                Event::KeyAdded(k) if k.key == id => state = Some(k.state),
                Event::KeyChanged(k) if k.key == id => state = Some(k.state),
                Event::Revoked(r) if aims(&r.targets).contains(&RecordedTarget::SigningKey(id.to_owned())) && state.is_some() => {
                    state = Some(KeyState::Compromised as i32);
                }
                _ => {}
            }
        }
        state
    }

    /// The approval request; the revision of the approval, if it was given; and whether it was used.
    pub fn approval(&self, id: &[u8]) -> Option<(&ApprovalRequested, Option<Option<u64>>, bool)> {
        let mut found: Option<(&ApprovalRequested, Option<Option<u64>>, bool)> = None;
        for (l, e) in self.now_valid() {
            match e {
                Event::ApprovalAsked(a) if a.approval == id => found = Some((a, None, false)),
                Event::ApprovalDecided(d) if d.approval == id => {
                    if let Some(f) = &mut found {
                        f.1 = Some(d.given.then_some(l.record.revision));
                        // The approval of a task is used up when the task opens with it.
                        f.2 |= d.given && f.0.of == ApprovalKind::Task as i32;
                    }
                }
                Event::TaskExtended(x) if x.approval == id => {
                    if let Some(f) = &mut found {
                        f.2 = true;
                    }
                }
                Event::Issued(i) if i.approval == id => {
                    if let Some(f) = &mut found {
                        f.2 = true;
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether something that a record bound until then may be used again in a commit at `now`.
    fn forgotten(&self, line: &Line, until: u64, now: u64) -> Says {
        if now <= until {
            Says::Void
        } else if self.commits.iter().any(|(head, time)| *head >= line.seq && *time > until + 1_000) {
            Says::Valid
        } else {
            Says::Either
        }
    }

    pub fn request(&self, name: Name<'_>, now: u64) -> Says {
        let bound = self.now_valid().filter(|(l, _)| name_of(&l.record) == Some(name));
        match bound.last() {
            None => Says::Valid,
            Some((l, Event::Issued(i))) => self.forgotten(l, i.expires_at.max(i.issued_at + 10 * MINUTE), now),
            Some((l, _)) => self.forgotten(l, l.time + DAY, now),
        }
    }

    /// A retry replaces exactly the credential that the request made before.
    pub fn replacement(&self, name: Option<Name<'_>>, replaces: &[u8], now: u64) -> Says {
        if name.is_none() {
            return Says::Void;
        }
        let named = |l: &Line| name_of(&l.record) == name;
        match self.now_valid().filter(|(l, _)| named(l)).last() {
            Some((l, Event::Issued(i))) if i.credential == replaces => {
                match self.forgotten(l, i.expires_at.max(i.issued_at + 10 * MINUTE), now) {
                    Says::Void => Says::Valid,
                    Says::Either => Says::Either,
                    Says::Valid => Says::Void,
                }
            }
            _ => Says::Void,
        }
    }

    pub fn used_once(&self, digest: &[u8], now: u64) -> Says {
        let used = |(_, e): &(&Line, &Event)| matches!(e, Event::UsedOnce(u) if u.digest == digest);
        match self.valid().filter(used).last() {
            Some((l, Event::UsedOnce(u))) => self.forgotten(l, u.until, now),
            _ => Says::Valid,
        }
    }
}
