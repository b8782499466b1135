//! Touches: the user namespace in which an ordinary user may build a lab.

use super::LabError;
use crate::net::sys::netns;

/// Makes this process root of a user namespace of its own, unless it may build networks already. To be called
/// first of all in `main`: only a process of one thread can do it. Such a process then has a network of its own
/// with nothing but a loopback, outside of its labs too.
///
/// # Errors
///
/// When the system has no user namespaces for this user, or a thread has been started already.
pub fn enter() -> Result<(), LabError> {
    netns::become_root_of_own_users().map_err(LabError::Namespace)
}

/// What [`lab_tests`](crate::lab_tests) has called before `main`. A failure shows when a host is made.
pub extern "C" fn enter_before_main() {
    let _ = netns::become_root_of_own_users();
}

/// Lets every test of this test program build labs, also for an ordinary user: written once, at the top of a
/// file in `tests/`. The harness starts threads before any test runs, so [`enter`] would be too late there.
#[macro_export]
macro_rules! lab_tests {
    () => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static ENTER_BEFORE_MAIN: extern "C" fn() = $crate::lab::enter_before_main;
    };
}
