//! The life of a token of GitHub: made, used, deleted, against the double that verifies the app's assertions with PyJWT.

use std::time::Duration;

use mayfly::pb::mayfly::v1 as pb;
use serde_json::{Value, json};

use super::gate::Watch;
use super::github_double::{GithubDouble, SCOPES, refusal, registration, token, until, wanted};
use super::rig::{Rig, closed, exchange};

const NAME: &str = "site";

fn started() -> Option<(GithubDouble, Rig)> {
    let double = GithubDouble::start("")?;
    let rig = double.rig(NAME);
    Some((double, rig))
}

#[test]
fn a_token_has_exactly_the_permissions_and_repositories_of_its_scopes_and_goes_when_it_is_revoked() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    let issued = rig.exchange(wanted(NAME, &task, &["site:read", "site:issues"], "one")).unwrap();
    let Some(pb::issued::Answer::BearerToken(bearer)) = &issued.answer else { panic!("no token") };
    assert_eq!(
        (bearer.header_name.as_str(), bearer.scheme.as_str(), &bearer.base_url),
        ("authorization", "Bearer", &double.target)
    );
    let text = token(&issued);
    assert!(text.starts_with("ghs_"));
    let live = double.state()["live"].clone();
    assert_eq!(live[0]["permissions"], json!({"contents": "read", "issues": "write", "metadata": "read"}));
    assert_eq!((live.as_array().unwrap().len(), &live[0]["repositories"]), (1, &json!(["1296269"])));
    let status = |method: &str, path: &str| double.status(&rig, &text, method, path);
    assert_eq!(status("GET", "/repos/octo-org/site/issues"), 200);
    assert_eq!(status("POST", "/repos/octo-org/site/issues"), 201);
    assert_eq!(status("GET", "/repos/octo-org/tools/issues"), 404, "another repository of the installation");
    // The assertion, as the independent library read it.
    let state = double.state();
    let assertion = &state["assertions"][0];
    let claim = |name: &str| assertion["claims"][name].as_i64().unwrap();
    assert_eq!(assertion["header"], json!({"alg": "RS256", "typ": "JWT"}));
    assert_eq!(assertion["claims"]["iss"], "Iv23liMayflyDouble01");
    assert_eq!(claim("exp") - claim("iat"), 360);
    assert_eq!(assertion["claims"].as_object().unwrap().len(), 3);
    // Another credential beside it, of all repositories.
    let all = token(&rig.exchange(wanted(NAME, &task, &["all:read"], "two")).unwrap());
    assert_eq!(double.status(&rig, &all, "GET", "/repos/octo-org/wiki"), 200);
    assert_eq!(double.status(&rig, &all, "GET", "/repos/octo-org/site/issues"), 403, "not its permission");
    rig.operated(&["revoke", "--credential", &issued.credential_id, "--reason", "a test"]);
    until(&double, &rig, NAME, (1, 0));
    assert_eq!(status("GET", "/repos/octo-org/site/issues"), 401);
    rig.complete(&task);
    until(&double, &rig, NAME, (0, 0));
    assert_eq!(double.status(&rig, &all, "GET", "/repos/octo-org/wiki"), 401);
    assert_eq!(double.state()["deleted"], 2);
}

#[test]
fn scopes_that_one_token_cannot_have_are_refused_before_anything_is_asked_of_github() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    let no = refusal(rig.exchange(wanted(NAME, &task, &["site:issues", "tools:read"], "one")));
    assert!(no.contains("would grant more in octo-org/site") || no.contains("would grant more in octo-org/tools"), "{no}");
    // Equal permissions in two repositories are one token.
    rig.exchange(wanted(NAME, &task, &["site:read", "tools:read"], "two")).unwrap();
    let state = double.state();
    assert_eq!((&state["made"], &state["live"][0]["repositories"]), (&json!(1), &json!(["1296269", "1296270"])));
    rig.complete(&task);
    until(&double, &rig, NAME, (0, 0));
}

#[test]
fn a_repeat_gets_another_token_and_the_first_one_is_deleted() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    let first = rig.exchange(wanted(NAME, &task, &["site:read"], "one")).unwrap();
    let again = rig.exchange(wanted(NAME, &task, &["site:read"], "one")).unwrap();
    assert_eq!((first.novelty(), again.novelty()), (pb::Novelty::New, pb::Novelty::Replaced));
    assert_ne!(token(&first), token(&again));
    until(&double, &rig, NAME, (1, 0));
    assert_eq!(double.status(&rig, &token(&first), "GET", "/repos/octo-org/site"), 401);
    assert_eq!(double.status(&rig, &token(&again), "GET", "/repos/octo-org/site"), 200);
    // A credential that expires is deleted, though GitHub's token would live for an hour.
    let mut short = wanted(NAME, &task, &["site:read"], "short");
    short.ttl = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let short = token(&rig.exchange(short).unwrap());
    assert_eq!(double.live(), 2);
    until(&double, &rig, NAME, (1, 0));
    assert_eq!(double.status(&rig, &short, "GET", "/repos/octo-org/site"), 401);
}

