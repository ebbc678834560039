//! The family: a process and its children, which have one budget together.
//!
//! Owns: [`Family`], how much each member has, and what is left for this one. Called by: keeper. Must not: take a lock: a member may be killed
//! at any moment.
//!
//! F2. What a member may have is the budget less what the others have, of each of whom no more than an equal share is counted. So who is
//! alone has all of it; who grows makes the others smaller, as far as an equal share; and as each keeps to that, all together keep to the budget.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use core::time::Duration;

use rustix::fs::OFlags;

use crate::sys::clock::monotonic_ns;
use crate::sys::errno::Errno;
use crate::sys::mem::{self, PAGE};
use crate::sys::{file, proc, shm};

/// Members that are counted; more than these have what is left all the same.
const MEMBERS: usize = PAGE / size_of::<Member>();
/// Pages that each may have, whatever the others do: what can't leave has to fit, and something else.
const LEAST: usize = 1024;
/// How long it may take until a member that is gone is noticed, and how old a count of shared pages may be.
const STALE: Duration = Duration::from_millis(100);

/// A page that all members share: of all who were forked, or of a file that the command names (NETMEM_FAMILY).
static MEMBERS_OF_ALL: AtomicPtr<Member> = AtomicPtr::new(core::ptr::null_mut());

#[repr(C)]
struct Member {
    /// Its process and the low half of when that began; 0: nobody.
    who: AtomicU64,
    /// Pages that it has.
    pages: AtomicU64,
}

/// This process among its family.
pub(super) struct Family {
    members: &'static [Member],
    /// Its place, and what it goes by there.
    me: Option<(usize, u64)>,
    /// When its part of what is shared is looked at again; what it was, and what was resident then.
    looked: (u64, usize, usize),
    /// When it was last looked who is dead.
    buried: u64,
    /// How many others have pages, as it was last seen.
    others: usize,
}

/// Makes the page, before a process has children. The family has no members if it can't be made.
pub(super) fn found(path: Option<&str>) {
    let place = match path {
        Some(path) => file::open(path, OFlags::RDWR, 0).and_then(|file| {
            // A file of the user's, that is named by mistake, stays what it is.
            if ![0, PAGE as i64].contains(&rustix::fs::fstat(file.borrow())?.st_size) {
                return Err(Errno(libc::EINVAL));
            }
            shm::extend(&file, PAGE as u64)?;
            shm::map_apart(&file, 0, PAGE)
        }),
        None => mem::map_shared(PAGE),
    };
    match place {
        Ok(at) => MEMBERS_OF_ALL.store(at as *mut Member, Ordering::Release),
        Err(errno) => crate::log::error!("NETMEM_MEMORY_BYTES: each process has its own ({errno})"),
    }
}

fn name_of(pid: i32) -> Option<u64> {
    let started = proc::start_time(pid).filter(|started| *started != 0)?;
    Some(started << 32 | pid as u64)
}

fn members() -> &'static [Member] {
    let first = MEMBERS_OF_ALL.load(Ordering::Acquire);
    if first.is_null() {
        return &[];
    }
    // SAFETY: a page that is never given up, of atomics.
    unsafe { core::slice::from_raw_parts(first, MEMBERS) }
}

/// This process ends, or becomes another program.
pub(super) fn leave() {
    let pid = own_pid() as u64;
    for member in members().iter().filter(|member| member.who.load(Ordering::Relaxed) as u32 as u64 == pid) {
        member.pages.store(0, Ordering::Relaxed);
        member.who.store(0, Ordering::Release);
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

impl Family {
    /// With a place for this process.
    pub(super) fn join() -> Family {
        let members = members();
        let me = name_of(own_pid()).and_then(|name| {
            let take = |member: &Member| {
                let taken = member.who.compare_exchange(0, name, Ordering::AcqRel, Ordering::Acquire);
                taken.is_ok() || taken == Err(name)
            };
            members.iter().position(take).map(|place| (place, name))
        });
        let others = members.iter().filter(|member| member.pages.load(Ordering::Relaxed) > 0).count();
        Family { members, me, looked: (0, 0, 0), buried: 0, others }
    }

    /// Whether there are others.
    pub(super) fn has_others(&self) -> bool {
        self.others > 0
    }

    /// Of so many resident pages, those that are this process's: each shared one in part (Pss, proc_pid_smaps(5)).
    pub(super) fn own_part(&mut self, resident: usize) -> usize {
        if !self.has_others() {
            return resident;
        }
        let now = monotonic_ns();
        if now >= self.looked.0
            && let Some(part) = proportional()
        {
            // A look at much memory takes long.
            let pause = (20 * (monotonic_ns() - now)).max(STALE.as_nanos() as u64);
            self.looked = (now + pause, part, resident);
        }
        let (_, part, before) = self.looked;
        (part + resident).saturating_sub(before).min(resident)
    }

    /// Says that this process has so many pages, and how many it may have of `budget`.
    pub(super) fn limit(&mut self, budget: usize, pages: usize) -> usize {
        let Some((me, name)) = self.me else { return budget };
        match self.members[me].who.compare_exchange(0, name, Ordering::AcqRel, Ordering::Acquire) {
            // It left for an exec that failed.
            Ok(_) => {}
            Err(who) if who == name => {}
            Err(_) => {
                *self = Family::join();
                return budget;
            }
        }
        self.members[me].pages.store(pages as u64, Ordering::Relaxed);
        let now = monotonic_ns();
        if now.saturating_sub(self.buried) > STALE.as_nanos() as u64 {
            self.buried = now;
            self.bury_the_dead();
        }
        let others = self.members.iter().enumerate().filter(|(at, _)| *at != me);
        let others = others.filter(|(_, member)| member.who.load(Ordering::Relaxed) != 0);
        let others = others.map(|(_, member)| member.pages.load(Ordering::Relaxed) as usize);
        let others: Vec<usize> = others.filter(|pages| *pages > 0).collect();
        self.others = others.len();
        let whole = others.iter().sum::<usize>() + pages;
        super::counters::FAMILY_MAX.fetch_max(whole as u64, Ordering::Relaxed);
        let share = budget / (1 + others.len());
        let taken = others.iter().map(|pages| (*pages).min(share)).sum();
        budget.saturating_sub(taken).max(share).max(LEAST.min(budget))
    }

    fn bury_the_dead(&self) {
        for member in self.members {
            let who = member.who.load(Ordering::Acquire);
            if who != 0 && name_of(who as u32 as i32) != Some(who) {
                // Whoever takes the place next begins with nothing.
                member.pages.store(0, Ordering::Relaxed);
                let _ = member.who.compare_exchange(who, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

/// Pages of anonymous memory, of each shared one its part.
fn proportional() -> Option<usize> {
    let text = file::read_whole("/proc/self/smaps_rollup").ok()?;
    let text = core::str::from_utf8(&text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    let kilobytes: usize = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024 / PAGE)
}
