//! Which names regions can have.
//!
//! Owns: the rule. Called by: the server before it touches its namespace, clients to fail early. Must not: normalise:
//! a name with `..` is refused, not resolved, since only the one who has the directories can resolve it.

use crate::error::ErrorCode;
use crate::{COMPONENT_BYTES_MAX, NAME_BYTES_MAX};

/// A checked name: components separated by single `/`, none of them empty, `.` or `..`, no NUL, within
/// [`NAME_BYTES_MAX`] and [`COMPONENT_BYTES_MAX`]. The empty name is the root directory and only
/// [`RegionName::parse_directory`] takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionName(String);

impl RegionName {
    /// Checks the name of a region or of a directory below the root.
    pub fn parse(name: &str) -> Result<Self, ErrorCode> {
        if name.is_empty() {
            return Err(ErrorCode::NameInvalid);
        }
        Self::parse_directory(name)
    }

    /// Checks a name that may be the root directory.
    pub fn parse_directory(name: &str) -> Result<Self, ErrorCode> {
        if name.len() > NAME_BYTES_MAX {
            return Err(ErrorCode::NameTooLong);
        }
        if name.contains('\0') {
            return Err(ErrorCode::NameInvalid);
        }
        if !name.is_empty() {
            for component in name.split('/') {
                if component.is_empty() || component == "." || component == ".." {
                    return Err(ErrorCode::NameInvalid);
                }
                if component.len() > COMPONENT_BYTES_MAX {
                    return Err(ErrorCode::NameTooLong);
                }
            }
        }
        Ok(RegionName(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that holds it; empty for the root.
    pub fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// Its last component.
    pub fn last(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::RegionName;
    use crate::error::ErrorCode;

    #[test]
    fn every_bad_name_is_refused_with_its_reason() {
        let long = "x".repeat(256);
        let deep = "d/".repeat(600);
        for (name, why) in [
            ("", ErrorCode::NameInvalid),
            ("/a", ErrorCode::NameInvalid),
            ("a/", ErrorCode::NameInvalid),
            ("a//b", ErrorCode::NameInvalid),
            ("a/../b", ErrorCode::NameInvalid),
            ("./a", ErrorCode::NameInvalid),
            ("a\0b", ErrorCode::NameInvalid),
            (long.as_str(), ErrorCode::NameTooLong),
            (deep.as_str(), ErrorCode::NameTooLong),
        ] {
            assert_eq!(RegionName::parse(name), Err(why), "{name:?}");
        }
        for name in ["a", "a/b", "..a", "a b/ü", &"x".repeat(255)] {
            assert!(RegionName::parse(name).is_ok(), "{name:?}");
        }
    }
}
