//! Tests of sealing: what opens, what does not, and which key files are refused.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::memory::MemoryStore;

fn context(store: u8) -> SealingContext<'static> {
    let store = StoreId::from_bytes([store; 16]);
    SealingContext { store, environment: "prod", purpose: "signing-key", name: "key/1", version: 3 }
}

fn key(byte: u8) -> SealingKey {
    SealingKey::from_bytes(&[byte; 32]).unwrap()
}

#[test]
fn what_was_sealed_opens_in_its_context() {
    let (key, system) = (key(1), System::real());
    for len in [0, 1, 32, 64 * 1024] {
        let plain = vec![7; len];
        let sealed = key.seal(&context(1), &plain, &system).unwrap();
        assert_eq!(sealed.len(), len + 29);
        assert_eq!(*key.open(&context(1), &sealed).unwrap(), plain);
    }
    let twice = [0, 1].map(|_| key.seal(&context(1), b"same", &system).unwrap());
    assert_ne!(twice[0], twice[1], "the nonce is random");
}

#[test]
fn each_part_of_the_context_is_bound() {
    let (right_key, system) = (key(1), System::real());
    let sealed = right_key.seal(&context(1), b"secret", &system).unwrap();
    let right = context(1);
    let others = [
        ("store", context(2)),
        ("environment", SealingContext { environment: "test", ..right }),
        ("purpose", SealingContext { purpose: "secret", ..right }),
        ("name", SealingContext { name: "key/2", ..right }),
        ("version", SealingContext { version: 2, ..right }),
        ("border of environment and purpose", SealingContext { environment: "prodsigning", purpose: "-key", ..right }),
        ("border of purpose and name", SealingContext { purpose: "signing", name: "-keykey/1", ..right }),
        ("environment empty", SealingContext { environment: "", purpose: "prodsigning-key", ..right }),
    ];
    for (part, other) in others {
        assert!(matches!(right_key.open(&other, &sealed), Err(SealError::NotOpened(_))), "{part}");
    }
    assert!(right_key.open(&right, &sealed).is_ok());
    assert!(matches!(key(2).open(&right, &sealed), Err(SealError::NotOpened(_))));
}

#[test]
fn each_changed_bit_and_each_cut_is_noticed() {
    let (key, system) = (key(1), System::real());
    let sealed = key.seal(&context(1), b"secret", &system).unwrap();
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(key.open(&context(1), &bad).is_err(), "bit {bit}");
    }
    for len in 0..sealed.len() {
        assert!(key.open(&context(1), &sealed[..len]).is_err(), "{len} bytes");
    }
    let mut longer = sealed;
    longer.push(0);
    assert!(key.open(&context(1), &longer).is_err());
}

/// The layout is frozen. The value was sealed by another implementation (pyca/cryptography) with a key of 32 times 0x2a and a nonce of
/// twelve 0x07.
#[test]
fn a_sample_of_format_1_still_opens() {
    let sample = "010707070707070707070707075e8cdfcc21b452508a6a03c5eb90d25f30301be2a5892a994a2d8254bbebade4";
    let sample = data_encoding::HEXLOWER.decode(sample.as_bytes()).unwrap();
    assert_eq!(*key(0x2a).open(&context(9), &sample).unwrap(), b"as it was sealed");
}

#[test]
fn a_wrong_key_is_told_apart_from_damage() {
    let system = System::real();
    let store = MemoryStore::new(StoreId::from_bytes([1; 16]));
    key(1).check(&store, &system).unwrap();
    store.append(1, b"in use").unwrap();
    key(1).check(&store, &system).unwrap();
    assert!(matches!(key(2).check(&store, &system), Err(SealError::WrongKey)));
    // The check value of another store is not accepted.
    let other = MemoryStore::new(StoreId::from_bytes([2; 16]));
    let moved = store.named(CHECK_NAME).unwrap().unwrap();
    other.put(CHECK_NAME, &moved, Precondition::Any).unwrap();
    assert!(matches!(key(1).check(&other, &system), Err(SealError::WrongKey)));
    store.put(CHECK_NAME, b"\x01short", Precondition::Any).unwrap();
    assert!(matches!(key(1).check(&store, &system), Err(SealError::Malformed(_))));
    store.delete(CHECK_NAME, Precondition::Any).unwrap();
    assert!(matches!(key(2).check(&store, &system), Err(SealError::NoCheck)));
}

struct Files {
    top: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let files = Files { top: tempfile::tempdir().unwrap() };
        std::fs::create_dir(files.at("data")).unwrap();
        files
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.top.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8], mode: u32) -> std::path::PathBuf {
        let path = self.at(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, path: &Path) -> Result<SealingKey, KeyFileError> {
        SealingKey::load(path, &self.at("data"))
    }
}

/// Whether one of the suggested commands begins with this text, or contains it.
fn mends(no: &KeyFileError, command: &str) -> bool {
    no.remedies().iter().any(|r| r.command.contains(command))
}

fn bytes() -> [u8; 32] {
    std::array::from_fn(|i| i as u8 * 7)
}

