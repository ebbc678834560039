//! The settings: one table, read once from the environment, that can print itself.
//!
//! Owns: names, defaults and parsing of every `NETMEM_*` variable. Called by: boot, at the first use. Must not: change
//! after it was read, or keep references into the environment, which the program may rewrite.

use core::fmt;
use core::time::Duration;

use crate::sys::env;

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// `tcp://host:port`
    Tcp {
        /// A literal address, `localhost` or a name in /etc/hosts.
        host: String,
        /// 1 to 65535.
        port: u16,
    },
    /// `unix:/path`
    Unix(String),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerAddress::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            ServerAddress::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            ServerAddress::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl ServerAddress {
    /// Reads `tcp://host:port`, `tcp://[v6]:port` or `unix:/path`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return path.starts_with('/').then(|| ServerAddress::Unix(path.to_owned()));
        }
        let (host, port) = text.strip_prefix("tcp://")?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty()).then(|| ServerAddress::Tcp { host: host.to_owned(), port })
    }
}

/// Which engine to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best rung that works.
    Auto,
    /// userfaultfd with kernel faults.
    Uffd,
    /// userfaultfd with `UFFD_USER_MODE_ONLY`.
    UffdUser,
    /// The same, each fault served in the thread that takes it, by SIGBUS. Only if asked for.
    UffdSigbus,
    /// Guard pages or PROT_NONE, and SIGSEGV.
    Sigsegv,
}

/// How many pages to fetch ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Grows with a sequential pattern.
    Auto,
    /// Never.
    Off,
    /// Always this many pages, 1 to 256.
    Pages(u32),
}

/// Whether pages are compressed on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Where it was measured to pay, if the server is not on this machine.
    Auto,
    /// The same wherever it is: behind a tunnel it has an address of this machine.
    Measured,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How much is written to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what was decided.
    Info,
    /// And why each call was or was not intercepted.
    Debug,
}

/// Kernel features to do without, for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureMask {
    /// `wp-async`: no asynchronous write protection.
    pub wp_async: bool,
    /// `pagemap-scan`: no PAGEMAP_SCAN.
    pub pagemap_scan: bool,
    /// `guard`: no MADV_GUARD_INSTALL.
    pub guard: bool,
    /// `poison`: no UFFDIO_POISON.
    pub poison: bool,
}

/// What fails when neither a program's budget nor its server has room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The first touch of new memory, with SIGBUS.
    Sigbus,
    /// Allocation, with ENOMEM. What was allocated before goes beyond the budget.
    Enomem,
}

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// NETMEM_SERVER.
    pub server: ServerAddress,
    /// NETMEM_PREFIX, with a slash at its end.
    pub prefix: String,
    /// NETMEM_PATHS.
    pub paths: Vec<String>,
    /// NETMEM_DIR; None: /dev/shm/netmem-UID.
    pub dir: Option<String>,
    /// NETMEM_ENGINE.
    pub engine: EngineChoice,
    /// NETMEM_MASK.
    pub mask: FeatureMask,
    /// NETMEM_CACHE_BYTES; None: auto.
    pub cache_bytes: Option<u64>,
    /// NETMEM_MEMORY_BYTES; 0: off.
    pub memory_bytes: u64,
    /// NETMEM_MEMORY_FULL.
    pub memory_full: WhenFull,
    /// NETMEM_FAMILY: where `netmem run` has the processes counted that share a budget.
    pub family: Option<String>,
    /// NETMEM_TIMEOUT_MS; None: for ever.
    pub timeout: Option<Duration>,
    /// NETMEM_PREFETCH.
    pub prefetch: Prefetch,
    /// NETMEM_COMPRESS.
    pub compress: Compress,
    /// NETMEM_LOG.
    pub log: LogLevel,
    /// NETMEM_STATS.
    pub stats: Option<String>,
    /// `,sites` at its end: where the program waits, too.
    pub sites: bool,
    /// NETMEM_SNAPSHOT: stores can be held for commits of one instant.
    pub snapshot: bool,
    /// NETMEM_REGION: the region that NETMEM_FD stands for.
    pub region: Option<String>,
    /// NETMEM_DISABLE.
    pub disable: bool,
    /// Settings that could not be read: the name, the value, what is allowed.
    pub errors: Vec<(&'static str, String, &'static str)>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            server: ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: 7117 },
            prefix: "/netmem/".to_owned(),
            paths: Vec::new(),
            dir: None,
            engine: EngineChoice::Auto,
            mask: FeatureMask::default(),
            cache_bytes: None,
            memory_bytes: 0,
            memory_full: WhenFull::Sigbus,
            family: None,
            timeout: Some(Duration::from_millis(30_000)),
            prefetch: Prefetch::Auto,
            compress: Compress::Auto,
            log: LogLevel::Warn,
            stats: None,
            sites: false,
            snapshot: false,
            region: None,
            disable: false,
            errors: Vec::new(),
        }
    }
}

