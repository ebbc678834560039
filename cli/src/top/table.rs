//! The columns of regions and of clients: titles, texts, and what they are sorted by.
//!
//! Owns: how a number is written and in which order rows come. Called by: top's live view and its batches. Must not: know a terminal.

use std::cmp::Ordering;

use crate::args::human_bytes;
use crate::error::printable;
use crate::top::interval::{ClientRow, Interval, Rates, RegionRow};

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Regions.
    Regions,
    /// Clients.
    Clients,
}

/// What a row is sorted by: numbers from the largest down, texts from A on.
enum Key {
    Number(f64),
    Text(String),
}

struct Column<T> {
    title: &'static str,
    text: fn(&T) -> String,
    key: fn(&T) -> Key,
}

/// Rows as text, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Titles.
    pub titles: Vec<&'static str>,
    /// Texts of each row, as many as titles.
    pub rows: Vec<Vec<String>>,
    /// How wide each column is, its title included.
    pub widths: Vec<usize>,
    /// Whether rows are left out.
    pub left_out: bool,
}

/// By which column a table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorting {
    /// The column.
    pub column: usize,
    /// From the other end.
    pub reversed: bool,
}

/// A number of things a second: `0`, `0.4`, `12.5`, `1234`, `1.2M`.
pub fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.1}M", rate / 1e6),
        rate if rate >= 99.95 => format!("{rate:.0}"),
        rate if rate > 0.0 => format!("{:.1}", rate.max(0.1)),
        _ => "0".to_owned(),
    }
}

/// Bytes, short: `0`, `4.0K`, `1.5M`.
pub fn short_bytes(bytes: f64) -> String {
    let text = human_bytes(bytes as u64);
    match text.split_once(' ') {
        Some((number, "bytes")) => number.to_owned(),
        Some((number, unit)) => format!("{number}{}", &unit[..1]),
        None => text,
    }
}

/// Seconds, short: `45s`, `12m`, `3h`, `5d`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A row that has rates.
trait Rated {
    fn rates(&self) -> &Rates;
}

impl Rated for RegionRow {
    fn rates(&self) -> &Rates {
        &self.rates
    }
}

impl Rated for ClientRow {
    fn rates(&self) -> &Rates {
        &self.rates
    }
}

fn rate_columns<T: Rated>() -> [Column<T>; 4] {
    [
        column("FETCH/s", |row: &T| per_second(row.rates().fetches), |row| Key::Number(row.rates().fetches)),
        column(
            "PAGES-OUT/s",
            |row: &T| per_second(row.rates().pages_out),
            |row| Key::Number(row.rates().pages_out),
        ),
        column("COMMIT/s", |row: &T| per_second(row.rates().commits), |row| Key::Number(row.rates().commits)),
        column(
            "PAGES-IN/s",
            |row: &T| per_second(row.rates().pages_in),
            |row| Key::Number(row.rates().pages_in),
        ),
    ]
}

fn column<T>(title: &'static str, text: fn(&T) -> String, key: fn(&T) -> Key) -> Column<T> {
    Column { title, text, key }
}

fn region_columns() -> Vec<Column<RegionRow>> {
    let mut columns =
        vec![column("REGION", |row: &RegionRow| printable(&row.name), |row| Key::Text(row.name.clone()))];
    columns.extend(rate_columns());
    columns.extend([
        column("SIZE", |row: &RegionRow| short_bytes(row.size as f64), |row| Key::Number(row.size as f64)),
        column(
            "STORED",
            |row: &RegionRow| short_bytes(row.stored as f64),
            |row| Key::Number(row.stored as f64),
        ),
        column("HOLDS", |row: &RegionRow| row.holds.to_string(), |row| Key::Number(row.holds as f64)),
    ]);
    columns
}

fn client_columns() -> Vec<Column<ClientRow>> {
    let address =
        |row: &ClientRow| if row.address.is_empty() { "?".to_owned() } else { printable(&row.address) };
    let mut columns = vec![column("CLIENT", address, |row: &ClientRow| Key::Text(row.address.clone()))];
    columns.extend(rate_columns());
    columns.extend([
        column("IN/s", |row: &ClientRow| short_bytes(row.bytes_in), |row| Key::Number(row.bytes_in)),
        column("OUT/s", |row: &ClientRow| short_bytes(row.bytes_out), |row| Key::Number(row.bytes_out)),
        column(
            "CONN",
            |row: &ClientRow| row.connections.to_string(),
            |row| Key::Number(row.connections as f64),
        ),
        column("HOLDS", |row: &ClientRow| row.holds.to_string(), |row| Key::Number(row.holds as f64)),
        column("SINCE", |row: &ClientRow| age(row.since_s), |row| Key::Number(row.since_s as f64)),
        column("ID", |row: &ClientRow| row.id[..8].to_owned(), |row| Key::Text(row.id.clone())),
    ]);
    columns
}

fn compare(one: &Key, other: &Key) -> Ordering {
    match (one, other) {
        (Key::Number(one), Key::Number(other)) => other.total_cmp(one),
        (Key::Text(one), Key::Text(other)) => one.cmp(other),
        (Key::Number(_), Key::Text(_)) => Ordering::Less,
        (Key::Text(_), Key::Number(_)) => Ordering::Greater,
    }
}

