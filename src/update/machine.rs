//! The states of an update and the ways between them.

use serde::{Deserialize, Serialize};

/// What is under way; also what was under way when an update was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// New images are found and pulled. Everything runs as before.
    Preparing,
    /// The data is saved; some containers may be stopped for that.
    Saving,
    /// Old containers give way to new ones.
    Replacing,
    /// The new containers run; whether they are healthy is not known yet.
    Judging,
    /// They are healthy; manifest and `versions.env` are written.
    Recording,
    /// What ran before is brought back.
    Restoring,
    /// It was brought back, and is not healthy.
    RestoreFailed,
}

/// How the work of a state ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// There is nothing to replace.
    Nothing,
    /// It failed for some services only, whose old versions are to come back beside the others' new
    /// ones.
    Retreat,
    /// It failed.
    Failed,
}

/// Where the work of a state leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// On to this state.
    Go(State),
    /// The update is over; the journal goes.
    End,
    /// The update cannot go on; the journal stays.
    Stay,
}

impl State {
    /// What follows on the end of this state's work.
    #[must_use]
    pub fn after(self, outcome: Outcome) -> Next {
        use Outcome::{Done, Failed, Nothing, Retreat};
        match (self, outcome) {
            (Self::Preparing, Done) => Next::Go(Self::Saving),
            (Self::Preparing, Nothing) => Next::Go(Self::Recording),
            (Self::Saving, Done | Nothing) => Next::Go(Self::Replacing),
            (Self::Replacing, Done | Nothing) => Next::Go(Self::Judging),
            (Self::Judging, Done | Nothing) => Next::Go(Self::Recording),
            // Nothing was stopped or replaced: there is nothing to bring back.
            (Self::Preparing, Failed | Retreat)
            | (Self::Recording | Self::Restoring, Done | Nothing) => Next::End,
            (Self::Replacing | Self::Judging, Retreat) => Next::Go(Self::Replacing),
            (Self::Saving | Self::Replacing | Self::Judging, Failed) | (Self::Saving, Retreat) => {
                Next::Go(Self::Restoring)
            }
            // Healthy versions are not given up because a file cannot be written.
            (Self::Recording, Failed | Retreat) => Next::Stay,
            (Self::Restoring, Failed | Retreat) => Next::Go(Self::RestoreFailed),
            (Self::RestoreFailed, _) => Next::Stay,
        }
    }

    /// Where `--resume` takes up an update that was killed here; `None`: it begins anew, because
    /// nothing was stopped and what the tags name may have moved on.
    #[must_use]
    pub fn resumed(self) -> Option<Self> {
        match self {
            Self::Preparing => None,
            Self::RestoreFailed => Some(Self::Restoring),
            // Perhaps what ran had come back since, and that could not be written down.
            Self::Judging => Some(Self::Replacing),
            state => Some(state),
        }
    }

    /// Where `--abort` takes up an update that was killed here; `None`: there is nothing to bring
    /// back.
    #[must_use]
    pub fn aborted(self) -> Option<Self> {
        match self {
            Self::Preparing => None,
            Self::Saving
            | Self::Replacing
            | Self::Judging
            | Self::Restoring
            | Self::RestoreFailed => Some(Self::Restoring),
            // Found healthy, and perhaps recorded already.
            Self::Recording => Some(Self::Recording),
        }
    }

    /// Whether other commands must wait until this update is finished or undone. One whose restore
    /// failed has ended; the operator may need any command now.
    #[must_use]
    pub fn is_unfinished(self) -> bool {
        self != Self::RestoreFailed
    }

    /// What an interruption here leaves behind, to follow "interrupted: ".
    #[must_use]
    pub fn leaves(self) -> &'static str {
        match self {
            Self::Preparing => "nothing was stopped or changed",
            Self::Saving => {
                "nothing was replaced; containers stopped for the data backup may still be stopped"
            }
            Self::Replacing => "some containers may be new and others old",
            Self::Judging => "the new containers run, and are not known to be healthy",
            Self::Recording => "the new containers run and are healthy, but may not be recorded",
            Self::Restoring => "the update had failed, and not everything that ran before is back",
            Self::RestoreFailed => "the update had failed, and what ran before is not healthy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [State; 7] = [
        State::Preparing,
        State::Saving,
        State::Replacing,
        State::Judging,
        State::Recording,
        State::Restoring,
        State::RestoreFailed,
    ];

    fn end(mut state: State, outcomes: impl Fn(State) -> Outcome) -> (State, Next) {
        for _ in 0..ALL.len() {
            match state.after(outcomes(state)) {
                Next::Go(next) => state = next,
                next => return (state, next),
            }
        }
        panic!("no end from {state:?}");
    }

    #[test]
    fn all_going_well_ends_recorded() {
        assert_eq!(end(State::Preparing, |_| Outcome::Done), (State::Recording, Next::End));
    }

    #[test]
    fn nothing_to_replace_stops_nothing() {
        assert_eq!(State::Preparing.after(Outcome::Nothing), Next::Go(State::Recording));
    }

    #[test]
    fn one_failure_ends_as_before_or_recorded() {
        for failing in ALL {
            let outcome = |state| if state == failing { Outcome::Failed } else { Outcome::Done };
            let expected = match failing {
                State::Preparing => (State::Preparing, Next::End),
                State::Recording => (State::Recording, Next::Stay),
                State::Restoring | State::RestoreFailed => (State::Recording, Next::End),
                _ => (State::Restoring, Next::End),
            };
            assert_eq!(end(State::Preparing, outcome), expected, "{failing:?}");
        }
    }

    #[test]
    fn after_a_retreat_the_rest_is_judged_again() {
        for failing in [State::Replacing, State::Judging] {
            assert_eq!(failing.after(Outcome::Retreat), Next::Go(State::Replacing));
        }
    }

    #[test]
    fn a_restore_is_tried_once() {
        assert_eq!(end(State::Judging, |_| Outcome::Failed), (State::RestoreFailed, Next::Stay));
    }

    #[test]
    fn every_state_can_be_taken_up_again() {
        for state in ALL {
            if let Some(resumed) = state.resumed() {
                assert_eq!(end(resumed, |_| Outcome::Done).1, Next::End, "{state:?}");
            }
            if let Some(aborted) = state.aborted() {
                let (last, next) = end(aborted, |_| Outcome::Done);
                assert_eq!(next, Next::End, "{state:?}");
                assert_eq!(last == State::Recording, state == State::Recording, "{state:?}");
            }
        }
    }
}
