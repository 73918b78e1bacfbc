//! Only `MintedCredential::reveal` makes the type that an answer is made of.
use mayfly::credential::{CredentialMaterial, CredentialSummary, IssuedCredential};
use mayfly::seq::Seq;

fn forge(summary: CredentialSummary, answer: CredentialMaterial) -> IssuedCredential {
    IssuedCredential { seq: Seq::ZERO, summary, answer }
}

fn main() {}
