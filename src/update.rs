//! `update-safe` as a state machine: what is noted, in which order things happen, and where a
//! failure leads. Pure; the effects are in [`crate::commands::update_safe`], the file is written by
//! [`crate::store`].
//!
//! The [`Journal`] is on the disk before a state's work begins, and every state's work can be done
//! again from its beginning. So an update that was killed in any state can be finished or undone.
#![deny(clippy::disallowed_methods)]

mod blame;
mod journal;
mod machine;
mod scope;
mod setting;
mod whole;

pub use blame::{Finding, Trial, blame, remedy};
pub use journal::{GivenUp, Goal, Journal, Kept, Options, Ran, Target};
pub use machine::{Next, Outcome, State};
pub use scope::{main_container, reject, to_replace};
pub use setting::Setting;
pub use whole::lacking;
