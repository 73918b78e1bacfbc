//! What was minted is no answer: only `reveal` with a receipt of the ledger makes one.
use mayfly::credential::{CredentialMaterial, IssuedCredential, MintedCredential};

fn hand_out(minted: MintedCredential) -> IssuedCredential {
    minted
}

fn peek(minted: MintedCredential) -> CredentialMaterial {
    minted.answer
}

fn main() {}
