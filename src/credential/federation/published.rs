//! Fetches what an issuer publishes, as a vendor would, and verifies an assertion with it.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::access::https::{UpstreamHttps, UpstreamRequest};
use crate::keyring::{ES256, RS256};

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<PublishedKey>,
}

#[derive(Deserialize)]
struct PublishedKey {
    kid: String,
    alg: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

#[derive(Deserialize)]
struct Header {
    kid: String,
    alg: String,
}

/// Verifies an assertion with the keys that its issuer publishes. Returns the algorithm. The error says what is wrong, and holds nothing of
/// the assertion.
pub async fn verified(client: &UpstreamHttps, issuer: &str, assertion: &str) -> Result<String, String> {
    let url = format!("{issuer}/.well-known/openid-configuration");
    let discovery: Discovery = fetched(client, &url).await?;
    if discovery.issuer != issuer {
        return Err(format!("{url} names the issuer {}, and assertions name {issuer}", discovery.issuer));
    }
    let set: KeySet = fetched(client, &discovery.jwks_uri).await?;
    let (input, signature) = assertion.rsplit_once('.').ok_or("the assertion has no signature")?;
    let header = input.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
    let header: Header = serde_json::from_slice(&header).map_err(|_| "the assertion has no header")?;
    let key = set.keys.iter().find(|key| key.kid == header.kid && key.alg == header.alg);
    let key = key.ok_or_else(|| format!("{} does not publish key {} ({}) yet", discovery.jwks_uri, header.kid, header.alg))?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "the assertion has no signature")?;
    match key.verifies(input.as_bytes(), &signature) {
        true => Ok(header.alg),
        false => Err(format!("the published key {} does not verify the assertion", key.kid)),
    }
}

impl PublishedKey {
    fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        let part = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        match self.alg.as_str() {
            ES256 => {
                let point = [&[4][..], &part(&self.x), &part(&self.y)].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input, signature).is_ok()
            }
            RS256 => {
                let key = RsaPublicKeyComponents { n: part(&self.n), e: part(&self.e) };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, input, signature).is_ok()
            }
            _ => false,
        }
    }
}

async fn fetched<T: DeserializeOwned>(client: &UpstreamHttps, url: &str) -> Result<T, String> {
    let answer = client.call(UpstreamRequest::get(url)).await;
    let answer = answer.map_err(|e| format!("{url}, which the vendor fetches, was not fetched: {e}"))?;
    match answer.status.is_success() {
        true => answer.json().map_err(|what| format!("{url}: {what}")),
        false => Err(format!("{url} answered with status {}", answer.status.as_u16())),
    }
}
