//! Certificates, keys and bundles from files.

use crate::kit::pki::{Authority, Spec, bundle, bundles, trust_domain};
use mayfly::identity::bundle::Bundles;
use mayfly::sources::bundles::{BundleFilePoll, BundleFiles};
use mayfly::sources::files::FileProblem;
use mayfly::sources::svid_files::{SvidFiles, TlsIdentity, TlsIdentityDefect};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn svid_folder(root: &Authority, id: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let svid = root.svid(id);
    write(folder.path(), "svid.pem", &svid.chain_pem());
    write(folder.path(), "key.pem", &svid.key_pem());
    folder
}

fn files(folder: &Path) -> SvidFiles {
    SvidFiles::new(folder.join("svid.pem"), folder.join("key.pem"))
}

#[test]
fn a_pair_is_loaded_and_told_again_only_when_it_changes() {
    let root = Authority::root("example.org");
    let folder = svid_folder(&root, "spiffe://example.org/a");
    let mut files = files(folder.path());
    assert_eq!(files.load().unwrap().spiffe_id().unwrap().as_str(), "spiffe://example.org/a");
    assert!(files.poll().is_none());
    let next = root.svid("spiffe://example.org/b");
    write(folder.path(), "svid.pem", &next.chain_pem());
    let problem = files.poll().unwrap().err().unwrap();
    assert!(problem.to_string().contains("does not belong"), "{problem}");
    assert!(files.poll().is_none(), "the same problem is told once");
    write(folder.path(), "key.pem", &next.key_pem());
    assert_eq!(files.poll().unwrap().unwrap().spiffe_id().unwrap().as_str(), "spiffe://example.org/b");
}

#[test]
fn a_folder_that_is_swapped_by_symlink_is_seen() {
    let root = Authority::root("example.org");
    let (old, new) = (svid_folder(&root, "spiffe://example.org/a"), svid_folder(&root, "spiffe://example.org/b"));
    let mount = tempfile::tempdir().unwrap();
    let data = mount.path().join("..data");
    symlink(old.path(), &data).unwrap();
    let mut files = files(&data);
    files.load().unwrap();
    symlink(new.path(), mount.path().join("..next")).unwrap();
    fs::rename(mount.path().join("..next"), &data).unwrap();
    assert_eq!(files.poll().unwrap().unwrap().spiffe_id().unwrap().as_str(), "spiffe://example.org/b");
}

#[test]
fn a_problem_names_the_file_and_the_remedy_and_never_the_contents() {
    let root = Authority::root("example.org");
    let folder = svid_folder(&root, "spiffe://example.org/a");
    let problem = |name: &str, text: Option<&str>| -> FileProblem {
        let good = fs::read_to_string(folder.path().join(name)).unwrap();
        match text {
            Some(text) => write(folder.path(), name, text),
            None => fs::remove_file(folder.path().join(name)).unwrap(),
        }
        let problem = files(folder.path()).load().err().unwrap();
        write(folder.path(), name, &good);
        assert_eq!(problem.path, folder.path().join(name));
        assert!(!problem.remedy.is_empty());
        problem
    };
    assert!(problem("svid.pem", None).what.contains("cannot be read"));
    assert!(problem("svid.pem", Some("secret")).what.contains("is not PEM"));
    assert!(problem("key.pem", Some("")).what.contains("is not PEM"));
    assert!(problem("key.pem", Some(&root.pem())).what.contains("no private key"));
    assert!(problem("svid.pem", Some(&"x".repeat(mayfly::limits::PEM_FILE_BYTES + 1))).what.contains("more than"));
    let cut = fs::read_to_string(folder.path().join("key.pem")).unwrap().replace("-----END PRIVATE KEY-----", "");
    let told = problem("key.pem", Some(&cut)).to_string();
    assert!(told.contains("private key that cannot be read") && !told.contains(&cut[40..60]), "{told}");
}

