//! Scripts out of numbers.
//!
//! Owns: which lines there are and how likely each is. Called by: the exploration. Must not: need to be right about what is
//! open or mapped: it guesses well enough that most lines do something, and a wrong guess is an error that both sides give.

mod names;

use std::collections::BTreeMap;

use super::Script;
use super::dice::Dice;
use super::play::NAMES;

const PAGE: u64 = 4096;
/// Pages of the arena that scripts use; the interpreter's has 1,024.
const ARENA: u64 = 1000;

/// When the whole state is looked at. A look brings every page in, so that looking always leaves no page absent.
#[derive(Clone, Copy, PartialEq)]
enum Looks {
    Always,
    Sampled,
    Seldom,
}

/// Pages of the arena that a process has mapped.
#[derive(Clone, Copy)]
struct Range {
    page: u64,
    pages: u64,
}

#[derive(Clone, Default)]
struct Process {
    /// Slot → name when it was opened.
    open: BTreeMap<u64, usize>,
    mapped: Vec<Range>,
}

struct Writer {
    dice: Dice,
    lines: Script,
    processes: BTreeMap<char, Process>,
    /// Bytes in each file, as far as is known.
    sizes: [u64; NAMES.len()],
    /// Whether it was ever made.
    made: [bool; NAMES.len()],
    pages_max: u64,
    looks: Looks,
    /// Which kinds of line are more likely in this script.
    taste: u64,
}

/// A script of about `operations` lines.
pub fn generate(seed: u64, operations: usize) -> Script {
    let mut dice = Dice(seed);
    let pages_max = dice.one(&[6, 24, 24, 80, 300, 700]);
    let looks = dice.one(&[Looks::Always, Looks::Sampled, Looks::Sampled, Looks::Seldom]);
    let taste = dice.below(4);
    let sizes = [0; NAMES.len()];
    let mut writer = Writer {
        dice,
        lines: Vec::new(),
        processes: BTreeMap::new(),
        sizes,
        made: [false; NAMES.len()],
        pages_max,
        looks,
        taste,
    };
    writer.begin();
    while writer.lines.len() < operations {
        writer.step();
    }
    writer.lines
}

impl Writer {
    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Files with something in them, which are then absent more often than not.
    fn begin(&mut self) {
        self.say("start a".to_owned());
        self.processes.insert('a', Process::default());
        let files = self.dice.below(3) as usize + 1;
        for (file, name) in NAMES.iter().enumerate().take(files) {
            let size = self.size();
            let seed = self.dice.below(1000);
            self.say(format!("a open {file} {name} rwc"));
            self.say(format!("a pwrite {file} 0 {size} {seed} -"));
            (self.sizes[file], self.made[file]) = (size, true);
            if self.dice.once_in(3) {
                let more = self.dice.below(9 * PAGE);
                self.say(format!("a trunc {file} {}", size + more));
            }
            self.say(format!("a close {file}"));
        }
        match self.dice.below(4) {
            0 => {}
            1 => self.say("restart".to_owned()),
            _ => self.say("cold".to_owned()),
        }
        for _ in 0..2 {
            self.open('a');
            self.map('a');
        }
    }

    fn step(&mut self) {
        if self.dice.once_in(60) {
            let how = self.dice.one(&["cold", "cold", "back", "back", "restart"]);
            self.say("check".to_owned());
            self.say(how.to_owned());
            self.processes = BTreeMap::from([('a', Process::default())]);
            self.open('a');
            self.map('a');
            return;
        }
        let labels: Vec<char> = self.processes.keys().copied().collect();
        let who = self.dice.one(&labels);
        if self.dice.once_in(if self.taste == 0 { 12 } else { 40 }) {
            self.process(who);
        } else {
            let kind = self.dice.below(12);
            match (kind, self.taste) {
                (0, _) => self.open_or_close(who),
                (1, _) => self.map(who),
                (2 | 3, _) | (4 | 5, 1) => self.shape_mapping(who),
                (4, _) => self.names(who),
                (5, _) | (6, 2) => self.shape_file(who),
                (6 | 7, _) | (8, 2) => self.transfer(who),
                _ => self.touch(who),
            }
        }
        match self.looks {
            Looks::Always => self.say("check".to_owned()),
            Looks::Sampled if self.processes.contains_key(&who) => {
                let at = self.place(who);
                self.say(format!("{who} look {} 1", at / PAGE));
            }
            Looks::Seldom if self.dice.once_in(25) => self.say("check".to_owned()),
            Looks::Sampled | Looks::Seldom => {}
        }
    }

