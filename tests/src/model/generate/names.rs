//! Lines about names, links and locks.
//!
//! Owns: how likely each is. Called by: the generator. Must not: need to be right about what a name stands for.

use super::Writer;
use crate::model::play::NAMES;

impl Writer {
    pub(super) fn names(&mut self, who: char) {
        let (one, other) = (self.dice.one(&NAMES), self.dice.one(&NAMES));
        let (slot, _) = self.slot(who);
        match self.dice.below(16) {
            10..=12 => self.links(who, one, other),
            13..=15 => self.locks(who),
            0 => self.say(format!("{who} unlink {one}")),
            1 => self.say(format!("{who} rename {one} {other}")),
            2 => self.say(format!("{who} exchange {one} {other}")),
            3 => self.say(format!("{who} stat {one}")),
            4 => self.say(format!("{who} fstat {slot}")),
            _ => {
                let call = self.dice.one(&["fsync", "fdatasync"]);
                self.say(format!("{who} {call} {slot}"));
            }
        }
    }

    fn links(&mut self, who: char, one: &str, other: &str) {
        match self.dice.below(7) {
            0..=1 => self.say(format!("{who} link {one} {other}")),
            2..=3 => self.say(format!("{who} symlink {one} {other}")),
            4 => self.say(format!("{who} readlink {one}")),
            5 => self.say(format!("{who} lstat {one}")),
            _ => self.say(format!("{who} ls")),
        }
    }

    fn locks(&mut self, who: char) {
        let (slot, _) = self.slot(who);
        let (from, length) = (self.dice.below(12), self.dice.below(8));
        let kind = self.dice.one(&["r", "w", "w", "u"]);
        match self.dice.below(9) {
            0..=3 => self.say(format!("{who} lock {slot} {kind} {from} {length}")),
            4 => self.say(format!("{who} test {slot} w {from} {length}")),
            5 => self.say(format!("{who} olock {slot} {kind} {from} {length}")),
            6 => self.say(format!("{who} otest {slot} w {from} {length}")),
            _ => {
                let kind = self.dice.one(&["s", "x", "u"]);
                self.say(format!("{who} flock {slot} {kind}"));
            }
        }
    }
}
