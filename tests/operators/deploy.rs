//! What lies under `deploy/`: each configuration is one that a server takes, the unit is closed, alerts and dashboard name what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly::metrics::{METRICS, MetricKind};
use mayfly::sources::config::Config;

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The series that a scraper has, by the metrics of the code.
fn series() -> BTreeSet<String> {
    let of = |m: &mayfly::metrics::Metric| match m.kind {
        MetricKind::Counter => vec![format!("{}_total", m.name)],
        MetricKind::Gauge => vec![m.name.to_owned()],
        MetricKind::Histogram => ["_bucket", "_sum", "_count"].map(|end| format!("{}{end}", m.name)).to_vec(),
    };
    METRICS.iter().flat_map(of).collect()
}

/// What of an expression is named like a metric of ours.
fn named(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mayfly_")).map(str::to_owned).collect()
}

#[test]
fn each_configuration_is_one_that_a_server_takes() {
    for path in ["deploy/systemd/mayfly.toml", "deploy/kubernetes/mayfly.toml", "deploy/spire/mayfly.toml"] {
        let config = Config::load(&at(path), []).unwrap_or_else(|wrong| panic!("{path}: {wrong:?}"));
        let data = config.store.engine.data().unwrap();
        assert!(data.components().count() > 3, "{path}: a folder in the volume, which a restore can put another in the place of");
    }
}

#[test]
fn the_policies_of_the_manifests_are_ones_that_a_server_takes_in() {
    use mayfly::sources::config::PolicyFiles;
    let here = at("deploy/kubernetes/policy");
    let files =
        PolicyFiles { files: vec![here.join("policy.cedar")], roles: here.join("roles.toml"), upstreams: here.join("upstreams") };
    let loaded = mayfly::sources::policy_files::load(&files).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    assert!(loaded.upstreams.iter().count() > 0 && loaded.policy.warnings().is_empty(), "{:?}", loaded.policy.warnings());
}

#[test]
fn the_unit_is_closed() {
    let unit = at("deploy/systemd/mayfly.service");
    let ran =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&unit).output();
    let Ok(ran) = ran else { return crate::skipped::skipped("systemd-analyze is not here") };
    let told = String::from_utf8_lossy(&ran.stdout);
    let level = told.lines().find_map(|l| l.split_once("Overall exposure level for mayfly.service: ")).expect("a level").1;
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(ran.status.success() && level <= 2.0, "{told}");
    // The unit says what the server needs, and no more.
    let text = fs::read_to_string(unit).unwrap();
    for line in [
        "LoadCredential=seal.key:",
        "StateDirectoryMode=0700",
        "CapabilityBoundingSet=\n",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn the_container_has_no_shell_and_no_root_and_is_built_of_what_is_there() {
    let text = read("deploy/container/Containerfile");
    let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
    let stages: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].starts_with("FROM ")).collect();
    let [build, last] = stages[..] else { panic!("two stages: {stages:?}") };
    assert!(lines[last].contains("distroless") && lines[last].contains(":nonroot"));
    let shipped = &lines[last..];
    assert!(shipped.contains(&"USER 65532:65532"));
    assert!(!shipped.iter().any(|l| l.starts_with("RUN") || l.starts_with("ADD")), "nothing runs in it while it is built");
    for word in ["ENTRYPOINT", "CMD", "HEALTHCHECK"] {
        let line = shipped.iter().find(|l| l.starts_with(word)).unwrap_or_else(|| panic!("{word}"));
        assert!(line.contains('[') && line.ends_with(']'), "without a shell: {line}");
    }
    let ignored = read("deploy/container/Containerfile.dockerignore");
    let mut copied = BTreeSet::new();
    for line in lines[build..last].iter().filter_map(|l| l.strip_prefix("COPY ")) {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.pop();
        for from in words {
            assert!(at(from).exists(), "{from} is not there");
            assert!(ignored.lines().any(|l| l == format!("!{from}")), "{from} is left out by Containerfile.dockerignore");
            copied.insert(from.to_owned());
        }
    }
    // What is built into the binary from outside its sources.
    for needed in ["proto", "deploy/ci", "deploy/build", "src", "Cargo.toml", "Cargo.lock", "benches"] {
        assert!(copied.contains(needed), "{needed}");
    }
}

#[test]
fn rules_dashboard_and_page_name_metrics_that_there_are_and_each_alert_has_its_paragraph() {
    let (known, page) = (series(), read("docs/metrics.md"));
    let rules = read("deploy/prometheus/mayfly.rules.yml");
    let mut used = BTreeSet::new();
    for name in named(&rules) {
        assert!(known.contains(&name), "deploy/prometheus/mayfly.rules.yml: there is no {name}");
        used.insert(name);
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/mayfly.json")).unwrap();
    let mut exprs = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let names = named(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{panel}");
            exprs += names.len();
            names.iter().for_each(|name| assert!(known.contains(name), "deploy/grafana/mayfly.json: there is no {name}"));
        }
    }
    assert!(exprs > 20 && used.len() > 10);

    let alerts: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    let runbooks: Vec<&str> = rules.lines().filter_map(|l| l.trim().strip_prefix("runbook: ")).collect();
    let headings: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("### ")).collect();
    assert_eq!(alerts, headings, "the page has a paragraph for each alert");
    for (alert, runbook) in alerts.iter().zip(&runbooks) {
        assert_eq!(*runbook, format!("docs/metrics.md#{}", alert.to_lowercase()));
    }
    assert_eq!(alerts.len(), runbooks.len());
    let tested = read("deploy/prometheus/mayfly.rules.test.yml");
    for alert in &alerts {
        assert!(tested.matches(&format!("alertname: {alert}\n")).count() >= 2, "{alert} is not tested both ways");
    }
}