    fn process(&mut self, who: char) {
        const LABELS: [char; 5] = ['a', 'b', 'c', 'd', 'e'];
        let new = LABELS.into_iter().find(|label| !self.processes.contains_key(label));
        match (self.dice.below(4), new) {
            (0..=1, Some(new)) => {
                self.say(format!("{who} fork {new}"));
                let copy = self.processes[&who].clone();
                self.processes.insert(new, copy);
            }
            (2, Some(new)) => {
                self.say(format!("start {new}"));
                self.processes.insert(new, Process::default());
                self.open(new);
                self.map(new);
            }
            _ if self.processes.len() > 1 => {
                let how = self.dice.one(&["exit", "exit", "_exit", "kill"]);
                self.processes.remove(&who);
                if how == "kill" {
                    // What a killed process stored is kept by another that holds the file; the last one's is dropped.
                    let other = self.processes.keys().next().copied().unwrap_or('a');
                    self.say(format!("{other} tails {}", NAMES.join(" ")));
                }
                self.say(format!("{who} {how}"));
            }
            _ => {}
        }
    }

    /// Sizes, odd ones and whole pages.
    fn size(&mut self) -> u64 {
        let pages = self.dice.small(self.pages_max);
        match self.dice.below(3) {
            0 => pages * PAGE,
            1 => pages * PAGE + self.dice.below(PAGE),
            _ => (pages * PAGE + self.dice.below(9)).saturating_sub(4),
        }
    }

    /// An offset in a file, often near its end or a page's.
    fn offset(&mut self, file: usize) -> u64 {
        let size = self.sizes[file];
        let at = match self.dice.below(5) {
            0 => size,
            1 => self.size(),
            _ => self.dice.below(size + 1),
        };
        match self.dice.below(4) {
            0 => at / PAGE * PAGE,
            1 => (at / PAGE * PAGE + self.dice.below(7)).saturating_sub(3),
            _ => at,
        }
    }

    fn count(&mut self) -> u64 {
        match self.dice.below(6) {
            0 => self.dice.below(20),
            1 => PAGE,
            2 => self.dice.small(self.pages_max.min(200)) * PAGE,
            3 => self.dice.small(40 * PAGE),
            _ => self.dice.small(3 * PAGE),
        }
    }

    fn slot(&mut self, who: char) -> (u64, usize) {
        let open: Vec<(u64, usize)> =
            self.processes[&who].open.iter().map(|(slot, file)| (*slot, *file)).collect();
        if open.is_empty() || self.dice.once_in(60) {
            return (self.dice.below(6), self.dice.below(NAMES.len() as u64) as usize);
        }
        self.dice.one(&open)
    }

    fn mapped(&self, who: char) -> Vec<Range> {
        self.processes.get(&who).map(|process| process.mapped.clone()).unwrap_or_default()
    }

    /// A place in the arena: mostly one that is mapped.
    fn place(&mut self, who: char) -> u64 {
        let mapped = self.mapped(who);
        if mapped.is_empty() || self.dice.once_in(30) {
            return self.dice.below(ARENA) * PAGE;
        }
        let range = self.dice.one(&mapped);
        let page = range.page + self.dice.below(range.pages);
        page * PAGE + if self.dice.once_in(2) { 0 } else { self.dice.below(PAGE) }
    }

    fn address(place: u64) -> String {
        match place % PAGE {
            0 => format!("{}", place / PAGE),
            rest => format!("{}+{rest}", place / PAGE),
        }
    }

    fn buffer(&mut self, who: char) -> String {
        if self.dice.once_in(5) { Self::address(self.place(who)) } else { "-".to_owned() }
    }

    /// A range of whole pages: all of one mapping, a part, or more than one.
    fn range(&mut self, who: char) -> (u64, u64) {
        let mapped = self.mapped(who);
        if mapped.is_empty() || self.dice.once_in(20) {
            return (self.dice.below(ARENA), 1 + self.dice.small(8));
        }
        let range = self.dice.one(&mapped);
        match self.dice.below(4) {
            0 => (range.page, range.pages),
            1 => (range.page, range.pages + self.dice.small(6)),
            _ => {
                let from = self.dice.below(range.pages);
                (range.page + from, 1 + self.dice.small(range.pages - from + 2))
            }
        }
    }