#[test]
fn keys_are_read_as_pkcs8_and_sec1() {
    let root = Authority::root("example.org");
    let svid = root.svid("spiffe://example.org/a");
    // SEC 1: the inner ECPrivateKey of the PKCS#8 document, found by its own header (version 1, 32 bytes of key).
    let pkcs8 = svid.key.serialize_der();
    let at = pkcs8.windows(5).rposition(|w| w == [0x02, 0x01, 0x01, 0x04, 0x20]).unwrap() - 2;
    let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let mut sec1 = pkcs8[at..].to_vec();
    sec1.splice(39..39, curve);
    sec1[1] += curve.len() as u8;
    let text = format!("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----\n", data_encoding::BASE64.encode(&sec1));
    assert!(TlsIdentity::from_pem(svid.chain_pem().as_bytes(), text.as_bytes()).is_ok());
    assert!(TlsIdentity::from_pem(svid.chain_pem().as_bytes(), svid.key_pem().as_bytes()).is_ok());
    let other = root.svid("spiffe://example.org/b");
    assert_eq!(
        TlsIdentity::from_pem(svid.chain_pem().as_bytes(), other.key_pem().as_bytes()).err(),
        Some(TlsIdentityDefect::KeyMismatch)
    );
}

#[test]
fn a_server_certificate_without_a_dns_name_is_known() {
    let root = Authority::root("example.org");
    let has = |spec: Spec| {
        let svid = root.issue(&spec);
        TlsIdentity::from_pem(svid.chain_pem().as_bytes(), svid.key_pem().as_bytes()).unwrap().has_dns_name()
    };
    assert!(!has(Spec::leaf("spiffe://example.org/mayfly")));
    assert!(has(Spec::leaf("spiffe://example.org/mayfly").and_dns("mayfly.example.org")));
}

#[tokio::test]
async fn a_watched_pair_is_told_without_a_restart() {
    let root = Authority::root("example.org");
    let folder = svid_folder(&root, "spiffe://example.org/a");
    let mut files = files(folder.path());
    files.load().unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watch = tokio::spawn(files.watch(Duration::from_millis(5), move |found| tell.send(found).unwrap()));
    let next = root.svid("spiffe://example.org/b");
    write(folder.path(), "key.pem", &next.key_pem());
    write(folder.path(), "svid.pem", &next.chain_pem());
    // Between the two writes, the watcher may report a mismatched pair first.
    let pair = loop {
        let found = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
        if let Ok(pair) = found {
            break pair;
        }
    };
    assert_eq!(pair.spiffe_id().unwrap().as_str(), "spiffe://example.org/b");
    watch.abort();
}

fn one_file(path: &Path) -> BundleFiles {
    BundleFiles::new([(trust_domain("example.org"), path.to_owned())])
}

fn proposal(found: Vec<BundleFilePoll>) -> mayfly::sources::bundles::BundleFileProposal {
    match <[BundleFilePoll; 1]>::try_from(found) {
        Ok([BundleFilePoll::Proposal(proposal)]) => proposal,
        other => panic!("expected one proposal, got {other:?}"),
    }
}

fn problem(found: Vec<BundleFilePoll>) -> FileProblem {
    match <[BundleFilePoll; 1]>::try_from(found) {
        Ok([BundleFilePoll::Problem(problem)]) => problem,
        other => panic!("expected one problem, got {other:?}"),
    }
}

