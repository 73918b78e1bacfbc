//! Remedies for a refused start: commands that can be typed as shown, each with its effect.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::start_problem::StartFailure;
use mayfly_base::document::remedy::{Remedy, shell_quoted};
use mayfly_base::file_path::directory_of;
use mayfly_base::refusal::{Error, Reason};
use mayfly_config::config::SealingKeySource;
use mayfly_ledger::StartError;
use mayfly_store::StoreError;
use mayfly_store::sealing::SealError;

/// The paths and ids that the commands contain.
struct RemedyPaths {
    config: String,
    /// The data directory; a placeholder if the engine has none.
    data: String,
    /// The ledger's file in the data directory.
    file: String,
    uid: u32,
}

/// The remedies, in the order in which to try them.
pub(super) fn remedies(why: &StartFailure, config: &Path, data: Option<&Path>) -> Vec<Remedy> {
    let data = data.map_or_else(|| PathBuf::from("DATA-DIRECTORY"), Path::to_owned);
    let files = ["ledger.redb", "ledger.sled/db"].map(|name| data.join(name));
    let file = shell_quoted(files.iter().find(|path| path.exists()).unwrap_or(&files[0]));
    let place =
        RemedyPaths { config: shell_quoted(config), data: shell_quoted(&data), file, uid: rustix::process::geteuid().as_raw() };
    match why {
        StartFailure::Config(_)
        | StartFailure::Found(_)
        | StartFailure::Files(_)
        | StartFailure::Agent(_)
        | StartFailure::Policy(_)
        | StartFailure::Tls(_) => vec![place.validate()],
        StartFailure::KeyFile(error) => error.remedies(),
        StartFailure::NoCredentials(name) => place.no_credentials(name),
        StartFailure::Seal { error, key } => place.seal(error, key),
        StartFailure::Ledger(error) => place.ledger(error),
        StartFailure::Keys(_) => place.lost(),
        StartFailure::Port { key, address, error } => place.port(key, *address, error),
        StartFailure::Socket(no) => no.remedies(),
        StartFailure::Refused { no, .. } => place.refused(no),
        StartFailure::ReadyFile { path, .. } => place.ready_file(path),
        StartFailure::System { error, .. } => place.system(error),
        StartFailure::Panic => {
            let command = format!("RUST_BACKTRACE=1 MAYFLY_LOG=debug mayfly server run --config {}", place.config);
            vec![Remedy::new("to see where, for a report", command), place.validate()]
        }
    }
}

impl RemedyPaths {
    fn validate(&self) -> Remedy {
        let command = format!("mayfly server validate --config {}", self.config);
        Remedy::new("when it is mended, or to see all that is wrong", command)
    }

    fn again(&self) -> Remedy {
        Remedy::new("then start again", format!("mayfly server run --config {}", self.config))
    }

    fn no_credentials(&self, name: &str) -> Vec<Remedy> {
        let load = format!("LoadCredential={name}:/etc/mayfly/seal.key");
        vec![
            Remedy::new(format!("in the server's unit, add {load} under [Service]"), "systemctl edit mayfly"),
            Remedy::new("without a unit", format!("systemd-run --pipe -p {load} mayfly server run --config {}", self.config)),
            Remedy::new(
                "or name a file under seal.key_file; for a new store make one",
                "(umask 077 && head -c 32 /dev/urandom > /etc/mayfly/seal.key)",
            ),
        ]
    }

    fn seal(&self, error: &SealError, key: &SealingKeySource) -> Vec<Remedy> {
        match (error, key) {
            (SealError::WrongKey, SealingKeySource::KeyFile(path)) => {
                let command = format!("install -m 600 BACKUP-OF-THE-KEY {}", shell_quoted(path));
                vec![Remedy::new("put the key of this store back", command)]
            }
            (SealError::WrongKey, SealingKeySource::Credential(name)) => {
                let what = format!(
                    "put the key of this store back where the unit takes {name} from, which it says under LoadCredential="
                );
                vec![Remedy::new(what, "systemctl cat mayfly")]
            }
            (SealError::Store(error), _) => self.store(error),
            _ => self.lost(),
        }
    }

    fn ledger(&self, error: &StartError) -> Vec<Remedy> {
        match error {
            StartError::Store(error) => self.store(error),
            StartError::Write(_) => vec![self.how_full(), self.again()],
            // The texts of these errors contain the command, which needs the sequence number.
            StartError::Damaged { .. }
            | StartError::NoSnapshot { .. }
            | StartError::Beginning { .. }
            | StartError::Behind { .. }
            | StartError::Lost { .. } => Vec::new(),
        }
    }