type Setter = fn(&mut Config, &str) -> bool;

/// Name, what is allowed, how it is read.
const TABLE: &[(&str, &str, Setter)] = &[
    ("NETMEM_SERVER", "tcp://host:port or unix:/path", |c, v| set(&mut c.server, ServerAddress::parse(v))),
    ("NETMEM_PREFIX", "an absolute path that is not /", |c, v| set(&mut c.prefix, parse_prefix(v))),
    ("NETMEM_PATHS", "absolute globs, colon-separated", |c, v| set(&mut c.paths, parse_globs(v))),
    ("NETMEM_DIR", "an absolute path on a tmpfs", |c, v| {
        set(&mut c.dir, v.starts_with('/').then(|| Some(v.trim_end_matches('/').to_owned())))
    }),
    ("NETMEM_ENGINE", "auto, uffd, uffd-user, uffd-sigbus or sigsegv", |c, v| {
        set(&mut c.engine, parse_engine(v))
    }),
    ("NETMEM_MASK", "a comma-separated list of wp-async, pagemap-scan, guard, poison", |c, v| {
        set(&mut c.mask, parse_mask(v))
    }),
    ("NETMEM_CACHE_BYTES", "auto, or bytes with an optional suffix K, M or G", |c, v| {
        set(&mut c.cache_bytes, if v == "auto" { Some(None) } else { parse_bytes(v).map(Some) })
    }),
    ("NETMEM_MEMORY_BYTES", "bytes with an optional suffix K, M or G", |c, v| {
        set(&mut c.memory_bytes, parse_bytes(v))
    }),
    ("NETMEM_FAMILY", "an absolute path", |c, v| {
        set(&mut c.family, v.starts_with('/').then(|| Some(v.to_owned())))
    }),
    ("NETMEM_MEMORY_FULL", "sigbus or enomem", |c, v| {
        let when = match v {
            "sigbus" => Some(WhenFull::Sigbus),
            "enomem" => Some(WhenFull::Enomem),
            _ => None,
        };
        set(&mut c.memory_full, when)
    }),
    ("NETMEM_TIMEOUT_MS", "milliseconds, 0 for ever", |c, v| {
        set(&mut c.timeout, v.parse().ok().map(|ms: u64| (ms != 0).then(|| Duration::from_millis(ms))))
    }),
    ("NETMEM_PREFETCH", "auto, off, or 1 to 256 pages", |c, v| set(&mut c.prefetch, parse_prefetch(v))),
    ("NETMEM_COMPRESS", "auto, measured, on or off", |c, v| set(&mut c.compress, parse_compress(v))),
    ("NETMEM_LOG", "off, error, warn, info or debug", |c, v| set(&mut c.log, parse_level(v))),
    ("NETMEM_STATS", "a path or -, and ,sites behind it", |c, v| {
        c.sites = v.ends_with(",sites");
        let path = v.strip_suffix(",sites").unwrap_or(v);
        set(&mut c.stats, (!path.is_empty()).then(|| Some(path.to_owned())))
    }),
    ("NETMEM_REGION", "a region's name", |c, v| {
        let name = v.strip_prefix(c.prefix.as_str()).unwrap_or(v).trim_start_matches('/');
        let name = netmem_protocol::RegionName::parse(name).ok().map(|name| Some(name.as_str().to_owned()));
        set(&mut c.region, name)
    }),
    ("NETMEM_SNAPSHOT", "0 or 1", |c, v| set(&mut c.snapshot, parse_bool(v))),
    ("NETMEM_DISABLE", "0 or 1", |c, v| set(&mut c.disable, parse_bool(v))),
];

fn set<T>(field: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *field = value;
            true
        }
        None => false,
    }
}

fn parse_prefix(v: &str) -> Option<String> {
    let trimmed = v.trim_end_matches('/');
    let good = trimmed.len() > 1 && trimmed.starts_with('/') && !trimmed.contains("//");
    let good = good && trimmed.split('/').all(|part| part != "." && part != "..");
    good.then(|| format!("{trimmed}/"))
}

fn parse_globs(v: &str) -> Option<Vec<String>> {
    let globs: Vec<String> = v.split(':').filter(|glob| !glob.is_empty()).map(str::to_owned).collect();
    globs.iter().all(|glob| glob.starts_with('/')).then_some(globs)
}

