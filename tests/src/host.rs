//! A host: one directory for page caches, one engine, one user.
//!
//! Owns: the directory, removed at the end. Called by: tests, through [`crate::Run`] and [`crate::Agent`]. Must not: share
//! anything with another host, which is what makes two of them two machines.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::engine::Engine;

/// One machine, as far as a program can tell.
#[derive(Debug)]
pub struct Host {
    engine: Engine,
    place: TempDir,
}

impl Host {
    /// A host that nobody has used.
    pub fn new(engine: Engine) -> Host {
        let tmpfs = Path::new("/dev/shm");
        let parent = if tmpfs.is_dir() { tmpfs.to_owned() } else { std::env::temp_dir() };
        let place = tempfile::Builder::new().prefix("netmem-test-").tempdir_in(parent).expect("a directory");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        for name in ["cache", "files"] {
            let path = place.path().join(name);
            fs::create_dir(&path).expect("a directory in it");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("its mode");
            if let Some((uid, gid)) = engine.user() {
                chown(&path, Some(uid), Some(gid)).expect("its owner");
            }
        }
        Host { engine, place }
    }

    /// How faults are caught here.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// NETMEM_DIR.
    pub fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    /// A directory of local files that this host's programs may write.
    pub fn files(&self) -> PathBuf {
        self.place.path().join("files")
    }

    /// Where programs leave their counters that are told to (NETMEM_STATS).
    pub fn stats(&self) -> PathBuf {
        self.files().join("stats")
    }

    /// The counters of all processes that have ended: sums, and of what is called a maximum the highest.
    pub fn told(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        let text = fs::read_to_string(self.stats()).unwrap_or_default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let Ok(value) = value.parse::<u64>() else { continue };
            let sum: &mut u64 = all.entry(name.to_owned()).or_default();
            *sum = if name.contains("_max") { value.max(*sum) } else { *sum + value };
        }
        all
    }

    /// What a program is given for its directory: `/netmem`, or under the kernel a real one.
    pub fn netmem(&self) -> PathBuf {
        match self.engine {
            Engine::Kernel => self.files(),
            _ => PathBuf::from("/netmem"),
        }
    }

    /// The path of a region, for a program.
    pub fn path(&self, name: &str) -> String {
        self.netmem().join(name).display().to_string()
    }
}
