//! The settings of the library, as options of `netmem run`.
//!
//! Owns: one option for every `NETMEM_*` variable, and its check. Called by: `run.rs`. Must not: set what the user has
//! not: defaults are the library's.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::args::parse_bytes;
use crate::link::ServerAddress;

/// Each option sets the variable of the same name; what is not given stays as it is in the environment.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings (each sets the NETMEM_ variable of the same name)")]
pub struct Settings {
    /// The server, tcp://host:port or unix:/path [default: a private one for the command's life]
    #[arg(long, value_name = "ADDRESS")]
    pub server: Option<ServerAddress>,
    /// Paths below it are regions [default: /netmem/]
    #[arg(long, value_name = "PATH", value_parser = parse_prefix)]
    pub prefix: Option<String>,
    /// Further absolute globs whose files are regions, colon-separated
    #[arg(long, value_name = "GLOBS")]
    pub paths: Option<String>,
    /// The tmpfs directory of the page caches [default: /dev/shm/netmem-UID]
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
    /// How faults are caught; `netmem doctor` says what works here [default: auto]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "uffd", "uffd-user", "uffd-sigbus", "sigsegv"]))]
    pub engine: Option<String>,
    /// Kernel features to do without, for tests: wp-async,pagemap-scan,guard,poison
    #[arg(long, value_name = "FEATURES")]
    pub mask: Option<String>,
    /// Budget of the program's memory: --memory-bytes and --cache-bytes in one, with a summary at the end; suffixes K, M, G
    #[arg(long, value_name = "SIZE", value_parser = parse_size_text, conflicts_with_all = ["cache_bytes", "memory_bytes"])]
    pub memory: Option<String>,
    /// Budget of the host's page cache; suffixes K, M, G; auto: half of what is free [default: auto]
    #[arg(long, value_name = "SIZE", value_parser = parse_auto_bytes)]
    pub cache_bytes: Option<String>,
    /// Budget of the program's anonymous memory, the rest is far; suffixes K, M, G; 0: off [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = parse_size_text)]
    pub memory_bytes: Option<String>,
    /// What fails when neither that budget nor the server has room: the first touch of new memory, or allocation [default: sigbus]
    #[arg(long, value_parser = PossibleValuesParser::new(["sigbus", "enomem"]))]
    pub memory_full: Option<String>,
    /// How long a load or sync waits for the server, in milliseconds; 0: for ever [default: 30000]
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Pages to fetch ahead: auto, off, or a count up to 256 [default: auto]
    #[arg(long, value_name = "PAGES", value_parser = parse_prefetch)]
    pub prefetch: Option<String>,
    /// Whether pages are compressed on the wire; measured: where it was measured to pay; auto: the same, and never to a server on
    /// this machine [default: auto]
    #[arg(long, value_parser = PossibleValuesParser::new(["auto", "measured", "on", "off"]))]
    pub compress: Option<String>,
    /// What the library writes to standard error [default: warn]
    #[arg(long, value_parser = PossibleValuesParser::new(["off", "error", "warn", "info", "debug"]))]
    pub log: Option<String>,
    /// A path, or - for standard error: counters and latencies, written at exit; with ,sites behind it also where the
    /// program waited, for `netmem sites`
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    pub stats: Option<PathBuf>,
    /// Stores can be held for commits of one instant (NETMEM_SNAPSHOT in netmem.h); each page's first store between commits costs more
    #[arg(long)]
    pub snapshot: bool,
    /// The library does nothing at all
    #[arg(long)]
    pub disable: bool,
}

impl Settings {
    /// Whether the command's memory has a budget.
    pub fn has_memory_budget(&self) -> bool {
        self.memory.is_some() || self.memory_bytes.is_some()
    }

