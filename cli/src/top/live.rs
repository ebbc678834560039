//! The live view: three threads that tell what happens, and one that draws it.
//!
//! Owns: keys, the terminal's size, signals, and looking at the server in time. Called by: top. Must not: let a server that does not answer
//! hold up a key.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::activity::Snapshot;
use crate::error::{ClientError, Failure, describe_io};
use crate::top::Looker;
use crate::top::screen::Screen;
use crate::top::view::{Then, View, draw};

/// Something that changes what is seen.
enum Happened {
    Looked(Result<Box<Snapshot>, ClientError>),
    Key(Press),
    /// The terminal has another size.
    Resized,
    Signal(i32),
    /// No more keys will come.
    Deaf(io::Error),
}

/// A key that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Press {
    /// End.
    Quit,
    /// Regions or clients.
    Switch,
    /// Stand still, or go on.
    Pause,
    /// Show the keys, or the table.
    Help,
    /// Sort by the column to the left.
    Left,
    /// Sort by the column to the right.
    Right,
    /// From the other end.
    Reverse,
    /// So many rows up or down.
    Scroll(i32),
}

fn press(key: &KeyEvent) -> Option<Press> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Press::Quit);
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Press::Quit),
        KeyCode::Tab | KeyCode::Char('t') => Some(Press::Switch),
        KeyCode::Char('p' | ' ') => Some(Press::Pause),
        KeyCode::Char('h' | '?') => Some(Press::Help),
        KeyCode::Left | KeyCode::Char('<') => Some(Press::Left),
        KeyCode::Right | KeyCode::Char('>') => Some(Press::Right),
        KeyCode::Char('r') => Some(Press::Reverse),
        KeyCode::Up | KeyCode::Char('k') => Some(Press::Scroll(-1)),
        KeyCode::Down | KeyCode::Char('j') => Some(Press::Scroll(1)),
        KeyCode::PageUp => Some(Press::Scroll(-10)),
        KeyCode::PageDown => Some(Press::Scroll(10)),
        _ => None,
    }
}

/// Shows what happens until a key, a signal, or `count` intervals.
pub fn run(looker: Looker, interval: Duration, count: Option<u64>) -> Result<u8, Failure> {
    let failed = |error: io::Error| {
        Failure::new("the terminal", describe_io(&error), "use netmem top --batch, which needs none")
    };
    let (send, happened) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let mut view = View::new(looker.options.server.to_string(), count);
    let mut screen = Screen::take().map_err(failed)?;
    let to_signals = send.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = to_signals.send(Happened::Signal(signal));
        }
    });
    let to_keys = send.clone();
    thread::spawn(move || listen(&to_keys));
    // Closed when the view ends: the looker's pause ends with it.
    let (_end, ended) = mpsc::channel();
    thread::spawn(move || look(looker, interval, &send, &ended));
    loop {
        screen.draw(|frame| draw(frame, &mut view)).map_err(failed)?;
        match happened.recv() {
            Ok(Happened::Looked(result)) => {
                if view.looked(result.map(|snapshot| *snapshot)) == Then::End {
                    return Ok(0);
                }
            }
            Ok(Happened::Key(Press::Quit)) => return Ok(0),
            Ok(Happened::Key(press)) => view.press(press),
            Ok(Happened::Resized) => {}
            Ok(Happened::Signal(signal)) => return Ok(128 + signal as u8),
            Ok(Happened::Deaf(error)) => return Err(failed(error)),
            Err(mpsc::RecvError) => return Ok(0),
        }
    }
}

fn listen(send: &Sender<Happened>) {
    loop {
        let happened = match event::read() {
            Ok(Event::Key(key)) => match press(&key) {
                Some(press) => Happened::Key(press),
                None => continue,
            },
            Ok(Event::Resize(..)) => Happened::Resized,
            Ok(_) => continue,
            Err(error) => {
                let _ = send.send(Happened::Deaf(error));
                return;
            }
        };
        if send.send(happened).is_err() {
            return;
        }
    }
}

fn look(mut looker: Looker, interval: Duration, send: &Sender<Happened>, ended: &Receiver<()>) {
    loop {
        let looked = looker.look().map(Box::new);
        if send.send(Happened::Looked(looked)).is_err() {
            return;
        }
        if ended.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let plain = |code| press(&KeyEvent::new(code, KeyModifiers::NONE));
        let control = |letter| press(&KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(plain(code), Some(Press::Quit));
        }
        assert_eq!((control('c'), control('q')), (Some(Press::Quit), None));
        assert_eq!(
            (plain(KeyCode::Tab), plain(KeyCode::Char(' '))),
            (Some(Press::Switch), Some(Press::Pause))
        );
        assert_eq!((plain(KeyCode::Right), plain(KeyCode::Char('x'))), (Some(Press::Right), None));
    }
}
