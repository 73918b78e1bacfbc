//! Nothing that holds a secret can be printed.
use mayfly::credential::keyring::{Keyring, NewKey, OwnKey};
use mayfly::credential::{Answer, Issued, Minted};

fn print(answer: &Answer, issued: &Issued, minted: &Minted) {
    println!("{answer:?}");
    println!("{issued:?}");
    println!("{minted:?}");
}

fn keys(ring: &Keyring, own: &OwnKey, new: &NewKey) {
    println!("{ring:?}");
    println!("{own:?}");
    println!("{new:?}");
}

fn main() {}
