//! Nothing but `MintedCredential::reveal` makes what an answer is made of, and it is made once.
use mayfly::credential::{CredentialMaterial, CredentialSummary, IssuedCredential};
use mayfly::seq::Seq;

fn forge(summary: CredentialSummary, answer: CredentialMaterial) -> IssuedCredential {
    IssuedCredential { seq: Seq::ZERO, summary, answer }
}

fn copy(issued: &IssuedCredential) -> IssuedCredential {
    issued.clone()
}

fn main() {}
