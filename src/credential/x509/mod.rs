//! X.509 (standards.md, "X.509 out"): the CA of mayfly's own trust domain and the SVIDs that it signs; the CAs of upstreams and the
//! certificates of kind `x509` that they sign; and the CRL of each CA.
//!
//! Of a request only the public key goes into a certificate; names, times and extensions are set here.

mod ca;
pub mod client;
mod crl;
mod csr;
pub mod settings;
mod svid;
#[cfg(test)]
mod tests;
mod upstream_ca;
#[cfg(test)]
mod upstream_tests;

pub use ca::{Ca, certificate};
pub use client::{crl_url, lists_url};
pub use crl::{CrlSigner, RevokedCertificate, crl};
pub use csr::{Csr, CsrDefect};
pub use settings::X509Settings;
pub use svid::{SignedCertificate, SvidTemplate};
pub use upstream_ca::{CaCertificate, UpstreamCa, upstream_certificate};

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
