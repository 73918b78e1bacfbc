//! The section `[oauth]` of a registration.
//!
//! The section is kept in the ledger as JSON of the same shape. What revoking a token needs of it is written into the terms of each lease
//! ([`OauthClient`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access::secrets::is_file_name;
use mayfly_base::document::quantity::duration_ms;
use mayfly_base::document::url::WebUrl;
use mayfly_base::document::{Field, Section};
use mayfly_base::limits;
use mayfly_ledger::upstream::file::{each, scope_name};
use mayfly_ledger::upstream::settings::SettingsContext;

/// How a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// RFC 6749, section 4.4: mayfly itself is the subject.
    ClientCredentials,
    /// RFC 6749, section 6: somebody signed in with `mayfly upstream connect`.
    RefreshToken,
    /// RFC 8693: a token of mayfly's secret file is exchanged.
    TokenExchange,
    /// RFC 7523, section 2.1: an assertion that mayfly signs with a key of its secret file.
    JwtBearer,
}

const GRANTS: &[(&str, GrantType)] = &[
    ("client_credentials", GrantType::ClientCredentials),
    ("refresh_token", GrantType::RefreshToken),
    ("token_exchange", GrantType::TokenExchange),
    ("jwt_bearer", GrantType::JwtBearer),
];

/// How mayfly authenticates as a client. The names are those of the registry of OAuth (RFC 7591, section 2, and RFC 8705).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// The secret, by HTTP Basic authentication.
    ClientSecretBasic,
    /// The secret, in the form.
    ClientSecretPost,
    /// A signed assertion (RFC 7523, section 2.2).
    PrivateKeyJwt,
    /// A client certificate (RFC 8705, section 2.1).
    #[serde(rename = "tls_client_auth")]
    MutualTls,
    /// A public client, which has no secret: for a grant that is a proof by itself.
    None,
}

const CLIENT_AUTH: &[(&str, ClientAuth)] = &[
    ("client_secret_basic", ClientAuth::ClientSecretBasic),
    ("client_secret_post", ClientAuth::ClientSecretPost),
    ("private_key_jwt", ClientAuth::PrivateKeyJwt),
    ("tls_client_auth", ClientAuth::MutualTls),
    ("none", ClientAuth::None),
];

/// The signature of assertions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssertionAlgorithm {
    /// ECDSA on P-256 with SHA-256.
    #[default]
    #[serde(rename = "ES256")]
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
}

const ALGORITHMS: &[(&str, AssertionAlgorithm)] = &[("ES256", AssertionAlgorithm::Es256), ("RS256", AssertionAlgorithm::Rs256)];

/// mayfly as a client of the authorization server: what every call needs, also the call that revokes a token after the registration changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthClient {
    /// The issuer, whose metadata name the endpoints unless [`OauthClient::token_endpoint`] is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// The introspection endpoint (RFC 7662).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introspection_endpoint: Option<String>,
    /// Where people sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_endpoint: Option<String>,
    /// Where a device asks for a code (RFC 8628).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_authorization_endpoint: Option<String>,
    /// The client's identifier.
    pub client_id: String,
    /// How the client authenticates.
    pub client_auth: ClientAuth,
    /// The signature of assertions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub assertion_alg: AssertionAlgorithm,
    /// `kid` in the header of assertions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// `aud` of assertions, where the server wants another one than its issuer or token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion_audience: Option<String>,
    /// Access tokens are not revoked: they end by themselves. For a refresh token, the registration has to say so or deny it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub irrevocable: Option<bool>,
    /// How long the server's access tokens live, as a duration. A token whose answer was lost is gone after that.
    pub lifetime: String,
}

/// The section, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthSettings {
    /// The client.
    #[serde(flatten)]
    pub client: OauthClient,
    /// How tokens are asked for.
    pub grant: GrantType,
    /// `resource` of each request (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// `audience` of each request: RFC 8693, and a parameter of some servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// A path at the target that `mayfly upstream test` gets with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Scopes of the server that it gives without being asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_granted: Vec<String>,
    /// Scopes of the server that are asked for at the sign-in besides those of `scopes`, like `offline_access`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sign_in_scopes: Vec<String>,
    /// Parameters of the authorization request that the server wants besides, like `access_type`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub authorize: BTreeMap<String, String>,
    /// The time without use after which the server ends a refresh token, as a duration. A grant that nobody uses is refreshed in half of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit: Option<String>,
    /// `subject_token_type` (RFC 8693).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_token_type: Option<String>,
    /// `sub` of the assertion (RFC 7523).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What each scope of the registration is at the server. A scope without an entry has the same name there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<ScopeMapping>,
}