#[test]
fn a_new_root_is_proposed_until_it_is_in_force() {
    let (old, new) = (Authority::root("example.org"), Authority::root("example.org"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.pem");
    fs::write(&path, old.pem()).unwrap();
    let mut files = one_file(&path);
    let in_force = files.load().unwrap();
    assert!(files.poll(&in_force).is_empty());
    fs::write(&path, old.pem() + &new.pem()).unwrap();
    let first = proposal(files.poll(&in_force));
    assert_eq!((first.diff.added.len(), first.diff.removed.len()), (1, 0));
    assert_eq!(proposal(files.poll(&in_force)), first, "not in force yet, so it is proposed again");
    let in_force = in_force.with(first.bundle).unwrap();
    assert!(files.poll(&in_force).is_empty());
}

#[test]
fn removing_a_root_is_proposed_when_the_file_was_found_twice() {
    let (one, two) = (Authority::root("example.org"), Authority::root("example.org"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.pem");
    fs::write(&path, one.pem() + &two.pem()).unwrap();
    let mut files = one_file(&path);
    let in_force = files.load().unwrap();
    fs::write(&path, one.pem()).unwrap();
    assert!(files.poll(&in_force).is_empty(), "somebody may still be writing the file");
    let second = proposal(files.poll(&in_force));
    assert_eq!(second.diff.removed, [bundle("example.org", &[&two]).x509_authorities()[0].id()]);
}

#[test]
fn a_bad_new_file_keeps_the_old_bundle_and_says_so_once() {
    let root = Authority::root("example.org");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.pem");
    fs::write(&path, root.pem()).unwrap();
    let mut files = one_file(&path);
    let in_force = files.load().unwrap();
    for (text, what) in
        [("", "is empty"), ("nonsense", "neither PEM nor"), (&root.pem()[..200], "cut off"), ("{}", "no array \"keys\"")]
    {
        fs::write(&path, text).unwrap();
        let told = problem(files.poll(&in_force));
        assert!(told.what.contains(what) && told.path == path, "{told}");
        assert!(files.poll(&in_force).is_empty(), "told once");
    }
    fs::remove_file(&path).unwrap();
    assert!(problem(files.poll(&in_force)).what.contains("cannot be read"));
    fs::write(&path, root.pem()).unwrap();
    assert!(files.poll(&in_force).is_empty());
}

#[test]
fn an_older_bundle_in_the_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.json");
    let with = |sequence: u64| format!(r#"{{"keys":[],"spiffe_sequence":{sequence}}}"#);
    fs::write(&path, with(5)).unwrap();
    let mut files = one_file(&path);
    let in_force = files.load().unwrap();
    fs::write(&path, with(4)).unwrap();
    assert!(problem(files.poll(&in_force)).what.contains("never goes down"));
    fs::write(&path, r#"{"keys":[]}"#).unwrap();
    assert!(problem(files.poll(&in_force)).what.contains("never goes missing"));
    fs::write(&path, with(6)).unwrap();
    assert_eq!(proposal(files.poll(&in_force)).bundle.sequence(), Some(6));
    // After a restart, only the ledger knows what was seen.
    fs::write(&path, with(4)).unwrap();
    assert!(problem(one_file(&path).poll(&in_force)).what.contains("never goes down"));
}

#[test]
fn at_the_start_every_problem_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "nonsense").unwrap();
    let file = |domain: &str, name: &str| (trust_domain(domain), folder.path().join(name));
    let problems = BundleFiles::new([file("example.org", "a"), file("partner.test", "b")]).load().unwrap_err();
    assert_eq!(problems.len(), 2);
    assert!(problems[0].remedy.contains("example.org"));
}

#[tokio::test]
async fn a_watched_bundle_is_proposed_and_not_swapped() {
    let root = Authority::root("example.org");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.pem");
    fs::write(&path, root.pem()).unwrap();
    let in_force = Arc::new(arc_swap::ArcSwap::from_pointee(Bundles::default()));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watch = tokio::spawn(one_file(&path).watch(
        Duration::from_millis(5),
        in_force.clone(),
        (
            move |found| {
                let _ = tell.send(found);
            },
            |_: &BundleFiles| {},
        ),
    ));
    let found = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap();
    assert_eq!(*proposal(vec![found]).bundle, **bundles(&[("example.org", &root)]).get("example.org").unwrap());
    assert_eq!(**in_force.load(), Bundles::default());
    watch.abort();
}
