//! X.509 for mayfly's own trust domain: its CA, the SVIDs that it signs, and its CRL (standards.md, "X.509 out").
//!
//! Of a request only the public key goes into a certificate; names, times and extensions are set here.

mod ca;
mod crl;
mod csr;
mod svid;
#[cfg(test)]
mod tests;

pub use ca::{Ca, certificate};
pub use crl::{RevokedCertificate, crl};
pub use csr::{Csr, CsrDefect};
pub use svid::{SignedCertificate, SvidTemplate};

use time::OffsetDateTime;

use mayfly_base::refusal::Fault;
use mayfly_verify::seq::Millis;

/// A time in the form of certificates: whole seconds.
fn moment(at: Millis) -> Result<OffsetDateTime, Fault> {
    let seconds = i64::try_from(at.seconds()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Fault::new(format!("{at} is no time of a certificate")))
}

fn failed(what: &str) -> impl Fn(rcgen::Error) -> Fault + '_ {
    move |error| Fault::new(format!("{what}: {error}"))
}

fn uri(text: &str) -> Result<rcgen::string::Ia5String, Fault> {
    text.try_into().map_err(|_| Fault::new("a URI that is not ASCII"))
}
