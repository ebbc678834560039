//! `netmem doctor`: what this machine allows, in lines, and the engine that follows from it.
//!
//! Owns: the report, its wording, its JSON. Called by: `main.rs`. Must not: change anything on the machine, or fail
//! because something is missing: what is missing is the report.

use std::io::{self, Write};

use clap::Args;
use nix::errno::Errno;
use serde::Serialize;
use serde_json::json;

use crate::args::{ServerOptions, human_bytes, output_failed};
use crate::error::{Failure, printable};
use crate::facts::{CacheDirectory, Facts};
use crate::probe::UffdFeatures;
use crate::run::find_library;

/// `netmem doctor`
#[derive(Args, Debug)]
pub struct Doctor {
    /// The same as one JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
}

/// The rungs of the ladder of engines, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// userfaultfd that reports the kernel's faults too.
    Uffd,
    /// userfaultfd for faults of the program alone.
    UffdUser,
    /// Guard pages and SIGSEGV.
    SigsegvGuard,
    /// PROT_NONE and SIGSEGV.
    SigsegvMprotect,
}

impl Rung {
    /// What the library calls it, in its log and in `netmem_engine()`.
    pub const fn name(self) -> &'static str {
        match self {
            Rung::Uffd => "uffd",
            Rung::UffdUser => "uffd-user",
            Rung::SigsegvGuard => "sigsegv-guard",
            Rung::SigsegvMprotect => "sigsegv-mprotect",
        }
    }
}

/// What the library's uffd rungs can't do without, in page caches, which are shared files: faults of missing pages (4.11),
/// and write protection (5.19), since a store that nobody hears of would be lost. `the_engine_that_is_taken_is_the_one_that_doctor_names`
/// in tests/tests/ladder.rs holds the two judgements together.
const NEEDED: [&str; 3] = ["MISSING_SHMEM", "PAGEFAULT_FLAG_WP", "WP_HUGETLBFS_SHMEM"];

fn usable(uffd: &Result<UffdFeatures, Errno>) -> bool {
    uffd.as_ref().is_ok_and(|features| NEEDED.iter().all(|name| features.has(name)))
}

/// The best rung these facts allow.
pub fn rung(facts: &Facts) -> Rung {
    if usable(&facts.uffd_device) || usable(&facts.uffd_kernel) {
        Rung::Uffd
    } else if usable(&facts.uffd_user) {
        Rung::UffdUser
    } else if facts.guard_shared.is_ok() {
        Rung::SigsegvGuard
    } else {
        Rung::SigsegvMprotect
    }
}

/// One line with the command that gives a better engine; None on the best rung.
pub fn advice(facts: &Facts) -> Option<String> {
    let rung = rung(facts);
    if rung == Rung::Uffd {
        return None;
    }
    let opened = [&facts.uffd_device, &facts.uffd_kernel, &facts.uffd_user];
    if opened.iter().any(|uffd| uffd.is_ok()) && !opened.iter().any(|uffd| usable(uffd)) {
        return Some(
            "for engine uffd: use Linux 5.19 or newer (write protection of shared memory)".to_owned(),
        );
    }
    let container = !facts.containers.is_empty();
    let uid = facts.uid;
    Some(match facts.uffd_device {
        Err(Errno::EACCES) => {
            format!("for engine uffd: sudo setfacl -m u:{uid}:rw /dev/userfaultfd   (or sudo chmod a+rw, for everybody)")
        }
        Err(Errno::EPERM) if container => {
            "for engine uffd: start the container with --device /dev/userfaultfd".to_owned()
        }
        Err(Errno::ENOENT) if container => {
            "for engine uffd: start the container with --device /dev/userfaultfd (Linux 6.1 or newer on the host)"
                .to_owned()
        }
        Err(_) if facts.uffd_user == Err(Errno::ENOSYS) => {
            "for engine uffd: boot a kernel with CONFIG_USERFAULTFD=y (every current distribution's has it)".to_owned()
        }
        Err(_) if facts.seccomp == Some(2) && facts.uffd_user.is_err() => {
            "for engine uffd: let the seccomp filter pass userfaultfd (systemd: SystemCallFilter=userfaultfd), \
             or give this user /dev/userfaultfd"
                .to_owned()
        }
        Err(_) | Ok(_) => "for engine uffd: sudo sysctl -w vm.unprivileged_userfaultfd=1".to_owned(),
    })
}

