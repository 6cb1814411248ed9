//! Listed source addresses, which alone are believed what they say of a client.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

/// Networks in CIDR notation, or single addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<IpNet>);

impl Sources {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A dual-stack listener shows IPv4 clients as `::ffff:10.0.0.1`: they are the same.
    pub fn contains(&self, source: SocketAddr) -> bool {
        let address = source.ip().to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| parse(text))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(de::Error::custom)
    }
}

pub(crate) fn parse(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| {
        format!("`{text}` is not a network; write for example 10.0.0.0/8, fd00::/8 or 10.0.0.7")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(json: &str) -> Sources {
        serde_json::from_str(json).unwrap()
    }

    fn contains(list: &Sources, address: &str) -> bool {
        list.contains(SocketAddr::new(address.parse().unwrap(), 4711))
    }

    #[test]
    fn addresses_and_networks_of_both_families() {
        let list = sources(r#"["10.0.0.0/8", "192.168.1.7", "fd00::/8"]"#);
        for inside in ["10.255.0.1", "::ffff:10.1.2.3", "192.168.1.7", "fd12::1"] {
            assert!(contains(&list, inside), "{inside}");
        }
        for outside in ["11.0.0.1", "192.168.1.8", "fe80::1", "::ffff:11.0.0.1", "::10.1.2.3"] {
            assert!(!contains(&list, outside), "{outside}");
        }
        assert!(!contains(&Sources::default(), "127.0.0.1"));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["10.0.0.0/33", "10.0.0", "localhost", ""] {
            let error = serde_json::from_value::<Sources>(serde_json::json!([text])).unwrap_err();
            assert!(error.to_string().contains("10.0.0.0/8"), "{error}");
        }
    }
}
