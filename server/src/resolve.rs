//! Where a path leads, symbolic links followed.
//!
//! Owns: the walk. Called by: catalog, under its lock. Must not: know where a client has the namespace; what leads out of it, by an
//! absolute target or by `..`, is handed back.

use netmem_protocol::control::{Reached, Resolve, Resolved};
use netmem_protocol::{COMPONENT_BYTES_MAX, ErrorCode, NAME_BYTES_MAX, SYMLINKS_MAX};

use crate::namespace::{Child, Namespace};
use crate::refusal::{Answer, Refusal};

/// Components that are still to go, the next one last.
fn components(path: &str) -> Vec<String> {
    path.rsplit('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// What is left of a path, behind what leads out of the namespace.
fn outside(front: &[u8], rest: &[String], slash: bool) -> Vec<u8> {
    let mut path = front.to_vec();
    for part in rest.iter().rev() {
        if !path.ends_with(b"/") {
            path.push(b'/');
        }
        path.extend_from_slice(part.as_bytes());
    }
    if slash && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

/// Walks a path as path_resolution(7) says.
pub fn resolve(names: &Namespace, request: &Resolve) -> Answer<Resolved> {
    let mut here = request.base.clone();
    names.attributes(&here)?;
    let mut rest = components(&request.path);
    let mut slash = request.path.ends_with('/');
    let mut links = request.links;
    let end = |reached, name, slash, links, outside| Ok(Resolved { reached, name, slash, links, outside });
    while let Some(part) = rest.pop() {
        if part == "." {
            continue;
        }
        if part == ".." {
            if here.is_empty() {
                return end(Reached::Outside, here, slash, links, outside(b"..", &rest, slash));
            }
            here.truncate(here.rfind('/').unwrap_or(0));
            continue;
        }
        let name = if here.is_empty() { part.clone() } else { format!("{here}/{part}") };
        if part.len() > COMPONENT_BYTES_MAX || name.len() > NAME_BYTES_MAX {
            let start: String = name.chars().take(80).collect();
            let text = format!("the name that starts with {start:?} is too long");
            return Err(Refusal::new(ErrorCode::NameTooLong, text));
        }
        match names.child(&here, &part)? {
            None if rest.is_empty() => return end(Reached::Missing, name, slash, links, Vec::new()),
            None => return Err(Refusal::new(ErrorCode::NotFound, format!("{name:?} is not there"))),
            Some(Child::Directory) => here = name,
            Some(Child::Region(_)) if rest.is_empty() && !slash => {
                return end(Reached::There, name, slash, links, Vec::new());
            }
            Some(Child::Region(_)) => {
                let text = format!("{name:?} is a region, not a directory");
                return Err(Refusal::new(ErrorCode::NotDirectory, text));
            }
            Some(Child::Symlink(_)) if rest.is_empty() && !slash && !request.follow => {
                return end(Reached::There, name, slash, links, Vec::new());
            }
            Some(Child::Symlink(link)) => {
                links += 1;
                if links > SYMLINKS_MAX {
                    let text = format!("more than {SYMLINKS_MAX} symbolic links lead to {name:?}");
                    return Err(Refusal::new(ErrorCode::Link, text));
                }
                if link.target.starts_with(b"/") {
                    let path = outside(&link.target, &rest, slash);
                    return end(Reached::Outside, String::new(), slash, links, path);
                }
                // No name here is anything but UTF-8.
                let Ok(target) = std::str::from_utf8(&link.target) else {
                    return Err(Refusal::new(
                        ErrorCode::NotFound,
                        format!("what {name:?} says is not there"),
                    ));
                };
                slash |= rest.is_empty() && target.ends_with('/');
                rest.extend(components(target));
            }
        }
    }
    end(Reached::There, here, slash, links, Vec::new())
}

#[cfg(test)]
mod tests {
    use netmem_protocol::control::Reached::{Missing, Outside, There};
    use netmem_protocol::{RegionId, RegionName};

    use super::*;

    /// `d/`, `d/x`, `f`, and links `d/up` → `..`, `l` → `d`, `s` → `d/`, `lf` → `f`, `dangling` → `none`, `far` → `none/x`,
    /// `abs` → `/etc`, `out` → `../out`, `loop` → `loop`, `deep` → `l/up/l`.
    fn table() -> Namespace {
        let mut table = Namespace::default();
        let name = |name: &str| RegionName::parse(name).expect("a good name");
        table.add_directory(&name("d"), 0o755).expect("a directory");
        for (region, id) in [("d/x", 1), ("f", 2)] {
            table.add_region(&name(region), RegionId(id)).expect("a region");
        }
        for (link, target) in [
            ("d/up", ".."),
            ("l", "d"),
            ("s", "d/"),
            ("lf", "f"),
            ("dangling", "none"),
            ("dirlike", "none/"),
            ("far", "none/x"),
            ("abs", "/etc"),
            ("out", "../out"),
            ("loop", "loop"),
            ("deep", "l/up/l"),
        ] {
            table.add_symlink(&name(link), target.into()).expect("a link");
        }
        table
    }

    #[test]
    fn every_path_leads_where_the_kernel_leads_it() {
        let table = table();
        for (path, follow, leads) in [
            ("l", false, Ok((There, "l"))),
            ("l", true, Ok((There, "d"))),
            ("l/", false, Ok((There, "d"))),
            ("l/x", false, Ok((There, "d/x"))),
            ("l/.", false, Ok((There, "d"))),
            ("l/..", true, Ok((There, ""))),
            ("l/up/f", true, Ok((There, "f"))),
            ("deep/x", true, Ok((There, "d/x"))),
            ("s/x", true, Ok((There, "d/x"))),
            ("lf", true, Ok((There, "f"))),
            ("lf/", true, Err(ErrorCode::NotDirectory)),
            ("f/.", true, Err(ErrorCode::NotDirectory)),
            ("f/..", true, Err(ErrorCode::NotDirectory)),
            ("dangling", false, Ok((There, "dangling"))),
            ("dangling", true, Ok((Missing, "none"))),
            ("dirlike", true, Ok((Missing, "none"))),
            ("dangling/x", true, Err(ErrorCode::NotFound)),
            ("far", true, Err(ErrorCode::NotFound)),
            ("none/..", true, Err(ErrorCode::NotFound)),
            ("abs", true, Ok((Outside, "/etc"))),
            ("abs/passwd", false, Ok((Outside, "/etc/passwd"))),
            ("out/x/", true, Ok((Outside, "../out/x/"))),
            ("d/../../x", true, Ok((Outside, "../x"))),
            ("loop", true, Err(ErrorCode::Link)),
            ("loop/x", true, Err(ErrorCode::Link)),
            ("", true, Ok((There, ""))),
        ] {
            let request = Resolve { base: String::new(), path: path.into(), follow, links: 0 };
            let got = resolve(&table, &request).map(|found| match found.reached {
                Outside => (Outside, String::from_utf8_lossy(&found.outside).into_owned()),
                reached => (reached, found.name),
            });
            let leads = leads.map(|(reached, name)| (reached, name.to_owned()));
            assert_eq!(got.map_err(|refusal| refusal.code), leads, "{path} {follow}");
        }
    }

    #[test]
    fn forty_links_are_followed_and_not_one_more() {
        let mut table = table();
        for at in 0..41 {
            let name = RegionName::parse(&format!("{at}")).expect("a name");
            let target = if at == 40 { "f".to_owned() } else { format!("{}", at + 1) };
            table.add_symlink(&name, target.into_bytes()).expect("a link");
        }
        let walk = |path: &str, links| {
            let request = Resolve { base: String::new(), path: path.into(), follow: true, links };
            resolve(&table, &request).map(|found| found.links).map_err(|refusal| refusal.code)
        };
        assert_eq!(walk("1", 0), Ok(40));
        assert_eq!(walk("0", 0), Err(ErrorCode::Link));
        assert_eq!(walk("1", 1), Err(ErrorCode::Link));
        assert_eq!(walk("d", 40), Ok(40));
    }
}
