//! The operators' socket on this host.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use bytes::Bytes;
use mayfly::cli::dev::DevSettings;
use mayfly::serve::client;
use mayfly::serve::unix::{SocketError, bind};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::kit::{Up, call, healthy, until_closed};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_owns_the_server_is_an_operator_by_uid() {
    let up = Up::new(DevSettings::default());
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&up.socket()), mode(up.socket().parent().unwrap())), (0o600, 0o700));
    let channel = client::unix(&up.socket()).await.unwrap();
    assert!(healthy(channel.clone()).await);
    call(channel.clone(), "/mayfly.v1.RevocationService/ListRules", Bytes::new()).await.unwrap();
    // The peer is an operator, not a workload.
    let refused = crate::kit::open_task(channel.clone(), None).await.unwrap_err();
    assert_eq!(crate::kit::reason(&refused), "NOT_AUTHENTICATED");
    assert!(refused.message().contains("workloads' commands use the workload listener (listen.workload)"), "{refused:?}");
    assert_eq!(up.running().connections()[2], 1);
    // Keep the connection open until it was counted.
    drop(channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn http1_is_told_to_use_http2_here_too() {
    let up = Up::new(DevSettings::default());
    let mut stream = UnixStream::connect(up.socket()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(until_closed(&mut stream).await.unwrap().starts_with(b"HTTP/1.1 426 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_goes_with_the_server() {
    let mut up = Up::new(DevSettings::default());
    assert!(up.socket().exists());
    let running = up.running.take().unwrap();
    tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    assert!(!up.socket().exists());
}

#[test]
fn what_a_killed_server_left_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let path = dir.path().join("admin.sock");
    // Closed without removing the file, as SIGKILL leaves it.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let held = bind(&path, false).unwrap();
    let no = bind(&path, false).err().unwrap();
    assert!(matches!(no, SocketError::InUse(_)) && no.remedies()[0].command.contains("ss -xlp"), "{no}");
    drop(held);
    fs::write(&path, "precious").unwrap();
    let no = bind(&path, false).err().unwrap();
    assert!(matches!(no, SocketError::NotASocket(_)) && no.remedies()[0].command.contains("mv "), "{no}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_directory_that_others_may_enter_is_refused_with_the_command_that_mends_it() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, alone, shared) in [(0o700, true, true), (0o711, false, true), (0o755, false, true), (0o777, false, false)] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let path = dir.path().join("admin.sock");
        assert_eq!(bind(&path, false).is_ok(), alone, "{mode:o}");
        assert_eq!(bind(&path, true).is_ok(), shared, "{mode:o}");
    }
    for (shared, mode) in [(false, "700"), (true, "711")] {
        let no = bind(&dir.path().join("admin.sock"), shared).err().unwrap();
        assert_eq!(no.remedies()[0].command, format!("chmod {mode} {}", dir.path().display()));
    }
    // A missing directory is created, accessible to this user only.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let inner = dir.path().join("run");
    bind(&inner.join("admin.sock"), false).unwrap();
    assert_eq!(fs::metadata(inner).unwrap().permissions().mode() & 0o777, 0o700);
}
