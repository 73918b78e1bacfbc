//! `mayfly server backup` and `restore`: writes the ledger of a running server to one file, and makes such a file the store of a server.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde::Serialize;

use super::CommandContext;
use super::error::{CliError, ServerError};
use super::exit::Exit;
use super::out::{Out, Printable};
use mayfly_base::atomic_file::{AtomicFile, PRIVATE};
use mayfly_base::document::remedy::shell_quoted;
use mayfly_base::file_path::directory_of;
use mayfly_base::system::System;
use mayfly_ledger::backup::BackupFile;
use mayfly_ledger::recovery::recover::Recovered;
use mayfly_proto::mayfly::v1::{self as pb, server_service_client::ServerServiceClient};
use mayfly_server::restore::{RestoreOptions, restore};
use mayfly_verify::seq::Seq;

/// Arguments of `mayfly server backup`.
#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).args(["to", "verify"]))]
pub struct BackupArgs {
    /// Write the ledger and its sealed values to this file, complete and read back; the sealing key is not included
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Read a backup from end to end and print what it contains, without calling a server; its seal, which shows that it belongs to a
    /// server, is not checked: use `restore --check`
    #[arg(long, value_name = "FILE")]
    verify: Option<PathBuf>,
}

/// Arguments of `mayfly server restore`.
#[derive(Args)]
pub struct RestoreArgs {
    /// Backup file
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Configuration file of the server, TOML; its data directory must be empty unless --replace is given
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Change nothing: read the backup from end to end and open its seal with the sealing key; the server may be running
    #[arg(long)]
    check: bool,
    /// Folder with the remains of the lost data directory; locks are taken over from it, as far as it is readable
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    left: Option<PathBuf>,
    /// Move the existing data directory aside, take over its locks as --left does, and restore the backup in its place
    #[arg(long, conflicts_with_all = ["check", "left"])]
    replace: bool,
    /// Highest sequence number known of this ledger, as printed by `mayfly status` or found in an export
    #[arg(long, value_name = "SEQ", conflicts_with = "check")]
    seen: Option<Seq>,
    /// Take over no locks: nobody was locked out since the backup was made
    #[arg(long, conflicts_with = "check")]
    unlocked: bool,
}

/// The contents of a backup, as the backup describes them.
#[derive(Serialize)]
struct BackupView {
    file: String,
    seq: u64,
    generation: u8,
    made_at: String,
    commits: u64,
    first_commit: u64,
    sealed_values: u64,
    bytes: u64,
    sha256: String,
    store: String,
    engine: String,
    version: String,
    /// Whether the sealing key opened the seal of the digest. Without that, anybody may have written the backup.
    seal_checked: bool,
    /// The command that checks the seal; `None` if it was checked.
    seal_check: Option<String>,
}

impl BackupView {
    fn of(path: &Path, backup: &BackupFile, seal_checked: bool) -> BackupView {
        let (about, end) = (backup.about(), backup.end());
        BackupView {
            file: path.display().to_string(),
            seq: about.seq.as_u64(),
            generation: about.seq.generation(),
            made_at: about.made_at.to_string(),
            commits: end.commits,
            first_commit: about.first,
            sealed_values: end.named,
            bytes: backup.size(),
            sha256: end.sha256.clone(),
            store: about.store.clone(),
            engine: about.engine.clone(),
            version: about.version.clone(),
            seal_checked,
            seal_check: (!seal_checked).then(|| format!("mayfly server restore --config FILE --check {}", shell_quoted(path))),
        }
    }
}

impl Printable for BackupView {
    fn name(&self) -> String {
        self.sha256.clone()
    }
}

/// Takes a backup or verifies one.
pub async fn backup(args: BackupArgs, run: &CommandContext) -> Result<Exit, CliError> {
    let shown = match (&args.to, &args.verify) {
        (Some(to), _) => {
            let shown = take_backup(to, run).await?;
            run.out.say(
                "keep it apart from the sealing key: whoever has both has the signing keys; without the key it restores nothing",
            );
            shown
        }
        (None, Some(path)) => {
            let shown = whole(path, path)?;
            if let Some(check) = &shown.seal_check {
                run.out.say(format_args!(
                    "the seal was not checked, because that takes the sealing key: --verify accepts a forged backup, and one of another \
                     server\nto check the seal, with the configuration of the server: {check}"
                ));
            }
            shown
        }
        (None, None) => return Err(CliError::Usage("--to FILE, or --verify FILE".to_owned())),
    };
    run.out.one(&shown)?;
    Ok(Exit::Ok)
}

fn whole(path: &Path, shown: &Path) -> Result<BackupView, CliError> {
    let backup = BackupFile::open(path).map_err(|bad| CliError::Local(format!("{}: {bad}", shown.display())))?;
    Ok(BackupView::of(shown, &backup, false))
}

fn cannot(path: &Path) -> impl Fn(io::Error) -> CliError + '_ {
    move |e| CliError::Local(format!("{}: cannot be written: {e}", path.display()))
}

