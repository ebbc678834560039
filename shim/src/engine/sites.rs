//! Which places of the program wait for the network: NETMEM_STATS=…,sites.
//!
//! Owns: a table from code addresses to counts and times, and how the place of a wait is found. Called by: whoever serves a fault, a
//! read or a sync, with the program's registers; report. Must not: cost anything while nobody asked for it, or touch the program's
//! memory other than by copies that take no fault.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::host::runtime_if_started;
use crate::sync::QuietMutex;
use crate::sys::{app, file};

/// Places at the most; what comes later is counted as one.
const PLACES_MAX: usize = 4096;
/// Words of the stack that are looked through for the program's own code.
const STACK_WORDS: usize = 512;
/// How often a thread that has just faulted is asked for its registers, until it has gone to sleep.
const ASKED_MAX: u32 = 200;

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Wait {
    /// A load or a store.
    Touch = 0,
    /// A call that reads, or that stores into a part of a page.
    Call = 1,
    /// A sync.
    Sync = 2,
}

/// A place: an instruction, or one that a call returns to; 0: not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

/// One row of the table. The key is the place with what was waited for in its highest bits, plus 1; 0: free.
struct Row {
    key: AtomicU64,
    count: AtomicU64,
    ns: AtomicU64,
}

static WANTED: AtomicBool = AtomicBool::new(false);
static ROWS: [Row; PLACES_MAX] =
    [const { Row { key: AtomicU64::new(0), count: AtomicU64::new(0), ns: AtomicU64::new(0) } }; PLACES_MAX];
/// Code that is the program's: not libc's, not ours.
static CODE: QuietMutex<Vec<(usize, usize)>> = QuietMutex::new(Vec::new());

/// What the report says of one place.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    /// What was waited for.
    pub wait: Wait,
    /// The address, 0 if it is not known.
    pub address: usize,
    /// How often.
    pub count: u64,
    /// For how long in all.
    pub ns: u64,
}

/// From now on waits are counted by place.
pub fn begin() {
    WANTED.store(true, Relaxed);
}

thread_local! {
    /// Whether this thread serves a fault of its own. No destructor, nothing allocated.
    static FAULTING: Cell<bool> = const { Cell::new(false) };
}

/// Serves a fault of this thread, which counts as one touch whatever it takes.
pub fn in_fault<T>(serve: impl FnOnce() -> T) -> T {
    FAULTING.set(true);
    let served = serve();
    FAULTING.set(false);
    served
}

/// Whether this thread is in [`in_fault`].
pub fn in_a_fault() -> bool {
    FAULTING.get()
}

/// Whether places are wanted.
pub fn wanted() -> bool {
    WANTED.load(Relaxed)
}

/// Counts a wait that began then, if places are wanted.
pub fn note(wait: Wait, place: Place, began: Instant) {
    if !wanted() {
        return;
    }
    let key = ((wait as u64) << 62 | place.0 & !(3 << 62)) + 1;
    let ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
    for step in 0..PLACES_MAX {
        let row = &ROWS[(start + step) % PLACES_MAX];
        let is_it =
            row.key.compare_exchange(0, key, Relaxed, Relaxed).map_or_else(|now| now == key, |_| true);
        if is_it {
            row.count.fetch_add(1, Relaxed);
            row.ns.fetch_add(ns, Relaxed);
            return;
        }
    }
}

/// Every place that waited, the longest first.
pub fn totals() -> Vec<Total> {
    let rows = ROWS.iter().filter_map(|row| {
        let key = row.key.load(Relaxed).checked_sub(1)?;
        let wait = match key >> 62 {
            0 => Wait::Touch,
            1 => Wait::Call,
            _ => Wait::Sync,
        };
        let address = (key & !(3 << 62)) as usize;
        Some(Total { wait, address, count: row.count.load(Relaxed), ns: row.ns.load(Relaxed) })
    });
    let mut totals: Vec<Total> = rows.collect();
    totals.sort_by_key(|total| core::cmp::Reverse(total.ns));
    totals
}

/// Where the code that calls us stands: called from a hook.
pub fn caller() -> Place {
    let here = 0usize;
    if wanted() { of(0, &raw const here as usize) } else { Place(0) }
}

