//! An issued credential is not copied: one answer is made of it.
use mayfly::credential::IssuedCredential;

fn copy(issued: &IssuedCredential) -> IssuedCredential {
    issued.clone()
}

fn main() {}