#[test]
fn a_key_is_read_in_each_of_its_forms() {
    let files = Files::new();
    let sealed = SealingKey::from_bytes(&bytes()).unwrap().seal(&context(1), b"secret", &System::real()).unwrap();
    let hex = data_encoding::HEXLOWER.encode(&bytes());
    let base64 = data_encoding::BASE64.encode(&bytes());
    let forms: [(&str, Vec<u8>); 7] = [
        ("raw", bytes().to_vec()),
        ("hex", hex.clone().into_bytes()),
        ("upper", hex.to_uppercase().into_bytes()),
        ("line", format!("{hex}\r\n").into_bytes()),
        ("base64", format!("{base64}\n").into_bytes()),
        ("url", data_encoding::BASE64URL.encode(&bytes()).into_bytes()),
        ("nopad", data_encoding::BASE64URL_NOPAD.encode(&bytes()).into_bytes()),
    ];
    for (form, content) in forms {
        let key = files.load(&files.write(form, &content, 0o400)).unwrap_or_else(|e| panic!("{form}: {e}"));
        assert_eq!(*key.open(&context(1), &sealed).unwrap(), b"secret", "{form}");
    }
}

#[test]
fn a_key_of_a_wrong_size_is_refused() {
    let files = Files::new();
    let hex = data_encoding::HEXLOWER.encode(&bytes());
    let bad: [Vec<u8>; 8] = [
        vec![],
        bytes()[..31].to_vec(),
        [&bytes()[..], b"\n"].concat(),
        hex.as_bytes()[..62].to_vec(),
        hex.replace('0', "g").into_bytes(),
        vec![b'a'; 44],
        vec![b'a'; 132],
        vec![b'a'; 100_000],
    ];
    for content in bad {
        let path = files.write("key", &content, 0o600);
        let Err(e @ KeyFileError::WrongSize { .. }) = files.load(&path) else { panic!("{} bytes", content.len()) };
        assert!(mends(&e, "head -c 32 /dev/urandom > "), "{e}");
    }
    assert!(matches!(files.load(&files.write("zeros", &[0; 32], 0o600)), Err(KeyFileError::NotRandom(_))));
}

#[test]
fn a_key_inside_the_data_directory_is_refused() {
    let files = Files::new();
    std::fs::create_dir(files.at("data/sub")).unwrap();
    symlink(files.at("data"), files.at("alias")).unwrap();
    let inside = files.write("data/sub/key", &bytes(), 0o600);
    symlink(&inside, files.at("link")).unwrap();
    for path in [inside, files.at("alias/sub/key"), files.at("link"), files.at("data/../data/sub/key")] {
        let Err(e @ KeyFileError::InsideData { .. }) = files.load(&path) else { panic!("{}", path.display()) };
        assert!(mends(&e, "mv "), "{e}");
    }
    // The data directory under another name.
    assert!(matches!(SealingKey::load(&files.at("link"), &files.at("alias")), Err(KeyFileError::InsideData { .. })));
    // A data directory that does not exist yet, under a link.
    let later = files.write("alias/later", &bytes(), 0o600);
    assert!(matches!(SealingKey::load(&later, &files.at("alias/later")), Err(KeyFileError::InsideData { .. })));
    assert!(SealingKey::load(&later, &files.at("alias/not-yet")).is_ok());
    // A name that only begins like the data directory's.
    std::fs::create_dir(files.at("data2")).unwrap();
    assert!(files.load(&files.write("data2/key", &bytes(), 0o600)).is_ok());
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let files = Files::new();
    for mode in [0o640, 0o604, 0o660, 0o601, 0o644] {
        let path = files.write("key", &bytes(), mode);
        let Err(e @ KeyFileError::OpenToOthers { .. }) = files.load(&path) else { panic!("{mode:o}") };
        assert!(mends(&e, &format!("chmod 600 {}", path.display())), "{e}");
    }
    for mode in [0o600, 0o400] {
        assert!(files.load(&files.write("key", &bytes(), mode)).is_ok(), "{mode:o}");
    }
    // systemd's access list shows as a read permission of the group; only that is accepted.
    let by_credential = || SealingKey::load_credential(files.top.path(), "key", &files.at("data"));
    for (mode, good) in [(0o440, true), (0o400, true), (0o444, false), (0o460, false)] {
        files.write("key", &bytes(), mode);
        assert_eq!(by_credential().is_ok(), good, "{mode:o}");
    }
}

#[test]
fn a_key_that_is_no_file_is_refused() {
    let files = Files::new();
    assert!(matches!(files.load(&files.at("data/..")), Err(KeyFileError::NotAFile(_))));
    assert!(matches!(files.load(Path::new("/dev/zero")), Err(KeyFileError::NotAFile(_))));
    let Err(e @ KeyFileError::Missing(_)) = files.load(&files.at("none")) else { panic!() };
    assert!(mends(&e, "umask 077") && mends(&e, "install -m 600"), "{e}");
    // A pipe without a writer must not block the start.
    let pipe = files.at("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    assert!(matches!(files.load(&pipe), Err(KeyFileError::NotAFile(_))));
}