/// Where another thread of this process waits in a fault, if that is wanted.
pub fn of_thread(thread: u32) -> Option<Place> {
    if thread == 0 || !wanted() {
        return None;
    }
    // proc_pid_syscall(5): "-1 SP PC" of a thread that is blocked outside a system call, else the call, its arguments, SP and PC.
    for _ in 0..ASKED_MAX {
        let Ok(text) = file::read_whole(&format!("/proc/self/task/{thread}/syscall")) else { break };
        let text = String::from_utf8_lossy(&text);
        if text.starts_with("running") {
            rustix::thread::sched_yield();
            continue;
        }
        let mut words = text.split_ascii_whitespace().rev();
        let mut next = || usize::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let (Some(instruction), Some(stack)) = (next(), next()) else { break };
        return Some(of(instruction, stack));
    }
    Some(Place(0))
}

/// The program's code that is running: `instruction` itself, or if that is libc's or ours, the nearest caller that the stack names.
pub fn of(instruction: usize, stack: usize) -> Place {
    if !wanted() {
        return Place(0);
    }
    let found = find(instruction, stack);
    if found != Place(0) {
        return found;
    }
    // It may be code that was loaded, or made, since.
    CODE.lock().clear();
    find(instruction, stack)
}

fn find(instruction: usize, stack: usize) -> Place {
    if is_programs(instruction) {
        return Place(instruction as u64);
    }
    let length = STACK_WORDS * size_of::<usize>();
    // A stack in a region is not looked at: a page of it may be away, and we are who would bring it in.
    if runtime_if_started().is_some_and(|runtime| runtime.mappings.may_overlap(stack, stack + length)) {
        return Place(0);
    }
    let mut bytes = vec![0u8; length];
    let got = app::peek(stack, &mut bytes);
    let words = bytes[..got].chunks_exact(size_of::<usize>());
    let found =
        words.map(|word| word.try_into().map_or(0, usize::from_ne_bytes)).find(|word| follows_a_call(*word));
    // The call itself, for whoever looks up the line.
    Place(found.map_or(0, |address| address as u64 - 1))
}

/// Whether an address may be one that a call of the program's returns to.
fn follows_a_call(address: usize) -> bool {
    let mut code = [0u8; 8];
    if !is_programs(address) || app::peek(address.wrapping_sub(8), &mut code) < code.len() {
        return false;
    }
    #[cfg(target_arch = "x86_64")]
    {
        // E8 rel32; FF /2 with a register, a displacement of 1 or 4 bytes, with an index byte or without.
        let indirect = |at: usize| code[at] == 0xff && code[at + 1] >> 3 & 7 == 2;
        code[3] == 0xe8 || [1, 2, 4, 5, 6].into_iter().any(indirect)
    }
    #[cfg(target_arch = "aarch64")]
    {
        let word = u32::from_le_bytes([code[4], code[5], code[6], code[7]]);
        word >> 26 == 0b10_0101 || word & 0xffff_fc1f == 0xd63f_0000
    }
}

fn is_programs(address: usize) -> bool {
    let inside = |code: &[(usize, usize)]| {
        let at = code.partition_point(|range| range.1 <= address);
        code.get(at).is_some_and(|range| range.0 <= address)
    };
    if address < 4096 {
        return false;
    }
    let mut code = CODE.lock();
    if code.is_empty() {
        *code = read_code();
    }
    inside(&code)
}

/// What can be executed and is the program's, in order.
fn read_code() -> Vec<(usize, usize)> {
    let text = file::read_whole("/proc/self/maps").unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(programs_code).collect()
}

fn programs_code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let executable = words.next()?.as_bytes().get(2) == Some(&b'x');
    let path = words.nth(3).unwrap_or("").trim();
    let name = path.rsplit('/').next().unwrap_or("");
    let theirs = ["libc.so", "libc-2", "ld-linux", "libnetmem.so", "libpthread", "["];
    let programs = executable && !theirs.iter().any(|one| name.starts_with(one));
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    programs.then_some((hex(start)?, hex(end)?))
}

#[cfg(test)]
mod tests {
    use super::programs_code;

    #[test]
    fn code_is_the_programs_if_it_is_neither_libcs_nor_ours() {
        let line = |perms: &str, path: &str| {
            format!("1000-2000 {perms} 00000000 08:01 77                         {path}")
        };
        assert_eq!(programs_code(&line("r-xp", "/usr/bin/a b")), Some((0x1000, 0x2000)));
        assert_eq!(programs_code(&line("r-xp", "/opt/libc++.so.1")), Some((0x1000, 0x2000)));
        assert_eq!(programs_code("1000-2000 rwxp 00000000 00:00 0 "), Some((0x1000, 0x2000)));
        for path in
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/x/libnetmem.so", "[vdso]"]
        {
            assert_eq!(programs_code(&line("r-xp", path)), None);
        }
        assert_eq!(programs_code(&line("r--p", "/usr/bin/a")), None);
    }
}
