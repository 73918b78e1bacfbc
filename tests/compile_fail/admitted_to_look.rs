//! Whoever was admitted to one action has no proof for another: looking is not revoking, revoking is not locking.
use mayfly::admission::Admitted;
use mayfly::authority::Authority;
use mayfly::policy::admin;
use mayfly::revoke::{LockRequest, RevocationRequest};

fn revoke(authority: &Authority, looks: &Admitted<admin::Observe>, ask: &RevocationRequest) {
    let _ = authority.revoke(looks, None, ask);
}

fn lock(authority: &Authority, revokes: &Admitted<admin::Revoke>, ask: &LockRequest) {
    let _ = authority.lock(revokes, ask);
}

fn main() {}
