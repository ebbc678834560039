//! The terminal, taken and given back.
//!
//! Owns: raw mode and the alternate screen, for as long as it lives. Called by: top's live view. Must not: end without giving both back,
//! whatever the end: a return, an error, a panic (hooks), a signal (its thread wakes the view up, which returns).

use std::io;
use std::panic;

use crossterm::cursor::Show;
use crossterm::execute;
use ratatui::{DefaultTerminal, Frame};

/// A terminal that is ours.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it.
    pub fn take() -> io::Result<Screen> {
        match ratatui::try_init() {
            Ok(terminal) => {
                show_cursor_on_panic();
                Ok(Screen { terminal })
            }
            Err(error) => {
                // It may have come half-way.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    /// Draws all of it anew; what did not change is not sent.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(render).map(drop)
    }
}

/// ratatui's hook gives back all but the cursor, which it leaves to a drop that an abort does not come to.
fn show_cursor_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |why| {
        let _ = execute!(io::stdout(), Show);
        before(why);
    }));
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}
