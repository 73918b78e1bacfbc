//! External public keys in JWK form (RFC 7517; RFC 7518, section 6), and the algorithms that a JWT-SVID may be signed with.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, EcdsaVerificationAlgorithm, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// A NIST curve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn from_name(name: &str) -> Option<Curve> {
        match name {
            "P-256" => Some(Curve::P256),
            "P-384" => Some(Curve::P384),
            "P-521" => Some(Curve::P521),
            _ => None,
        }
    }

    /// Length of a coordinate in bytes (RFC 7518, section 6.2.1.2).
    fn width(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    /// The verification algorithm of the curve; each curve has one hash (RFC 7518, section 3.4).
    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

macro_rules! algorithms {
    ($($name:ident = $text:literal;)*) => {
        /// The algorithms that a JWT-SVID may be signed with (JWT-SVID, section 2.1), a closed list. It excludes `none`, HMAC and EdDSA.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Algorithm {
            $(#[doc = concat!("`", $text, "` (RFC 7518, section 3.1).")] $name,)*
        }

        impl Algorithm {
            /// All algorithms.
            pub const ALL: &'static [Algorithm] = &[$(Algorithm::$name,)*];

            /// The algorithm's name in `alg`.
            pub const fn name(self) -> &'static str {
                match self { $(Algorithm::$name => $text,)* }
            }

            /// The algorithm with a name in `alg`.
            pub fn from_name(name: &str) -> Option<Algorithm> {
                match name { $($text => Some(Algorithm::$name),)* _ => None }
            }
        }
    };
}

algorithms! {
    Rs256 = "RS256"; Rs384 = "RS384"; Rs512 = "RS512";
    Es256 = "ES256"; Es384 = "ES384"; Es512 = "ES512";
    Ps256 = "PS256"; Ps384 = "PS384"; Ps512 = "PS512";
}

