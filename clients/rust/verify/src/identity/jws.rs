//! Splits a compact JWS (RFC 7515, section 7.1). Nothing is verified here; the caller decides what the header may contain.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;

/// The parts of a compact JWS.
#[derive(Clone, Debug)]
pub struct CompactJws<'a> {
    /// The decoded header, JSON.
    pub header: Vec<u8>,
    /// The payload in base64url.
    pub payload: &'a str,
    /// The signature in base64url.
    pub signature: &'a str,
    /// The signed part: header, dot and payload as sent (RFC 7515, section 5.2).
    pub signed: &'a str,
}

/// Why a text is not a compact JWS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompactJwsDefect {
    /// A wrong number of dots, as in a JWS in JSON serialization.
    #[error("a compact JWS has three parts with a dot between them")]
    Parts,
    /// The header is not base64url without padding.
    #[error("the header is not base64url")]
    Header,
}

impl CompactJws<'_> {
    /// Splits a token.
    pub fn split(token: &str) -> Result<CompactJws<'_>, CompactJwsDefect> {
        let (signed, signature) = token.rsplit_once('.').ok_or(CompactJwsDefect::Parts)?;
        let (header, payload) = signed.split_once('.').filter(|(_, p)| !p.contains('.')).ok_or(CompactJwsDefect::Parts)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| CompactJwsDefect::Header)?;
        Ok(CompactJws { header, payload, signature, signed })
    }

    /// The decoded payload; `None` where it is not base64url without padding.
    pub fn payload(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.payload).ok()
    }

    /// The id of a token without `jti`: `sha256:` and the digest of the signed part in hexadecimal. The signature is not included, since
    /// one signature can be encoded in several ways.
    pub fn digest_id(&self) -> String {
        format!("sha256:{}", HEXLOWER.encode(&super::sha256(self.signed.as_bytes())))
    }

    /// The decoded signature; `None` where it is not base64url without padding.
    pub fn signature(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.signature).ok()
    }
}
