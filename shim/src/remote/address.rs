//! From the server's address to places to connect to.
//!
//! Owns: the reading of /etc/hosts. Called by: the pool, for each new connection. Must not: ask libc's resolver, which
//! allocates from the program's heap and reads files through names that we hook.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use super::error::Why;
use crate::config::ServerAddress;
use crate::sys::net::{Endpoint, read_file};

/// Where names are looked up.
const HOSTS_PATH: &str = "/etc/hosts";
/// Bytes of that file that are read.
const HOSTS_BYTES_MAX: usize = 64 << 10;

/// Every place to try, in order; at least one.
pub(super) fn resolve(address: &ServerAddress) -> Result<Vec<Endpoint>, Why> {
    match address {
        ServerAddress::Unix(path) => match Endpoint::unix(path) {
            Ok(endpoint) => Ok(vec![endpoint]),
            Err(errno) => Err(Why::Os(errno.raw_os_error())),
        },
        ServerAddress::Tcp { host, port } => {
            let found = match host.parse::<IpAddr>() {
                Ok(address) => vec![address],
                Err(_) if host.eq_ignore_ascii_case("localhost") => {
                    vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                }
                Err(_) => {
                    let hosts = read_file(HOSTS_PATH, HOSTS_BYTES_MAX).unwrap_or_default();
                    in_hosts(&String::from_utf8_lossy(&hosts), host)
                }
            };
            if found.is_empty() {
                return Err(Why::NoAddress);
            }
            Ok(found.into_iter().map(|address| tcp(address, *port)).collect())
        }
    }
}

fn tcp(address: IpAddr, port: u16) -> Endpoint {
    match address {
        IpAddr::V4(address) => Endpoint::V4(SocketAddrV4::new(address, port)),
        IpAddr::V6(address) => Endpoint::V6(SocketAddrV6::new(address, port, 0, 0)),
    }
}

/// The addresses that a hosts file gives a name.
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in hosts.lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_gives_all_addresses_of_a_name_and_skips_comments() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.9 pages\n10.0.0.1\tpages.example pages # first\nfe80::1%eth0 pages\n::2 PAGES\n";
        let found: Vec<String> = in_hosts(hosts, "pages").iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "::2"]);
        assert!(in_hosts(hosts, "page").is_empty());
    }

    #[test]
    fn a_name_that_nobody_knows_says_to_write_an_address() {
        let address = ServerAddress::Tcp { host: "no-such-host.invalid".to_owned(), port: 1 };
        let why = resolve(&address).expect_err("resolved");
        assert!(why.to_string().contains("write its address"), "{why}");
    }
}
