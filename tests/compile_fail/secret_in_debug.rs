//! Nothing that holds a secret can be printed.
use mayfly::credential::keyring::{Keyring, NewKey, LoadedKey};
use mayfly::credential::{CredentialMaterial, IssuedCredential, MintedCredential};

fn print(answer: &CredentialMaterial, issued: &IssuedCredential, minted: &MintedCredential) {
    println!("{answer:?}");
    println!("{issued:?}");
    println!("{minted:?}");
}

fn keys(ring: &Keyring, own: &LoadedKey, new: &NewKey) {
    println!("{ring:?}");
    println!("{own:?}");
    println!("{new:?}");
}

fn main() {}