    fn open(&mut self, who: char) {
        let slot = self.dice.below(6);
        let file = if self.dice.once_in(8) { self.dice.below(4) } else { self.dice.small(3) } as usize;
        let flags = match self.dice.below(3) {
            0 => self.dice.one(&["r", "r", "w", "wc", "wa", "rwa", "rwca", "rws", "rwct", "rwcx"]),
            _ if self.made[file] => "rw",
            _ => "rwc",
        };
        self.made[file] |= flags.contains('c');
        self.say(format!("{who} open {slot} {} {flags}", NAMES[file]));
        if flags.contains('t') {
            self.sizes[file] = 0;
        }
        if self.made[file] {
            self.processes.entry(who).or_default().open.entry(slot).or_insert(file);
        }
    }

    fn open_or_close(&mut self, who: char) {
        let (slot, file) = self.slot(who);
        match self.dice.below(6) {
            0..=1 => {
                self.say(format!("{who} close {slot}"));
                self.processes.entry(who).or_default().open.remove(&slot);
            }
            2 => {
                let to = self.dice.below(8);
                let how = self.dice.one(&["dup", "over"]);
                self.say(format!("{who} {how} {slot} {to}"));
                self.processes.entry(who).or_default().open.insert(to, file);
            }
            _ => self.open(who),
        }
    }

    fn map(&mut self, who: char) {
        let (slot, file) = self.slot(who);
        let inside = self.sizes[file].div_ceil(PAGE);
        let first = if self.dice.once_in(2) { 0 } else { self.dice.below(inside + 1) };
        let pages = match self.dice.below(4) {
            0 => 1 + self.dice.below(4),
            1 => 1 + self.dice.below(inside + 4),
            _ => inside.saturating_sub(first) + self.dice.below(3),
        };
        let pages = pages.clamp(1, ARENA / 2);
        let page = if self.dice.once_in(3) { self.range(who).0 } else { self.dice.below(ARENA - pages) };
        let page = page.min(ARENA - pages);
        let prot = self.dice.one(&["rw", "rw", "rw", "rw", "r", "r", "w", "-", "rx"]);
        let kind = self.dice.one(&["s", "s", "s", "p", "p", "v"]);
        let fixed = self.dice.one(&["f", "f", "f", "f", "n", "h"]);
        let more = self.dice.one(&["", "", "", "", "P", "L", "N"]);
        let bytes = if self.dice.once_in(5) { pages * PAGE - self.dice.below(PAGE) } else { pages * PAGE };
        self.say(format!("{who} map {page} {bytes} {prot} {kind}{fixed}{more} {slot} {}", first * PAGE));
        self.cut(who, page, pages);
        self.processes.entry(who).or_default().mapped.push(Range { page, pages });
    }

    /// What was mapped there is no more.
    fn cut(&mut self, who: char, page: u64, pages: u64) {
        let (process, end) = (self.processes.entry(who).or_default(), page + pages);
        let mut left = Vec::new();
        for range in process.mapped.drain(..) {
            let range_end = range.page + range.pages;
            let (before, behind) = (page.min(range_end), end.max(range.page));
            if range.page < before {
                left.push(Range { page: range.page, pages: before - range.page });
            }
            if behind < range_end {
                left.push(Range { page: behind, pages: range_end - behind });
            }
        }
        process.mapped = left;
    }

    fn shape_mapping(&mut self, who: char) {
        let (page, pages) = self.range(who);
        let bytes = pages * PAGE;
        match self.dice.below(20) {
            0..=1 => {
                self.say(format!("{who} unmap {page} {bytes}"));
                self.cut(who, page, pages);
            }
            2 => {
                let prot = self.dice.one(&["rw", "r", "-"]);
                self.say(format!("{who} anon {page} {bytes} {prot}"));
            }
            3..=5 => {
                let prot = self.dice.one(&["rw", "rw", "r", "r", "-", "w", "rx"]);
                self.say(format!("{who} protect {page} {bytes} {prot}"));
            }
            6..=7 => self.remap(who, page, pages),
            8..=11 => {
                let flags = self.dice.one(&["s", "s", "s", "a", "i", "si", "ai", "-", "sa"]);
                self.say(format!("{who} msync {page} {bytes} {flags}"));
            }
            12..=17 => {
                // NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE REMOVE DONTFORK DOFORK COLD PAGEOUT POPULATE_READ POPULATE_WRITE
                let advice =
                    self.dice.one(&[0, 1, 2, 3, 3, 4, 4, 4, 4, 8, 9, 9, 9, 10, 11, 20, 21, 22, 22, 23, 23]);
                self.say(format!("{who} madvise {page} {bytes} {advice}"));
            }
            18 if self.dice.once_in(2) => {
                let first = self.dice.below(self.pages_max);
                self.say(format!("{who} pages {page} {bytes} {first}"));
            }
            18 => {
                let on_fault = self.dice.one(&["", "", " f"]);
                self.say(format!("{who} mlock {page} {bytes}{on_fault}"));
            }
            _ => self.say(format!("{who} munlock {page} {bytes}")),
        }
    }