/// The key type that an algorithm needs.
enum Family {
    Ec(Curve),
    Rsa(&'static RsaParameters),
}

impl Algorithm {
    fn family(self) -> Family {
        match self {
            Algorithm::Rs256 => Family::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Family::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Family::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Es256 => Family::Ec(Curve::P256),
            Algorithm::Es384 => Family::Ec(Curve::P384),
            Algorithm::Es512 => Family::Ec(Curve::P521),
            Algorithm::Ps256 => Family::Rsa(&RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Family::Rsa(&RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Family::Rsa(&RSA_PSS_2048_8192_SHA512),
        }
    }
}

/// Why a key cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyDefect {
    /// `kty` is neither EC nor RSA.
    #[error("is neither an EC nor an RSA key")]
    Type,
    /// An unsupported `crv`.
    #[error("is on another curve than P-256, P-384 and P-521")]
    Curve,
    /// A coordinate has the wrong length, or the point is not on the curve.
    #[error("has no point of its curve in \"x\" and \"y\"")]
    Point,
    /// The modulus cannot be decoded, begins with zeros, or has an unsupported length.
    #[error("has no modulus of 2048 to 8192 bits in \"n\"")]
    Modulus,
    /// The exponent cannot be decoded, is even, is one, or is longer than 33 bits.
    #[error("has no odd exponent from 3 to 2^33 in \"e\"")]
    Exponent,
    /// The key contains its private part, so that every reader of the bundle could sign.
    #[error("holds its private part")]
    Private,
    /// `alg` names an unsupported or unfitting algorithm, or `key_ops` lacks `verify`.
    #[error("says by \"alg\" or \"key_ops\" that it is for something else")]
    Purpose,
}

/// A usable public key. Constructed by [`VerifyingKey::from_jwk`] only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyingKey {
    part: Part,
    /// The one algorithm that the JWK's `alg` allows.
    only: Option<Algorithm>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    /// An uncompressed point (SEC 1, section 2.3.3).
    Ec(Curve, Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl VerifyingKey {
    /// Parses the members of a JWK. The caller checks `use`; this function checks only for contradicting members.
    pub fn from_jwk(members: &Map<String, Value>) -> Result<VerifyingKey, KeyDefect> {
        if ["d", "k", "p", "q"].iter().any(|private| members.contains_key(*private)) {
            return Err(KeyDefect::Private);
        }
        let ops = members.get("key_ops").map(|ops| ops.as_array().is_some_and(|all| all.iter().any(|op| op == "verify")));
        if ops == Some(false) {
            return Err(KeyDefect::Purpose);
        }
        let named = |alg: &Value| alg.as_str().and_then(Algorithm::from_name).ok_or(KeyDefect::Purpose);
        let only = members.get("alg").map(named).transpose()?;
        let part = match members.get("kty").and_then(Value::as_str) {
            Some("EC") => ec(members)?,
            Some("RSA") => rsa(members)?,
            _ => return Err(KeyDefect::Type),
        };
        let key = VerifyingKey { part, only: None };
        if only.is_some_and(|alg| !key.serves(alg)) { Err(KeyDefect::Purpose) } else { Ok(VerifyingKey { only, ..key }) }
    }

    /// Whether the algorithm matches the key's type, its curve and its `alg`.
    pub fn serves(&self, alg: Algorithm) -> bool {
        let fits = match (&self.part, alg.family()) {
            (Part::Ec(own, _), Family::Ec(asked)) => *own == asked,
            (Part::Rsa { .. }, Family::Rsa(_)) => true,
            _ => false,
        };
        fits && self.only.is_none_or(|only| only == alg)
    }

    /// Whether this key made the signature with the algorithm. ECDSA signatures have a fixed length (RFC 7518, section 3.4).
    pub fn verifies(&self, alg: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        if !self.serves(alg) {
            return false;
        }
        match (&self.part, alg.family()) {
            (Part::Ec(curve, point), Family::Ec(_)) => {
                UnparsedPublicKey::new(curve.verification(), point).verify(signed, signature).is_ok()
            }
            (Part::Rsa { n, e }, Family::Rsa(parameters)) => {
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn decoded(members: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(members.get(name)?.as_str()?).ok()
}

/// The uncompressed point of two base64url coordinates, each exactly `width` bytes long. Does not check whether the point is on the curve.
pub fn point(x: &str, y: &str, width: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for coordinate in [x, y] {
        let bytes = URL_SAFE_NO_PAD.decode(coordinate).ok().filter(|b| b.len() == width)?;
        point.extend_from_slice(&bytes);
    }
    Some(point)
}

fn ec(members: &Map<String, Value>) -> Result<Part, KeyDefect> {
    let text = |name| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let curve = Curve::from_name(text("crv")).ok_or(KeyDefect::Curve)?;
    let point = point(text("x"), text("y"), curve.width()).ok_or(KeyDefect::Point)?;
    // A point off the curve would verify nothing, without any hint why.
    ParsedPublicKey::new(curve.verification(), &point).map_err(|_| KeyDefect::Point)?;
    Ok(Part::Ec(curve, point))
}

fn rsa(members: &Map<String, Value>) -> Result<Part, KeyDefect> {
    let n = decoded(members, "n").filter(|n| bits(n).is_some_and(|bits| (2048..=8192).contains(&bits)));
    let odd = |e: &[u8]| e.last().is_some_and(|low| low & 1 == 1);
    let e = decoded(members, "e").filter(|e| bits(e).is_some_and(|bits| (2..=33).contains(&bits)) && odd(e));
    Ok(Part::Rsa { n: n.ok_or(KeyDefect::Modulus)?, e: e.ok_or(KeyDefect::Exponent)? })
}

/// The bit length of a number; `None` where it begins with a zero byte (RFC 7518, section 2, Base64urlUInt).
fn bits(bytes: &[u8]) -> Option<usize> {
    let first = bytes.first().filter(|first| **first != 0)?;
    Some(bytes.len() * 8 - first.leading_zeros() as usize)
}
