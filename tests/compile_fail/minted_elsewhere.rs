//! Only a credential kind mints, from a grant.
use mayfly::credential::{CredentialMaterial, CredentialSummary, MintedCredential};

fn forge(summary: CredentialSummary, answer: CredentialMaterial) -> MintedCredential {
    MintedCredential { records: Vec::new(), summary, answer, lapse: todo!() }
}

fn main() {}
