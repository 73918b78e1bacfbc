//! The test kit: certificate authorities, SVIDs and bundles, valid ones and ones with a single named defect.
#![allow(dead_code, reason = "each test binary uses a part of the kit")]

pub mod der;
pub mod house;
pub mod oidc;
pub mod pki;
pub mod signer;
pub mod skipped;
pub mod vectors;