fn answer(result: &Result<(), Errno>) -> String {
    match result {
        Ok(()) => "works".to_owned(),
        Err(errno) => format!("no: {}", errno_text(*errno)),
    }
}

fn errno_text(errno: Errno) -> String {
    format!("{errno:?}, {}", errno.desc().to_lowercase())
}

fn uffd_answer(result: &Result<UffdFeatures, Errno>) -> String {
    answer(&result.map(drop))
}

fn or_unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or("unknown".to_owned(), |value| value.to_string())
}

type Lines = Vec<(&'static str, String)>;

/// The rows about the kernel and its permissions.
fn kernel_lines(facts: &Facts) -> Lines {
    let best = [&facts.uffd_device, &facts.uffd_kernel, &facts.uffd_user];
    let features = best.into_iter().find_map(|uffd| uffd.as_ref().ok());
    let wanted =
        ["MISSING_SHMEM", "WP_HUGETLBFS_SHMEM", "WP_UNPOPULATED", "WP_ASYNC", "POISON", "SIGBUS", "MOVE"];
    let missing: Vec<&str> =
        features.map(|has| wanted.into_iter().filter(|name| !has.has(name)).collect()).unwrap_or_default();
    let device = match (&facts.device_mode, &facts.uffd_device) {
        (Some(mode), Ok(_)) => format!("works ({mode})"),
        (Some(mode), Err(errno)) => format!("no: {} ({mode})", errno_text(*errno)),
        (None, _) => "no such device (Linux 6.1 has it)".to_owned(),
    };
    let scan = match &facts.pagemap_scan {
        Err(Errno::ENOTTY) => "no: Linux 6.7 has it".to_owned(),
        other => answer(other),
    };
    let guard = |result: &Result<(), Errno>, since: &str| match result {
        Err(Errno::EINVAL) => format!("no: Linux {since} has it"),
        other => answer(other),
    };
    let dirty = if features.is_some_and(|has| has.has("WP_ASYNC")) && facts.pagemap_scan.is_ok() {
        "asynchronous write protection and PAGEMAP_SCAN"
    } else {
        "by faults or checksums (asynchronous write protection and PAGEMAP_SCAN come with Linux 6.7)"
    };
    vec![
        ("kernel", format!("{} {}, uid {}", facts.kernel, facts.machine, facts.uid)),
        ("/dev/userfaultfd", device),
        ("userfaultfd(0)", uffd_answer(&facts.uffd_kernel)),
        ("userfaultfd(USER_MODE_ONLY)", uffd_answer(&facts.uffd_user)),
        ("vm.unprivileged_userfaultfd", or_unknown(facts.unprivileged_userfaultfd)),
        ("CAP_SYS_PTRACE", (if facts.cap_sys_ptrace { "yes" } else { "no" }).to_owned()),
        ("userfaultfd features", features.map_or("none".to_owned(), |has| has.names().join(" "))),
        ("features missing", if missing.is_empty() { "none".to_owned() } else { missing.join(" ") }),
        ("PAGEMAP_SCAN", scan),
        ("guard pages, shared memory", guard(&facts.guard_shared, "6.15")),
        ("guard pages, private memory", guard(&facts.guard_anonymous, "6.13")),
        ("dirty pages are found by", dirty.to_owned()),
        ("vm.max_map_count", or_unknown(facts.max_map_count)),
        ("seccomp", seccomp_text(facts.seccomp)),
        (
            "container",
            if facts.containers.is_empty() {
                "no sign of one".to_owned()
            } else {
                facts.containers.join(", ")
            },
        ),
    ]
}

fn seccomp_text(mode: Option<u8>) -> String {
    match mode {
        Some(0) => "off".to_owned(),
        Some(1) => "strict".to_owned(),
        Some(2) => "a filter is on; it may refuse system calls".to_owned(),
        other => or_unknown(other),
    }
}

fn cache_text(cache: &CacheDirectory) -> String {
    let path = printable(&cache.path.display().to_string());
    let Some(file_system) = &cache.file_system else {
        return format!("{path}: no such directory, and no parent");
    };
    let kind = if file_system.tmpfs { "tmpfs" } else { "NOT a tmpfs, so that the library refuses it" };
    let state = match (&cache.owner, cache.mode) {
        (Some(owner), Some(mode)) => format!("uid {owner}, mode {mode:04o}"),
        _ => "made at the first use".to_owned(),
    };
    let (free, size) = (human_bytes(file_system.free_bytes), human_bytes(file_system.size_bytes));
    let mut text = format!("{path}: {kind}, {free} free of {size}; {state}");
    if let Some(problem) = cache.problem() {
        text.push_str("; ");
        text.push_str(&problem);
    }
    text
}

/// What was asked of the server.
#[derive(Debug, Serialize)]
struct ServerAnswer {
    address: String,
    version: Option<String>,
    round_trip_us: Option<u64>,
    error: Option<String>,
}

/// Round trips that are measured; the shortest counts.
const PINGS: usize = 16;

fn ask_server(options: &ServerOptions) -> ServerAnswer {
    let mut result =
        ServerAnswer { address: options.server.to_string(), version: None, round_trip_us: None, error: None };
    let asked = options.connect().and_then(|mut client| {
        let stat = client.server_stat()?;
        let mut shortest = client.ping()?;
        for _ in 1..PINGS {
            shortest = shortest.min(client.ping()?);
        }
        Ok((stat.version, shortest))
    });
    match asked {
        Ok((version, shortest)) => {
            result.version = Some(printable(&version));
            result.round_trip_us = u64::try_from(shortest.as_micros()).ok();
        }
        Err(error) => result.error = Some(error.to_string()),
    }
    result
}

impl Doctor {
    /// Probes and reports. Always exit status 0: a low rung is no error.
    pub fn run(&self) -> Result<u8, Failure> {
        let facts = Facts::gather();
        let server = ask_server(&self.server);
        let named = std::env::var_os("NETMEM_LIBRARY").map(std::path::PathBuf::from);
        let library = named.filter(|path| path.is_file()).or_else(find_library);
        let library = library.map(|path| path.display().to_string());
        let text =
            if self.json { self.json(&facts, &server, library) } else { report(&facts, &server, library) };
        io::stdout().lock().write_all(text.as_bytes()).map_err(output_failed)?;
        Ok(0)
    }

    fn json(&self, facts: &Facts, server: &ServerAnswer, library: Option<String>) -> String {
        let lines: serde_json::Map<_, _> =
            kernel_lines(facts).into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        let object = json!({
            "kernel": lines,
            "cache_directory": facts.cache,
            "library": library,
            "server": server,
            "engine": rung(facts).name(),
            "forced_engine": forced(),
            "masked_features": masked(),
            "advice": advice(facts),
        });
        format!("{object:#}\n")
    }
}

fn forced() -> Option<String> {
    std::env::var("NETMEM_ENGINE").ok().filter(|engine| engine != "auto" && !engine.is_empty())
}

fn masked() -> Option<String> {
    std::env::var("NETMEM_MASK").ok().filter(|mask| !mask.is_empty())
}

fn report(facts: &Facts, server: &ServerAnswer, library: Option<String>) -> String {
    let mut lines = kernel_lines(facts);
    lines.push(("cache directory", cache_text(&facts.cache)));
    let missing =
        "libnetmem.so is not beside netmem, in ../lib or ../lib/netmem: use --library or NETMEM_LIBRARY";
    lines.push(("library", library.map_or(missing.to_owned(), |path| printable(&path))));
    lines.push((
        "server",
        match (&server.error, &server.version, server.round_trip_us) {
            (Some(error), _, _) => error.clone(),
            (None, version, trip) => {
                let (version, trip) = (or_unknown(version.as_deref()), or_unknown(trip));
                format!("{}: version {version}, round trip {trip} µs (shortest of {PINGS})", server.address)
            }
        },
    ));
    let mut out = String::new();
    for (name, text) in lines {
        out.push_str(&format!("{name:<29}{text}\n"));
    }
    out.push_str(&format!("\nengine: {}\n", rung(facts).name()));
    if let Some(mask) = masked() {
        out.push_str(&format!("NETMEM_MASK leaves out {}\n", printable(&mask)));
    }
    if let Some(forced) = forced() {
        out.push_str(&format!("NETMEM_ENGINE forces {}\n", printable(&forced)));
    }
    if let Some(advice) = advice(facts) {
        out.push_str(&format!("{advice}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Result<UffdFeatures, Errno> = Ok(UffdFeatures(u64::MAX));

    fn nothing() -> Facts {
        Facts {
            uid: 1000,
            uffd_device: Err(Errno::ENOENT),
            uffd_kernel: Err(Errno::EPERM),
            uffd_user: Err(Errno::EPERM),
            guard_shared: Err(Errno::EINVAL),
            containers: Vec::new(),
            seccomp: Some(0),
            ..Facts::gather()
        }
    }

    #[test]
    fn the_best_rung_that_works_is_taken() {
        assert_eq!(rung(&nothing()), Rung::SigsegvMprotect);
        assert_eq!(rung(&Facts { guard_shared: Ok(()), ..nothing() }), Rung::SigsegvGuard);
        assert_eq!(rung(&Facts { uffd_user: ALL, guard_shared: Ok(()), ..nothing() }), Rung::UffdUser);
        assert_eq!(rung(&Facts { uffd_kernel: ALL, uffd_user: ALL, ..nothing() }), Rung::Uffd);
        assert_eq!(rung(&Facts { uffd_device: ALL, ..nothing() }), Rung::Uffd);
        let old = Facts { uffd_kernel: Ok(UffdFeatures(0)), uffd_user: Ok(UffdFeatures(0)), ..nothing() };
        assert_eq!(rung(&old), Rung::SigsegvMprotect, "a userfaultfd that can't do shared memory is none");
        let missing_only = Ok(UffdFeatures(1 << 0 | 1 << 5));
        let old = Facts { uffd_kernel: missing_only, uffd_user: missing_only, ..nothing() };
        assert_eq!(rung(&old), Rung::SigsegvMprotect, "one that can't write-protect shared memory is none");
        assert!(advice(&old).unwrap().contains("Linux 5.19"));
        let v6_1 = Ok(UffdFeatures(1 << 0 | 1 << 5 | 1 << 12));
        assert_eq!(rung(&Facts { uffd_user: v6_1, ..nothing() }), Rung::UffdUser);
    }

    #[test]
    fn every_lower_rung_has_a_command_that_helps() {
        let docker = Facts { containers: vec!["docker".to_owned()], ..nothing() };
        for (facts, command) in [
            (Facts { uffd_user: ALL, ..nothing() }, "sudo sysctl -w vm.unprivileged_userfaultfd=1"),
            (
                Facts { uffd_device: Err(Errno::EACCES), ..nothing() },
                "sudo setfacl -m u:1000:rw /dev/userfaultfd",
            ),
            (docker, "--device /dev/userfaultfd"),
            (Facts { uffd_user: Err(Errno::ENOSYS), ..nothing() }, "CONFIG_USERFAULTFD=y"),
            (Facts { seccomp: Some(2), ..nothing() }, "SystemCallFilter=userfaultfd"),
        ] {
            let advice = advice(&facts).unwrap();
            assert!(advice.contains(command), "{advice}");
        }
        assert_eq!(advice(&Facts { uffd_device: ALL, ..nothing() }), None);
    }

    #[test]
    fn the_report_ends_with_the_engine_and_what_to_do() {
        let server =
            ServerAnswer { address: "tcp://h:1".into(), version: None, round_trip_us: None, error: None };
        let text = report(&Facts { uffd_user: ALL, ..nothing() }, &server, None);
        let last: Vec<&str> =
            text.lines().rev().filter(|line| !line.starts_with("NETMEM_")).take(2).collect();
        assert_eq!(last[1], "engine: uffd-user");
        assert!(last[0].starts_with("for engine uffd: "), "{text}");
    }
}