#[test]
fn a_token_is_deleted_after_its_registration_was_retired_and_the_server_restarted() {
    let Some((double, mut rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    rig.exchange(wanted(NAME, &task, &["site:read"], "one")).unwrap();
    rig.exchange(wanted(NAME, &task, &["tools:read"], "two")).unwrap();
    double.set(&json!({"answers": [{"match": "DELETE", "status": 502, "message": "Server Error", "times": 1_000_000}]}));
    rig.operated(&["upstream", "retire", NAME, "--reason", "a test", "--confirm", "all"]);
    let failing = || rig.leases(NAME, pb::UpstreamState::Pending).values().filter(|l| l.last_error.contains("502")).count() == 2;
    let began = Watch::start();
    while !failing() {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", rig.leases(NAME, pb::UpstreamState::Pending));
        std::thread::sleep(Duration::from_millis(20));
    }
    rig.kill();
    // The key of the app is not needed for deleting: the token itself is sealed with the lease.
    std::fs::remove_file(rig.world.dir().join("secrets/site.toml")).unwrap();
    double.set(&json!({"answers": []}));
    rig.start();
    until(&double, &rig, NAME, (0, 0));
    assert!(rig.leases(NAME, pb::UpstreamState::Live).is_empty());
}

#[test]
fn a_refusal_names_what_the_installation_lacks() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    let mut n = 0;
    let mut asked = |scope: &str| {
        n += 1;
        refusal(rig.exchange(wanted(NAME, &task, &[scope], &format!("{n}"))))
    };
    let no = asked("admin");
    for part in [
        "GitHub answered 422: The permissions requested are not granted to this installation.",
        "lacks administration:write, pull_requests:write (it has pull_requests:read)",
        "https://github.com/organizations/octo-org/settings/installations/424242",
    ] {
        assert!(no.contains(part), "{part} is not in: {no}");
    }
    double.set(&json!({"repositories": {"1296270": "octo-org/tools"}}));
    let no = asked("site:read");
    assert!(no.contains("does not reach octo-org/site (id 1296269): add the repository at"), "{no}");
    double.set(&json!({"suspended": true}));
    let no = asked("tools:read");
    assert!(no.contains("403: This installation has been suspended") && no.contains("is suspended:"), "{no}");
    double.set(&json!({"suspended": false, "answers": [
        {"match": "POST", "status": 403, "message": "API rate limit exceeded for installation ID 424242.",
         "headers": {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "4102444800"}},
        {"match": "POST", "status": 429, "message": "You have exceeded a secondary rate limit.", "headers": {"retry-after": "77"}},
        {"match": "POST", "status": 302, "message": "Found", "headers": {"location": "https://localhost:1/"}},
        {"match": "POST", "status": 404, "message": "Not Found"},
    ]}));
    let no = asked("tools:read");
    assert!(no.contains("limits the rate of the app's requests: try again after 2100-01-01T00:00:00"), "{no}");
    let no = asked("tools:read");
    assert!(no.contains("secondary rate limit") && no.contains("try again in 77 s"), "{no}");
    let no = asked("tools:read");
    assert!(no.contains("302") && no.contains("redirects are not followed"), "{no}");
    let no = asked("tools:read");
    assert!(no.contains("app Iv23liMayflyDouble01 has no installation 424242"), "{no}");
    // Another key than the app's, and a clock that is behind.
    let key = super::github_double::another_key();
    let path = double.secret(&rig, NAME, &double.target, &key);
    let no = asked("tools:read");
    assert!(
        no.contains("401: A JSON web token could not be decoded") && no.contains("private_key in the upstream's file"),
        "{no}"
    );
    double.secret(&rig, NAME, &double.target, "no key\n");
    assert!(asked("tools:read").contains("private_key is no private key in PEM"));
    double.secret(&rig, NAME, &double.target, &double.app_pem);
    double.set(&json!({"ahead": 900}));
    let no = asked("tools:read");
    assert!(no.contains("'Expiration time' claim ('exp')") && no.contains("the clock of this host must be right"), "{no}");
    double.set(&json!({"ahead": 0}));
    // The key goes to the target of its file only.
    double.secret(&rig, NAME, "https://api.github.com", &double.app_pem);
    assert!(asked("tools:read").contains("the secret is not sent there"));
    closed(&path, 0o644);
    assert!(asked("tools:read").contains("may be read or replaced by others"));
    // Of all this, nothing was made, and no lease stays.
    until(&double, &rig, NAME, (0, 0));
    assert_eq!(double.state()["made"], 0);
}

#[test]
fn a_token_that_has_more_than_was_asked_for_is_not_handed_out() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    double.set(&json!({"more_permissions": {"issues": "write"}}));
    let no = refusal(rig.exchange(wanted(NAME, &task, &["site:read"], "one")));
    assert!(no.contains("has more of permission \"issues\" than was asked for; it was deleted"), "{no}");
    double.set(&json!({"more_permissions": {}, "token_seconds": 86_400}));
    let no = refusal(rig.exchange(wanted(NAME, &task, &["site:read"], "two")));
    assert!(no.contains("the token lives until") && no.contains("it was deleted"), "{no}");
    until(&double, &rig, NAME, (0, 0));
    let state = double.state();
    assert_eq!((&state["made"], &state["deleted"]), (&json!(2), &json!(2)));
}