    fn store(&self, error: &StoreError) -> Vec<Remedy> {
        let RemedyPaths { data, file, uid, .. } = self;
        match error {
            StoreError::InUse(_) => vec![
                Remedy::new("who has it", format!("fuser -v {data} {file}")),
                Remedy::new("to end that server in good order", format!("fuser -k -TERM {file}")),
            ],
            StoreError::Full(_) => vec![self.how_full(), Remedy::new("make room there; nothing was lost", self.again().command)],
            error if error.is_of_another_version() => {
                vec![Remedy::new("start the version of mayfly that wrote it, or look which one this is", "mayfly --version")]
            }
            StoreError::Foreign(_) | StoreError::Damaged { .. } => self.lost(),
            // The error's text says how to fix it.
            StoreError::Unsafe(_) => Vec::new(),
            _ => vec![
                Remedy::new("who may use it", format!("ls -ld {data}")),
                Remedy::new(
                    "to make it the server's own, as root",
                    format!("install -d -m 700 -o {uid} {data} && chown -R {uid} {data}"),
                ),
                Remedy::new("whether the disk fails", "dmesg --level=err,warn"),
            ],
        }
    }

    fn how_full(&self) -> Remedy {
        Remedy::new("how full the disk is", format!("df -h {}", self.data))
    }

    /// Remedies for a store that cannot be read. A restored ledger continues in a new generation, so that nothing revoked becomes valid
    /// again. Beginning a new ledger is never the first suggestion: a new ledger has no revocations and no locks.
    fn lost(&self) -> Vec<Remedy> {
        let RemedyPaths { config, data, .. } = self;
        vec![
            Remedy::new(
                "with a backup, which server backup makes: what lies in the data directory is kept beside it and read for locks",
                format!("mayfly server restore --config {config} --replace BACKUP"),
            ),
            Remedy::new(
                "the same in two steps, where the file system cannot exchange the names of directories",
                format!("mv {data} {data}.old && mayfly server restore --config {config} --left {data}.old BACKUP"),
            ),
            Remedy::new(
                "without one, whether server recover can read a part of it (0 keeps no record and copies locks and keys)",
                format!("mayfly server recover --config {config} --after 0"),
            ),
            Remedy::new(
                "where that is refused, too, all that is left is to begin anew, in a new directory under store.path; a new ledger forgets every lock, every \
                 revocation, all signing keys, policies, registrations, tasks and the history, so followers have to be started anew and \
                 whoever was locked has to be locked again before the first workload calls: docs/operations.md, \"A damaged or lost \
                 ledger\"; then",
                format!("mayfly server validate --config {config}"),
            ),
        ]
    }

    fn port(&self, key: &str, address: SocketAddr, error: &io::Error) -> Vec<Remedy> {
        let port = address.port();
        let first = match error.kind() {
            io::ErrorKind::PermissionDenied => Remedy::new(
                "ports below 1024 need a right, which the unit gives by AmbientCapabilities=CAP_NET_BIND_SERVICE; by hand, as root",
                "setcap cap_net_bind_service=+ep \"$(command -v mayfly)\"",
            ),
            io::ErrorKind::AddrNotAvailable => Remedy::new("the addresses of this host", "ip -brief address"),
            _ => Remedy::new("who has the port", format!("ss -ltnp 'sport = :{port}'")),
        };
        let command = format!("mayfly server validate --config {}", self.config);
        let name = key.strip_prefix("listen.").unwrap_or(key);
        let what = format!("or write another port to {name} under [listen] in {}, and look whether all is well", self.config);
        vec![first, Remedy::new(what, command)]
    }

    fn refused(&self, no: &Error) -> Vec<Remedy> {
        let mut remedies = match no {
            Error::Refusal(no) if no.reason == Reason::DiskReserve => vec![self.how_full()],
            Error::Refusal(no) if no.reason == Reason::ClockSkew => {
                vec![Remedy::new("whether the clock is right", "timedatectl")]
            }
            _ => vec![self.validate()],
        };
        remedies.push(self.again());
        remedies
    }

    fn ready_file(&self, path: &Path) -> Vec<Remedy> {
        let dir = shell_quoted(directory_of(path));
        vec![
            Remedy::new("who may write there", format!("ls -ld {dir}")),
            Remedy::new("to make the directory the server's own, as root", format!("install -d -m 700 -o {} {dir}", self.uid)),
        ]
    }

    fn system(&self, error: &io::Error) -> Vec<Remedy> {
        use rustix::io::Errno;
        let first = match rustix::io::Errno::from_io_error(error) {
            Some(Errno::MFILE) => Remedy::new("more files for this process (LimitNOFILE= in its unit)", "ulimit -n 65536"),
            Some(Errno::NFILE) => Remedy::new("more files for this host, as root", "sysctl -w fs.file-max=1048576"),
            Some(Errno::AGAIN) => Remedy::new("more threads for this user (TasksMax= in its unit)", "ulimit -u 4096"),
            Some(Errno::NOMEM) => Remedy::new("what memory there is", "free -m"),
            _ => Remedy::new("what this process may have", "ulimit -a"),
        };
        vec![first, self.again()]
    }
}
