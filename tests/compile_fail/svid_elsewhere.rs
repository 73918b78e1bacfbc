//! Only the check of a chain makes a verified SVID.
use mayfly::identity::spiffe_id::SpiffeId;
use mayfly::identity::svid::VerifiedSvid;

fn rename(other: VerifiedSvid, id: SpiffeId) -> VerifiedSvid {
    VerifiedSvid { id, ..other }
}

fn main() {}
