//! JSON form of an issued credential, the only type here that contains a secret.

use std::fmt;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::Shown;
use crate::error::CliError;
use mayfly_proto::mayfly::v1::{self as pb, issued::Answer as Wire};

/// A text that is wiped from memory when dropped, and that is only revealed by serializing it.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes over the text, of which no copy remains.
    pub fn new(text: String) -> SecretText {
        SecretText(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// An issued credential, as `get -o json` writes it.
#[derive(Serialize, Debug)]
pub struct IssuedView {
    /// Everything but the credential itself.
    #[serde(flatten)]
    pub about: Shown<pb::Issued>,
    /// The credential itself.
    #[serde(flatten)]
    pub answer: IssuedAnswerView,
}

/// The credential, by its form.
#[derive(Serialize, Debug)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are those of the wire, whose comments say what they mean")]
pub enum IssuedAnswerView {
    BearerToken {
        token: SecretText,
        header_name: String,
        scheme: String,
        base_url: String,
    },
    DatabaseLogin {
        host: String,
        port: u32,
        database: String,
        user: String,
        password: SecretText,
        server_ca_pem: String,
        plaintext: bool,
    },
    Certificate {
        chain_pem: String,
        root_pem: String,
        crl_url: String,
    },
    SshCertificate {
        certificate: String,
        authority: String,
        principals: Vec<String>,
        krl_url: String,
    },
    AwsKeys {
        access_key_id: String,
        secret_access_key: SecretText,
        session_token: SecretText,
        region: String,
    },
    StaticSecret {
        value: SecretText,
    },
}

impl IssuedView {
    /// Converts the answer. An answer without a credential, or with one of an unknown kind, is an error.
    pub fn of(mut issued: pb::Issued) -> Result<IssuedView, CliError> {
        let none = || CliError::ours("the server answered with a kind of credential that this version does not know");
        let answer = IssuedAnswerView::of(issued.answer.take().ok_or_else(none)?)?;
        Ok(IssuedView { about: Shown(issued), answer })
    }

    /// The word for the kind of the credential.
    pub fn kind(&self) -> String {
        self.about.json().text_at("kind")
    }
}

impl IssuedAnswerView {
    fn of(wire: Wire) -> Result<IssuedAnswerView, CliError> {
        Ok(match wire {
            Wire::BearerToken(t) => IssuedAnswerView::BearerToken {
                token: SecretText::new(t.token),
                header_name: t.header_name,
                scheme: t.scheme,
                base_url: t.base_url,
            },
            Wire::DatabaseLogin(d) => IssuedAnswerView::DatabaseLogin {
                host: d.host,
                port: d.port,
                database: d.database,
                user: d.user,
                password: SecretText::new(d.password),
                server_ca_pem: d.server_ca_pem,
                plaintext: d.plaintext,
            },
            Wire::Certificate(c) => IssuedAnswerView::Certificate {
                chain_pem: c.chain.iter().map(|der| pem(der)).collect(),
                root_pem: pem(&c.root),
                crl_url: c.crl_url,
            },
            Wire::SshCertificate(s) => IssuedAnswerView::SshCertificate {
                certificate: s.certificate,
                authority: s.authority,
                principals: s.principals,
                krl_url: s.krl_url,
            },
            Wire::AwsKeys(k) => IssuedAnswerView::AwsKeys {
                access_key_id: k.access_key_id,
                secret_access_key: SecretText::new(k.secret_access_key),
                session_token: SecretText::new(k.session_token),
                region: k.region,
            },
            Wire::StaticSecret(s) => {
                let text = std::str::from_utf8(&s.value);
                let text = text.map_err(|_| CliError::ours("the secret is not text, so this command cannot output it"))?;
                IssuedAnswerView::StaticSecret { value: SecretText::new(text.to_owned()) }
            }
        })
    }

    /// The default output for a pipe: the credential as one text, or `None` if it has several parts.
    pub fn plain(&self) -> Option<Zeroizing<String>> {
        let text = match self {
            IssuedAnswerView::BearerToken { token, .. } => token.expose(),
            IssuedAnswerView::Certificate { chain_pem, .. } => chain_pem,
            IssuedAnswerView::SshCertificate { certificate, .. } => certificate,
            IssuedAnswerView::StaticSecret { value } => value.expose(),
            IssuedAnswerView::DatabaseLogin { .. } | IssuedAnswerView::AwsKeys { .. } => return None,
        };
        Some(Zeroizing::new(text.to_owned()))
    }

    /// The secret parts of the credential.
    pub fn secrets(&self) -> Vec<&str> {
        match self {
            IssuedAnswerView::BearerToken { token, .. } => vec![token.expose()],
            IssuedAnswerView::DatabaseLogin { password, .. } => vec![password.expose()],
            IssuedAnswerView::AwsKeys { secret_access_key, session_token, .. } => {
                vec![secret_access_key.expose(), session_token.expose()]
            }
            IssuedAnswerView::StaticSecret { value } => vec![value.expose()],
            // A certificate is useless without the private key, which the caller has.
            IssuedAnswerView::Certificate { .. } | IssuedAnswerView::SshCertificate { .. } => Vec::new(),
        }
    }

    /// The header line, if the credential is sent in a header: `authorization: Bearer …`.
    pub fn header(&self) -> Option<Zeroizing<String>> {
        let IssuedAnswerView::BearerToken { token, header_name, scheme, .. } = self else { return None };
        let space = if scheme.is_empty() { "" } else { " " };
        Some(Zeroizing::new(format!("{header_name}: {scheme}{space}{}", token.expose())))
    }
}

/// Encodes a certificate as PEM (RFC 7468: lines of 64).
fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| format!("{}\n", String::from_utf8_lossy(line)));
    format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer() -> IssuedAnswerView {
        let token = pb::BearerToken {
            token: "s3cr3t".to_owned(),
            header_name: "authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            base_url: "https://echo.example.org".to_owned(),
        };
        IssuedAnswerView::of(Wire::BearerToken(token)).unwrap()
    }

    #[test]
    fn a_secret_shows_only_where_it_is_written_on_purpose() {
        assert!(!format!("{:?}", bearer()).contains("s3cr3t"));
        assert_eq!(bearer().plain().unwrap().as_str(), "s3cr3t");
        assert_eq!(bearer().header().unwrap().as_str(), "authorization: Bearer s3cr3t");
        assert!(serde_json::to_string(&bearer()).unwrap().contains(r#"{"bearer_token":{"token":"s3cr3t""#));
    }

    #[test]
    fn pem_has_lines_of_64() {
        let text = pem(&[0; 100]);
        assert!(text.lines().all(|l| l.len() <= 64));
        use rustls_pki_types::pem::PemObject as _;
        assert_eq!(rustls_pki_types::CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), &[0; 100]);
    }
}