fn parse_engine(v: &str) -> Option<EngineChoice> {
    Some(match v {
        "auto" => EngineChoice::Auto,
        "uffd" => EngineChoice::Uffd,
        "uffd-user" => EngineChoice::UffdUser,
        "uffd-sigbus" => EngineChoice::UffdSigbus,
        "sigsegv" => EngineChoice::Sigsegv,
        _ => return None,
    })
}

fn parse_mask(v: &str) -> Option<FeatureMask> {
    let mut mask = FeatureMask::default();
    for feature in v.split(',').filter(|feature| !feature.is_empty()) {
        match feature {
            "wp-async" => mask.wp_async = true,
            "pagemap-scan" => mask.pagemap_scan = true,
            "guard" => mask.guard = true,
            "poison" => mask.poison = true,
            _ => return None,
        }
    }
    Some(mask)
}

fn parse_bytes(v: &str) -> Option<u64> {
    let (number, shift) = match v.as_bytes().last()? {
        b'K' | b'k' => (&v[..v.len() - 1], 10),
        b'M' | b'm' => (&v[..v.len() - 1], 20),
        b'G' | b'g' => (&v[..v.len() - 1], 30),
        b'T' | b't' => (&v[..v.len() - 1], 40),
        _ => (v, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn parse_prefetch(v: &str) -> Option<Prefetch> {
    match v {
        "auto" => Some(Prefetch::Auto),
        "off" | "0" => Some(Prefetch::Off),
        _ => v.parse().ok().filter(|pages| (1..=256).contains(pages)).map(Prefetch::Pages),
    }
}

fn parse_compress(v: &str) -> Option<Compress> {
    Some(match v {
        "auto" => Compress::Auto,
        "measured" => Compress::Measured,
        "on" => Compress::On,
        "off" => Compress::Off,
        _ => return None,
    })
}

fn parse_level(v: &str) -> Option<LogLevel> {
    Some(match v {
        "off" => LogLevel::Off,
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        _ => return None,
    })
}

fn parse_bool(v: &str) -> Option<bool> {
    match v {
        "" | "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

impl Config {
    /// Reads the environment. A value that can't be read is kept in `errors` and its default stays.
    pub fn from_environment() -> Config {
        Config::from_lookup(env::get)
    }

    /// The same from any source of values.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Config {
        let mut config = Config::default();
        for (name, allowed, setter) in TABLE {
            if let Some(value) = lookup(name)
                && !setter(&mut config, &value)
            {
                config.errors.push((name, value, allowed));
            }
        }
        config
    }

    /// The prefix without the slash at its end.
    pub fn prefix_directory(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, EngineChoice, Prefetch, ServerAddress, parse_bytes};

    fn read(pairs: &[(&str, &str)]) -> Config {
        Config::from_lookup(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn settings_are_read_and_bad_ones_are_named_and_keep_their_default() {
        let good = read(&[
            ("NETMEM_SERVER", "tcp://[::1]:99"),
            ("NETMEM_ENGINE", "sigsegv"),
            ("NETMEM_MASK", "guard,poison"),
            ("NETMEM_TIMEOUT_MS", "0"),
            ("NETMEM_PREFETCH", "17"),
            ("NETMEM_PREFIX", "/far"),
        ]);
        assert_eq!(good.server, ServerAddress::Tcp { host: "::1".into(), port: 99 });
        assert_eq!(good.server.to_string(), "tcp://[::1]:99");
        assert_eq!(
            (good.engine, good.timeout, good.prefetch),
            (EngineChoice::Sigsegv, None, Prefetch::Pages(17))
        );
        assert!(good.mask.guard && good.mask.poison && !good.mask.wp_async);
        assert_eq!((good.prefix.as_str(), good.prefix_directory()), ("/far/", "/far"));
        assert!(good.errors.is_empty());
        for (name, value) in [
            ("NETMEM_SERVER", "127.0.0.1:7117"),
            ("NETMEM_SERVER", "tcp://h:0"),
            ("NETMEM_SERVER", "unix:relative"),
            ("NETMEM_PREFIX", "/"),
            ("NETMEM_ENGINE", "fast"),
            ("NETMEM_MASK", "guards"),
            ("NETMEM_CACHE_BYTES", "12Q"),
            ("NETMEM_TIMEOUT_MS", "-1"),
            ("NETMEM_PREFETCH", "257"),
            ("NETMEM_COMPRESS", "lz4"),
            ("NETMEM_REGION", "a/../b"),
            ("NETMEM_DISABLE", "yes"),
        ] {
            let bad = read(&[(name, value)]);
            assert_eq!(bad.errors.len(), 1, "{name}={value}");
            assert_eq!((bad.errors[0].0, bad.errors[0].1.as_str()), (name, value));
        }
        assert_eq!((parse_bytes("3G"), parse_bytes("18446744073709551615K")), (Some(3 << 30), None));
    }
}
