//! What the live view shows: the newest interval, or why there is none.
//!
//! Owns: what the keys have chosen, and drawing it. Called by: top's live view. Must not: wait for anything.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row};

use crate::activity::Snapshot;
use crate::error::ClientError;
use crate::top::SORTING;
use crate::top::interval::Interval;
use crate::top::live::Press;
use crate::top::table::{Sorting, Subject, Table, age, summary};

const HELP: &str = "\
Tab, t        regions or clients
← → < >       sort by another column
r             sort from the other end
↑ ↓ k j       scroll; PageUp, PageDown by ten
p, space      pause, go on
h, ?          this help
q, Esc, ^C    end

FETCH/s       fetch requests a second; a fault waits for one, prefetching makes more
PAGES-OUT/s   pages sent a second, those of zeros not counted
COMMIT/s      commits a second: msync, fsync, the last close
PAGES-IN/s    pages committed a second
p50, p99      how long the server took, in the last interval, over a fetch and over a commit: from the read
              that brought the request's end until the kernel had the whole answer; the network is not in it
HOLDS         how often clients have it open";

/// What becomes of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    On,
    /// Enough was seen.
    End,
}

/// Everything that is drawn.
pub struct View {
    server: String,
    subject: Subject,
    /// One for regions, one for clients.
    sorting: [Sorting; 2],
    paused: bool,
    help: bool,
    scroll: usize,
    /// Rows and columns at the last drawing, within which keys move.
    extent: (usize, usize),
    before: Option<Snapshot>,
    interval: Option<Interval>,
    /// Why the server can't be seen, and since when.
    away: Option<(String, Instant)>,
    /// Intervals until the end.
    left: Option<u64>,
}

impl View {
    /// Of a server that was not looked at yet.
    pub fn new(server: String, count: Option<u64>) -> View {
        View {
            server,
            subject: Subject::Regions,
            sorting: [SORTING; 2],
            paused: false,
            help: false,
            scroll: 0,
            extent: (0, 1),
            before: None,
            interval: None,
            away: None,
            left: count,
        }
    }

