//! `netmem run`: an unmodified program with libnetmem.so in it.
//!
//! Owns: the command's environment, its signals, its exit status, and the check that the library got in. Called by:
//! `main.rs`. Must not: change what the program sees beyond LD_PRELOAD and NETMEM_*.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use clap::Args;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc::c_int;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, read};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use crate::args::parse_bytes;
use crate::error::{Failure, describe_io};
use crate::private::PrivateServer;
use crate::settings::Settings;
use crate::summary::Summary;
use crate::target::{self, Missing};

/// The name of the library that goes into the program.
const LIBRARY: &str = "libnetmem.so";
/// What is handed on to the command when somebody sends it to netmem.
const FORWARDED: [c_int; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// `netmem run`
#[derive(Args, Debug)]
pub struct Run {
    /// The library to preload [default: libnetmem.so beside netmem, in ../lib or ../lib/netmem]
    #[arg(long, env = "NETMEM_LIBRARY", value_name = "PATH")]
    library: Option<PathBuf>,
    /// Bytes that the private server may keep; suffixes K, M, G, T. Without effect with --server
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_memory: Option<u64>,
    #[command(flatten)]
    settings: Settings,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Run {
    /// Runs the command; the result is its exit status.
    pub fn run(&self) -> Result<u8, Failure> {
        let Some((name, arguments)) = self.command.split_first() else { return Ok(0) };
        let search = std::env::var_os("PATH");
        let program =
            target::resolve(name, search.as_deref()).map_err(|missing| cannot_start(name, missing))?;
        let told = warn_of_obstacles(name, &program, search.as_deref());
        let preload =
            preload_list(&library_or_default(self.library.as_deref())?, std::env::var_os("LD_PRELOAD"))?;

        // From here on a signal is noted rather than deadly, so that the server and the command are never left behind.
        let ignored = ignored_signals();
        let watched =
            FORWARDED.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0).chain([SIGCHLD]);
        let mut signals =
            SignalsInfo::<WithOrigin>::new(watched).map_err(|e| Failure::new("signals", e, "try again"))?;
        let mut server = self.private_server()?;

        let loaded = LoadedPipe::new()?;
        let mut command = Command::new(&program);
        std::os::unix::process::CommandExt::arg0(&mut command, name);
        command.args(arguments).env("LD_PRELOAD", &preload);
        self.settings.apply(&mut command);
        if let Some(server) = &server {
            command.env("NETMEM_SERVER", server.address());
        }
        let _family = self.settings.has_memory_budget().then(|| family_of(&mut command)).transpose()?;
        let summary = match self.settings.memory.as_ref().and_then(|bytes| bytes.parse().ok()) {
            Some(budget) if !self.has_stats() => Some(Summary::of(&mut command, budget)?),
            _ => None,
        };
        command.env("NETMEM_LOADED_FD", loaded.write.as_raw_fd().to_string());
        let mut child = command.spawn().map_err(|e| spawn_failure(name, &e))?;
        let read_end = loaded.keep_read_end();
        let status = watch(&mut child, &mut signals, server.as_mut())?;
        drop(server);
        if let Some(summary) = summary {
            eprint!("{}", summary.text());
        }
        if !told && !self.disabled() && !was_loaded(&read_end) {
            let name = name.to_string_lossy();
            eprintln!("netmem: warning: {LIBRARY} was not loaded into {name}");
        }
        Ok(status)
    }

    /// Where nobody names a server, the command gets one of its own.
    fn private_server(&self) -> Result<Option<PrivateServer>, Failure> {
        let named = self.settings.server.is_some()
            || std::env::var_os("NETMEM_SERVER").is_some_and(|v| !v.is_empty());
        if named || self.disabled() {
            return Ok(None);
        }
        let log =
            self.settings.log.as_deref().map(str::to_owned).or_else(|| std::env::var("NETMEM_LOG").ok());
        let known = ["off", "error", "warn", "info", "debug"];
        let log = log.filter(|level| known.contains(&level.as_str())).unwrap_or_else(|| "warn".to_owned());
        PrivateServer::start(self.max_memory, &log).map(Some)
    }

    /// Whether the counters go where the user wants them.
    fn has_stats(&self) -> bool {
        self.settings.stats.is_some() || std::env::var_os("NETMEM_STATS").is_some()
    }

    fn disabled(&self) -> bool {
        self.settings.disable || std::env::var_os("NETMEM_DISABLE").is_some_and(|value| value == "1")
    }
}

/// A file in which the command and all that it starts are counted, who have their budget together.
fn family_of(command: &mut Command) -> Result<tempfile::NamedTempFile, Failure> {
    let file = tempfile::NamedTempFile::new().map_err(|e| {
        Failure::new("memory", describe_io(&e), "set TMPDIR to a directory that you may write")
    })?;
    command.env("NETMEM_FAMILY", file.path());
    Ok(file)
}

/// The library that is named, else the one that belongs to this executable.
pub(crate) fn library_or_default(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return fs::canonicalize(path).map_err(|e| {
            Failure::new(path.display(), describe_io(&e), "correct --library or NETMEM_LIBRARY")
        });
    }
    find_library().ok_or_else(|| {
        let what_to_do = "install it, or name it with --library or NETMEM_LIBRARY";
        Failure::new(LIBRARY, "neither beside netmem nor in ../lib or ../lib/netmem", what_to_do)
    })
}

