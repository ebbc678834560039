//! What `netmem doctor` reports on: answers of the kernel, and what it says of itself below /proc and /sys.
//!
//! Owns: gathering. Called by: `doctor.rs`. Must not: judge, or fail: an unknown is a value.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::getuid;
use serde::Serialize;

use crate::probe::{self, UffdFeatures};

/// Everything that was found out.
#[derive(Debug)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// The processor, as uname says.
    pub machine: String,
    /// The real user.
    pub uid: u32,
    /// Mode and owner of /dev/userfaultfd; None if there is none.
    pub device_mode: Option<String>,
    /// userfaultfd through the device.
    pub uffd_device: Result<UffdFeatures, Errno>,
    /// userfaultfd by the system call, with kernel faults.
    pub uffd_kernel: Result<UffdFeatures, Errno>,
    /// userfaultfd by the system call, without.
    pub uffd_user: Result<UffdFeatures, Errno>,
    /// `vm.unprivileged_userfaultfd`.
    pub unprivileged_userfaultfd: Option<u64>,
    /// CAP_SYS_PTRACE is effective.
    pub cap_sys_ptrace: bool,
    /// ioctl(PAGEMAP_SCAN).
    pub pagemap_scan: Result<(), Errno>,
    /// Guard pages in shared file memory.
    pub guard_shared: Result<(), Errno>,
    /// Guard pages in private memory.
    pub guard_anonymous: Result<(), Errno>,
    /// `vm.max_map_count`.
    pub max_map_count: Option<u64>,
    /// 0 off, 1 strict, 2 filter.
    pub seccomp: Option<u8>,
    /// Signs of containers.
    pub containers: Vec<String>,
    /// Where page caches go.
    pub cache: CacheDirectory,
}

/// The directory of the page caches.
#[derive(Debug, Serialize)]
pub struct CacheDirectory {
    /// `NETMEM_DIR`, or below /dev/shm.
    pub path: PathBuf,
    /// Its owner, if it is there.
    pub owner: Option<u32>,
    /// Its permission bits, if it is there.
    pub mode: Option<u32>,
    /// Of it, or of its parent if it is not there yet.
    pub file_system: Option<FileSystem>,
}

/// What lies below a directory.
#[derive(Debug, Serialize)]
pub struct FileSystem {
    /// Whether it is a tmpfs.
    pub tmpfs: bool,
    /// All of it.
    pub size_bytes: u64,
    /// What this user may still take.
    pub free_bytes: u64,
}

impl Facts {
    /// Asks everything. Takes a few milliseconds.
    pub fn gather() -> Facts {
        let name = nix::sys::utsname::uname();
        let text = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            name.as_ref()
                .map_or_else(|_| "unknown".to_owned(), |name| part(name).to_string_lossy().into_owned())
        };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let capabilities = status_field(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let device = fs::metadata("/dev/userfaultfd").ok();
        Facts {
            kernel: text(|name| name.release()),
            machine: text(|name| name.machine()),
            uid: getuid().as_raw(),
            device_mode: device.map(|data| format!("mode {:04o}, uid {}", data.mode() & 0o7777, data.uid())),
            uffd_device: probe::uffd_of_device(),
            uffd_kernel: probe::uffd_of_syscall(false),
            uffd_user: probe::uffd_of_syscall(true),
            unprivileged_userfaultfd: sysctl("unprivileged_userfaultfd"),
            cap_sys_ptrace: capabilities.is_some_and(|bits| bits & (1 << 19) != 0),
            pagemap_scan: probe::pagemap_scan(),
            guard_shared: probe::guard_shared(),
            guard_anonymous: probe::guard_anonymous(),
            max_map_count: sysctl("max_map_count"),
            seccomp: status_field(&status, "Seccomp:").and_then(|mode| mode.parse().ok()),
            containers: containers(),
            cache: CacheDirectory::look(),
        }
    }
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys/vm").join(name)).ok()?.trim().parse().ok()
}

fn status_field<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim)
}

/// Files and variables that container engines leave; none of them is a promise.
fn containers() -> Vec<String> {
    let mut found = Vec::new();
    for (path, name) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")] {
        if Path::new(path).exists() {
            found.push(name.to_owned());
        }
    }
    if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        found.push("kubernetes".to_owned());
    }
    if let Some(name) = std::env::var("container").ok().filter(|name| !name.is_empty()) {
        found.push(crate::error::printable(&name));
    }
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole: Vec<&str> = map.split_whitespace().collect();
    if !map.is_empty() && whole != ["0", "0", "4294967295"] {
        found.push("user namespace".to_owned());
    }
    found
}

impl CacheDirectory {
    fn look() -> CacheDirectory {
        let path = std::env::var_os("NETMEM_DIR")
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from(format!("/dev/shm/netmem-{}", getuid())), PathBuf::from);
        let metadata = fs::metadata(&path).ok();
        let below = if metadata.is_some() { Some(path.as_path()) } else { path.parent() };
        let file_system = below.and_then(|below| statfs(below).ok()).map(|data| {
            let unit = data.block_size().max(0) as u64;
            FileSystem {
                tmpfs: data.filesystem_type() == TMPFS_MAGIC,
                size_bytes: data.blocks().saturating_mul(unit),
                free_bytes: data.blocks_available().saturating_mul(unit),
            }
        });
        let (owner, mode) =
            (metadata.as_ref().map(MetadataExt::uid), metadata.map(|data| data.mode() & 0o7777));
        CacheDirectory { path, owner, mode, file_system }
    }

    /// What keeps the library from using it.
    pub fn problem(&self) -> Option<String> {
        let ours = getuid().as_raw();
        match (self.owner, self.mode) {
            (Some(owner), _) if owner != ours => {
                Some(format!("it is not yours (uid {ours}): name another with NETMEM_DIR"))
            }
            (_, Some(mode)) if mode & 0o077 != 0 => Some(format!(
                "others can look in: chmod 700 {}",
                crate::error::printable(&self.path.display().to_string())
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_always_ends_with_facts() {
        let facts = Facts::gather();
        assert!(!facts.kernel.is_empty());
        assert!(facts.max_map_count.is_some());
        assert!(facts.seccomp.is_some());
    }

    #[test]
    fn a_directory_that_others_can_read_is_a_problem() {
        let look = |owner, mode| CacheDirectory {
            path: "/d".into(),
            owner: Some(owner),
            mode: Some(mode),
            file_system: None,
        };
        let ours = getuid().as_raw();
        assert!(look(ours, 0o755).problem().unwrap().contains("chmod 700 /d"));
        assert!(look(ours + 1, 0o700).problem().unwrap().contains("not yours"));
        assert_eq!(look(ours, 0o700).problem(), None);
    }
}
