//! Kind `oauth`, by client credentials, against oidc-provider.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;

use super::authorization_server::AuthorizationServer;
use super::gate::{PATIENCE, Watch};
use super::rig::{Rig, exchange};

pub fn wanted(upstream: &str, task: &str, scope: &str, request_id: &str) -> pb::ExchangeRequest {
    pb::ExchangeRequest {
        kind: pb::CredentialKind::Oauth.into(),
        ttl: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        ..super::rig::wanted(upstream, task, scope, request_id)
    }
}

pub fn token(issued: &pb::Issued) -> String {
    match &issued.answer {
        Some(pb::issued::Answer::BearerToken(bearer)) => {
            assert_eq!((bearer.header_name.as_str(), bearer.scheme.as_str()), ("authorization", "Bearer"));
            bearer.token.clone()
        }
        _ => panic!("no token"),
    }
}

/// Waits until nothing is left to undo, and the live leases are those of live credentials. Returns these credentials.
pub fn settled(rig: &Rig, upstream: &str, what: &str) -> BTreeSet<String> {
    let began = Watch::start();
    loop {
        let mut pending = rig.leases(upstream, pb::UpstreamState::Pending);
        pending.extend(rig.leases(upstream, pb::UpstreamState::Making));
        let live: BTreeSet<String> =
            rig.leases(upstream, pb::UpstreamState::Live).into_values().map(|lease| lease.credential_id).collect();
        let active = rig.active(upstream);
        if pending.is_empty() && live == active {
            return active;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: leases {live:?}, to be undone {pending:?}, live credentials {active:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A world with one upstream at an authorization server, and a task for it.
pub fn world(server: &AuthorizationServer, name: &str, section: &str, secret: &str) -> (Rig, String) {
    let mut rig = Rig::new(&[(name, server.registration(name, section))]);
    server.provide(&rig, name, secret);
    rig.start();
    let task = rig.open_for(name, &["mail:read", "mail:send"]);
    (rig, task)
}

#[test]
fn each_method_of_authentication_gets_a_narrow_token_that_revoking_ends() {
    let Some(server) = AuthorizationServer::start(600) else { return };
    let key = format!("private_key = '''\n{}'''", server.read("assertion.key"));
    let pair =
        format!("certificate = '''\n{}'''\nprivate_key = '''\n{}'''", server.read("client.pem"), server.read("client.key"));
    let issuer = &server.issuer;
    let methods = [
        ("basic", "client_auth = \"client_secret_basic\"", "client_secret = 'basic-marker:5c1%'".to_owned()),
        ("post", "client_auth = \"client_secret_post\"", "client_secret = 'post-marker-91b7'".to_owned()),
        ("signed", "client_auth = \"private_key_jwt\"\nkey_id = \"k1\"", key),
        ("mutual", "client_auth = \"tls_client_auth\"", pair),
    ];
    let common = format!("issuer = \"{issuer}\"\ngrant = \"client_credentials\"\nresource = \"{issuer}/api\"");
    let sections = methods
        .each_ref()
        .map(|(name, how, _)| (*name, server.registration(name, &format!("{common}\nclient_id = \"{name}\"\n{how}"))));
    let mut rig = Rig::new(&sections);
    for (name, _, secret) in &methods {
        server.provide(&rig, name, secret);
    }
    rig.start();
    for (name, ..) in &methods {
        let told = rig.operated(&["upstream", "test", name]);
        assert!(told.contains("the server says that the token is active"), "{told}");
        let task = rig.open_for(name, &["mail:read", "mail:send"]);
        let issued = rig.exchange(wanted(name, &task, "mail:read", &format!("{name} one"))).unwrap();
        assert!(!issued.irrevocable);
        assert_eq!(server.api(&token(&issued)), (200, "api:read".to_owned()), "{name}");
        let other = rig.exchange(wanted(name, &task, "mail:send", &format!("{name} two"))).unwrap();
        assert_eq!(server.api(&token(&other)), (200, "api:write".to_owned()), "{name}");
        assert_eq!(server.access_tokens(name), ["api:read", "api:write"], "nothing of the test stays");
        rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
        assert_eq!(settled(&rig, name, "revoked"), [other.credential_id.clone()].into());
        assert_eq!(server.api(&token(&issued)).0, 401, "{name}: revoked at the server");
        assert_eq!(server.api(&token(&other)).0, 200, "{name}: and no other");
        // A token is handed out once: a repeat gets another one, and the first is revoked.
        let again = rig.exchange(wanted(name, &task, "mail:send", &format!("{name} two"))).unwrap();
        assert_eq!(again.novelty(), pb::Novelty::Replaced);
        assert_eq!(settled(&rig, name, "replaced"), [again.credential_id.clone()].into());
        assert_eq!((server.api(&token(&other)).0, server.api(&token(&again)).0), (401, 200));
        rig.complete(&task);
        assert!(settled(&rig, name, "completed").is_empty());
        assert_eq!(server.access_tokens(name), Vec::<String>::new());
    }
}

#[test]
fn a_credential_lives_no_longer_than_the_servers_token_and_without_revocation_only_by_consent() {
    let Some(server) = AuthorizationServer::start(20) else { return };
    let issuer = &server.issuer;
    let common = format!(
        "grant = \"client_credentials\"\nclient_id = \"basic\"\nclient_auth = \"client_secret_basic\"\ntoken_endpoint = \"{issuer}/token\""
    );
    let short = format!("{common}\nrevocation_endpoint = \"{issuer}/token/revocation\"\nlifetime = \"20s\"");
    let wrong = format!("{common}\nrevocation_endpoint = \"{issuer}/token/revocation\"\nlifetime = \"10s\"");
    let consent = format!("{common}\nirrevocable = true\nlifetime = \"20s\"");
    let names = [("short", short), ("wrong", wrong), ("consent", consent)];
    let mut rig = Rig::new(&names.each_ref().map(|(name, section)| (*name, server.registration(name, section))));
    for (name, _) in &names {
        server.provide(&rig, name, "client_secret = 'basic-marker:5c1%'");
    }
    rig.start();
    let life = |issued: &pb::Issued| issued.expires_at.unwrap().seconds - issued.issued_at.unwrap().seconds;
    let task = rig.open_for("short", &["mail:read"]);
    let issued = rig.exchange(wanted("short", &task, "mail:read", "short")).unwrap();
    assert!((19..=21).contains(&life(&issued)), "{issued:?}");
    assert_eq!(issued.bound(), pb::LifeBound::Upstream);
    let task = rig.open_for("wrong", &["mail:read"]);
    let before = server.access_tokens("basic").len();
    let no = rig.exchange(wanted("wrong", &task, "mail:read", "wrong")).unwrap_err();
    assert!(no.message().contains("longer than lifetime"), "{no}");
    assert_eq!(server.access_tokens("basic").len(), before, "what is not handed out is revoked");
    let task = rig.open_for("consent", &["mail:read"]);
    let issued = rig.exchange(wanted("consent", &task, "mail:read", "consent")).unwrap();
    assert!(issued.irrevocable);
    rig.complete(&task);
    let listed = rig.operated(&["-o", "json", "lease", "list"]);
    assert!(!rig.leases("consent", pb::UpstreamState::Pending).is_empty(), "{listed}");
    assert_eq!(server.api(&token(&issued)).0, 200, "it lives until it ends by itself");
    // The token's lease closes when the token ended.
    settled(&rig, "consent", "the token ended");
    assert_eq!(server.api(&token(&issued)).0, 401);
}

/// From the request to the answer, and from the end of a credential to the end of its lease.
const STEPS: [(&str, &str, bool); 6] = [
    ("/token", "before", true),
    ("/token", "after", true),
    ("/token/revocation", "before", false),
    ("/token/revocation", "after", false),
    ("/token/introspection", "before", false),
    ("/token/introspection", "after", false),
];

#[test]
fn killed_at_each_step_nothing_unlisted_stays_and_everything_listed_goes() {
    let Some(server) = AuthorizationServer::start(5) else { return };
    let issuer = &server.issuer;
    let section = format!(
        "issuer = \"{issuer}\"\ngrant = \"client_credentials\"\nclient_id = \"post\"\nclient_auth = \"client_secret_post\"\nlifetime = \"5s\""
    );
    let (mut rig, task) = world(&server, "killed", &section, "client_secret = 'post-marker-91b7'");
    for (path, when, making) in STEPS {
        let what = format!("killed {when} {path}");
        let first = (!making).then(|| rig.exchange(wanted("killed", &task, "mail:read", &what)).unwrap());
        server.ask(&format!("hold?path={path}&when={when}"));
        let asked = match &first {
            None => {
                let agent = rig.runtime.block_on(rig.agent());
                Some(rig.runtime.spawn(exchange(agent, wanted("killed", &task, "mail:read", &what))))
            }
            Some(first) => {
                rig.operated(&["revoke", "--credential", &first.credential_id, "--reason", "a test"]);
                None
            }
        };
        server.ask("held");
        rig.kill();
        server.ask("release");
        if let Some(asked) = asked {
            assert!(rig.runtime.block_on(asked).unwrap().is_err(), "{what}: nobody was answered");
        }
        rig.start();
        // Whatever the server has issued is listed, until it ended. The leases are read first: each ends after its token.
        let listed = rig.leases("killed", pb::UpstreamState::Unspecified).len();
        let tokens = server.access_tokens("post").len();
        assert!(listed >= tokens, "{what}: {tokens} tokens, {listed} leases");
        assert!(settled(&rig, "killed", &what).is_empty(), "{what}");
        assert_eq!(server.access_tokens("post"), Vec::<String>::new(), "{what}");
    }
    // And the world goes on.
    rig.exchange(wanted("killed", &task, "mail:read", "after all")).unwrap();
}