/// The library that belongs to this executable, if it is in one of the usual places.
pub fn find_library() -> Option<PathBuf> {
    let executable = fs::canonicalize(std::env::current_exe().ok()?).ok()?;
    let beside = executable.parent()?;
    ["", "../lib", "../lib/netmem"]
        .iter()
        .find_map(|place| fs::canonicalize(beside.join(place).join(LIBRARY)).ok())
}

/// Ours first, then what was there. The loader takes spaces and colons for separators, with no way to quote them.
pub(crate) fn preload_list(library: &Path, before: Option<OsString>) -> Result<OsString, Failure> {
    if library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        let why = "LD_PRELOAD can't name a path with a space or a colon in it";
        return Err(Failure::new(library.display(), why, "move it, or make a symbolic link without them"));
    }
    let mut list = library.as_os_str().to_owned();
    if let Some(before) = before.filter(|before| !before.is_empty()) {
        list.push(":");
        list.push(before);
    }
    Ok(list)
}

fn cannot_start(name: &OsStr, missing: Missing) -> Failure {
    match missing {
        Missing::NotFound => Failure::new(
            name.to_string_lossy(),
            "command not found",
            "correct the name, or add its directory to PATH",
        )
        .with_status(127),
        Missing::NotExecutable(why) => {
            Failure::new(name.to_string_lossy(), why, "name an executable program").with_status(126)
        }
    }
}

fn spawn_failure(name: &OsStr, error: &io::Error) -> Failure {
    let (what_to_do, status) = match error.raw_os_error() {
        Some(libc::ENOENT) => ("its interpreter is missing: correct its #! line or install its loader", 127),
        Some(libc::ENOEXEC) => ("give it a #! line, or run it through its shell: netmem run -- sh CMD", 126),
        Some(libc::E2BIG) => ("shorten its arguments or the environment", 126),
        _ => ("see whether you can run it without netmem", 126),
    };
    Failure::new(name.to_string_lossy(), describe_io(error), what_to_do).with_status(status)
}

/// Says why the library will not get in, and whether that has been said.
fn warn_of_obstacles(name: &OsStr, program: &Path, search: Option<&OsStr>) -> bool {
    let (about, found) = target::obstacles(program, search);
    let mut name = name.to_string_lossy().to_string();
    if about != program {
        name = format!("{name} (run by {})", about.display());
    }
    for obstacle in &found {
        eprintln!("netmem: warning: {name}: {obstacle}");
    }
    // A dynamically linked Go program does load the library; whether it did is still worth checking.
    found.iter().any(|obstacle| *obstacle != target::Obstacle::Go)
}

/// Hands signals on until the command has ended.
fn watch(
    child: &mut Child,
    signals: &mut SignalsInfo<WithOrigin>,
    mut server: Option<&mut PrivateServer>,
) -> Result<u8, Failure> {
    for origin in signals.forever() {
        if origin.signal != SIGCHLD {
            if is_for_us_alone(&origin)
                && let Ok(signal) = Signal::try_from(origin.signal)
            {
                // Not yet waited for, so the number is still the child's.
                let _ = kill(Pid::from_raw(child.id() as i32), signal);
            }
            continue;
        }
        if let Some(status) =
            child.try_wait().map_err(|e| Failure::new("wait", describe_io(&e), "try again"))?
        {
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
            return Ok(u8::try_from(code).unwrap_or(1));
        }
        if let Some(status) = server.as_mut().and_then(|server| server.ended_early()) {
            eprintln!("netmem: warning: the private netmem-server ended before the command ({status})");
        }
    }
    Ok(1)
}

/// What the terminal sends goes to the whole foreground group, the command included; handing it on would double it.
fn is_for_us_alone(origin: &Origin) -> bool {
    !matches!(origin.cause, Cause::Kernel)
}

/// The signals that we were started with ignored, as a bit mask: `nohup netmem run` stays nohup.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// The pipe through which the library says that it is there: its constructor writes one byte and closes its end.
struct LoadedPipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl LoadedPipe {
    fn new() -> Result<LoadedPipe, Failure> {
        let failed =
            |e: nix::Error| Failure::new("pipe", describe_io(&e.into()), "raise the limit on open files");
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed)?;
        // Inherited by the command, which is all that is started while this end is open.
        fcntl(write.as_fd(), FcntlArg::F_SETFD(FdFlag::empty())).map_err(failed)?;
        Ok(LoadedPipe { read, write })
    }

    fn keep_read_end(self) -> OwnedFd {
        self.read
    }
}

/// Nothing to read, from a child that holds the end or closed it unwritten, means that the library was not there.
fn was_loaded(read_end: &OwnedFd) -> bool {
    read(read_end, &mut [0; 1]) == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_library_comes_before_those_that_were_there() {
        let library = Path::new("/usr/lib/libnetmem.so");
        assert_eq!(preload_list(library, None).unwrap(), "/usr/lib/libnetmem.so");
        assert_eq!(preload_list(library, Some("".into())).unwrap(), "/usr/lib/libnetmem.so");
        let list = preload_list(library, Some("libjemalloc.so".into())).unwrap();
        assert_eq!(list, "/usr/lib/libnetmem.so:libjemalloc.so");
    }

    #[test]
    fn a_path_that_the_loader_would_cut_is_refused() {
        for path in ["/a b/libnetmem.so", "/a:b/libnetmem.so"] {
            assert!(preload_list(Path::new(path), None).is_err());
        }
    }

    #[test]
    fn the_byte_in_the_pipe_says_loaded() {
        let pipe = LoadedPipe::new().unwrap();
        assert!(!was_loaded(&pipe.read));
        nix::unistd::write(&pipe.write, b"1").unwrap();
        assert!(was_loaded(&pipe.keep_read_end()));
    }
}
