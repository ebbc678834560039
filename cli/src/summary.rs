//! What `netmem run --memory` says at the end.
//!
//! Owns: the file in which the command's processes leave their counters, and the lines made of it. Called by: `run.rs`. Must not: take a
//! file of the user's: with --stats the counters go there, and there is no summary.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use tempfile::NamedTempFile;

use crate::error::{Failure, describe_io};

/// Bytes in a page.
const PAGE: u64 = 4096;

/// Collects counters until the command has ended.
#[derive(Debug)]
pub struct Summary {
    file: NamedTempFile,
    budget: u64,
}

impl Summary {
    /// The command's processes write to it from now on.
    pub fn of(command: &mut Command, budget: u64) -> Result<Summary, Failure> {
        let file = NamedTempFile::new().map_err(|e| {
            Failure::new("summary", describe_io(&e), "set TMPDIR to a directory that you may write")
        })?;
        command.env("NETMEM_STATS", file.path());
        Ok(Summary { file, budget })
    }

    /// The text; a process that was killed is not in it.
    pub fn text(&self) -> String {
        render(&fs::read_to_string(self.file.path()).unwrap_or_default(), self.budget)
    }
}

/// Sums of `name value` lines; of the largest ones the maximum.
fn render(stats: &str, budget: u64) -> String {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, value) in stats.lines().filter_map(|line| line.split_once(' ')) {
        let Ok(value) = value.parse::<u64>() else { continue };
        let sum = sums.entry(name).or_default();
        *sum = if name.contains("_max") { value.max(*sum) } else { sum.saturating_add(value) };
    }
    let get = |name: &str| sums.get(name).copied().unwrap_or(0);
    if !sums.contains_key("far_pages_out") {
        return format!("netmem: memory {}: all of it fitted\n", size(budget));
    }
    let (far, near) = (get("far_faults_far"), get("far_faults_near"));
    let brought = get("far_pages_in");
    let left = get("far_pages_out") + get("far_pages_clean") + get("far_pages_zero");
    let mut text = format!(
        "netmem: memory {}: at most {} resident\n",
        size(budget),
        size(get("far_resident_max_pages").max(get("far_family_max_pages")) * PAGE)
    );
    text += &format!(
        "netmem: {left} pages left: {} were sent, {} were as the server had them, {} were zeros\n",
        get("far_pages_out"),
        get("far_pages_clean"),
        get("far_pages_zero")
    );
    text += &format!("netmem: {brought} pages came back, {} of them ahead of need\n", get("far_pages_ahead"));
    text += &format!(
        "netmem: {} touches of pages that had left: {:.1} % were still here, {far} waited for the server, {:.2} s in all\n",
        far + near,
        if far + near == 0 { 100.0 } else { near as f64 * 100.0 / (far + near) as f64 },
        get("far_waited_ns") as f64 / 1e9
    );
    text +=
        &format!("netmem: moved {} out and {} in", size(get("far_pages_out") * PAGE), size(brought * PAGE));
    match get("far_bytes_packing_saved") {
        0 => text += "\n",
        saved => text += &format!(", {} less by compression\n", size(saved)),
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_all_processes_are_added_up_and_of_peaks_the_highest_is_told() {
        let one = "far_pages_out 100\nfar_pages_in 60\nfar_faults_far 10\nfar_faults_near 30\nfar_resident_max_pages 256\n";
        let two = "engine uffd\nfar_pages_out 156\nfar_pages_clean 4\nfar_waited_ns 1500000000\nfar_resident_max_pages 512\n";
        let text = render(&format!("{one}{two}"), 1 << 20);
        for part in [
            "memory 1.0 MiB: at most 2.0 MiB",
            "260 pages left: 256 were sent",
            "75.0 % were still here",
            "1.50 s",
            "moved 1.0 MiB out",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn a_program_that_fits_is_told_so() {
        assert_eq!(render("", 512 << 20), "netmem: memory 512.0 MiB: all of it fitted\n");
    }
}
