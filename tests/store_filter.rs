//! sled must not have `sync_file_range`: the reach of the filter.

use std::process::Command;

use mayfly::store::options::StoreOptions;
use mayfly::store::sled::SledStore;

/// The filter applies to existing threads, later threads and child processes, and does no harm there.
#[test]
fn nothing_in_this_process_or_below_it_has_the_call() {
    if !Command::new("cc").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("SKIPPED: asking the kernel needs cc");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (source, program) = (top.path().join("ask.c"), top.path().join("ask"));
    let text = "#define _GNU_SOURCE\n#include <errno.h>\n#include <fcntl.h>\n#include <stdio.h>\n\
                int main(void) { int r = sync_file_range(1, 0, 0, 2); printf(\"%d\\n\", r < 0 ? errno : 0); return 0; }\n";
    std::fs::write(&source, text).unwrap();
    assert!(Command::new("cc").arg("-o").arg(&program).arg(&source).status().unwrap().success());
    let ask = || {
        let out = std::fs::File::create(top.path().join("said")).unwrap();
        assert!(Command::new(&program).stdout(out).status().unwrap().success());
        std::fs::read_to_string(top.path().join("said")).unwrap().trim().parse::<i32>().unwrap()
    };
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (done, seen) = std::sync::mpsc::channel();
    let early = std::thread::spawn(move || {
        done.send(std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
        wait.recv().unwrap();
        std::fs::read_to_string("/proc/thread-self/status").unwrap()
    });
    seen.recv().unwrap();
    drop(SledStore::open(&top.path().join("data"), &StoreOptions { reserve_bytes: 0, ..StoreOptions::new([9; 16]) }).unwrap());
    go.send(()).unwrap();
    let after = early.join().unwrap();
    assert!(after.contains("Seccomp:\t2"), "{after}");
    assert_eq!(ask(), 38, "ENOSYS");
}
