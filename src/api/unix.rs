//! The operators' socket on this host: every user that may open the socket file is identified by uid.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tokio::net::{UnixListener, UnixStream};

use super::call_handler;
use super::connection::NegotiatedProtocol;
use super::connection_end::ConnectionEnds;
use super::grpc::Services;
use super::listener::{ConnectionPlace, Gate};
use super::peer::Peer;
use super::shares::Holder;
use mayfly_base::document::remedy::{self, Remedy, shell_quoted};
use mayfly_base::file_path::directory_of;

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The directory is open to other users.
    #[error("the directory of the admin socket, {}, is open to others (mode {mode:03o})", dir.display())]
    OpenDirectory {
        /// The directory.
        dir: PathBuf,
        /// The directory's permission bits.
        mode: u32,
        /// The permission bits that are required.
        closed: u32,
    },
    /// Another server listens at this path.
    #[error("another server listens at {}", .0.display())]
    InUse(PathBuf),
    /// The path is not a socket.
    #[error("{} is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("the admin socket {}: {what}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The operation.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
}

impl SocketError {
    /// The commands that fix the problem.
    pub fn remedies(&self) -> Vec<Remedy> {
        let uid = rustix::process::geteuid().as_raw();
        match self {
            SocketError::OpenDirectory { dir, closed, .. } => {
                vec![remedy::restrict_directory(dir, *closed, uid, "listen.admin_socket")]
            }
            SocketError::InUse(path) => {
                let shown = shell_quoted(path);
                vec![
                    Remedy::new("who it is", format!("ss -xlp src {shown}")),
                    Remedy::new("to end it in good order", format!("fuser -k -TERM {shown}")),
                ]
            }
            SocketError::NotASocket(path) => {
                vec![Remedy::new("to move it away", format!("mv {} {}.old", shell_quoted(path), shell_quoted(path)))]
            }
            SocketError::Io { path, .. } => {
                let dir = shell_quoted(directory_of(path));
                vec![
                    Remedy::new("who may write there", format!("ls -ld {dir}")),
                    Remedy::new("to make the directory the server's own, as root", format!("install -d -m 700 -o {uid} {dir}")),
                ]
            }
        }
    }
}

/// A bound socket. Dropping it removes its file.
pub struct Socket {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A socket registered with a runtime.
pub struct Listening {
    listener: UnixListener,
    _file: SocketFile,
}

impl Socket {
    /// Registers the socket with the current runtime.
    pub fn into_async(self) -> io::Result<Listening> {
        Ok(Listening { listener: UnixListener::from_std(self.listener)?, _file: self.file })
    }
}

/// Binds the socket: mode 0600 in a directory that only this user may enter (0700, created if it is missing).
///
/// `shared`: other uids may use the socket (`admin.uids`). Then other users may enter the directory and open the file: the kernel reports
/// the peer's uid, and each call is admitted by it.
pub fn bind(path: &Path, shared: bool) -> Result<Socket, SocketError> {
    let failed = |what| move |error| SocketError::Io { path: path.to_owned(), what, error };
    let dir = directory_of(path);
    if !dir.exists() {
        DirBuilder::new().recursive(true).mode(closed(shared)).create(dir).map_err(failed("making its directory"))?;
    }
    check(path, shared)?;
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("removing the old one")(e)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed("binding"))?;
    let socket = Socket { listener, file: SocketFile(path.to_owned()) };
    socket.listener.set_nonblocking(true).map_err(failed("preparing"))?;
    let mode = if shared { 0o666 } else { 0o600 };
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("closing it to others"))?;
    Ok(socket)
}

/// The mode of the socket's directory.
fn closed(shared: bool) -> u32 {
    if shared { 0o711 } else { 0o700 }
}

/// Whether the socket could be bound, without creating or removing anything: [`bind`] refuses the same paths. A missing directory is no
/// error, since [`bind`] creates it.
pub fn check(path: &Path, shared: bool) -> Result<(), SocketError> {
    let failed = |what| move |error| SocketError::Io { path: path.to_owned(), what, error };
    let dir = directory_of(path);
    if !dir.exists() {
        let above = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("."));
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let writable = access(above, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from);
        return writable.map_err(failed("making its directory"));
    }
    let mode = fs::metadata(dir).map_err(failed("looking at its directory"))?.mode() & 0o777;
    // A shared socket's directory may be entered and read by others.
    let open = if shared { 0o022 } else { 0o077 };
    if mode & open != 0 {
        return Err(SocketError::OpenDirectory { dir: dir.to_owned(), mode, closed: closed(shared) });
    }
    access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from).map_err(failed("binding"))?;
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("looking at what lies there")(e)),
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        // A socket file left by a server that was killed: nothing listens there.
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(e) => Err(failed("asking who listens there")(e)),
    }
}

/// Serves operators of this host until the server stops. The socket file is removed before the last call has ended.
pub async fn serve(gate: Gate, socket: Listening, services: Services) {
    let sweeper = gate.clone();
    gate.spawn(async move { sweeper.sweep().await });
    let mut stopping = gate.stopping();
    loop {
        let accepted = tokio::select! {
            accepted = socket.listener.accept() => accepted,
            _ = stopping.wait_for(|stops| *stops) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let Ok(peer) = stream.peer_cred() else { continue };
                if let Some(place) = gate.place(Holder::LocalUid(peer.uid())) {
                    gate.spawn(serve_one(gate.clone(), place, stream, peer.uid(), services.clone()));
                }
            }
            Err(error) => {
                tracing::error!(%error, "accepting a connection on the admin socket failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
    drop(socket);
    gate.finished().await;
}

async fn serve_one(gate: Gate, place: ConnectionPlace, stream: UnixStream, uid: u32, services: Services) {
    let ends = ConnectionEnds::without_svid(gate.system().clone(), gate.stopping(), 0, place.activity().clone());
    let ended = call_handler::serve(stream, NegotiatedProtocol::Nothing, services, Peer::Local(uid), ends, gate.streams()).await;
    tracing::debug!(uid, ?ended, "connection of the admin socket ended");
}