    fn remap(&mut self, who: char, page: u64, pages: u64) {
        let after = match self.dice.below(3) {
            0 => pages,
            1 => pages + 1 + self.dice.small(8),
            _ => 1 + self.dice.below(pages),
        };
        let to = self.dice.below(ARENA - after.min(ARENA - 1));
        let flags = self.dice.one(&["-", "m", "m", "mf", "mf", "mfd", "md"]);
        self.say(format!("{who} remap {page} {} {} {flags} {to}", pages * PAGE, after * PAGE));
        let mapped = &mut self.processes.entry(who).or_default().mapped;
        mapped.push(Range { page: to, pages: after });
        mapped.push(Range { page, pages: after });
    }

    fn shape_file(&mut self, who: char) {
        let (slot, file) = self.slot(who);
        let (at, count) = (self.offset(file), self.count() + 1);
        match self.dice.below(9) {
            0..=3 => {
                let size = if self.dice.once_in(2) { self.size() } else { at };
                self.say(format!("{who} trunc {slot} {size}"));
                self.sizes[file] = size;
            }
            4 => {
                let size = self.size();
                self.say(format!("{who} truncate {} {size}", NAMES[file]));
                self.sizes[file] = size;
            }
            // PUNCH_HOLE | KEEP_SIZE
            5..=6 => self.say(format!("{who} falloc {slot} 3 {at} {count}")),
            7 => {
                let mode = self.dice.below(2);
                self.say(format!("{who} falloc {slot} {mode} {at} {count}"));
            }
            _ => self.say(format!("{who} pfalloc {slot} {at} {count}")),
        }
    }

    fn transfer(&mut self, who: char) {
        let ((slot, file), (count, second)) = (self.slot(who), (self.count(), self.count()));
        let (at, buffer, also) = (self.offset(file), self.buffer(who), self.buffer(who));
        let seed = self.dice.below(1000);
        let aside = if self.dice.once_in(6) { "t " } else { "" };
        let line = match self.dice.below(19) {
            16 => {
                let (to, into) = self.slot(who);
                let there = self.offset(into);
                format!("splice {slot} {at} {to} {there} {count}")
            }
            17 => {
                let advice = self.dice.below(7);
                format!("advise {slot} {at} {count} {advice}")
            }
            18 => format!("range {slot} {at} {count}"),
            0 => format!("read {slot} {count} {buffer}"),
            1..=3 => format!("pread {slot} {at} {count} {buffer}"),
            4 => format!("readv {slot} {count} {second} {buffer} {also}"),
            5 => format!("preadv {slot} {at} {count} {second} {buffer} {also}"),
            6 => format!("write {slot} {count} {seed} {buffer}"),
            7..=9 => format!("pwrite {slot} {at} {count} {seed} {buffer}"),
            10 => format!("writev {slot} {count} {second} {seed} {buffer} {also}"),
            11 => format!("pwritev {slot} {at} {count} {second} {seed} {buffer} {also}"),
            12 => {
                let (to, into) = self.slot(who);
                let there = self.offset(into);
                let there = if self.dice.once_in(3) { "-".to_owned() } else { there.to_string() };
                format!("copy {slot} {at} {to} {there} {count}")
            }
            13 => {
                let (to, _) = self.slot(who);
                format!("send {slot} {to} {at} {count}")
            }
            _ => {
                let whence = self.dice.one(&["set", "cur", "end", "data", "hole"]);
                format!("seek {slot} {at} {whence}")
            }
        };
        self.say(format!("{who} {aside}{line}"));
        if line.contains("write") {
            self.sizes[file] = self.sizes[file].max(at + count);
        }
    }

    fn touch(&mut self, who: char) {
        let (at, count, seed) = (self.place(who), self.count(), self.dice.below(1000));
        let at = Self::address(at);
        let aside = if self.dice.once_in(8) { "t " } else { "" };
        match self.dice.below(8) {
            0..=4 => self.say(format!("{who} {aside}store {at} {count} {seed}")),
            5..=6 => self.say(format!("{who} {aside}load {at} {count}")),
            _ => {
                let from = Self::address(self.place(who));
                self.say(format!("{who} {aside}move {at} {from} {count}"));
            }
        }
    }
}
