//! The command line, and what it means.
//!
//! Owns: every setting, its unit, its default and its check. Called by: main, tests. Must not: open anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use netmem_protocol::{FRAME_BODY_MAX, PAGE_SIZE, REGION_BYTES_MAX};
use nix::unistd::{SysconfVar, sysconf};
use tracing::level_filters::LevelFilter;

/// The port that clients try when they are not told one.
pub const PORT_DEFAULT: u16 = 7117;
/// Regions and directories at the most, unless told otherwise.
pub const REGIONS_DEFAULT: u64 = 1_000_000;
/// Connections at the most, unless told otherwise. Each has a thread.
pub const CONNECTIONS_DEFAULT: u64 = 1024;
/// The smallest `--max-frame`: 16 pages with their front fit, and the longest name.
pub const FRAME_BODY_LEAST: u32 = 128 << 10;
/// How long holds and views of a client outlive its last connection.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long a connection may take over its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps pages for netmem clients.
#[derive(Clone, Debug, Parser)]
#[command(name = "netmem-server", version, about, long_about = None, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Something else than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// TCP port; 0 takes any that is free
    #[arg(long, value_name = "N", default_value_t = PORT_DEFAULT)]
    port: u16,
    /// Address to listen on; one that is not loopback needs --insecure
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// Listen on a Unix stream socket at this path, too
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// Do not listen on TCP
    #[arg(long, requires = "unix")]
    no_tcp: bool,
    /// Where pages are kept: a directory, which is made if it is not there, or "memory", which ends with the server
    #[arg(long, value_name = "DIR", default_value = "memory", value_parser = parse_store)]
    store: StoreKind,
    /// Bytes of pages in memory at the most; suffixes K, M, G, T [default: 3/4 of RAM]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_memory: Option<u64>,
    /// Bytes in the body of one frame from a client
    #[arg(long, value_name = "BYTES", value_parser = parse_frame, default_value_t = FRAME_BODY_MAX)]
    max_frame: u32,
    /// Bytes in a region at the most; suffixes K, M, G, T
    #[arg(long, value_name = "SIZE", value_parser = parse_region, default_value = "16T")]
    max_region: u64,
    /// Regions and directories at the most
    #[arg(long, value_name = "N", default_value_t = REGIONS_DEFAULT)]
    max_regions: u64,
    /// Connections at the most; each has a thread
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_DEFAULT)]
    max_connections: u64,
    /// Epochs of a region before its newest that can be read, as REGION@EPOCH; snapshots are kept besides
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_epochs: u8,
    /// Allow a --bind address that other machines reach: there is no authentication and no encryption
    #[arg(long)]
    insecure: bool,
    /// What goes to standard error
    #[arg(long, value_enum, default_value_t = Level::Info)]
    log: Level,
}

/// What a server does besides serving.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Check a store that no server uses: the index, and every page's checksum
    ///
    /// What a crash left half-way is mended, as the next start would. Exit status: 0 all is as it was written, 1 something is not, or
    /// the store can't be opened.
    Check {
        /// The directory that --store names
        directory: PathBuf,
    },
}

/// Where pages are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In the server's memory: gone when it ends.
    Memory,
    /// In files of a directory.
    Directory(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
}

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of pages.
    pub memory_bytes: u64,
    /// Bytes in the body of one frame from a client.
    pub frame_body: u32,
    /// Bytes in a region.
    pub region_bytes: u64,
    /// Regions and directories.
    pub regions: u64,
    /// Connections.
    pub connections: u64,
    /// Epochs of a region before its newest that stay readable.
    pub keep_epochs: usize,
}

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen on TCP.
    pub tcp: Option<SocketAddr>,
    /// Where to listen on a Unix socket.
    pub unix: Option<PathBuf>,
    /// Where it keeps pages.
    pub store: StoreKind,
    /// What it allows.
    pub limits: Limits,
    /// How long holds and views of a client outlive its last connection.
    pub lease: Duration,
    /// How long a connection may take over its hello.
    pub hello_timeout: Duration,
    /// What goes to standard error.
    pub log: LevelFilter,
}

