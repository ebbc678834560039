//! The worker: where its page cache lies, and what it says.
//!
//! Owns: the directory, and the process until its end. Called by: bench. Must not: outlive the benchmark, or wait without looking whether
//! somebody wants to end.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use netmem_protocol::PAGE_SIZE;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::args::{human_bytes, prefix};
use crate::bench::wire::Region;
use crate::bench::worker::{Measured, READY};
use crate::bench::{Bench, Interrupted, SCATTERED_PAGES, STEP};
use crate::error::{Failure, describe_io, printable};
use crate::facts::Facts;
use crate::private::end_with_parent;
use crate::run::{library_or_default, preload_list};

/// How often the worker's silence is used to see whether somebody wants to end.
const LOOK: Duration = Duration::from_millis(100);
/// How long the worker may be silent: its steps are bounded, but for the scan and the sync, which the server's time-out bounds.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// Bytes that the cache needs besides its pages.
const SPARE_BYTES: u64 = 4 << 20;

/// Where a worker runs.
pub struct Place {
    parent: PathBuf,
    preload: std::ffi::OsString,
}

/// A worker. Dropped, it is killed if it has not ended.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Place {
    /// The directory for page caches and the library, if both are there and there is room.
    pub fn find(bench: &Bench, facts: &Facts) -> Result<Place, Failure> {
        let preload = preload_list(&library_or_default(bench.library.as_deref())?, None)?;
        let parent = bench.dir.clone().unwrap_or_else(|| default_parent(&facts.cache.path));
        let failed = |error: nix::Error| {
            Failure::new(parent.display(), describe_io(&error.into()), "name a tmpfs directory with --dir")
        };
        let room = statvfs(&parent).map_err(failed)?;
        let free = room.blocks_available() * room.fragment_size();
        let needed = bench.size + (SCATTERED_PAGES * PAGE_SIZE) as u64 + SPARE_BYTES;
        if free < needed {
            let why =
                format!("the page cache needs {}, and {} are free", human_bytes(needed), human_bytes(free));
            return Err(Failure::new(
                parent.display(),
                why,
                "use a smaller --size, or another tmpfs with --dir",
            ));
        }
        Ok(Place { parent, preload })
    }

    /// Has a worker measure the region, which takes its name away as soon as it has it.
    pub fn measure(
        &self,
        bench: &Bench,
        engine: &str,
        region: &mut Region,
        interrupted: &Interrupted,
    ) -> Result<Measured, Failure> {
        let cache = tempfile::Builder::new()
            .prefix("netmem-worker-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.parent)
            .map_err(|error| {
                Failure::new(
                    self.parent.display(),
                    describe_io(&error),
                    "name a directory that you may write with --dir",
                )
            })?;
        let path = format!("{}{}", prefix(), region.name().unwrap_or_default());
        let mut worker = self.start(bench, engine, &path, &cache)?;
        worker.expect(READY, interrupted)?;
        region.has_no_name()?;
        let line = worker.line(interrupted)?;
        // To its end, so that the server has its word that the region is closed.
        while worker.line(interrupted).is_ok() {}
        interrupted.check()?;
        let _ = worker.child.wait();
        serde_json::from_str(&line).map_err(|_| said(&line))
    }

    fn start(&self, bench: &Bench, engine: &str, path: &str, cache: &TempDir) -> Result<Running, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new("netmem", describe_io(&error), "see whether it can still be executed")
        };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("bench-worker").arg(path);
        command.args([SCATTERED_PAGES.to_string(), bench.pages().to_string(), STEP.as_millis().to_string()]);
        command.env("LD_PRELOAD", &self.preload).env("NETMEM_DIR", cache.path()).env("NETMEM_ENGINE", engine);
        command.env("NETMEM_SERVER", bench.server.server.to_string());
        command.env("NETMEM_TIMEOUT_MS", bench.server.timeout_ms.to_string());
        command.env_remove("NETMEM_DISABLE").env_remove("NETMEM_STATS");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        end_with_parent(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take();
        let (send, lines) = channel();
        thread::spawn(move || {
            let Some(out) = out else { return };
            for line in BufReader::new(out.take(1 << 16)).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Running { child, lines })
    }
}

/// Beside the user's own cache, never in it, where it would be a name; or where caches are usually, if that is on no tmpfs.
fn default_parent(cache: &Path) -> PathBuf {
    let usual = Path::new("/dev/shm");
    let beside = cache.parent().unwrap_or(usual);
    let is_tmpfs = statfs(beside).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    if is_tmpfs { beside.to_owned() } else { usual.to_owned() }
}

fn said(line: &str) -> Failure {
    Failure::new(
        "netmem bench",
        format!("its worker said {:?}", printable(line)),
        "see whether netmem and libnetmem.so are of one release",
    )
}

impl Running {
    /// What the worker says next.
    fn line(&mut self, interrupted: &Interrupted) -> Result<String, Failure> {
        let end = Instant::now() + SILENCE_MAX;
        loop {
            interrupted.check()?;
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::new(
                        "netmem bench",
                        "its worker says nothing",
                        "see whether the server is alive (netmem doctor)",
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    // A signal that went to both may have ended it first.
                    interrupted.check()?;
                    return Err(Failure::new(
                        "netmem bench",
                        "its worker ended",
                        "its own line above says why, if there is one",
                    ));
                }
            }
        }
    }

    fn expect(&mut self, word: &str, interrupted: &Interrupted) -> Result<(), Failure> {
        let line = self.line(interrupted)?;
        if line == word { Ok(()) } else { Err(said(&line)) }
    }
}
