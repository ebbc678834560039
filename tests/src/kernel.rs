//! Debian's own kernels, as files: the image out of its package, which is not installed.
//!
//! Owns: TARGET/vm/SERIES. Called by: tests/stock_kernels.rs. Must not: change what is installed on this machine, or
//! fetch again what it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::built::{alone, target_directory};

/// The image of the newest kernel of a series (`6.1`) that this machine's package archive has, or why there is none.
pub fn image(series: &str) -> Result<PathBuf, String> {
    let place = target_directory().join("vm").join(series);
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    fs::create_dir_all(target_directory().join("test-programs")).map_err(|error| error.to_string())?;
    let _alone = alone("kernel.lock");
    if let Some(image) = image_in(&place) {
        return Ok(image);
    }
    let package = match newest(series)? {
        Some(package) => package,
        None => {
            // A bare machine has no lists yet; only root can fetch them.
            let _ = Command::new("apt-get").arg("update").output();
            newest(series)?
                .ok_or_else(|| format!("no package linux-image-{series}.*-cloud-amd64 in the archive"))?
        }
    };
    let fetched = Command::new("apt-get").args(["download", &package]).current_dir(&place).output();
    let fetched = fetched.map_err(|error| format!("apt-get: {error}"))?;
    if !fetched.status.success() {
        return Err(format!("{package}: {}", String::from_utf8_lossy(&fetched.stderr).trim()));
    }
    unpack(&place)?;
    image_in(&place).ok_or_else(|| format!("{package} holds no /boot/vmlinuz"))
}

/// The image that was unpacked before.
fn image_in(place: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(place.join("boot")).ok()?;
    let images = entries.flatten().map(|entry| entry.path());
    images.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))).max()
}

/// The newest package of a series that the archive names: the metapackages' names differ between releases of Debian.
fn newest(series: &str) -> Result<Option<String>, String> {
    let pattern =
        format!("^linux-image-{}\\.[0-9.]+([-+](deb)?[0-9]+)?-cloud-amd64$", series.replace('.', "\\."));
    let output = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output();
    let output = output.map_err(|error| format!("apt-cache: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.max_by_key(|name| numbers(name)).map(str::to_owned))
}

/// `linux-image-6.1.0-56-cloud-amd64` is newer than `…-9-…`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// /boot of the package that lies in `place`; the package goes.
fn unpack(place: &Path) -> Result<(), String> {
    let entries = fs::read_dir(place).map_err(|error| error.to_string())?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let package =
        paths.find(|path| path.extension().is_some_and(|kind| kind == "deb")).ok_or("no package came")?;
    let mut archive = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&package)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("dpkg-deb: {error}"))?;
    let stream = archive.stdout.take().ok_or("dpkg-deb has no output")?;
    let tar = Command::new("tar")
        .arg("-C")
        .arg(place)
        .args(["-x", "--wildcards", "./boot/vmlinuz-*"])
        .stdin(stream)
        .output()
        .map_err(|error| format!("tar: {error}"))?;
    let _ = archive.wait();
    if !tar.status.success() {
        return Err(format!("tar: {}", String::from_utf8_lossy(&tar.stderr)));
    }
    fs::remove_file(package).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn the_newest_package_is_that_of_the_highest_numbers() {
        let names = ["linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[1]));
        let names = ["linux-image-6.12.117+deb12-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64"];
        assert_eq!(names.into_iter().max_by_key(|name| numbers(name)), Some(names[0]));
    }
}
