//! Wiring: the command line to a command, and its outcome to an exit code.

use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use crate::app::{App, Exit};
use crate::change;
use crate::cli::{self, Cli, Environment};
use crate::commands::Command;
use crate::compose;
use crate::error::{self, Kind};
use crate::report::{Document, Failure};
use crate::store::Store;
use crate::ui::{Terminals, Ui, UiSettings};
use anyhow::Result;
use chrono::Utc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the command of this process, tells how it ended, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(failed) = cli::failed_parse(&error, std::env::args_os().skip(1)) {
                let ui =
                    Ui::new(UiSettings { terminals: Terminals::detect(), ..Default::default() });
                let _ = ui.json(&Document::new(
                    &failed.command,
                    &Failure::new(&failed.error.into()),
                    Vec::new(),
                ));
                // The exit code tells of a failure in any case.
                let _ = ui.finish();
            }
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // A reader that went away is no failure of ours.
            let printed =
                error.print().map_or_else(|error| error.kind() == ErrorKind::BrokenPipe, |()| true);
            return ExitCode::from(if printed {
                code
            } else {
                code.max(Kind::Unexpected.exit_code())
            });
        }
    };
    let environment = Environment::read();
    let terminals = Terminals::detect();
    let (settings, ui) = match cli.settings(&environment, terminals) {
        Ok(settings) => {
            let ui = Ui::new(settings.ui);
            (settings, ui)
        }
        Err(error) => {
            let ui = Ui::new(UiSettings { terminals, ..Default::default() });
            return ExitCode::from(tell(&ui, &cli.name, cli.wants_json(), &error));
        }
    };
    ui.install_tracing();
    let now = settings.now.unwrap_or_else(Utc::now);
    let json = settings.json;
    let app = App::new(settings, environment, ui.clone(), now, cli.name.clone());
    let outcome = dispatch(&app, cli.command);
    let code = match &outcome {
        Ok(exit) => exit.code(),
        Err(error) => tell(&ui, &cli.name, json, error),
    };
    change::note_end(&app, code, outcome.as_ref().err());
    match ui.finish() {
        Err(error) if code == 0 => {
            ui.error(&anyhow::Error::from(error).context("cannot print the result"));
            ExitCode::from(Kind::Unexpected.exit_code())
        }
        _ => ExitCode::from(code),
    }
}

/// Tells of a failed command and returns its exit code.
fn tell(ui: &Ui, command: &str, json: bool, error: &anyhow::Error) -> u8 {
    // A report that was printed already holds the failure.
    if json && !ui.is_documented() {
        // The failure itself is told on stderr as well; a document without a JSON form cannot be.
        let _ = ui.json(&Document::new(command, &Failure::new(error), ui.warnings()));
    }
    ui.error(error);
    error::kind(error).exit_code()
}

/// Runs one command. Those that only look at files start faster without threads, timers and
/// sockets.
fn dispatch(app: &App, command: Command) -> Result<Exit> {
    app.check_unfinished(command.effect())?;
    if !command.needs_runtime() {
        return tokio::runtime::Builder::new_current_thread().build()?.block_on(command.run(app));
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = {
        let _context = runtime.enter();
        let interrupts = signal(SignalKind::interrupt())?;
        let terminations = signal(SignalKind::terminate())?;
        runtime.spawn(listen(app.ui.clone(), interrupts, terminations));
        if command.outlives_terminal() {
            let hangups = signal(SignalKind::hangup())?;
            runtime.spawn(outlive_terminal(app.ui.clone(), app.store.clone(), hangups));
        }
        runtime.block_on(interruptible(app, command))
    };
    // What is still under way belongs to a command that has ended.
    runtime.shutdown_background();
    outcome
}

/// Passes signals on for as long as the command runs.
async fn listen(ui: Ui, mut interrupts: Signal, mut terminations: Signal) {
    loop {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        ui.interruption().raise();
        if ui.interruption().is_tolerated() {
            ui.warn("interrupted: this comes to its end first; once more stops at once");
        }
    }
}

/// A lost connection is no reason to leave a deployment half done: the command goes on, and says
/// what it has to say in a file.
async fn outlive_terminal(ui: Ui, store: Store, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        if !ui.has_terminal() {
            continue;
        }
        // Where it cannot be said, it is done all the same.
        if let Ok(file) = store.open_lost_output() {
            let _ = ui.move_into(&file);
        }
        ui.warn("the terminal is gone: this goes on, and says the rest here");
    }
}

/// Runs a command until it ends or a signal asks it to. Then it is given up where it stands, unless
/// it has safe points of its own, and not before Compose has ended, which is asked to as well. What
/// a command tolerates asks it to nothing.
async fn interruptible(app: &App, command: Command) -> Result<Exit> {
    let has_safe_points = command.has_safe_points();
    let shows_until_then = command.shows_until_interrupted();
    let mut work = pin!(command.run(app));
    let mut raised = pin!(app.interruption().raised());
    poll_fn(|context| {
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            return Poll::Ready(outcome);
        }
        // Whatever wakes this task later looks here again, the end of Compose too.
        let is_raised = app.interruption().is_raised() || raised.as_mut().poll(context).is_ready();
        if !is_raised || has_safe_points || compose::is_running() {
            return Poll::Pending;
        }
        Poll::Ready(if shows_until_then {
            Ok(Exit::Interrupted)
        } else {
            Err(app.interrupted().into())
        })
    })
    .await
}
