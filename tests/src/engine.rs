//! The ways in which a program is run: on the kernel's own files, and on each rung of the library.
//!
//! Owns: which of them there are, what selects each, and whether this machine has it. Called by: every test. Must not:
//! let a rung be missing in silence.

use std::fmt;

use nix::unistd::geteuid;

use crate::skip::skip;

/// Who runs a program on the user-mode rungs when the tests are root, who never gets there by probing.
pub const NOBODY: u32 = 65_534;

/// What a 6.1 kernel does not have: write protection is waited for, and a page can't be poisoned.
const LIKE_6_1: &str = "wp-async,pagemap-scan,poison";

/// Where a program's pages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// No library: a tmpfs directory.
    Kernel,
    /// userfaultfd with kernel faults, asynchronous write protection.
    Uffd,
    /// The same with write protection that waits for us.
    UffdSync,
    /// userfaultfd of an unprivileged user.
    UffdUser,
    /// The same with write protection that waits for us.
    UffdUserSync,
    /// userfaultfd that gives SIGBUS to the thread that faults.
    UffdSigbus,
    /// SIGSEGV and guard pages.
    SigsegvGuard,
    /// SIGSEGV and PROT_NONE.
    SigsegvMprotect,
}

/// The best rung of this machine.
pub fn best() -> Engine {
    let best = RUNGS.into_iter().find_map(Engine::require);
    best.expect("SIGSEGV and mprotect work everywhere")
}

/// The rungs, each of which must behave as the kernel does.
pub const RUNGS: [Engine; 7] = [
    Engine::Uffd,
    Engine::UffdSync,
    Engine::UffdUser,
    Engine::UffdUserSync,
    Engine::UffdSigbus,
    Engine::SigsegvGuard,
    Engine::SigsegvMprotect,
];

impl Engine {
    /// The variables that select it.
    pub fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Engine::Kernel => &[],
            Engine::Uffd => &[("NETMEM_ENGINE", "uffd")],
            Engine::UffdSync => &[("NETMEM_ENGINE", "uffd"), ("NETMEM_MASK", LIKE_6_1)],
            Engine::UffdUser => &[("NETMEM_ENGINE", "uffd-user")],
            Engine::UffdUserSync => &[("NETMEM_ENGINE", "uffd-user"), ("NETMEM_MASK", LIKE_6_1)],
            Engine::UffdSigbus => &[("NETMEM_ENGINE", "uffd-sigbus")],
            Engine::SigsegvGuard => &[("NETMEM_ENGINE", "sigsegv")],
            Engine::SigsegvMprotect => &[("NETMEM_ENGINE", "sigsegv"), ("NETMEM_MASK", "guard")],
        }
    }

    /// What `netmem_engine()` and the statistics call it.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Kernel => "none",
            Engine::Uffd | Engine::UffdSync => "uffd",
            Engine::UffdUser | Engine::UffdUserSync => "uffd-user",
            Engine::UffdSigbus => "uffd-sigbus",
            Engine::SigsegvGuard => "sigsegv-guard",
            Engine::SigsegvMprotect => "sigsegv-mprotect",
        }
    }

    /// The word in NETMEM_TEST_REQUIRE.
    fn family(self) -> &'static str {
        match self {
            Engine::Kernel => "kernel",
            Engine::Uffd | Engine::UffdSync => "uffd",
            Engine::UffdUser | Engine::UffdUserSync | Engine::UffdSigbus => "uffd-user",
            Engine::SigsegvGuard | Engine::SigsegvMprotect => "sigsegv",
        }
    }

    /// The user and group to run programs as, where it isn't ourselves.
    pub fn user(self) -> Option<(u32, u32)> {
        let user_rung = matches!(self, Engine::UffdUser | Engine::UffdUserSync | Engine::UffdSigbus);
        (user_rung && geteuid().is_root()).then_some((NOBODY, NOBODY))
    }

    /// This engine if the machine has it; else `SKIP reason` on standard output, or a panic if it is required.
    pub fn require(self) -> Option<Engine> {
        use netmem_cli::probe::{guard_shared, uffd_of_device, uffd_of_syscall};
        let missing = match self {
            Engine::Kernel | Engine::SigsegvMprotect => None,
            Engine::Uffd | Engine::UffdSync => {
                uffd_of_device().or_else(|_| uffd_of_syscall(false)).err().map(|errno| (errno, "userfaultfd"))
            }
            Engine::UffdUser | Engine::UffdUserSync | Engine::UffdSigbus => {
                uffd_of_syscall(true).err().map(|errno| (errno, "userfaultfd(USER_MODE_ONLY)"))
            }
            Engine::SigsegvGuard => guard_shared().err().map(|errno| (errno, "guard pages")),
        };
        match missing {
            None => Some(self),
            Some((errno, what)) => {
                skip(self.family(), &format!("{self}: {what}: {errno}"));
                None
            }
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Kernel => "kernel",
            Engine::Uffd => "uffd",
            Engine::UffdSync => "uffd-sync",
            Engine::UffdUser => "uffd-user",
            Engine::UffdUserSync => "uffd-user-sync",
            Engine::UffdSigbus => "uffd-sigbus",
            Engine::SigsegvGuard => "sigsegv-guard",
            Engine::SigsegvMprotect => "sigsegv-mprotect",
        })
    }
}

/// One test for each rung that this machine has: `on_each_rung!(a_sentence another_sentence)` calls the function of that
/// name, which takes an [`Engine`], as `RUNG::a_sentence`. Attributes before a name are the tests'.
#[macro_export]
macro_rules! on_each_rung {
    ($($(#[$attribute:meta])* $names:ident)*) => {
        $crate::on_each_rung!(@ Uffd uffd $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ UffdSync uffd_sync $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ UffdUser uffd_user $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ UffdUserSync uffd_user_sync $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ UffdSigbus uffd_sigbus $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ SigsegvGuard sigsegv_guard $($(#[$attribute])* $names)*);
        $crate::on_each_rung!(@ SigsegvMprotect sigsegv_mprotect $($(#[$attribute])* $names)*);
    };
    (@ $engine:ident $module:ident $($(#[$attribute:meta])* $name:ident)*) => {
        mod $module {
            $(
                #[test]
                $(#[$attribute])*
                fn $name() {
                    if let Some(engine) = $crate::Engine::$engine.require() {
                        super::$name(engine);
                    }
                }
            )*
        }
    };
}
