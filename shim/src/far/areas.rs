//! Which memory of the program may leave: private, anonymous, writable, and nobody's stack.
//!
//! Owns: reading /proc/self/maps, the sizes in /proc/self/statm, [`Ranges`]. Called by: the keeper. Must not: touch the memory.
//!
//! A5. Nothing that our own threads need is ever moved: their stacks, our heap, and the variables of the loader's libraries.

use std::collections::BTreeMap;

use crate::sys::errno::Errno;
use crate::sys::fd::OwnFd;
use crate::sys::file;
use crate::sys::mem::{self, PAGE};

/// A thread's stack is not larger, unless the program says so.
const STACK_BYTES_MAX: usize = 8 << 20;

/// A mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// First byte.
    pub start: usize,
    /// First byte behind.
    pub end: usize,
    /// First byte whose page may leave; `end` if none may.
    pub leaves: usize,
}

/// The private anonymous mappings that are to be registered: all but small stacks, and the variables of libraries. They are registered
/// whole, whatever is allowed there just now: mremap takes no range of which a part is registered.
pub fn areas() -> Result<Vec<Area>, Errno> {
    let text = file::read_whole("/proc/self/maps")?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Every private anonymous mapping, whatever is allowed there.
pub fn anonymous() -> Result<Vec<Area>, Errno> {
    let text = file::read_whole("/proc/self/maps")?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(parse_line);
    Ok(lines.filter(|line| is_anonymous(line) && line.1.ends_with('p')).map(|line| line.0).collect())
}

fn is_anonymous((_, _, inode, name): &(Area, &str, u64, &str)) -> bool {
    *inode == 0 && (name.is_empty() || *name == "[heap]" || name.starts_with("[anon:"))
}

/// What stands before a mapping in the list decides, too.
#[derive(Default)]
struct Before {
    end: usize,
    library: bool,
    guard: bool,
}

fn parse(text: &str) -> Vec<Area> {
    let mut before = Before::default();
    let mut areas = Vec::new();
    for line in text.lines() {
        let Some(parsed) = parse_line(line) else { continue };
        let (area, perms, _, name) = parsed;
        let anonymous = is_anonymous(&parsed);
        let touches = before.end == area.start;
        // Variables that a library begins with zeros follow its file; a guard page stands before the stack of a thread.
        let follows_library = touches && before.library;
        let is_stack = touches && before.guard;
        // What lies behind a stack may be one mapping with it.
        let leaves = area.start + if is_stack { STACK_BYTES_MAX } else { 0 };
        if anonymous
            && perms.ends_with('p')
            && !follows_library
            && leaves < area.end
            && !mem::is_ours(area.start)
        {
            areas.push(Area { leaves: if perms == "rw-p" { leaves } else { area.end }, ..area });
        }
        before = Before {
            end: area.end,
            library: name.contains(".so") || (anonymous && follows_library),
            guard: anonymous && perms == "---p" && area.end - area.start == PAGE,
        };
    }
    areas
}

/// `start-end perms offset major:minor inode path`
fn parse_line(line: &str) -> Option<(Area, &str, u64, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let hex = |text: &str| usize::from_str_radix(text, 16).ok();
    let mut words = rest.splitn(5, ' ');
    let perms = words.next()?;
    let (_offset, _device) = (words.next()?, words.next()?);
    let inode = words.next()?.parse().ok()?;
    let name = words.next().unwrap_or_default().trim();
    let (start, end) = (hex(start)?, hex(end)?);
    Some((Area { start, end, leaves: start }, perms, inode, name))
}

/// How much anonymous memory of this process is resident.
pub struct Resident(OwnFd);

impl Resident {
    /// Of the process that opens it.
    pub fn open() -> Result<Resident, Errno> {
        file::open("/proc/self/statm", rustix::fs::OFlags::RDONLY, 0).map(Resident)
    }

    /// Pages: all that are resident without those of files and shared memory (proc_pid_statm(5)).
    pub fn pages(&self) -> usize {
        let [_, resident, shared, ..] = self.numbers();
        resident.saturating_sub(shared)
    }

    /// Pages of data and stack, resident or not: at least what RLIMIT_DATA counts.
    pub fn data(&self) -> usize {
        self.numbers()[5]
    }

    /// All that the file says.
    fn numbers(&self) -> [usize; 7] {
        let mut buffer = [0; 128];
        let got = rustix::io::pread(self.0.borrow(), &mut buffer, 0).unwrap_or(0);
        let text = core::str::from_utf8(&buffer[..got]).unwrap_or_default();
        let mut words = text.split_ascii_whitespace().map_while(|word| word.parse::<usize>().ok());
        core::array::from_fn(|_| words.next().unwrap_or(0))
    }
}

/// A set of addresses, as ranges that neither meet nor overlap.
#[derive(Clone, Default)]
pub struct Ranges(BTreeMap<usize, usize>);

impl Ranges {
    /// None.
    pub const fn new() -> Ranges {
        Ranges(BTreeMap::new())
    }

    /// Adds a range.
    pub fn add(&mut self, start: usize, end: usize) {
        let (mut start, mut end) = (start, end);
        while let Some((&from, &to)) = self.0.range(..=end).next_back()
            && to >= start
        {
            (start, end) = (start.min(from), end.max(to));
            self.0.remove(&from);
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub fn remove(&mut self, start: usize, end: usize) {
        while let Some((&from, &to)) = self.0.range(..end).next_back()
            && to > start
        {
            self.0.remove(&from);
            if to > end {
                self.0.insert(end, to);
            }
            if from < start {
                self.0.insert(from, start);
            }
        }
    }

    /// Where the range that holds an address ends.
    pub fn end_of(&self, at: usize) -> Option<usize> {
        self.0.range(..=at).next_back().map(|(_, end)| *end).filter(|end| *end > at)
    }

    /// Whether all of a range is in it.
    pub fn covers(&self, start: usize, end: usize) -> bool {
        self.end_of(start).is_some_and(|to| to >= end)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether part of a range is in it.
    pub fn meets(&self, start: usize, end: usize) -> bool {
        self.0.range(..end).next_back().is_some_and(|(_, to)| *to > start)
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAPS: &str = "\
00400000-00500000 rw-p 00000000 08:01 77         /usr/bin/program
00500000-00900000 rw-p 00000000 00:00 0 
01000000-02000000 rw-p 00000000 00:00 0          [heap]
7f0000000000-7f0000021000 rw-p 00000000 00:00 0 
7f0000021000-7f0004000000 ---p 00000000 00:00 0 
7f1000000000-7f1000001000 ---p 00000000 00:00 0 
7f1000001000-7f1000801000 rw-p 00000000 00:00 0 
7f2000000000-7f2000002000 rw-p 001d2000 08:01 78 /usr/lib/libc.so.6
7f2000002000-7f200000f000 rw-p 00000000 00:00 0 
7f3000000000-7f3000010000 rwxp 00000000 00:00 0 
7f4000000000-7f4000010000 rw-s 00000000 00:01 9  /dev/zero (deleted)
7f5000000000-7f5000010000 rw-p 00000000 00:00 0 
7f6000000000-7f6000010000 rw-p 00000000 00:00 0  [anon: arena]
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0  [stack]
";

    #[test]
    fn heap_arenas_and_the_programs_own_variables_may_leave_and_stacks_libraries_and_shared_memory_stay() {
        let found = parse(MAPS);
        let leaving = found.iter().filter(|area| area.leaves < area.end).map(|area| area.leaves);
        let leaving: Vec<usize> = leaving.collect();
        assert_eq!(leaving, [0x50_0000, 0x100_0000, 0x7f00_0000_0000, 0x7f50_0000_0000, 0x7f60_0000_0000]);
        let others = found.iter().filter(|area| area.leaves == area.end).map(|area| area.start);
        let others: Vec<usize> = others.collect();
        assert_eq!(others, [0x7f00_0002_1000, 0x7f10_0000_0000, 0x7f30_0000_0000]);
    }

    proptest! {
        #[test]
        fn ranges_are_a_set_of_addresses(
            steps in proptest::collection::vec((any::<bool>(), 0..100usize, 1..30usize), 1..60),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), std::collections::BTreeSet::new());
            for (add, start, length) in steps {
                if add {
                    ranges.add(start, start + length);
                    model.extend(start..start + length);
                } else {
                    ranges.remove(start, start + length);
                    model.retain(|at| !(start..start + length).contains(at));
                }
                let all: Vec<usize> = ranges.iter().flat_map(|(start, end)| start..end).collect();
                prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
                let parts: Vec<(usize, usize)> = ranges.iter().collect();
                prop_assert!(parts.windows(2).all(|two| two[0].1 < two[1].0));
                for at in 0..140 {
                    prop_assert_eq!(ranges.end_of(at).is_some(), model.contains(&at));
                    prop_assert_eq!(ranges.meets(at, at + 3), (at..at + 3).any(|at| model.contains(&at)));
                }
            }
        }
    }
}