/// An entry of `scopes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeMapping {
    /// The scope of the registration.
    pub scope: String,
    /// The scopes of the server. Empty: the server has no scope for it.
    pub sends: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl OauthClient {
    /// The origin that mayfly's own secret is for: where the token endpoint is.
    pub fn server(&self) -> &str {
        self.token_endpoint.as_deref().or(self.issuer.as_deref()).unwrap_or_default()
    }

    /// The client for the terms of a lease: without what only a sign-in needs.
    pub fn for_undoing(&self) -> OauthClient {
        OauthClient { authorization_endpoint: None, device_authorization_endpoint: None, ..self.clone() }
    }

    /// Whether access tokens are left to end by themselves.
    pub fn is_irrevocable(&self) -> bool {
        self.irrevocable.unwrap_or(false)
    }

    /// How long an access token lives at the most, milliseconds.
    pub fn lifetime_ms(&self) -> u64 {
        duration_ms(&self.lifetime).unwrap_or(limits::OAUTH_LIFETIME_MOST_MS)
    }
}

impl OauthSettings {
    /// The server's idle limit for refresh tokens, milliseconds.
    pub fn idle_limit_ms(&self) -> Option<u64> {
        self.idle_limit.as_deref().and_then(duration_ms)
    }

    /// The scopes of the server for scopes of the registration, each once.
    pub fn sent(&self, scopes: &[String]) -> Vec<String> {
        let mut sent: Vec<String> = Vec::new();
        for scope in scopes {
            let mapped = self.scopes.iter().find(|mapping| mapping.scope == *scope);
            let own = std::slice::from_ref(scope);
            for one in mapped.map_or(own, |mapping| mapping.sends.as_slice()) {
                if !sent.contains(one) {
                    sent.push(one.clone());
                }
            }
        }
        sent
    }
}

/// Reads the section.
pub fn read(section: &Section<'_>, around: &SettingsContext<'_>) -> Option<Value> {
    let client = client(section);
    let grant_field = section.required("grant");
    let grant = grant_field.as_ref().and_then(|f| f.one_of(GRANTS));
    let resource = optional(section, "resource", url);
    let audience = optional(section, "audience", |f| f.text(limits::OAUTH_URL_BYTES));
    let probe = optional(section, "probe", probe);
    let scope_list = |key| optional(section, key, |f| each(f, 0, scope_name)).map(Option::unwrap_or_default);
    let (also_granted, sign_in_scopes) = (scope_list("also_granted"), scope_list("sign_in_scopes"));
    let authorize = optional(section, "authorize", |f| f.inside(parameters)).map(Option::unwrap_or_default);
    let idle_limit =
        optional(section, "idle_limit", |f| duration(f, limits::OAUTH_IDLE_LIMIT_LEAST_MS, limits::OAUTH_IDLE_LIMIT_MOST_MS));
    let subject_token_type = optional(section, "subject_token_type", |f| f.text(limits::OAUTH_URL_BYTES));
    let subject = optional(section, "subject", |f| f.text(limits::OIDC_SUB_BYTES));
    let scopes = optional(section, "scopes", mappings).map(Option::unwrap_or_default);
    if let (Some(field), Some(mappings), Some(known)) = (section.optional("scopes"), &scopes, around.scopes)
        && let Some(mapping) = mappings.iter().find(|m| known.iter().all(|scope| scope.name != m.scope))
    {
        return field.wrong(format!("has scope {:?}, which is not in scopes", mapping.scope), "add it to scopes, or correct it");
    }
    let settings = OauthSettings {
        client: client?,
        grant: grant?,
        resource: resource?,
        audience: audience?,
        probe: probe?,
        also_granted: also_granted?,
        sign_in_scopes: sign_in_scopes?,
        authorize: authorize?,
        idle_limit: idle_limit?,
        subject_token_type: subject_token_type?,
        subject: subject?,
        scopes: scopes?,
    };
    fits(&settings, section, grant_field.as_ref()?, around)?;
    serde_json::to_value(settings).ok()
}

/// Reads an optional key. `None`: it is there and wrong.
fn optional<T>(section: &Section<'_>, key: &str, read: impl FnOnce(&Field<'_>) -> Option<T>) -> Option<Option<T>> {
    match section.optional(key) {
        Some(field) => read(&field).map(Some),
        None => Some(None),
    }
}

