//! A small file system for one test: ext4 in a file, or tmpfs, mounted in a mount namespace, so that nothing is left behind. Needs root and
//! mount(8), and says so if they are missing.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "SMALL_DISK";

/// Runs the named test again inside a mount namespace with a disk of `mib` MiB mounted; in that second run, calls `story`.
pub fn on_a_small_disk(test: &str, kind: &str, mib: u64, story: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(INSIDE) {
        story(Path::new(&disk));
        println!("STORY TOLD");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (disk, image) = (top.path().join("disk"), top.path().join("image"));
    std::fs::create_dir(&disk).unwrap();
    let mount = match kind {
        "ext4" => "truncate -s \"$SIZE\" \"$IMAGE\" && mkfs.ext4 -q \"$IMAGE\" && mount -o loop \"$IMAGE\" \"$DISK\"",
        _ => "mount -t tmpfs -o size=\"$SIZE\" none \"$DISK\"",
    };
    let script = format!(
        "({mount}) || {{ echo NO-MOUNT; exit 77; }}; \"$0\" --exact {test} --nocapture; code=$?; umount \"$DISK\"; exit $code"
    );
    let ran = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("DISK", &disk)
        .env("IMAGE", &image)
        .env("SIZE", format!("{mib}M"))
        .env(INSIDE, &disk)
        .output();
    let ran = match ran {
        Ok(ran) if ran.status.code() != Some(77) && !String::from_utf8_lossy(&ran.stderr).contains("unshare failed") => ran,
        _ => {
            super::skipped::skipped(format_args!(
                "a small {kind} cannot be mounted here (it needs root, unshare(1) and mount(8))"
            ));
            return;
        }
    };
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    print!("{out}");
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("STORY TOLD"), "the test did not run inside: {out}\n{err}");
}

/// Another program's file, which takes all free space.
pub struct Filler(pub File);

impl Filler {
    /// Writes until not a byte fits.
    pub fn fill(&mut self) {
        for size in [1 << 20, 4096, 512] {
            while self.0.write_all(&vec![0x55; size]).is_ok() {}
        }
        self.0.sync_all().ok();
        // Fill blocks that the file system freed in the meantime.
        while self.0.write_all(&[0x55; 512]).is_ok() {}
    }
}
