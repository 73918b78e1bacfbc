//! Tests of the section `[oauth]`: what is read, and what is wrong with it.

use super::*;
use crate::testing::registration::parse;
use mayfly_ledger::upstream::registry::Upstream;

const WHOLE: &str = include_str!("template.toml");

fn settings(text: &str) -> OauthSettings {
    let upstream = parse(text).unwrap_or_else(|wrong| panic!("{wrong}"));
    serde_json::from_value(upstream.settings.of("oauth").unwrap().clone()).unwrap()
}

/// The template with every key.
fn every_key() -> String {
    let commented = |line: &str| line.starts_with("# ") && line.contains(" = ") && !line.ends_with('.');
    let lines = WHOLE.lines().map(|line| match line.strip_prefix("# ").filter(|_| commented(line)) {
        Some(key) => key.to_owned(),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n").replace("grant = \"client_credentials\"", "grant = \"refresh_token\"")
}

#[test]
fn the_section_comes_back_from_the_ledger_and_from_its_own_json() {
    for text in [WHOLE.to_owned(), every_key()] {
        let upstream = parse(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert_eq!(Upstream::from_text(&upstream.to_text()).unwrap(), upstream);
        // The wire carries the JSON, which becomes a section again.
        let mut table: toml::Table = toml::from_str(&text).unwrap();
        table.insert("oauth".to_owned(), toml::Value::try_from(upstream.settings.of("oauth").unwrap()).unwrap());
        assert_eq!(parse(&toml::to_string(&table).unwrap()).unwrap(), upstream);
    }
    let all = settings(&every_key());
    assert_eq!((all.client.key_id.as_deref(), all.client.irrevocable), (Some("mayfly-1"), Some(true)));
    assert_eq!((all.probe.as_deref(), all.idle_limit.as_deref()), (Some("/v1/me"), Some("30d")));
    assert_eq!(all.authorize["access_type"], "offline");
}

#[test]
fn scopes_are_those_of_the_server() {
    let mapped = settings(WHOLE);
    let sent = mapped.sent(&["mail:read".to_owned(), "other".to_owned(), "mail:read".to_owned()]);
    assert_eq!(sent, ["https://auth.example.org/scopes/mail.readonly", "other"]);
    let none = settings(&WHOLE.replace("sends = [\"https://auth.example.org/scopes/mail.send\"]", "sends = []"));
    assert_eq!(none.sent(&["mail:send".to_owned()]), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_told_with_its_key() {
    let issuer = "issuer = \"https://auth.example.org\"";
    let wrong = |from: &str, to: &str| {
        assert!(WHOLE.contains(from), "{from}");
        parse(&WHOLE.replacen(from, to, 1)).expect_err(to)
    };
    for (from, to, said) in [
        ("client_id = \"mayfly\"", "", "lacks oauth.client_id"),
        ("grant = \"client_credentials\"", "grant = \"password\"", "oauth.grant is \"password\""),
        ("client_auth = \"client_secret_basic\"", "client_auth = \"none\"", "for a grant that needs a secret"),
        (issuer, "", "is of no authorization server"),
        (issuer, "issuer = \"http://auth.example.org\"", "an https URL"),
        (issuer, "issuer = \"https://auth.example.org?a=b\"", "has no query"),
        (issuer, "token_endpoint = \"https://auth.example.org/token\"", "no token could be revoked"),
        (
            issuer,
            "token_endpoint = \"https://auth.example.org/token\"\nrevocation_endpoint = \"https://evil.example/revoke\"",
            "oauth.revocation_endpoint is at another host or port",
        ),
        (issuer, "issuer = \"https://auth.example.org\"\nidle_limit = \"30d\"", "is for grant \"refresh_token\""),
        (issuer, "issuer = \"https://auth.example.org\"\nprobe = \"https://evil.example\"", "a path that begins with a slash"),
        ("grant = \"client_credentials\"", "grant = \"refresh_token\"", "many servers end the whole grant"),
        ("lifetime = \"1h\"", "lifetime = \"1s\"", "oauth.lifetime"),
        ("lifetime = \"1h\"", "lifetim = \"1h\"", "did you mean lifetime?"),
        ("grant = \"client_credentials\"", "grant = \"token_exchange\"", "lacks oauth.subject_token_type"),
        ("grant = \"client_credentials\"", "grant = \"jwt_bearer\"", "lacks oauth.subject"),
        ("scope = \"mail:send\"", "scope = \"mail:erase\"", "which is not in scopes"),
        ("scope = \"mail:send\"", "scope = \"mail:read\"", "twice"),
        ("sends = [\"https://auth.example.org/scopes/mail.send\"]", "sends = [\"a b\"]", "a scope is visible ASCII"),
        ("target = \"https://api.example.org/mail\"", "target = \"ftp://api.example.org\"", "where the tokens are used"),
        ("name = \"mail\"", "name = \"team/mail\"", "without slashes"),
        ("kinds = [\"oauth\"]", "kinds = [\"jwt\"]", "oauth is for kind oauth"),
    ] {
        let no = wrong(from, to);
        assert!(no.contains(said), "{said} is not in: {no}");
    }
    let own = every_key().replace("access_type = \"offline\"", "redirect_uri = \"https://evil.example\"");
    assert!(parse(&own).unwrap_err().contains("a parameter that mayfly sets itself"));
}