fn build<T>(columns: &[Column<T>], rows: &[T], sorting: Sorting, left_out: bool) -> Table {
    let titles: Vec<&'static str> = columns.iter().map(|column| column.title).collect();
    let mut order: Vec<(Key, &T)> = match columns.get(sorting.column) {
        Some(column) => rows.iter().map(|row| ((column.key)(row), row)).collect(),
        None => rows.iter().map(|row| (Key::Number(0.0), row)).collect(),
    };
    // Stable: rows that are equal stay in the server's order.
    order.sort_by(|(one, _), (other, _)| compare(one, other));
    if sorting.reversed {
        order.reverse();
    }
    let rows: Vec<Vec<String>> =
        order.into_iter().map(|(_, row)| columns.iter().map(|column| (column.text)(row)).collect()).collect();
    let widest = |at: usize, title: &str| {
        rows.iter().map(|row| row[at].chars().count()).chain([title.len()]).max().unwrap_or(0)
    };
    let widths = titles.iter().enumerate().map(|(at, title)| widest(at, title)).collect();
    Table { titles, rows, widths, left_out }
}

impl Table {
    /// The regions, or the clients, of an interval.
    pub fn new(interval: &Interval, subject: Subject, sorting: Sorting) -> Table {
        match subject {
            Subject::Regions => build(&region_columns(), &interval.regions, sorting, interval.left_out.0),
            Subject::Clients => build(&client_columns(), &interval.clients, sorting, interval.left_out.1),
        }
    }

    /// The same as lines: the first column to the left, the others to the right.
    pub fn lines(&self) -> Vec<String> {
        let line = |texts: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (at, text) in texts.enumerate() {
                let width = self.widths[at];
                line.push_str(&if at == 0 { format!("{text:width$}") } else { format!("  {text:>width$}") });
            }
            line.trim_end().to_owned()
        };
        let mut lines = vec![line(&mut self.titles.iter().copied())];
        lines.extend(self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
        if self.left_out {
            lines.push(format!("… and more than these {}", self.rows.len()));
        }
        lines
    }
}

/// What is told of the whole server, in two lines.
pub fn summary(interval: &Interval) -> [String; 2] {
    let (used, limit) = interval.memory;
    let (regions, clients, connections) = interval.counts;
    let percent = if limit == 0 { 0.0 } else { used as f64 * 100.0 / limit as f64 };
    let latency = |percentiles: &Option<crate::activity::Percentiles>| match percentiles {
        Some(found) => format!("p50 {} p99 {}", micros(found.p50_us), micros(found.p99_us)),
        None => "p50 - p99 -".to_owned(),
    };
    let rates = &interval.rates;
    [
        format!(
            "up {}  memory {} of {} ({percent:.0} %)  regions {regions}  clients {clients}  connections {connections}  in {}/s  out {}/s",
            age(interval.uptime_s as u64),
            short_bytes(used as f64),
            short_bytes(limit as f64),
            short_bytes(interval.bytes_in),
            short_bytes(interval.bytes_out),
        ),
        format!(
            "fetch {}/s ({} pages/s) {}  commit {}/s ({} pages/s) {}",
            per_second(rates.fetches),
            per_second(rates.pages_out),
            latency(&interval.fetch),
            per_second(rates.commits),
            per_second(rates.pages_in),
            latency(&interval.commit),
        ),
    ]
}

/// Microseconds for people: `0.9 µs`, `12.3 µs`, `450 µs`, `1.2 ms`, `3.4 s`.
pub fn micros(us: f64) -> String {
    match us {
        us if us >= 1e6 => format!("{:.1} s", us / 1e6),
        us if us >= 1e3 => format!("{:.1} ms", us / 1e3),
        us if us >= 99.95 => format!("{us:.0} µs"),
        us => format!("{us:.1} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::interval::tests::snapshot;

    fn interval() -> Interval {
        Interval::between(&snapshot(10, 100), &snapshot(12, 300)).expect("one server")
    }

    #[test]
    fn rows_come_in_the_order_of_a_column_and_back() {
        let names = |column, reversed| {
            let table = Table::new(&interval(), Subject::Regions, Sorting { column, reversed });
            table.rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(1, false), ["a/b", "#5"], "most fetches first");
        assert_eq!(names(1, true), ["#5", "a/b"]);
        assert_eq!(names(0, false), ["#5", "a/b"], "names from the start");
        assert_eq!(names(99, false), ["a/b", "#5"], "a column that is not there: the server's order");
    }

    #[test]
    fn lines_have_a_title_over_each_number() {
        let table = Table::new(&interval(), Subject::Clients, Sorting { column: 1, reversed: false });
        let lines = table.lines();
        assert!(lines[0].starts_with("CLIENT         FETCH/s  PAGES-OUT/s"), "{}", lines[0]);
        assert!(lines[1].starts_with("10.0.0.9:4711      100          200"), "{}", lines[1]);
        assert!(lines[1].ends_with("9.8K  810.5K     2      3    12s  07070707"), "{}", lines[1]);
        let [server, served] = summary(&interval());
        assert_eq!(
            server,
            "up 12s  memory 16.0K of 4.0M (0 %)  regions 2  clients 1  connections 2  in 9.8K/s  out 810.5K/s"
        );
        assert_eq!(
            served,
            "fetch 100/s (200 pages/s) p50 0.0 µs p99 0.0 µs  commit 0/s (0 pages/s) p50 - p99 -"
        );
    }

    #[test]
    fn numbers_are_short_at_every_size() {
        let rates = [0.0, 0.01, 9.96, 99.96, 1234.5, 2.5e6].map(per_second);
        assert_eq!(rates, ["0", "0.1", "10.0", "100", "1234", "2.5M"]);
        assert_eq!([0, 99, 100, 6000, 172_800].map(age), ["0s", "99s", "1m", "1h", "2d"]);
        assert_eq!(
            [0.05, 12.34, 450.0, 1200.0, 3.4e6].map(micros),
            ["0.1 µs", "12.3 µs", "450 µs", "1.2 ms", "3.4 s"]
        );
        assert_eq!([0.0, 4096.0, 1.5 * 1048576.0].map(short_bytes), ["0", "4.0K", "1.5M"]);
    }
}