impl Arguments {
    /// Checks the arguments against each other. The error is a line for the user.
    pub fn into_config(self) -> Result<Config, String> {
        if !self.no_tcp && !self.bind.is_loopback() && !self.insecure {
            return Err(format!(
                "--bind {} is not a loopback address, and there is no authentication and no encryption: anyone who \
                 reaches the port reads and writes everything. Bind to 127.0.0.1, or say --insecure if that is what you want",
                self.bind
            ));
        }
        Ok(Config {
            tcp: (!self.no_tcp).then_some(SocketAddr::new(self.bind, self.port)),
            unix: self.unix,
            store: self.store,
            limits: Limits {
                memory_bytes: self.max_memory.unwrap_or_else(default_memory),
                frame_body: self.max_frame,
                region_bytes: self.max_region,
                regions: self.max_regions,
                connections: self.max_connections,
                keep_epochs: usize::from(self.keep_epochs),
            },
            lease: LEASE,
            hello_timeout: HELLO_TIMEOUT,
            log: match self.log {
                Level::Off => LevelFilter::OFF,
                Level::Error => LevelFilter::ERROR,
                Level::Warn => LevelFilter::WARN,
                Level::Info => LevelFilter::INFO,
                Level::Debug => LevelFilter::DEBUG,
            },
        })
    }
}

/// Bytes from a number with an optional suffix K, M, G or T (powers of 1024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "a number of bytes, or one with K, M, G or T".to_owned())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(|| "more bytes than 64 bits count".to_owned())?;
    if bytes < PAGE_SIZE as u64 {
        return Err(format!("less than a page ({PAGE_SIZE} bytes)"));
    }
    Ok(bytes)
}

fn parse_store(text: &str) -> Result<StoreKind, String> {
    match text {
        "" => Err("a directory, or \"memory\"".to_owned()),
        "memory" => Ok(StoreKind::Memory),
        path => Ok(StoreKind::Directory(path.into())),
    }
}

fn parse_region(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes > REGION_BYTES_MAX {
        return Err(format!("more than the protocol can number ({REGION_BYTES_MAX} bytes, 16T)"));
    }
    Ok(bytes)
}

fn parse_frame(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    match u32::try_from(bytes) {
        Ok(bytes) if (FRAME_BODY_LEAST..=FRAME_BODY_MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("from {FRAME_BODY_LEAST} to {FRAME_BODY_MAX} bytes")),
    }
}

/// Three quarters of RAM, or of what the container may use if that is less.
fn default_memory() -> u64 {
    let value = |what| sysconf(what).ok().flatten().and_then(|n| u64::try_from(n).ok());
    let ram =
        value(SysconfVar::_PHYS_PAGES).unwrap_or(1 << 18) * value(SysconfVar::PAGE_SIZE).unwrap_or(4096);
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    ram.min(group) / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, String> {
        let arguments = ["netmem-server"].iter().chain(arguments);
        Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?.into_config()
    }

    #[test]
    fn sizes_take_suffixes_and_nothing_else() {
        for (text, bytes) in
            [("4096", 4096), ("64K", 65536), ("3m", 3 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5G", "12X", "4095", "99999999999T", "ü"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_that_others_reach_needs_insecure() {
        let refused = config(&["--bind", "0.0.0.0"]).err().unwrap_or_default();
        assert!(refused.contains("no authentication") && refused.contains("--insecure"), "{refused}");
        assert!(config(&["--bind", "::"]).is_err());
        assert!(config(&["--bind", "0.0.0.0", "--insecure"]).is_ok());
        assert!(config(&["--bind", "127.0.0.2"]).is_ok());
        assert!(config(&["--bind", "::1"]).is_ok());
        assert!(config(&["--bind", "0.0.0.0", "--no-tcp", "--unix", "/tmp/s"]).is_ok());
    }

    #[test]
    fn limits_out_of_range_are_refused_and_defaults_are_in_range() {
        for arguments in [
            ["--max-frame", "4096"],
            ["--max-frame", "2M"],
            ["--max-region", "17T"],
            ["--max-memory", "1"],
            ["--port", "70000"],
            ["--store", ""],
        ] {
            assert!(config(&arguments).is_err(), "{arguments:?}");
        }
        assert!(config(&["--no-tcp"]).is_err());
        let limits = config(&[]).map(|config| config.limits);
        assert!(
            limits
                .is_ok_and(|limits| limits.memory_bytes > 1 << 20 && limits.region_bytes == REGION_BYTES_MAX)
        );
    }
}
