//! Where the server listens: an address of TCP, or a Unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// At a path.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// Whether browsers of this machine, and nobody else's, reach it.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().is_loopback())
    }
}

/// What listens.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(std::net::TcpListener),
    /// At a path.
    Unix(UnixSocket),
}

impl Listener {
    /// Where.
    ///
    /// # Errors
    /// The system does not know.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(socket) => Ok(Address::Unix(socket.path.clone())),
        }
    }
}

/// A listener of the asynchronous kind, whose connections can move from one runtime to another.
pub trait Listens: Send + Sync + 'static {
    /// A connection.
    type Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// A connection that no runtime looks after.
    type Plain: Send + 'static;

    /// The next connection.
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>>;

    /// Takes a connection out of its runtime.
    ///
    /// # Errors
    /// The system's.
    fn leave(socket: Self::Socket) -> io::Result<Self::Plain>;

    /// Brings it into the one that this is called in.
    ///
    /// # Errors
    /// The system's.
    fn enter(socket: Self::Plain) -> io::Result<Self::Socket>;
}

impl Listens for tokio::net::TcpListener {
    type Socket = tokio::net::TcpStream;
    type Plain = std::net::TcpStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>> {
        let (socket, _) = ready!(Self::poll_accept(self, context))?;
        // Chunks are small, and are to go out at once.
        let _ = socket.set_nodelay(true);
        Poll::Ready(Ok(socket))
    }

    fn leave(socket: Self::Socket) -> io::Result<Self::Plain> {
        socket.into_std()
    }

    fn enter(socket: Self::Plain) -> io::Result<Self::Socket> {
        Self::Socket::from_std(socket)
    }
}

impl Listens for tokio::net::UnixListener {
    type Socket = tokio::net::UnixStream;
    type Plain = UnixStream;

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Self::Socket>> {
        let (socket, _) = ready!(Self::poll_accept(self, context))?;
        Poll::Ready(Ok(socket))
    }

    fn leave(socket: Self::Socket) -> io::Result<Self::Plain> {
        socket.into_std()
    }

    fn enter(socket: Self::Plain) -> io::Result<Self::Socket> {
        Self::Socket::from_std(socket)
    }
}

/// A Unix socket; its file is removed when this is dropped, unless another program has put its own there.
#[derive(Debug)]
pub struct UnixSocket {
    /// What listens.
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl UnixSocket {
    /// Listens at a path. A socket that a program has left there is replaced.
    ///
    /// # Errors
    /// Another program listens there, or what is there is no socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket"));
                }
                match UnixStream::connect(path) {
                    Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {}
                    _ => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        Ok(Self { listener, path: path.to_owned(), file: identity(path)? })
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_listens_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = UnixSocket::bind(&path).unwrap();
        assert_eq!(UnixSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        // One that a program has left.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let second = UnixSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        // Another program's, which has come into its place.
        std::fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(second);
        assert!(path.exists());
        drop(other);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "text").unwrap();
        assert_eq!(UnixSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
    }
}
