//! Which connections are taken at all. Decided right after accept: before TLS, and before a byte of
//! the client is read.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    counter_table::CounterTable,
    counters::network_of,
    gcra::{Answer, Rate},
    moment::Moment,
    sources,
};

/// Addresses whose new connections are counted at once: 1 MiB.
const ADDRESSES: usize = 1 << 16;
/// Of one list: more is likelier a wrong file.
const MOST_ENTRIES: usize = 1 << 20;

/// Replaced with the configuration; what its limit has counted goes on.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    blocked: Blocklist,
    limit: Option<Arc<ConnectionLimit>>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The list has this very address.
    BlockedAddress,
    /// The list has a network that it is in.
    BlockedNetwork,
    TooMany,
}

impl Refused {
    pub const ALL: [Self; 3] = [Self::BlockedAddress, Self::BlockedNetwork, Self::TooMany];

    /// As metrics and logs name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockedAddress => "blocklist_ip",
            Self::BlockedNetwork => "blocklist_cidr",
            Self::TooMany => "rate_limit",
        }
    }
}

impl ConnectionFilter {
    pub fn new(blocked: Blocklist, limit: Option<Arc<ConnectionLimit>>) -> Self {
        Self { blocked, limit }
    }

    /// A connection that is blocked is not counted against the limit.
    pub fn check(&self, source: IpAddr) -> Result<(), Refused> {
        if let Some(refused) = self.blocked.find(source) {
            return Err(refused);
        }
        match &self.limit {
            Some(limit) if !limit.admits(source, Moment::read().monotonic) => Err(Refused::TooMany),
            _ => Ok(()),
        }
    }

    /// Addresses that were forgotten for want of room, if there is a limit.
    pub fn evicted(&self) -> Option<u64> {
        self.limit.as_ref().map(|limit| limit.table.evicted())
    }
}

/// Addresses and networks of both families. A look costs a binary search, however long the list.
#[derive(Clone, Debug, Default)]
pub struct Blocklist {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// An entry that cannot be read; `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct UnreadableLine {
    pub line: usize,
    pub reason: String,
}

impl Blocklist {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match to_canonical(network) {
                IpNet::V4(n) => v4.push((n.network().to_bits(), n.broadcast().to_bits())),
                IpNet::V6(n) => v6.push((n.network().to_bits(), n.broadcast().to_bits())),
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }

    /// A dual-stack listener shows IPv4 clients as `::ffff:10.0.0.1`: they are the same.
    fn find(&self, source: IpAddr) -> Option<Refused> {
        let is_one = match source.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.to_bits()).map(|(a, b)| a == b),
            IpAddr::V6(address) => self.v6.find(address.to_bits()).map(|(a, b)| a == b),
        };
        is_one.map(|is_one| if is_one { Refused::BlockedAddress } else { Refused::BlockedNetwork })
    }
}

/// `10.0.0.0/8`, `fd00::/8`, `10.0.0.7`, `::ffff:10.0.0.7`.
pub fn parse_entry(text: &str) -> Result<IpNet, String> {
    sources::parse(text)
}

/// An entry a line. What follows `#` or `;` is a comment: lists are published with both.
pub fn parse_lines(text: &str) -> Result<Vec<IpNet>, UnreadableLine> {
    let mut networks = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let entry = line.split(['#', ';']).next().unwrap_or_default().trim();
        if entry.is_empty() {
            continue;
        }
        let unreadable = |reason| UnreadableLine { line: index + 1, reason };
        if networks.len() == MOST_ENTRIES {
            let reason = format!("is beyond the {MOST_ENTRIES} entries of the longest list");
            return Err(unreadable(format!("{reason}; write networks for addresses")));
        }
        networks.push(parse_entry(entry).map_err(unreadable)?);
    }
    Ok(networks)
}

/// `::ffff:10.0.0.0/104` is 10.0.0.0/8.
fn to_canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V4(_) => None,
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
    };
    let v4 = mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

/// First and last of each range, in order and apart from each other.
#[derive(Clone, Default)]
struct Ranges<T>(Box<[(T, T)]>);

/// A list may be long.
impl<T> fmt::Debug for Ranges<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ranges", self.0.len())
    }
}

impl<T: Ord + Copy> Ranges<T> {
    fn new(mut all: Vec<(T, T)>) -> Self {
        all.sort_unstable();
        let mut apart: Vec<(T, T)> = Vec::with_capacity(all.len());
        for (first, last) in all {
            match apart.last_mut() {
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => apart.push((first, last)),
            }
        }
        Self(apart.into())
    }

    fn find(&self, at: T) -> Option<(T, T)> {
        let after = self.0.partition_point(|(first, _)| *first <= at);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.copied().filter(|(_, last)| at <= *last)
    }
}

/// New connections a second of one address; of IPv6, of one /64, which is what one host has
/// (RFC 4291 section 2.5.4). Workers share it, and it outlives a reload.
#[derive(Debug)]
pub struct ConnectionLimit {
    rate: Rate,
    table: CounterTable<1>,
}

impl ConnectionLimit {
    pub fn new(rate: Rate) -> Self {
        Self { rate, table: CounterTable::new(ADDRESSES) }
    }

