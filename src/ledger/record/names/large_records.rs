//! The names in records that contain many names.

use super::Namer;
use crate::record::*;

impl Namer<'_> {
    pub(super) fn due(&mut self, e: &DeadlineReached) {
        match DeadlineKind::try_from(e.of) {
            Ok(DeadlineKind::Approval) => self.approval(&e.id),
            _ => self.upstream(&e.name),
        }
        self.environment(&e.environment);
        self.who(&e.owner);
    }

    pub(super) fn break_glass(&mut self, e: &BreakGlassStepTaken) {
        self.task(&e.task);
        self.identities(&e.people);
        e.reviewer.iter().for_each(|one| self.identity(one));
        self.other(&e.rights);
        self.who(&e.caller);
        self.environment(&e.environment);
        self.svid(e.svid.as_ref());
        self.credential(&e.ancestor);
    }

    pub(super) fn opened(&mut self, e: &TaskOpened) {
        self.task(&e.task);
        self.task(&e.parent);
        e.owner.iter().for_each(|one| self.identity(one));
        self.who(&e.opener);
        e.callers.iter().for_each(|caller| self.who(caller));
        self.environment(&e.environment);
        if let Some(allowance) = &e.allowance {
            for upstream in &allowance.upstreams {
                self.upstream(&upstream.name);
                self.others(&upstream.scopes);
            }
            allowance.tools.iter().for_each(|tool| self.tool(tool));
        }
        self.svid(e.svid.as_ref());
        self.approval(&e.approval);
        self.credential(&e.ancestor);
        for ancestor in &e.ancestors {
            self.credential(&ancestor.credential);
            self.who(&ancestor.caller);
        }
        self.identities(&e.actors);
        e.subject_token.iter().for_each(|token| self.other(&token.id));
        e.subject_claims.iter().for_each(|claims| self.subject_claims(claims));
    }

    pub(super) fn task_asked(&mut self, e: &RequestedTask) {
        self.task(&e.parent);
        e.owner.iter().for_each(|one| self.identity(one));
        e.callers.iter().for_each(|caller| self.who(caller));
        for upstream in e.allowance.iter().flat_map(|a| &a.upstreams) {
            self.upstream(&upstream.name);
            self.others(&upstream.scopes);
        }
        e.allowance.iter().flat_map(|a| &a.tools).for_each(|tool| self.tool(tool));
    }

    pub(super) fn subject_claims(&mut self, claims: &SubjectClaims) {
        self.others(&claims.groups);
        self.others(&claims.scopes);
    }

    pub(super) fn issued(&mut self, e: &CredentialIssued) {
        self.credential(&e.credential);
        self.task(&e.task);
        self.who(&e.caller);
        e.subject.iter().for_each(|one| self.identity(one));
        self.identities(&e.actors);
        self.upstream(&e.upstream);
        self.others(&e.scopes);
        self.tool(&e.tool);
        self.hex(&e.arguments);
        self.other(&e.binding);
        self.environment(&e.environment);
        self.svid(e.svid.as_ref());
        e.subject_token.iter().for_each(|token| self.other(&token.id));
        for ancestor in &e.ancestors {
            self.credential(&ancestor.credential);
            self.who(&ancestor.caller);
        }
        self.other(&e.key);
        self.hex(&e.jkt);
        self.approval(&e.approval);
        self.lease(&e.lease);
        self.hex(&e.token_digest);
        self.others(&e.policies);
        self.credential(&e.renews);
        self.credential(&e.shown);
        self.credential(&e.replaces);
        e.subject_claims.iter().for_each(|claims| self.subject_claims(claims));
    }
}
