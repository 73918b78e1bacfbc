//! Small entries that expire individually: requests, used tokens, approvals, callers' rules, descent.

use super::{ExpiringEntry, RememberedRequest, RequestKey, State, hash_of};
use crate::record::{Author, Record};
use mayfly_base::limits;
use mayfly_verify::seq::{CredentialId, Millis};

impl State {
    /// Remembers a request whose result is not a credential.
    pub(super) fn remember(&mut self, record: &Record, key: Option<RequestKey>, task: &[u8]) {
        let (Some(request), Some(key)) = (&record.request, key) else { return };
        let task = task.try_into().unwrap_or_default();
        let until = self.time.plus(limits::TASK_TTL_MS.max(limits::REQUEST_ID_KEPT_MS));
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash_of(&request.digest)[..16]);
        let caller: Box<str> = record.requester().unwrap_or_default().into();
        self.credentials.remember(&caller);
        self.requests.insert(key, RememberedRequest { digest, seq: self.head, at: self.position, task, until, caller });
        self.ends.after(until, ExpiringEntry::Request(key));
    }

    /// Counts a revocation rule that a caller's own act made.
    pub(super) fn count_caller_rule(&mut self, record: &Record, until: Millis) {
        if let Some(who @ (Author::SpiffeId(_) | Author::Person(_))) = record.author.as_ref().and_then(|a| a.who.as_ref()) {
            let caller: Box<str> = who.name().into();
            *self.rules_by_caller.or_insert(caller.clone(), 0) += 1;
            self.ends.after(until, ExpiringEntry::CallerRule(caller));
        }
    }

    /// Records that something descends from a credential, and when it ends. If the credential is given back, its descendants are revoked
    /// with it until that time.
    pub(super) fn descends(&mut self, ancestor: &[u8], end: Millis) {
        let Some(id) = CredentialId::from_slice(ancestor) else { return };
        self.keep_ground(id);
        let latest = self.descent.or_insert(id, Millis(0));
        if *latest < end {
            *latest = end;
            self.ends.after(end, ExpiringEntry::Descent(id));
        }
    }

    pub(super) fn expire_small(&mut self, most: usize) {
        for _ in 0..most {
            let Some(end) = self.ends.due(self.time) else { break };
            match end {
                ExpiringEntry::Request(key) => {
                    if let Some(gone) = self.requests.remove(&key) {
                        self.credentials.forget_request(&gone.caller);
                    }
                }
                ExpiringEntry::UsedOnce(digest) => {
                    self.used_once.remove(&digest);
                }
                ExpiringEntry::Approval(id) => {
                    self.approvals.remove(&id);
                }
                ExpiringEntry::Descent(id) => {
                    if self.descent.get(&id).is_some_and(|end| *end < self.time) {
                        self.descent.remove(&id);
                        self.grounds.forget(&id);
                    }
                }
                ExpiringEntry::Login(id) => {
                    self.forget_login(&id);
                }
                ExpiringEntry::CallerRule(caller) => {
                    if let Some(n) = self.rules_by_caller.value_mut(&caller) {
                        *n = n.saturating_sub(1);
                        if *n == 0 {
                            self.rules_by_caller.remove(&caller);
                        }
                    }
                }
            }
        }
    }
}
