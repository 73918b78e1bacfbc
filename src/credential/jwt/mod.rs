//! Access tokens: a compact JWS (RFC 7515) over the claims of RFC 9068 and our own, signed with ES256.
//!
//! Ours on the issuing path, because jsonwebtoken parses its key at each signature (40 µs). The claims are written straight into one
//! buffer, from the record that is committed: the same record gives the same signing input, byte for byte, so a retry can be answered
//! with the same token but for its signature.

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
    Act, BadJwks, Claims, Cnf, Expect, Jwks, OWN_CLAIMS, OWN_VERSION, Own, PLAIN_VERSION, Possession, TYP, TokenDefect,
    authentic, peek_kid, signed_by, verify,
};

use super::Token;
use super::keyring::OwnKey;
use crate::ledger::record::Issued;
use crate::ledger::state::Ground;
use crate::policy::grant::TaskPath;
use crate::refusal::Fault;
use crate::seq::{CredentialId, Seq};

/// Everything that a token says.
pub struct Told<'a> {
    /// The record of its issuance.
    pub issued: &'a Issued,
    /// The record's decision revision.
    pub revision: Seq,
    /// The task path.
    pub path: &'a TaskPath,
    /// The other grants that it rests on.
    pub grounds: &'a [Ground],
    /// `aud`.
    pub audience: &'a str,
    /// `iss`.
    pub issuer: &'a str,
}

thread_local! {
    /// Where claims are written before they are encoded. No secret stands in them.
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

/// What tokens of one sort have in common: it comes first, and is encoded and hashed once.
pub(super) struct Beginning {
    /// Header and claims in base64url, up to a whole group of three bytes.
    text: Arc<str>,
    /// The claims after that: fewer than three bytes.
    rest: Vec<u8>,
    /// SHA-256 so far.
    hash: digest::Context,
}

impl Beginning {
    /// Of all tokens that say what `told` does, but for tool, arguments and id.
    pub(super) fn new(key: &OwnKey, told: &Told<'_>) -> Result<Beginning, Fault> {
        CLAIMS.with_borrow_mut(|claims| {
            claims.clear();
            write::shared(claims, told)?;
            let rest = claims.split_off(claims.len() - claims.len() % 3);
            let mut text = String::with_capacity(key.header().len() + claims.len() * 4 / 3);
            text.push_str(key.header());
            base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut text);
            let mut hash = digest::Context::new(&digest::SHA256);
            hash.update(text.as_bytes());
            Ok(Beginning { text: text.into(), rest, hash })
        })
    }

    /// One of them.
    pub(super) fn unsigned(&self, id: CredentialId, tool: &str, arguments: &[u8]) -> Unsigned {
        CLAIMS.with_borrow_mut(|claims| {
            claims.clear();
            claims.extend_from_slice(&self.rest);
            write::own(claims, tool, arguments, id);
            let mut own = String::with_capacity(claims.len() * 4 / 3 + SIGNATURE_ROOM);
            base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut own);
            let mut hash = self.hash.clone();
            hash.update(own.as_bytes());
            Unsigned { shared: Some(self.text.clone()), own, digest: hash.finish() }
        })
    }
}

/// Room for a dot and 86 characters of a signature, and two of base64's rounding.
const SIGNATURE_ROOM: usize = 96;

/// The signing input (RFC 7515, section 5.1): header as of [`header`], and claims.
///
/// A fault where the record holds what no claim could say exactly.
pub fn signing_input(header: &str, told: &Told<'_>) -> Result<String, Fault> {
    CLAIMS.with_borrow_mut(|claims| {
        claims.clear();
        write::claims(claims, told)?;
        let mut token = String::with_capacity(header.len() + claims.len() * 4 / 3 + SIGNATURE_ROOM);
        token.push_str(header);
        base64_simd::URL_SAFE_NO_PAD.encode_append(&claims[..], &mut token);
        Ok(token)
    })
}

/// A signing input, perhaps in two pieces, and its SHA-256: what ES256 signs, and what the record keeps.
pub(super) struct Unsigned {
    shared: Option<Arc<str>>,
    own: String,
    digest: digest::Digest,
}

impl Unsigned {
    pub(super) fn new(key: &OwnKey, told: &Told<'_>) -> Result<Unsigned, Fault> {
        let own = signing_input(key.header(), told)?;
        Ok(Unsigned { shared: None, digest: digest::digest(&digest::SHA256, own.as_bytes()), own })
    }

    /// SHA-256 of the signing input.
    pub(super) fn digest(&self) -> &[u8] {
        self.digest.as_ref()
    }

    /// The token. A second signature over the same input differs, and both are good.
    pub(super) fn sign(self, key: &OwnKey) -> Result<Token, Fault> {
        let signature = key.sign(&self.digest)?;
        let mut own = self.own;
        own.push('.');
        let signed = own.len();
        // Room was set aside for these 87: it does not grow, so no copy is left behind.
        base64_simd::URL_SAFE_NO_PAD.encode_append(signature, &mut own);
        let signature = own.len() - signed;
        Ok(Token::signed(self.shared, own, signature))
    }
}