fn client(section: &Section<'_>) -> Option<OauthClient> {
    let issuer = optional(section, "issuer", |f| {
        let text = url(f)?;
        match text.contains('?') {
            true => f.wrong(format!("is {text:?}"), "an issuer has no query (RFC 8414, section 2)"),
            false => Some(text),
        }
    });
    let endpoint = |key| optional(section, key, url);
    let (token, revocation) = (endpoint("token_endpoint"), endpoint("revocation_endpoint"));
    let (introspection, device) = (endpoint("introspection_endpoint"), endpoint("device_authorization_endpoint"));
    let authorization = endpoint("authorization_endpoint");
    let id_field = section.required("client_id");
    let client_id = id_field.as_ref().and_then(|f| f.text(limits::OAUTH_URL_BYTES));
    let client_auth = section.required("client_auth").and_then(|f| f.one_of(CLIENT_AUTH));
    let assertion_alg = optional(section, "assertion_alg", |f| f.one_of(ALGORITHMS)).map(Option::unwrap_or_default);
    let key_id = optional(section, "key_id", |f| f.text(limits::NAME_BYTES));
    let assertion_audience = optional(section, "assertion_audience", |f| f.text(limits::OAUTH_URL_BYTES));
    let irrevocable = optional(section, "irrevocable", |f| f.boolean());
    let lifetime = optional(section, "lifetime", |f| duration(f, limits::CREDENTIAL_TTL_MIN_MS, limits::OAUTH_LIFETIME_MOST_MS));
    let client = OauthClient {
        issuer: issuer?,
        token_endpoint: token?,
        revocation_endpoint: revocation?,
        introspection_endpoint: introspection?,
        authorization_endpoint: authorization?,
        device_authorization_endpoint: device?,
        client_id: client_id?,
        client_auth: client_auth?,
        assertion_alg: assertion_alg?,
        key_id: key_id?,
        assertion_audience: assertion_audience?,
        irrevocable: irrevocable?,
        lifetime: lifetime?.unwrap_or_else(|| "1h".to_owned()),
    };
    let field = id_field?;
    if client.issuer.is_none() && client.token_endpoint.is_none() {
        return field.wrong("is of no authorization server", "name its issuer, or its token_endpoint");
    }
    // The endpoints get mayfly's own secret, which is for one origin.
    let with_secret = [
        ("revocation_endpoint", &client.revocation_endpoint),
        ("introspection_endpoint", &client.introspection_endpoint),
        ("device_authorization_endpoint", &client.device_authorization_endpoint),
    ];
    for (key, endpoint) in with_secret {
        if endpoint.as_ref().is_some_and(|endpoint| !same_origin(endpoint, client.server())) {
            let (at, server) = (section.optional(key)?, client.server());
            return at
                .wrong("is at another host or port than the token endpoint", format!("an endpoint of the server at {server}"));
        }
    }
    Some(client)
}

/// Whether two URLs have the same scheme, host and port.
pub fn same_origin(one: &str, other: &str) -> bool {
    WebUrl::parse(one).zip(WebUrl::parse(other)).is_some_and(|(one, other)| one.same_origin(&other))
}