#[test]
fn an_answer_that_is_lost_stays_listed_and_one_whose_caller_has_gone_is_deleted() {
    let Some((double, rig)) = started() else { return };
    let task = rig.open_for(NAME, &SCOPES);
    double.set(&json!({"lose": 1}));
    let no = refusal(rig.exchange(wanted(NAME, &task, &["site:read"], "lost")));
    assert!(no.contains("did not answer"), "{no}");
    until(&double, &rig, NAME, (1, 1));
    let listed = rig.leases(NAME, pb::UpstreamState::Pending).into_values().next().unwrap();
    assert!(listed.last_error.contains("ends by itself at"), "{listed:?}");
    assert!(rig.operated(&["lease", "list"]).contains("ends by itself at"));
    rig.operated(&["lease", "abandon", &listed.lease_id, "--reason", "it was deleted by hand"]);
    until(&double, &rig, NAME, (1, 0));
    // The caller disconnects while GitHub works.
    double.hold("POST .*access_tokens", "after");
    let agent = rig.runtime.block_on(rig.agent());
    let asked = rig.runtime.spawn(exchange(agent, wanted(NAME, &task, &["site:read"], "gone")));
    double.wait_held();
    asked.abort();
    std::thread::sleep(Duration::from_millis(300));
    double.release();
    let began = Watch::start();
    while double.live() > 1 {
        for lease in rig.leases(NAME, pb::UpstreamState::Pending).into_values() {
            let _ = rig.operate(&["lease", "retry", &lease.lease_id]);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the token of nobody stays");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn github_enterprise_server_has_its_api_under_a_path() {
    let Some(double) = GithubDouble::start("/api/v3") else { return };
    assert!(double.target.ends_with("/api/v3"));
    let rig = double.rig(NAME);
    let task = rig.open_for(NAME, &SCOPES);
    let issued = rig.exchange(wanted(NAME, &task, &["site:read"], "one")).unwrap();
    assert_eq!(double.status(&rig, &token(&issued), "GET", "/repos/octo-org/site"), 200);
    rig.complete(&task);
    until(&double, &rig, NAME, (0, 0));
}

#[test]
fn an_operator_adds_tests_and_uses_it_by_the_command_line() {
    let Some(double) = GithubDouble::start("") else { return };
    let mut rig = Rig::new(&[]);
    rig.start();
    assert!(rig.operated(&["upstream", "template", "github"]).contains("[[github.grants]]"));
    let file = rig.world.dir().join("site.toml");
    std::fs::write(&file, registration(NAME, &double.target)).unwrap();
    rig.operated(&["upstream", "add", file.to_str().unwrap()]);
    let test = || {
        let done = rig.operate(&["-o", "json", "upstream", "test", NAME]);
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    let (code, told) = test();
    assert!(code == Some(6) && told.contains("site.toml"), "there is no key yet: {told}");
    double.secret(&rig, NAME, &double.target, &double.app_pem);
    let (code, told) = test();
    assert!(code == Some(6) && (told.contains("site.pem") || told.contains("trusted roots")), "its roots are not there: {told}");
    std::fs::write(rig.world.dir().join("secrets/site.pem"), &double.ca_pem).unwrap();
    let (code, told) = test();
    assert_eq!(code, Some(0), "{told}");
    for step in ["make a credential with scope site:read", "listed the repositories", "revoke it", "verify that it is gone"] {
        assert!(told.contains(step), "{step} is not in {told}");
    }
    assert_eq!((double.live(), double.state()["made"].clone()), (0, Value::from(1)));
    // A permission that the installation lacks.
    double.set(&json!({"permissions": {"metadata": "read", "issues": "write"}}));
    let (code, told) = test();
    assert!(code == Some(6) && told.contains("lacks contents:read"), "{told}");
    double.set(&json!({"permissions": {"metadata": "read", "contents": "read", "issues": "write"}}));
    let script = "printf '%s' \"$GITHUB_TOKEN\" | cut -c 1-4; printf '%s\\n' \"$SITE_BASE_URL\"";
    let mut exec = rig.demo();
    exec.args(["exec", "--env", "GITHUB_TOKEN=site=site:read", "--purpose", "a test", "--", "sh", "-c", script]);
    let done = exec.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), format!("ghs_\n{}\n", double.target), "{done:?}");
    until(&double, &rig, NAME, (0, 0));
    // Less in the section takes effect at once, and revokes.
    let got = rig.demo().args(["-o", "json", "get", NAME, "--scope", "site:read", "--purpose", "a test"]).output().unwrap();
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    assert_eq!(double.live(), 1);
    rig.operated(&["upstream", "disable", NAME, "--reason", "a test", "--confirm", "all"]);
    until(&double, &rig, NAME, (0, 0));
}