    /// The server was looked at.
    pub fn looked(&mut self, result: Result<Snapshot, ClientError>) -> Then {
        let now = match result {
            Ok(now) => now,
            Err(error) => {
                let since = self.away.take().map_or_else(Instant::now, |(_, since)| since);
                self.away = Some((error.to_string(), since));
                // What was counted while nobody looked belongs to no interval.
                self.before = None;
                return Then::On;
            }
        };
        self.away = None;
        let interval = self.before.as_ref().and_then(|before| Interval::between(before, &now));
        self.before = Some(now);
        let Some(interval) = interval else { return Then::On };
        if !self.paused {
            self.interval = Some(interval);
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.left == Some(0) { Then::End } else { Then::On }
    }

    fn sorting(&mut self) -> &mut Sorting {
        &mut self.sorting[usize::from(self.subject == Subject::Clients)]
    }

    /// A key was pressed.
    pub fn press(&mut self, press: Press) {
        let (rows, columns) = self.extent;
        match press {
            Press::Quit => {}
            Press::Switch => {
                self.subject = match self.subject {
                    Subject::Regions => Subject::Clients,
                    Subject::Clients => Subject::Regions,
                };
                self.scroll = 0;
            }
            Press::Pause => self.paused = !self.paused,
            Press::Help => self.help = !self.help,
            Press::Left => self.sorting().column = self.sorting().column.saturating_sub(1),
            Press::Right => self.sorting().column = (self.sorting().column + 1).min(columns - 1),
            Press::Reverse => self.sorting().reversed = !self.sorting().reversed,
            Press::Scroll(by) => {
                self.scroll = self.scroll.saturating_add_signed(by as isize).min(rows.saturating_sub(1));
            }
        }
    }

    fn state(&self) -> Span<'_> {
        let loud = Style::new().add_modifier(Modifier::REVERSED);
        match (&self.away, self.paused) {
            (Some((why, since)), _) => {
                Span::styled(format!(" away for {}: {why} ", age(since.elapsed().as_secs())), loud)
            }
            (None, true) => Span::styled(" paused ", loud),
            (None, false) => Span::raw(""),
        }
    }
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(4), Constraint::Min(0), Constraint::Length(1)])
            .areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines =
        vec![Line::from(vec![Span::styled(format!("netmem top  {}  ", view.server), bold), view.state()])];
    match &view.interval {
        Some(interval) => lines.extend(summary(interval).map(Line::from)),
        None if view.away.is_none() => lines.push(Line::from("waiting for the first interval to end")),
        None => {}
    }
    frame.render_widget(Paragraph::new(lines), head);
    let keys = "q end  Tab regions/clients  ← → sort  r reverse  p pause  h help";
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
    if view.help {
        return frame.render_widget(Paragraph::new(HELP), body);
    }
    if let Some(interval) = view.interval.take() {
        let sorting = *view.sorting();
        let table = Table::new(&interval, view.subject, sorting);
        view.interval = Some(interval);
        draw_table(frame, body, view, &table, sorting);
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, view: &mut View, table: &Table, sorting: Sorting) {
    view.extent = (table.rows.len(), table.titles.len());
    view.scroll = view.scroll.min(table.rows.len().saturating_sub(1));
    let cell = |at: usize, text: &str| {
        let line = Line::from(text.to_owned());
        Cell::from(if at == 0 { line } else { line.right_aligned() })
    };
    let title = |(at, title): (usize, &&'static str)| {
        if at != sorting.column {
            return cell(at, title);
        }
        cell(at, title).style(Style::new().add_modifier(Modifier::REVERSED))
    };
    let titles =
        Row::new(table.titles.iter().enumerate().map(title)).style(Style::new().add_modifier(Modifier::BOLD));
    let shown = table.rows.iter().skip(view.scroll).take(usize::from(area.height));
    let mut rows: Vec<Row<'_>> =
        shown.map(|row| Row::new(row.iter().enumerate().map(|(at, text)| cell(at, text)))).collect();
    if table.left_out {
        rows.push(Row::new([format!("… and more than these {}", table.rows.len())]));
    }
    // The first column takes what the numbers leave.
    let widths = table.widths.iter().enumerate().map(|(at, width)| {
        let width = u16::try_from(*width).unwrap_or(u16::MAX);
        if at == 0 { Constraint::Fill(1) } else { Constraint::Length(width) }
    });
    let widget = ratatui::widgets::Table::new(rows, widths).header(titles).column_spacing(2);
    frame.render_widget(widget, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::interval::tests::snapshot;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(view: &mut View) -> String {
        let mut terminal = Terminal::new(TestBackend::new(110, 12)).expect("no terminal is needed");
        terminal.draw(|frame| draw(frame, view)).expect("nothing to fail");
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(110);
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    fn away() -> ClientError {
        ClientError::Request("tcp://h:1: connection refused".to_owned())
    }

    #[test]
    fn the_newest_interval_is_shown_until_it_is_paused() {
        let mut view = View::new("tcp://h:1".to_owned(), None);
        assert!(screen(&mut view).contains("waiting for the first interval"));
        assert_eq!(view.looked(Ok(snapshot(10, 100))), Then::On);
        assert_eq!(view.looked(Ok(snapshot(12, 300))), Then::On);
        let shown = screen(&mut view);
        assert!(shown.contains("fetch 100/s (200 pages/s)") && shown.contains("a/b"), "{shown}");
        view.press(Press::Pause);
        view.looked(Ok(snapshot(13, 1000)));
        let shown = screen(&mut view);
        assert!(shown.contains(" paused ") && shown.contains("fetch 100/s"), "{shown}");
        view.press(Press::Pause);
        view.looked(Ok(snapshot(14, 1050)));
        assert!(screen(&mut view).contains("fetch 50.0/s"));
    }

    #[test]
    fn a_server_that_goes_and_comes_back_is_told_and_begins_a_new_interval() {
        let mut view = View::new("tcp://h:1".to_owned(), None);
        view.looked(Ok(snapshot(10, 100)));
        view.looked(Ok(snapshot(12, 300)));
        view.looked(Err(away()));
        let shown = screen(&mut view);
        assert!(shown.contains("away for 0s: tcp://h:1: connection refused"), "{shown}");
        assert!(shown.contains("fetch 100/s"), "what was last known stays\n{shown}");
        view.looked(Ok(snapshot(1, 7)));
        let shown = screen(&mut view);
        assert!(!shown.contains("away") && shown.contains("fetch 100/s"), "{shown}");
        view.looked(Ok(snapshot(2, 9)));
        assert!(screen(&mut view).contains("fetch 2.0/s"));
    }

    #[test]
    fn keys_choose_the_table_the_column_and_the_help() {
        let mut view = View::new("tcp://h:1".to_owned(), Some(2));
        view.looked(Ok(snapshot(10, 100)));
        view.looked(Ok(snapshot(12, 300)));
        let row = |shown: &str, text: &str| shown.lines().position(|line| line.starts_with(text));
        let shown = screen(&mut view);
        assert!(row(&shown, "a/b") < row(&shown, "#5"), "{shown}");
        view.press(Press::Reverse);
        let shown = screen(&mut view);
        assert!(row(&shown, "a/b") > row(&shown, "#5"), "{shown}");
        view.press(Press::Switch);
        let shown = screen(&mut view);
        assert!(shown.contains("10.0.0.9:4711") && shown.contains("OUT/s"), "{shown}");
        for _ in 0..99 {
            view.press(Press::Right);
        }
        assert_eq!(view.sorting().column, 10, "the last one");
        view.press(Press::Help);
        let shown = screen(&mut view);
        assert!(shown.contains("sort by another column") && !shown.contains("10.0.0.9"), "{shown}");
        assert_eq!(view.looked(Ok(snapshot(13, 300))), Then::End, "the second interval of two");
    }
}