/// Takes a backup. The backup gets its name once it is complete and was read back.
async fn take_backup(to: &Path, run: &CommandContext) -> Result<BackupView, CliError> {
    plain(to)?;
    free(to)?;
    let mut file = received(to, run).await?;
    let shown = whole(file.complete().map_err(cannot(to))?, to)?;
    match file.name_new() {
        // Somebody created a file of that name meanwhile.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => free(to)?,
        done => done.map_err(cannot(to))?,
    }
    Ok(shown)
}

/// Refuses a path with control characters: the path is recorded in the audit log.
fn plain(to: &Path) -> Result<(), CliError> {
    match to.to_string_lossy().chars().any(char::is_control) {
        true => Err(CliError::Usage(format!("--to {to:?}: the path has control characters; name a path without them"))),
        false => Ok(()),
    }
}

/// Refuses a path that exists: a backup never replaces another backup, a device, a link, a pipe or a directory.
fn free(to: &Path) -> Result<(), CliError> {
    let found = match fs::symlink_metadata(to) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot(to)(e)),
        Ok(found) => found.file_type(),
    };
    let what = match () {
        () if found.is_dir() => "a directory",
        () if found.is_symlink() => "a symbolic link",
        () if found.is_file() => "a file",
        () => "a device, a pipe or a socket",
    };
    let shown = to.display();
    Err(CliError::Usage(format!(
        "--to {shown}: there is {what} of that name, which is not replaced; name a file that is not there yet"
    )))
}

async fn received(to: &Path, run: &CommandContext) -> Result<AtomicFile, CliError> {
    let server = run.server().await?;
    let ask = pb::BackupRequest { to: to.display().to_string() };
    let mut stream = server.stream(ask, |c, q| async move { ServerServiceClient::new(c).backup(q).await }).await?;
    let mut file = AtomicFile::begin(to, PRIVATE, &run.system).map_err(cannot(to))?;
    loop {
        match stream.message().await {
            Ok(Some(part)) => file.write(&part.piece).map_err(cannot(to))?,
            Ok(None) => return Ok(file),
            Err(status) => return Err(CliError::Server(Box::new(ServerError::from_status(&status)))),
        }
    }
}

/// The result of a restore.
#[derive(Serialize)]
struct RestoreView {
    backup: BackupView,
    data: String,
    /// The new generation; `None` with `--check`, where nothing is restored.
    generation: Option<u8>,
    locks: usize,
    left_read: u64,
}

impl Printable for RestoreView {
    fn name(&self) -> String {
        self.backup.sha256.clone()
    }
}

/// Makes a backup the store of a server.
pub fn restored(args: &RestoreArgs, out: Out) -> Result<Exit, CliError> {
    let RestoreArgs { left, seen, unlocked, check, replace, .. } = args;
    let wanted = RestoreOptions {
        backup: &args.backup,
        left: left.as_deref(),
        replace: *replace,
        seen: *seen,
        unlocked: *unlocked,
        check: *check,
    };
    let done =
        restore(&args.config, &wanted, &System::real()).map_err(|no| CliError::Local(format!("nothing was restored\n{no}")))?;
    let (recovered, data) = (done.recovered.as_ref(), done.data.display().to_string());
    let begun = RestoreView {
        backup: BackupView::of(&args.backup, &done.backup, true),
        generation: recovered.map(|r| r.generation),
        locks: recovered.map_or(0, |r| r.locks),
        left_read: recovered.map_or(0, |r| r.left),
        data,
    };
    out.one(&begun)?;
    match recovered {
        None => out.say("it is whole, and was sealed with this sealing key; nothing was changed"),
        Some(recovered) => {
            if let Some(why) = &done.unread {
                out.say(format_args!("nothing was read of what is left: {why}"));
            }
            if let Some(before) = &done.before {
                out.say(format_args!("what lay there is in {}; nothing removes it", before.display()));
            }
            print_restore(args, recovered, &begun, out);
        }
    }
    Ok(Exit::Ok)
}

fn print_restore(args: &RestoreArgs, recovered: &Recovered, begun: &RestoreView, out: Out) {
    out.say(format_args!("generation {} has begun in {}", recovered.generation, begun.data));
    out.say("revoked: all that was issued before, and the keys that signed it. Open tasks, unused approvals and break-glass are void.");
    if recovered.everything_locked {
        out.say("all is locked, since nobody knows who was locked out after the backup. Lock them again, then lift that lock:");
        out.say("  mayfly lock list; mayfly lock lift SEQ --reason TEXT");
    }
    // The server runs as its own user and cannot open files that another user restored.
    let data = Path::new(&begun.data);
    let owner = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.uid());
    if owner(directory_of(data)) != owner(data) {
        out.say(format_args!("it is ours now; where the server is another user: chown -R USER {}", shell_quoted(data)));
    }
    out.say(format_args!("next: mayfly server run --config {}", shell_quoted(&args.config)));
}
