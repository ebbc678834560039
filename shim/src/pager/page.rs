//! The life of one page of the page cache, as a pure function.
//!
//! Owns: the states, the events, and which pairs are legal. Called by: table, which stores states in atomic words. Must
//! not: know where a page lies. The table in DESIGN.md is printed by the test below.

use crate::log;

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Not here. Below the fetchable mark the server has it; at or above it, it is zeros.
    Absent = 0,
    /// Someone is bringing it in and alone may install it.
    Claimed = 1,
    /// What the cache file holds is the page; a hole in the file is a page of zeros.
    Present = 2,
    /// Someone is taking it out of the page cache and alone may say how that ends.
    Leaving = 3,
}

impl State {
    /// Whether it is somebody's who is at it just now.
    pub fn is_taken(self) -> bool {
        matches!(self, State::Claimed | State::Leaving)
    }
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone wants to bring it in.
    Claim,
    /// It was brought in.
    Install,
    /// Bringing it in failed.
    Release,
    /// The program cut it off the file.
    Cut,
    /// The program replaced all of it by zeros, or wrote a page that nobody had.
    Overwrite,
    /// It is clean, and its place is wanted.
    Evict,
    /// It was taken out, and was clean still.
    Leave,
    /// It was not taken out, or was put back.
    Stay,
}

/// An event that must not happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The state.
    pub state: State,
    /// The event.
    pub event: Event,
}

/// The state after `event`.
pub fn step(state: State, event: Event) -> Result<State, Illegal> {
    match (state, event) {
        (State::Absent, Event::Claim) => Ok(State::Claimed),
        (State::Claimed, Event::Install) => Ok(State::Present),
        (State::Claimed, Event::Release) => Ok(State::Absent),
        (State::Absent, Event::Cut) => Ok(State::Absent),
        // It stays accessible where it was, so it stays present: as zeros, which is what a cut page is if the file grows again.
        (State::Present, Event::Cut) => Ok(State::Present),
        (State::Absent | State::Present, Event::Overwrite) => Ok(State::Present),
        (State::Present, Event::Evict) => Ok(State::Leaving),
        (State::Leaving, Event::Leave) => Ok(State::Absent),
        (State::Leaving, Event::Stay) => Ok(State::Present),
        (State::Absent, Event::Install | Event::Release | Event::Evict | Event::Leave | Event::Stay)
        | (
            State::Claimed,
            Event::Claim | Event::Cut | Event::Overwrite | Event::Evict | Event::Leave | Event::Stay,
        )
        | (State::Present, Event::Claim | Event::Install | Event::Release | Event::Leave | Event::Stay)
        | (
            State::Leaving,
            Event::Claim | Event::Install | Event::Release | Event::Cut | Event::Overwrite | Event::Evict,
        ) => Err(Illegal { state, event }),
    }
}

/// The state after `event`, or the end of the process: going on would show the program bytes that are not the data.
pub fn must(state: State, event: Event, page: u64) -> State {
    match step(state, event) {
        Ok(next) => next,
        Err(illegal) => {
            log::error!(
                "page {page}: {:?} in state {:?} is a bug in netmem; stopping",
                illegal.event,
                illegal.state
            );
            std::process::abort()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, State, step};

    #[test]
    fn the_table_of_states_is_the_one_in_the_design_document() {
        let events = [
            Event::Claim,
            Event::Install,
            Event::Release,
            Event::Cut,
            Event::Overwrite,
            Event::Evict,
            Event::Leave,
            Event::Stay,
        ];
        let mut table = String::from("| state |");
        events.iter().for_each(|event| table += &format!(" {event:?} |"));
        table += "\n|---|---|---|---|---|---|---|---|---|\n";
        for state in [State::Absent, State::Claimed, State::Present, State::Leaving] {
            table += &format!("| {state:?} |");
            for event in events {
                table += &step(state, event).map_or(" - |".to_owned(), |next| format!(" {next:?} |"));
            }
            table += "\n";
        }
        let design = include_str!("../../../docs/DESIGN.md");
        assert!(design.contains(&table), "docs/DESIGN.md lacks this table:\n{table}");
    }
}
