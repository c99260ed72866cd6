//! Processes that are not left behind.

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// The process group that a child leads (it was started with `process_group(0)`). Killed as a whole
/// when this is dropped, so that what the child has started does not outlive its use.
#[derive(Debug)]
pub struct Group(Option<Pid>);

impl Group {
    /// The group of a child that has just been started.
    #[must_use]
    pub fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// Leaves the group alone, once its leader has been waited for: its number may then belong to
    /// somebody else.
    pub fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
