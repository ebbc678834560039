//! What /proc says about processes: mappings of a file, PID namespaces, the names of descriptors.
//!
//! Owns: parsing. Called by: the harvest of peers, boot, takeover. Must not: keep descriptors open.

use super::errno::Errno;
use super::file;

/// Where a process maps a file, shared and possibly writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMapping {
    /// First byte.
    pub start: usize,
    /// First byte behind.
    pub end: usize,
    /// Byte of the file that is at `start`.
    pub offset: u64,
}

/// Every shared mapping of the file `device`:`inode` in process `pid`. ESRCH for one that has given its memory up.
pub fn shared_mappings(pid: i32, device: u64, inode: u64) -> Result<Vec<FileMapping>, Errno> {
    let text = file::read_whole(&format!("/proc/{pid}/maps"))?;
    if text.is_empty() {
        // A process always maps something, until it is on its way out: its memory goes before its locks do.
        return Err(Errno(libc::ESRCH));
    }
    Ok(String::from_utf8_lossy(&text).lines().filter_map(|line| parse_line(line, device, inode)).collect())
}

/// `start-end perms offset major:minor inode path`
fn parse_line(line: &str, device: u64, inode: u64) -> Option<FileMapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let perms = words.next()?;
    let offset = words.next()?;
    let (major, minor) = words.next()?.split_once(':')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let theirs = rustix::fs::makedev(hex(major)? as u32, hex(minor)? as u32);
    (perms.ends_with('s') && theirs == device && words.next()?.parse() == Ok(inode)).then_some(FileMapping {
        start: hex(start)? as usize,
        end: hex(end)? as usize,
        offset: hex(offset)?,
    })
}

/// The threads of this process; none if that can't be found out just now.
pub fn threads() -> Vec<i32> {
    use rustix::fs::{OFlags, RawDir};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // A descriptor of ours from the start: the standard library's own would be closed by the name that we export, and its number
    // may be that of a stream which libc closed without our knowing.
    let Ok(directory) = file::open("/proc/self/task", flags, 0) else { return Vec::new() };
    let mut buffer = [const { core::mem::MaybeUninit::uninit() }; 2048];
    let mut names = RawDir::new(super::fd::borrow(directory.raw()), &mut buffer);
    let mut threads = Vec::new();
    while let Some(Ok(entry)) = names.next() {
        threads.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
    }
    threads
}

/// A number for the PID namespace, so that two containers that share a tmpfs do not take each other's processes for dead.
pub fn pid_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5), field 22). 0 if there is no such process, or if it has
/// ended and nobody has waited for it yet; `None` if that can't be found out just now (no descriptor left).
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = match file::read_whole(&format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(Errno(libc::ENOENT | libc::ESRCH)) => return Some(0),
        Err(_) => return None,
    };
    Some(parse_start_time(&String::from_utf8_lossy(&stat)))
}

fn parse_start_time(stat: &str) -> u64 {
    // The name in parentheses may hold anything; the state behind it is field 3.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let field = |number: usize| behind.split_ascii_whitespace().nth(number - 3);
    // A process whose first thread has ended is a zombie by its state as well, but has more threads than that one (field 20).
    let ended = matches!(field(3), Some("Z" | "X")) && matches!(field(20), Some("0" | "1"));
    if ended { 0 } else { field(22).and_then(|field| field.parse().ok()).unwrap_or(0) }
}

/// The process that a pidfd stands for, as this one numbers it.
pub fn pid_of(pidfd: i32) -> Option<i32> {
    let text = file::read_whole(&format!("/proc/self/fdinfo/{pidfd}")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// Whether a thread of this process is there and has not ended.
pub fn thread_lives(thread: i32) -> bool {
    !matches!(thread_state(thread), None | Some('Z' | 'X'))
}

/// What a thread of this process does, by its letter in proc(5).
pub fn thread_state(thread: i32) -> Option<char> {
    let stat = file::read_whole(&format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    let text = String::from_utf8_lossy(&stat);
    text.rsplit_once(')').and_then(|(_, behind)| behind.trim_start().chars().next())
}

/// The path behind a descriptor of this process.
pub fn descriptor_path(fd: i32) -> Option<String> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{fd}"), Vec::new()).ok()?;
    String::from_utf8(link.into_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::{FileMapping, parse_line, parse_start_time};

    #[test]
    fn a_process_has_ended_when_its_last_thread_has() {
        let stat = |state: &str, threads: u32| {
            format!("7 (a) b) {state} 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0\n")
        };
        assert_eq!(parse_start_time(&stat("S", 1)), 4711);
        assert_eq!(parse_start_time(&stat("Z", 1)), 0);
        assert_eq!(parse_start_time(&stat("Z", 3)), 4711);
        assert_eq!(parse_start_time(""), 0);
    }

    #[test]
    fn only_shared_mappings_of_the_file_are_found() {
        let line = "7f10-7f20 rw-s 00003000 00:1a 77   /dev/shm/netmem-0/x (deleted)";
        let device = rustix::fs::makedev(0, 0x1a);
        let found = FileMapping { start: 0x7f10, end: 0x7f20, offset: 0x3000 };
        assert_eq!(parse_line(line, device, 77), Some(found));
        assert_eq!(parse_line(line, device, 78), None);
        assert_eq!(parse_line(&line.replace("rw-s", "rw-p"), device, 77), None);
        assert_eq!(parse_line("7f10-7f20 rw-p 00000000 00:00 0", device, 77), None);
    }
}
