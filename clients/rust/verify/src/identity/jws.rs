//! A compact JWS taken apart (RFC 7515, section 7.1). Nothing is believed yet: who checks it says what the header may hold.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;

/// The three parts of a compact JWS.
#[derive(Clone, Debug)]
pub struct Compact<'a> {
    /// The header as JSON, decoded.
    pub header: Vec<u8>,
    /// The payload, still base64url.
    pub payload: &'a str,
    /// The signature, still base64url.
    pub signature: &'a str,
    /// What was signed: header, dot and payload as they were sent (RFC 7515, section 5.2).
    pub signed: &'a str,
}

/// Why a text is no compact JWS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotCompact {
    /// Another number of dots; a JWS in JSON has none between its parts.
    #[error("a compact JWS has three parts with a dot between them")]
    Parts,
    /// The header is not base64url without padding.
    #[error("the header is not base64url")]
    Header,
}

impl Compact<'_> {
    /// Takes a token apart.
    pub fn split(token: &str) -> Result<Compact<'_>, NotCompact> {
        let (signed, signature) = token.rsplit_once('.').ok_or(NotCompact::Parts)?;
        let (header, payload) = signed.split_once('.').filter(|(_, p)| !p.contains('.')).ok_or(NotCompact::Parts)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| NotCompact::Header)?;
        Ok(Compact { header, payload, signature, signed })
    }

    /// The payload's bytes; `None` where it is not base64url without padding.
    pub fn payload(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }

    /// What a token without `jti` is named by: `sha256:` and the digest of what was signed in hex. A signature can be written in more than
    /// one way, what it is over cannot.
    pub fn digest_id(&self) -> String {
        format!("sha256:{}", HEXLOWER.encode(&super::sha256(self.signed.as_bytes())))
    }

    /// The signature's bytes; `None` where it is not base64url without padding.
    pub fn signature(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.signature).ok()
    }
}