    /// Puts the options that were given into the command's environment.
    pub fn apply(&self, command: &mut Command) {
        let mut set = |name: &str, value: Option<std::ffi::OsString>| {
            if let Some(value) = value {
                command.env(name, value);
            }
        };
        set("NETMEM_SERVER", self.server.as_ref().map(|server| server.to_string().into()));
        set("NETMEM_PREFIX", self.prefix.as_ref().map(Into::into));
        set("NETMEM_PATHS", self.paths.as_ref().map(Into::into));
        // The library wants absolute paths: the program may change its directory.
        set(
            "NETMEM_DIR",
            self.dir.as_ref().map(|dir| std::path::absolute(dir).unwrap_or(dir.clone()).into()),
        );
        set("NETMEM_ENGINE", self.engine.as_ref().map(Into::into));
        set("NETMEM_MASK", self.mask.as_ref().map(Into::into));
        set("NETMEM_CACHE_BYTES", self.cache_bytes.as_ref().or(self.memory.as_ref()).map(Into::into));
        set("NETMEM_MEMORY_BYTES", self.memory_bytes.as_ref().or(self.memory.as_ref()).map(Into::into));
        set("NETMEM_MEMORY_FULL", self.memory_full.as_ref().map(Into::into));
        set("NETMEM_TIMEOUT_MS", self.timeout_ms.map(|ms| ms.to_string().into()));
        set("NETMEM_PREFETCH", self.prefetch.as_ref().map(Into::into));
        set("NETMEM_COMPRESS", self.compress.as_ref().map(Into::into));
        set("NETMEM_LOG", self.log.as_ref().map(Into::into));
        set(
            "NETMEM_STATS",
            self.stats.as_ref().map(|path| match path.to_str() {
                Some("-") => "-".into(),
                _ => std::path::absolute(path).unwrap_or(path.clone()).into(),
            }),
        );
        set("NETMEM_SNAPSHOT", self.snapshot.then(|| "1".into()));
        set("NETMEM_DISABLE", self.disable.then(|| "1".into()));
    }
}

fn parse_prefix(text: &str) -> Result<String, String> {
    if text.starts_with('/') && !text.trim_end_matches('/').is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no prefix; write an absolute path other than /"))
}

fn parse_auto_bytes(text: &str) -> Result<String, String> {
    if text == "auto" { Ok(text.to_owned()) } else { parse_size_text(text) }
}

/// Checked here, handed on in bytes: the suffixes are then the command line's business alone.
fn parse_size_text(text: &str) -> Result<String, String> {
    parse_bytes(text).map(|bytes| bytes.to_string())
}

fn parse_prefetch(text: &str) -> Result<String, String> {
    let pages = text.parse::<u32>().is_ok_and(|pages| (1..=256).contains(&pages));
    if pages || text == "auto" || text == "off" {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no prefetch; write auto, off, or 1 to 256 pages"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Test {
        #[command(flatten)]
        settings: Settings,
    }

    fn environment(arguments: &[&str]) -> Vec<(String, String)> {
        let test = Test::try_parse_from([&["test"], arguments].concat()).unwrap_or_else(|e| panic!("{e}"));
        let mut command = Command::new("true");
        test.settings.apply(&mut command);
        let text = |value: &std::ffi::OsStr| value.to_str().unwrap().to_owned();
        command.get_envs().map(|(name, value)| (text(name), text(value.unwrap()))).collect()
    }

    #[test]
    fn every_option_sets_the_variable_of_its_name() {
        let of_one = |id: &clap::Id| id != "help" && id != "memory";
        for argument in Test::command().get_arguments().filter(|argument| of_one(argument.get_id())) {
            let option = argument.get_long().unwrap();
            let variable = format!("NETMEM_{}", option.to_uppercase().replace('-', "_"));
            let value = match option {
                "server" => "unix:/s",
                "engine" => "uffd",
                "log" => "info",
                "compress" => "off",
                "memory-full" => "enomem",
                "disable" | "snapshot" => "",
                "prefix" | "dir" | "stats" | "paths" => "/p",
                _ => "64",
            };
            let written = format!("--{option}{}{value}", if value.is_empty() { "" } else { "=" });
            let expected = if value.is_empty() { "1" } else { value };
            assert_eq!(environment(&[&written]), [(variable, expected.to_owned())], "{option}");
        }
    }

    #[test]
    fn memory_is_both_budgets_in_one() {
        let both = ["NETMEM_CACHE_BYTES", "NETMEM_MEMORY_BYTES"]
            .map(|name| (name.to_owned(), "67108864".to_owned()));
        assert_eq!(environment(&["--memory=64M"]), both);
    }

    #[test]
    fn what_is_not_given_is_not_set() {
        assert_eq!(environment(&[]), []);
        assert_eq!(
            environment(&["--cache-bytes", "64M"]),
            [("NETMEM_CACHE_BYTES".into(), "67108864".into())]
        );
    }

    #[test]
    fn a_bad_value_is_a_usage_error() {
        for bad in [
            "--engine=fast",
            "--cache-bytes=much",
            "--prefix=x",
            "--prefix=/",
            "--prefetch=1000",
            "--server=x",
        ] {
            assert!(Test::try_parse_from(["test", bad]).is_err(), "{bad}");
        }
    }
}
