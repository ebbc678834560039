//! What people type and read: region names, sizes, times, the options that every command has.
//!
//! Owns: the two directions of that. Called by: every subcommand. Must not: talk to a server, except to connect as
//! the common options say.

use std::io::{self, ErrorKind};
use std::time::Duration;

use clap::Args;
use netmem_protocol::{ErrorCode, REGION_BYTES_MAX, RegionName};

use crate::client::{Client, Identity, Timeouts};
use crate::error::{ClientError, Failure, describe_io};
use crate::link::{SERVER_DEFAULT, ServerAddress};

/// The server to talk to, and for how long.
#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// The server: tcp://host:port or unix:/path
    #[arg(long, env = "NETMEM_SERVER", default_value = SERVER_DEFAULT, value_name = "ADDRESS")]
    pub server: ServerAddress,
    /// How long to wait for an answer, in milliseconds; 0: for ever
    #[arg(long, env = "NETMEM_TIMEOUT_MS", default_value_t = 30_000, value_name = "MS")]
    pub timeout_ms: u64,
}

impl ServerOptions {
    /// Connects.
    pub fn connect(&self) -> Result<Client, ClientError> {
        // "For ever" is a year, so that the deadline arithmetic needs no second case.
        let for_ever = Duration::from_secs(365 * 24 * 3600);
        let answer = if self.timeout_ms == 0 {
            for_ever
        } else {
            Duration::from_millis(self.timeout_ms).min(for_ever)
        };
        let timeouts = Timeouts { connect: Timeouts::default().connect.min(answer), answer };
        let identity = Identity::random().map_err(|e| {
            ClientError::Request(format!("/dev/urandom: {e}; netmem needs it for its identity"))
        })?;
        Client::connect_as(&self.server, identity, timeouts)
    }
}

/// The prefix below which paths are regions, `NETMEM_PREFIX` or `/netmem/`, with a slash at its end.
pub fn prefix() -> String {
    let mut prefix =
        std::env::var("NETMEM_PREFIX").ok().filter(|p| p.starts_with('/')).unwrap_or("/netmem/".into());
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    prefix
}

/// The name of a region or directory: `a/b`, `/a/b` and `/netmem/a/b` are one.
pub fn region_name(text: &str) -> Result<String, Failure> {
    let name = strip(text, &prefix());
    match RegionName::parse(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(ErrorCode::NameTooLong) => Err(Failure::new(
            text,
            "the name is too long",
            "255 bytes a component and 1,024 in all are allowed",
        )),
        Err(_) => Err(Failure::new(
            text,
            "no region can have this name",
            "write a/b, /a/b or /netmem/a/b, without empty, . or .. components",
        )),
    }
}

/// The same, or the root directory (empty).
pub fn directory_name(text: &str) -> Result<String, Failure> {
    let name = strip(text, &prefix());
    if name.is_empty() { Ok(String::new()) } else { region_name(text) }
}

fn strip<'a>(text: &'a str, prefix: &str) -> &'a str {
    let name = match text.strip_prefix(prefix) {
        Some(rest) => rest,
        None if text == prefix.trim_end_matches('/') => "",
        None => text.strip_prefix('/').unwrap_or(text),
    };
    name.strip_suffix('/').unwrap_or(name)
}

/// Bytes, with an optional suffix K, M, G or T (powers of 1,024).
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let allowed =
        || format!("{text:?} is no size; write bytes with an optional suffix K, M, G or T, 512M for example");
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        Some((at, 't' | 'T')) => (&text[..at], 40),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(allowed());
    }
    let number: u64 = digits.parse().map_err(|_| allowed())?;
    number.checked_mul(1 << shift).ok_or_else(allowed)
}

/// Seconds between two looks at something: 0.1 to 3600.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text:?} is no interval; write seconds, 0.1 to 3600"))
}

/// A time that has passed: a number with s, m, h or d behind it.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => ("", 0),
    };
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.and_then(|number| number.checked_mul(unit));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is no age; write 90s, 15m, 12h or 7d"))
}

/// A region's size: bytes within what a region can have.
pub fn parse_region_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if bytes > REGION_BYTES_MAX {
        return Err(format!("{text} is over the {REGION_BYTES_MAX} bytes (16T) that a region can have"));
    }
    Ok(bytes)
}

/// `1.5 GiB`, for people.
pub fn human_bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "bytes");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

/// Nanoseconds since 1970 as `2026-01-31 13:59:01` UTC.
pub fn utc(nanoseconds: u64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Gregorian calendar in eras of 400 years that start on 1 March (H. Hinnant, chrono-compatible date algorithms).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Standard output could not be written. A reader that has gone (`netmem ls | head`) is not worth a line.
pub fn output_failed(error: io::Error) -> Failure {
    let mut failure =
        Failure::new("standard output", describe_io(&error), "free some space, or write elsewhere");
    if error.kind() == ErrorKind::BrokenPipe {
        failure.line.clear();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::{directory_name, human_bytes, parse_bytes, region_name, strip, utc};

    #[test]
    fn three_ways_to_write_a_name_are_one() {
        for text in ["a/b", "/a/b", "/netmem/a/b", "a/b/", "/netmem/a/b/"] {
            assert_eq!(region_name(text).unwrap(), "a/b", "{text}");
        }
        assert_eq!(strip("/far/a", "/far/"), "a");
        for text in ["", "/", "/netmem", "/netmem/"] {
            assert_eq!(directory_name(text).unwrap(), "", "{text}");
            assert!(region_name(text).is_err());
        }
    }

    #[test]
    fn a_bad_name_says_how_to_write_one() {
        for text in ["a//b", "../a", "a/./b", "//a"] {
            assert!(region_name(text).unwrap_err().line.contains("write a/b"), "{text}");
        }
        assert!(region_name(&"x".repeat(300)).unwrap_err().line.contains("too long"));
    }

    #[test]
    fn sizes_have_suffixes_and_limits() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65_536), ("3m", 3 << 20), ("2G", 2 << 30), ("1T", 1 << 40)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes));
        }
        for text in ["", "K", "-1", "+1", "1.5G", "1KB", "99999999999T", "1 G", "ü"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(7), "7 bytes");
    }

    #[test]
    fn times_are_calendar_times() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_767_225_599, "2025-12-31 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1_000_000_000), text);
        }
    }
}
