//! What people and programs see of every command, as transcripts that are kept in `snapshots/`.
//!
//! Each test leads one deployment through a story and takes down what is seen after each command:
//! what stands on standard output (`out|`) and standard error (`err|`), or in the end on a terminal
//! of 80 columns (`scr|`; `2ro|` is a line that needs two rows there), and the exit code (`end|`).
//! What differs from run to run has a placeholder; everything else is literal, so that a changed
//! word fails the test. `INSTA_UPDATE=always tests/run.sh screens` accepts what is seen now; git
//! shows what that changed.

mod files;
mod placeholders;
mod recording;
mod running;
mod story;
mod talk;
mod updating;
mod words;
