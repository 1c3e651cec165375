//! The errors of the monitor.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A reason why a monitor cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// Another socket uses the port.
    #[error("cannot listen on {addr}: the port is in use: choose another port, or 0 for any free one")]
    PortInUse {
        /// The configured address.
        addr: SocketAddr,
    },
    /// The port needs a privilege.
    #[error("cannot listen on {addr}: this user may not use the port: choose a port from 1024 on")]
    PortForbidden {
        /// The configured address.
        addr: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error(
        "cannot listen on {addr}: this machine does not have the address: choose one of its own, or 127.0.0.1"
    )]
    ForeignAddress {
        /// The configured address.
        addr: SocketAddr,
    },
    /// The address cannot be used for another reason.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The configured address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The configured token cannot be a part of a URL and a header.
    #[error(
        "the monitor's token must have 16 to 256 letters, digits, `-` or `_`; without one, a token is generated"
    )]
    Token,
    /// The system returned no random bytes for a token.
    #[error("cannot generate a token for the monitor: the system returned no random bytes")]
    Random,
    /// The system refused to start a thread.
    #[error("cannot start the monitor's thread: {0}")]
    Thread(io::Error),
}

impl MonitorError {
    /// Returns the error of a listening socket.
    pub(super) fn listen(addr: SocketAddr, source: io::Error) -> MonitorError {
        match source.kind() {
            io::ErrorKind::AddrInUse => MonitorError::PortInUse { addr },
            io::ErrorKind::PermissionDenied => MonitorError::PortForbidden { addr },
            io::ErrorKind::AddrNotAvailable => MonitorError::ForeignAddress { addr },
            _ => MonitorError::Listen { addr, source },
        }
    }
}

/// A reason why the file of metrics cannot be written. The file keeps its content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsFileError {
    /// The path is a link. A rename would replace the link, and the file that it names would stay as it is.
    #[error("cannot write metrics to {}: it is a symbolic link: give the path of the file itself", path.display())]
    SymbolicLink {
        /// The path.
        path: PathBuf,
    },
    /// The path is a folder, a device or a pipe.
    #[error("cannot write metrics to {}: it is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Another process is writing the same file.
    #[error("cannot write metrics to {}: another process writes the file: give each run a file of its own", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The disk or the quota is full.
    #[error("cannot write metrics to {}: the disk or the quota is full: make room, or choose another disk", path.display())]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// The user may not create files in the folder, or the file system is read-only.
    #[error("cannot write metrics to {}: the folder is not writable ({source}): choose another folder", path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder does not exist.
    #[error("cannot write metrics to {}: its folder does not exist: create it first", path.display())]
    NoFolder {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be written for another reason.
    #[error("cannot write metrics to {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl MetricsFileError {
    /// Returns the error for the file at `path`.
    pub(super) fn io(path: PathBuf, source: io::Error) -> MetricsFileError {
        use io::ErrorKind::*;
        match source.kind() {
            StorageFull | QuotaExceeded => MetricsFileError::Full { path },
            PermissionDenied | ReadOnlyFilesystem => MetricsFileError::NotWritable { path, source },
            NotFound | NotADirectory => MetricsFileError::NoFolder { path },
            WouldBlock => MetricsFileError::InUse { path },
            _ => MetricsFileError::Io { path, source },
        }
    }
}
