//! Another network namespace, entered for the moment that it takes to create a socket there.

use std::{
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{Arc, OnceLock},
};

use nix::sched::{CloneFlags, setns};

/// Open, so that it lives as long as this does.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
    identity: Identity,
}

/// Device and inode number: what namespaces(7) says to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

impl Namespace {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        Ok(Self { file: Arc::new(file), identity: Identity(meta.dev(), meta.ino()) })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The agent's own.
    pub fn home() -> io::Result<&'static Self> {
        static HOME: OnceLock<Namespace> = OnceLock::new();
        if let Some(home) = HOME.get() {
            return Ok(home);
        }
        let own = Self::open(Path::new("/proc/thread-self/ns/net"))?;
        Ok(HOME.get_or_init(|| own))
    }

    /// Runs `work` in here. It must not wait: what else runs on this thread would do so in here.
    ///
    /// # Errors
    /// Where the kernel does not let this thread in (CAP_SYS_ADMIN).
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        /// Also when `work` panics.
        struct Return(&'static Namespace);
        impl Drop for Return {
            fn drop(&mut self) {
                if setns(self.0.file.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
                    // Every socket of this thread would be made in a stranger's namespace.
                    std::process::abort();
                }
            }
        }
        let home = Self::home()?;
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let _return = Return(home);
        Ok(work())
    }

    /// What eBPF programs know it by; 0 where the kernel does not tell (before 5.14).
    pub fn cookie(&self) -> io::Result<u64> {
        self.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
            Ok(read_cookie(&OwnedFd::from(socket)))
        })?
    }

    /// The addresses of its interfaces.
    pub fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        let found = self.enter(nix::ifaddrs::getifaddrs)??;
        let mut addresses: Vec<IpAddr> = found
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
            })
            .filter(|address| !address.is_loopback())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn read_cookie(socket: &OwnedFd) -> u64 {
    /// `SO_NETNS_COOKIE` of asm-generic/socket.h.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, both of which outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { cookie } else { 0 }
}