/// What keys need of each other, and of the rest of the registration.
fn fits(settings: &OauthSettings, section: &Section<'_>, grant: &Field<'_>, around: &SettingsContext<'_>) -> Option<()> {
    let OauthSettings { client, .. } = settings;
    let is = |wanted| settings.grant == wanted;
    if let Some(name) = around.name.filter(|name| !is_file_name(name)) {
        return grant
            .wrong(format!("needs a file for upstream {name}, whose name has a slash"), "give it a name without slashes");
    }
    if around.target.is_some_and(|target| WebUrl::parse(target).is_none()) {
        return grant.wrong("is for an API", "target = \"https://HOST\", where the tokens are used");
    }
    if client.client_auth == ClientAuth::None && !is(GrantType::RefreshToken) && !is(GrantType::JwtBearer) {
        let at = section.optional("client_auth")?;
        return at.wrong("is \"none\", for a grant that needs a secret", "a method by which the client authenticates");
    }
    let only = [
        ("sign_in_scopes", !settings.sign_in_scopes.is_empty(), GrantType::RefreshToken),
        ("authorize", !settings.authorize.is_empty(), GrantType::RefreshToken),
        ("idle_limit", settings.idle_limit.is_some(), GrantType::RefreshToken),
        ("authorization_endpoint", client.authorization_endpoint.is_some(), GrantType::RefreshToken),
        ("device_authorization_endpoint", client.device_authorization_endpoint.is_some(), GrantType::RefreshToken),
        ("subject_token_type", settings.subject_token_type.is_some(), GrantType::TokenExchange),
        ("subject", settings.subject.is_some(), GrantType::JwtBearer),
    ];
    for (key, given, of) in only {
        if given && !is(of) {
            let name = GRANTS.iter().find(|(_, grant)| *grant == of).map_or("", |(name, _)| name);
            return section.optional(key)?.wrong(format!("is for grant {name:?}"), "leave it out");
        }
    }
    if is(GrantType::TokenExchange) && settings.subject_token_type.is_none() {
        return section.required("subject_token_type").map(|_| ());
    }
    if is(GrantType::JwtBearer) && settings.subject.is_none() {
        return section.required("subject").map(|_| ());
    }
    if is(GrantType::RefreshToken) && client.irrevocable.is_none() {
        let what = "is \"refresh_token\", and many servers end the whole grant when one of its access tokens is revoked (RFC 7009, section 2.1)";
        let remedy =
            "irrevocable = true: access tokens end by themselves; irrevocable = false: this server revokes an access token alone";
        return grant.wrong(what, remedy);
    }
    if client.token_endpoint.is_some() && client.revocation_endpoint.is_none() && !client.is_irrevocable() {
        let what = "names a token_endpoint and no revocation_endpoint, so that no token could be revoked";
        return grant.wrong(what, "name the revocation_endpoint, or consent with irrevocable = true");
    }
    let terms = serde_json::to_string(&client.for_undoing()).unwrap_or_default();
    if terms.len() > limits::LEASE_TERMS_BYTES {
        let what = format!("is of a client whose settings have {} bytes", terms.len());
        return grant.wrong(what, format!("at most {}: shorter URLs", limits::LEASE_TERMS_BYTES));
    }
    Some(())
}

/// An absolute https URL, or http on this host.
fn url(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::OAUTH_URL_BYTES)?;
    match WebUrl::parse(&text) {
        Some(_) => Some(text),
        None => field.wrong(format!("is {text:?}"), "an https URL (http is possible on this host only)"),
    }
}

fn probe(field: &Field<'_>) -> Option<String> {
    let text = field.text(limits::OAUTH_URL_BYTES)?;
    let plain = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['#', '\\', '@']);
    if plain { Some(text) } else { field.wrong(format!("is {text:?}"), "a path that begins with a slash, like /v1/me") }
}

/// A duration, kept as it is written.
fn duration(field: &Field<'_>, min: u64, max: u64) -> Option<String> {
    field.duration(min, max)?;
    field.text(limits::NAME_BYTES)
}

fn parameters(section: &Section<'_>) -> Option<BTreeMap<String, String>> {
    /// What mayfly itself decides.
    const OWN: &[&str] = &[
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "resource",
        "audience",
        "request",
        "request_uri",
    ];
    let entries = section.entries();
    if let Some((_, field)) = entries.get(limits::OAUTH_PARAMETERS) {
        return field.wrong("is one parameter too many", format!("at most {}", limits::OAUTH_PARAMETERS));
    }
    let read = |(name, field): (String, Field<'_>)| match OWN.contains(&name.as_str()) {
        true => field.wrong("is a parameter that mayfly sets itself", "leave it out"),
        false => field.text(limits::NAME_BYTES).map(|value| (name, value)),
    };
    let all: Vec<Option<(String, String)>> = entries.into_iter().map(read).collect();
    all.into_iter().collect()
}

fn mappings(field: &Field<'_>) -> Option<Vec<ScopeMapping>> {
    let entries = field.list(limits::TASK_LIST)?;
    let all: Vec<Option<ScopeMapping>> = entries
        .iter()
        .map(|entry| {
            entry.inside(|section| {
                let scope = section.required("scope").and_then(|f| scope_name(&f));
                let sends = section.required("sends").and_then(|f| each(&f, 0, scope_name));
                Some(ScopeMapping { scope: scope?, sends: sends? })
            })
        })
        .collect();
    let all: Vec<ScopeMapping> = all.into_iter().collect::<Option<_>>()?;
    let twice = all.iter().enumerate().find(|(n, one)| all.iter().take(*n).any(|before| before.scope == one.scope));
    match twice {
        Some((_, mapping)) => field.wrong(format!("has {} twice", mapping.scope), "one entry for each scope"),
        None => Some(all),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
