//! Access tokens: a compact JWS (RFC 7515) over the claims of RFC 9068 and mayfly's own claims, signed with ES256.
//!
//! The issuing path has its own encoder, because jsonwebtoken parses its key at each signature (40 µs). The claims are written straight
//! into one buffer from the record that is committed. The same record gives the same signing input, byte for byte, so a retry is answered
//! with the same token except for its signature.

pub(crate) mod json;
#[cfg(test)]
mod tests;
mod write;

use std::cell::RefCell;
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use mayfly_verify::token::{
    Act, BadJwks, Claims, Cnf, Jwks, MayflyClaims, OWN_CLAIMS, OWN_VERSION, PLAIN_VERSION, Possession, TYP, TokenDefect,
    TokenRequirements, authentic, peek_kid, signed_by, verify,
};

use super::IssuedToken;
use super::keyring::LoadedKey;
use mayfly_base::refusal::Fault;
use mayfly_ledger::record::CredentialIssued;
use mayfly_ledger::state::SupportingGrant;
use mayfly_policy::grant::TaskPath;
#[cfg(feature = "fast")]
use mayfly_verify::seq::CredentialId;
use mayfly_verify::seq::Seq;

/// The content of a token.
pub struct TokenContent<'a> {
    /// The issuance record.
    pub issued: &'a CredentialIssued,
    /// The record's decision revision.
    pub revision: Seq,
    /// The task path.
    pub path: &'a TaskPath,
    /// The other grants that the token's credential depends on.
    pub grounds: &'a [SupportingGrant],
    /// `aud`.
    pub audience: &'a str,
    /// `iss`.
    pub issuer: &'a str,
}

thread_local! {
    /// The buffer in which claims are written before they are encoded. It holds no secret.
    static CLAIMS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The JWS header of a key in base64url, with the dot after it.
pub fn header(kid: &str) -> String {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(br#"{"alg":"ES256","typ":"at+jwt","kid":"#);
    json::string(&mut out, kid);
    out.push(b'}');
    let mut text = URL_SAFE_NO_PAD.encode(out);
    text.push('.');
    text
}

/// The common beginning of the tokens of a batch, encoded and hashed once.
#[cfg(feature = "fast")]
pub(super) struct TokenPrefix {
    /// Header and claims in base64url, up to a multiple of three bytes of claims.
    text: Arc<str>,
    /// The remaining fewer than three bytes of common claims.
    rest: Vec<u8>,
    /// The state of SHA-256 after `text`.
    hash: digest::Context,
}

#[cfg(feature = "fast")]
impl TokenPrefix {
    /// The common beginning of all tokens that differ from `told` in tool, arguments and id only.
    pub(super) fn new(key: &LoadedKey, told: &TokenContent<'_>) -> Result<TokenPrefix, Fault> {
        CLAIMS.with_borrow_mut(|claims| {
            claims.clear();
            write::shared(claims, told)?;
            let rest = claims.split_off(claims.len() - claims.len() % 3);
            let mut text = String::with_capacity(key.header().len() + claims.len() * 4 / 3);
            text.push_str(key.header());
            base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut text);
            let mut hash = digest::Context::new(&digest::SHA256);
            hash.update(text.as_bytes());
            Ok(TokenPrefix { text: text.into(), rest, hash })
        })
    }

    /// The signing input of one token.
    pub(super) fn unsigned(&self, id: CredentialId, tool: &str, arguments: &[u8]) -> SigningInput {
        CLAIMS.with_borrow_mut(|claims| {
            claims.clear();
            claims.extend_from_slice(&self.rest);
            write::own(claims, tool, arguments, id);
            let mut own = String::with_capacity(claims.len() * 4 / 3 + SIGNATURE_ROOM);
            base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut own);
            let mut hash = self.hash.clone();
            hash.update(own.as_bytes());
            SigningInput { shared: Some(self.text.clone()), own, digest: hash.finish() }
        })
    }
}

/// Room for a dot, the 86 characters of a signature, and two characters of rounding in base64.
const SIGNATURE_ROOM: usize = 96;

/// The signing input (RFC 7515, section 5.1): the header as from [`header`], and the claims.
///
/// A fault where the record holds a value that no claim can express exactly.
pub fn signing_input(header: &str, told: &TokenContent<'_>) -> Result<String, Fault> {
    CLAIMS.with_borrow_mut(|claims| {
        claims.clear();
        write::claims(claims, told)?;
        let mut token = String::with_capacity(header.len() + claims.len() * 4 / 3 + SIGNATURE_ROOM);
        token.push_str(header);
        base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut token);
        Ok(token)
    })
}

/// A signing input, possibly in two pieces, and its SHA-256. ES256 signs this digest, and the record keeps it.
pub(super) struct SigningInput {
    shared: Option<Arc<str>>,
    own: String,
    digest: digest::Digest,
}

impl SigningInput {
    pub(super) fn new(key: &LoadedKey, told: &TokenContent<'_>) -> Result<SigningInput, Fault> {
        let own = signing_input(key.header(), told)?;
        Ok(SigningInput { shared: None, digest: digest::digest(&digest::SHA256, own.as_bytes()), own })
    }

    /// SHA-256 of the signing input.
    pub(super) fn digest(&self) -> &[u8] {
        self.digest.as_ref()
    }

    /// Signs the input. A second signature over the same input differs; both are valid.
    pub(super) fn sign(self, key: &LoadedKey) -> Result<IssuedToken, Fault> {
        let signature = key.sign(&self.digest)?;
        let mut own = self.own;
        own.push('.');
        let signed = own.len();
        // The dot and the signature have 87 bytes and fit into the reserved room. The buffer does not grow, so no copy of the token is left
        // in memory.
        base64_simd::URL_SAFE_NO_PAD.encode_append(signature, &mut own);
        let signature = own.len() - signed;
        Ok(IssuedToken::signed(self.shared, own, signature))
    }
}
