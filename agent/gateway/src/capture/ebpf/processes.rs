//! Which ports a process listens on, from /proc.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use super::error::EbpfError;

/// A port that someone listens on, and the network namespace it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Listening {
    /// Cookie of the namespace; 0 where the kernel does not tell.
    pub netns: u64,
    pub port: u16,
}

/// The ports that a process and its descendants listen on.
pub(super) fn listening_ports(pid: u32) -> Result<BTreeSet<Listening>, EbpfError> {
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(EbpfError::NoProcess(pid));
    }
    let mut found = BTreeSet::new();
    let mut cookies: HashMap<String, u64> = HashMap::new();
    for member in family(pid) {
        let sockets = socket_inodes(member);
        if sockets.is_empty() {
            continue;
        }
        let Ok(namespace) = fs::read_link(format!("/proc/{member}/ns/net")) else { continue };
        let namespace = namespace.to_string_lossy().into_owned();
        let netns = *cookies.entry(namespace).or_insert_with(|| netns_cookie_of(member));
        for table in ["tcp", "tcp6"] {
            let Ok(text) = fs::read_to_string(format!("/proc/{member}/net/{table}")) else {
                continue;
            };
            found.extend(
                parse_listening(&text)
                    .filter(|(_, inode)| sockets.contains(inode))
                    .map(|(port, _)| Listening { netns, port }),
            );
        }
    }
    Ok(found)
}

/// The process and all its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(member) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(parent) = parse_parent(&stat) {
            children.entry(parent).or_default().push(member);
        }
    }
    let mut members = vec![pid];
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        members.extend(children.remove(&member).unwrap_or_default());
        next += 1;
    }
    members
}

/// The fourth field of /proc/PID/stat; the second, the command's name, may hold anything.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn socket_inodes(pid: u32) -> HashSet<u64> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Port and inode of each listening socket in the text of /proc/net/tcp or tcp6.
fn parse_listening(text: &str) -> impl Iterator<Item = (u16, u64)> + '_ {
    text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        // TCP_LISTEN of include/net/tcp_states.h
        if fields.nth(1)? != "0A" {
            return None;
        }
        let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some((port, inode))
    })
}

/// Cookie of this process's network namespace; 0 where the kernel has none (before 5.14).
pub(super) fn own_netns_cookie() -> u64 {
    let read = || -> io::Result<u64> {
        // SAFETY: plain system calls; the descriptor is owned at once.
        unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            let socket = OwnedFd::from_raw_fd(fd);
            let mut cookie = 0u64;
            let mut len = size_of::<u64>() as libc::socklen_t;
            let result = libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            );
            if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
        }
    };
    read().unwrap_or(0)
}

/// uapi/asm-generic/socket.h
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Cookie of the network namespace that a process is in; 0 where it cannot be found.
fn netns_cookie_of(pid: u32) -> u64 {
    let Ok(namespace) = File::open(format!("/proc/{pid}/ns/net")) else { return 0 };
    // A thread of its own enters the namespace, and ends there.
    std::thread::spawn(move || {
        // SAFETY: a plain system call on an open descriptor.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
            own_netns_cookie()
        } else {
            0
        }
    })
    .join()
    .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_listening_sockets_only() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
           0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
           1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
        assert_eq!(parse_listening(text).collect::<Vec<_>>(), [(8080, 4711)]);
    }

    #[test]
    fn reads_the_parent_behind_any_name() {
        assert_eq!(parse_parent("17 (a) b (c) S 4 17 17 0"), Some(4));
        assert_eq!(parse_parent("17 (x"), None);
    }

    #[test]
    fn finds_its_own_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = listening_ports(std::process::id()).unwrap();
        assert!(found.iter().any(|l| l.port == port), "{port} in {found:?}");
    }
}