    fn admits(&self, source: IpAddr, now: u64) -> bool {
        let key = self.table.key(network_of(source));
        // Where there is no more room, the address goes that has waited longest: at best it is full
        // again, and then nothing is lost.
        let worth = |[at]: &[u64; 1]| at.saturating_sub(now);
        let [cell] = self.table.find_or_insert(key, worth, |_| ());
        matches!(self.rate.take(cell, now), Answer::Admitted { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn find(list: &Blocklist, address: &str) -> Option<&'static str> {
        list.find(address.parse().unwrap()).map(Refused::name)
    }

    #[test]
    fn addresses_and_networks_of_both_families_are_found() {
        let text = "# ours\n10.0.0.0/8\n\n192.0.2.7 ; SBL1\n10.1.0.0/16\n 2001:db8::/32\t# v6\n\
                    2001:db8:1::1\n::ffff:198.51.100.0/120\n203.0.113.9\r\n::1";
        let list = Blocklist::new(parse_lines(text).unwrap());
        for (address, reason) in [
            ("10.0.0.0", Some("blocklist_cidr")),
            ("10.255.255.255", Some("blocklist_cidr")),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("192.0.2.7", Some("blocklist_ip")),
            ("192.0.2.6", None),
            ("192.0.2.8", None),
            ("::ffff:192.0.2.7", Some("blocklist_ip")),
            ("::ffff:10.1.2.3", Some("blocklist_cidr")),
            ("198.51.100.77", Some("blocklist_cidr")),
            ("203.0.113.9", Some("blocklist_ip")),
            ("2001:db8:ffff::1", Some("blocklist_cidr")),
            ("2001:db9::", None),
            ("::1", Some("blocklist_ip")),
            ("::2", None),
            // Only mapped addresses are IPv4: this one is deprecated, and its own.
            ("::10.1.2.3", None),
        ] {
            assert_eq!(find(&list, address), reason, "{address}");
        }
        assert_eq!(find(&Blocklist::default(), "0.0.0.0"), None);
        let everything =
            Blocklist::new(["0.0.0.0/0", "255.255.255.255/32"].map(|t| t.parse().unwrap()));
        assert_eq!(find(&everything, "255.255.255.255"), Some("blocklist_cidr"));
        assert_eq!(find(&everything, "::1"), None);
    }

    #[test]
    fn any_list_finds_what_a_scan_of_it_finds() {
        // Networks within one /16, so that they nest and adjoin.
        let mut seed = 7_u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        for _ in 0..50 {
            let networks: Vec<IpNet> = (0..random() % 40)
                .map(|_| {
                    let address = std::net::Ipv4Addr::from_bits(10 << 24 | random() & 0xffff);
                    let prefix = u8::try_from(16 + random() % 17).unwrap();
                    IpNet::V4(Ipv4Net::new(address, prefix).unwrap())
                })
                .collect();
            let list = Blocklist::new(networks.clone());
            for _ in 0..500 {
                let address = IpAddr::from((10 << 24 | random() & 0x1_ffff).to_be_bytes());
                let is_listed = networks.iter().any(|network| network.contains(&address));
                assert_eq!(list.find(address).is_some(), is_listed, "{address} {networks:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line() {
        for text in ["10.0.0.1\n\n10.0.0.0/33", "#\n#\nexample.com # why", "1.1.1.1\n::1\n10.1"] {
            let error = parse_lines(text).unwrap_err();
            assert_eq!(error.line, 3);
            assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        }
    }

    #[test]
    fn each_address_has_so_many_connections_a_second() {
        let limit = ConnectionLimit::new(Rate::per_second(4000, 0));
        let admitted = |address: &str, now| {
            let address = address.parse().unwrap();
            (0..10).filter(|_| limit.admits(address, now)).count()
        };
        assert_eq!(admitted("192.0.2.1", 5 * SECOND), 4);
        assert_eq!(admitted("::ffff:192.0.2.1", 5 * SECOND), 0, "the same client");
        assert_eq!(admitted("192.0.2.2", 5 * SECOND), 4);
        assert_eq!(admitted("192.0.2.1", 6 * SECOND), 4);
        assert_eq!(admitted("2001:db8::1", 6 * SECOND), 4);
        assert_eq!(admitted("2001:db8::2", 6 * SECOND), 0, "the same /64");
        assert_eq!(admitted("2001:db8:0:1::1", 6 * SECOND), 4);
    }

    #[test]
    fn a_rate_may_be_slower_than_one_a_second() {
        let limit = ConnectionLimit::new(Rate::per_second(500, 0));
        let source = "192.0.2.1".parse().unwrap();
        let at = |seconds: u64| limit.admits(source, seconds * SECOND);
        assert_eq!([at(10), at(10), at(11), at(12), at(13)], [true, false, false, true, false]);
    }

    #[test]
    fn the_table_is_bounded_and_counts_what_it_forgets() {
        let filter = ConnectionFilter::new(
            Blocklist::default(),
            Some(Arc::new(ConnectionLimit::new(Rate::per_second(1000, 0)))),
        );
        assert_eq!(ConnectionFilter::default().evicted(), None);
        let limit = filter.limit.as_ref().unwrap();
        for address in 0..ADDRESSES as u32 * 2 {
            limit.admits(IpAddr::from(address.to_be_bytes()), SECOND);
        }
        assert!(filter.evicted().unwrap() >= ADDRESSES as u64);
        assert!(limit.table.used() <= ADDRESSES as u64);
    }

    #[test]
    fn a_blocked_connection_is_not_counted() {
        let limit = Arc::new(ConnectionLimit::new(Rate::per_second(1000, 0)));
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        let blocking = ConnectionFilter::new(Blocklist::new([source.into()]), Some(limit.clone()));
        for _ in 0..5 {
            assert_eq!(blocking.check(source), Err(Refused::BlockedAddress));
        }
        // The next configuration blocks it no more.
        let filter = ConnectionFilter::new(Blocklist::default(), Some(limit));
        assert_eq!(filter.check(source), Ok(()));
        assert_eq!(filter.check(source), Err(Refused::TooMany));
    }
}