/// The settings for scraping are in four places that have to agree: the pod's port, the service, the network policy, and the scraper's
/// configuration.
#[test]
fn the_manifests_let_prometheus_scrape_with_a_token_and_nobody_else() {
    let config = Config::load(&at("deploy/kubernetes/mayfly.toml"), []).unwrap();
    let address = config.listen.metrics.expect("metrics are served");
    assert!(address.ip().is_unspecified() && config.metrics.tls, "beyond the pod, over HTTPS");
    let token = config.metrics.token_file.clone().expect("a token");
    let (pod, service) = (read("deploy/kubernetes/statefulset.yaml"), read("deploy/kubernetes/service.yaml"));
    let (policy, monitor) =
        (read("deploy/kubernetes/networkpolicy.yaml"), read("deploy/kubernetes/prometheus/servicemonitor.yaml"));
    let scrape = read("deploy/kubernetes/prometheus/scrape.yml");
    let port = address.port();
    assert!(pod.contains(&format!("{{ name: https-metrics, containerPort: {port} }}")), "{pod}");
    // The token file is in the directory where the Secret is mounted, under the key that scrapers read.
    let mounted = token.parent().unwrap().display().to_string();
    assert!(pod.contains(&format!("{{ name: metrics, mountPath: {mounted}, readOnly: true }}")), "{mounted}");
    assert!(pod.contains("secretName: mayfly-metrics") && monitor.contains("name: mayfly-metrics"));
    assert!(monitor.contains(&format!("key: {}", token.file_name().unwrap().to_str().unwrap())));
    let of_metrics = service.split("---").find(|one| one.contains("name: mayfly-metrics")).expect("a service");
    assert!(of_metrics.contains(&format!("port: {port}")) && of_metrics.contains("targetPort: https-metrics"), "{of_metrics}");
    let label = "mayfly.example.org/scrape: metrics";
    assert!(of_metrics.contains(label) && monitor.contains(label) && monitor.contains("port: https-metrics"));
    let allowed = policy.split("    - from:").find(|one| one.contains("port: https-metrics")).expect("let in");
    assert!(allowed.contains("mayfly.example.org/monitoring") && !allowed.contains("namespaceSelector: {}"), "{allowed}");
    assert!(
        scrape.contains(&format!("port: {port}"))
            && scrape.contains("mayfly-metrics.mayfly.svc")
            && scrape.contains("scheme: https")
    );
    assert!(monitor.contains("scheme: https") && monitor.contains("type: Bearer") && scrape.contains("type: Bearer"));
    for text in [&monitor, &scrape] {
        assert!(!text.contains("insecure"), "the certificate is looked at");
    }
}

#[test]
fn links_of_the_pages_lead_to_files_and_headings_that_exist() {
    let anchors = |text: &str| -> BTreeSet<String> {
        let headings = text.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim().to_lowercase());
        headings
            .map(|h| h.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-"))
            .collect()
    };
    let mut pages = BTreeMap::new();
    for folder in ["docs", "docs/upstreams"] {
        for entry in fs::read_dir(at(folder)).unwrap().flatten() {
            if entry.path().extension().is_some_and(|e| e == "md") {
                let name = PathBuf::from(folder).join(entry.file_name());
                pages.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    pages.insert("README.md".into(), fs::read_to_string(at("README.md")).unwrap());
    for (name, text) in &pages {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://")) {
            let (page, anchor) = link.split_once('#').unwrap_or((link, ""));
            let whole = if page.is_empty() { name.clone() } else { beside(name, page) };
            assert!(at(whole.to_str().unwrap()).exists(), "{}: no file {page}", name.display());
            if !anchor.is_empty() {
                let of = pages.get(&whole).unwrap_or_else(|| panic!("{}: no page {page}", name.display()));
                assert!(anchors(of).contains(anchor), "{}: {page} has no heading #{anchor}", name.display());
            }
        }
    }
}

/// The path of a link on a page, from the project's root.
fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_path_buf();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path
}

/// Puts a program into a directory that says so.
fn says(dir: &Path, name: &str, what: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{what}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_build_with_a_profile_takes_a_tool_that_reads_it_or_says_so_before_it_builds() {
    let dir = tempfile::tempdir().unwrap();
    let version = |v: u32| format!("echo 'Debian LLVM version {v}.0.6'");
    says(dir.path(), "rustc", &format!("case $1 in -vV) echo 'host: here' ;; *) echo {} ;; esac", dir.path().display()));
    for name in ["llvm-profdata-22", "llvm-profdata-21", "llvm-profdata-20", "llvm-profdata-19", "llvm-profdata"] {
        says(dir.path(), name, &version(14));
    }
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let look = || Command::new(at("deploy/build")).arg("--look").env("PATH", &path).output().unwrap();
    let old = look();
    let said = String::from_utf8(old.stderr).unwrap();
    assert!(old.status.code() == Some(1) && said.contains("LLVM 19 or later"), "{said}");
    says(dir.path(), "llvm-profdata", &version(19));
    let new = look();
    assert!(new.status.success());
    assert_eq!(String::from_utf8(new.stdout).unwrap().trim(), dir.path().join("llvm-profdata").to_str().unwrap());
}
