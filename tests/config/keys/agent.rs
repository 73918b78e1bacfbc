//! What a configuration takes from the agent of the SPIFFE Workload API, and how half of it is told.

use std::path::Path;

use super::{WHOLE, parse, parse_with};

/// The sample without files of certificates: the agent gives them.
fn by_agent(section: &str) -> String {
    let without = WHOLE.replace("[tls]\ncertificate = \"svid.pem\"\nkey = \"svid.key\"\n", section);
    without.replace("file = \"bundle.pem\"\n", "")
}

#[test]
fn what_tls_and_bundles_leave_out_comes_from_the_agent_by_the_key_or_the_variable_of_spiffe() {
    let config = parse(&by_agent("[workload_api]\nsocket = \"unix:///run/agent.sock\"\n")).unwrap();
    let api = config.workload_api.unwrap();
    assert_eq!((config.tls, config.bundles[0].file.clone()), (None, None));
    assert_eq!((api.wanted.endpoint.to_string(), api.start_timeout_ms), ("unix:/run/agent.sock".to_owned(), 60_000));
    assert_eq!((api.wanted.id, api.wanted.hint, api.wanted.trust_domain.as_str()), (None, None, "dev.mayfly.internal"));
    let all = "[workload_api]\nsocket = \"tcp:127.0.0.1:8000\"\nspiffe_id = \"spiffe://dev.mayfly.internal/sts\"\nhint = \"a b\"\nstart_timeout = \"5s\"\n";
    let api = parse(&by_agent(all)).unwrap().workload_api.unwrap();
    assert_eq!((api.wanted.id.unwrap().path(), api.wanted.hint.as_deref(), api.start_timeout_ms), ("/sts", Some("a b"), 5_000));
    let spiffe = ("SPIFFE_ENDPOINT_SOCKET", "unix:/run/agent.sock");
    assert!(parse_with(&by_agent(""), &[spiffe]).unwrap().workload_api.is_some());
    assert!(parse_with(WHOLE, &[spiffe]).unwrap().workload_api.is_none(), "nothing comes from there");
    let ours = ("MAYFLY_WORKLOAD_API_SOCKET", "unix:/other.sock");
    let api = parse_with(&by_agent(""), &[spiffe, ours]).unwrap().workload_api.unwrap();
    assert_eq!(api.wanted.endpoint.to_string(), "unix:/other.sock");
    // One of the two alone.
    let svid = parse_with(&WHOLE.replace("file = \"bundle.pem\"\n", ""), &[spiffe]).unwrap();
    assert!(svid.tls.is_some() && svid.workload_api.is_some());
    let bundles = [("MAYFLY_BUNDLES", "dev.mayfly.internal,a.test=a.pem"), spiffe];
    let bundles = parse_with(&by_agent(""), &bundles).unwrap().bundles;
    assert_eq!((&bundles[0].file, bundles[1].file.as_deref()), (&None, Some(Path::new("/etc/mayfly/a.pem"))));
}

#[test]
fn half_of_an_identity_or_one_from_nowhere_is_named_with_what_would_be_right() {
    for (section, parts) in [
        ("", &["lacks tls.certificate and tls.key, or workload_api.socket", "SPIFFE_ENDPOINT_SOCKET"][..]),
        ("[tls]\ncertificate = \"c\"\n", &[":7:", "lacks tls.key"]),
        ("[tls]\nkey = \"c\"\n", &[":7:", "lacks tls.certificate"]),
        ("[tls]\ncertificate = \"c\"\nkey = \"k\"\n", &["the bundle of dev.mayfly.internal has no file"]),
        ("[workload_api]\nsocket = \"/run/agent.sock\"\n", &[":7:", "is not unix:/PATH", "like unix:"]),
        ("[workload_api]\nsocket = \"tcp:192.0.2.1:80\"\n", &[":7:", "no loopback address", "private key"]),
        ("[workload_api]\nsocket = \"unix:/a\"\nspiffe_id = \"sts\"\n", &[":8:", "workload_api.spiffe_id is \"sts\""]),
        ("[workload_api]\nsocket = \"unix:/a\"\nspiffe_id = \"spiffe://b.test/sts\"\n", &[":8:", "not of server.trust_domain"]),
        ("[workload_api]\nsocket = \"unix:/a\"\nstart_timeout = \"1h\"\n", &[":8:", "from 1s to 10m"]),
        ("[workload_api]\nsocket = \"unix:/a\"\npath = \"b\"\n", &[":8:", "unknown key workload_api.path"]),
    ] {
        let said = parse(&by_agent(section)).unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{section}: {part:?} is not in:\n{said}");
        }
    }
    let said = parse(&WHOLE.replace("[tls]", "[workload_api]\nsocket = \"unix:/a\"\n[tls]")).unwrap_err();
    assert!(said.contains(":7:") && said.contains("nothing comes from there"), "{said}");
    let said = parse_with(&by_agent(""), &[("SPIFFE_ENDPOINT_SOCKET", "http://a")]).unwrap_err();
    assert!(said.contains("SPIFFE_ENDPOINT_SOCKET") && said.contains("unix:/PATH"), "{said}");
}
