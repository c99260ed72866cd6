//! Wiring: the command line to a command, and its outcome to an exit code.

use std::future::{Future as _, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::process::ExitCode;
use std::task::Poll;

use anyhow::Result;
use chrono::Utc;
use dkv::app::{App, Exit};
use dkv::cli::{self, Cli, Command, Environment};
use dkv::commands::logs::LogsOptions;
use dkv::commands::run::{self, StartOptions};
use dkv::commands::update_safe::Request;
use dkv::commands::{
    build, generate_env, logs, migrate, pin, prune, pull, restore_data, rollback, status,
    update_safe, updates, verify, version,
};
use dkv::compose;
use dkv::error::{self, Kind};
use dkv::interruption::Interruption;
use dkv::plan::Intent;
use dkv::report::{Document, Failure, Help};
use dkv::ui::{Terminals, Ui};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(failed) = cli::failed_parse(&error, std::env::args_os().skip(1)) {
                let ui = Ui::new(dkv::ui::UiSettings {
                    terminals: Terminals::detect(),
                    ..Default::default()
                });
                let _ =
                    ui.json(&Document::new(&failed.command, &Failure::new(&failed.error.into())));
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
            let ui = Ui::new(dkv::ui::UiSettings { terminals, ..Default::default() });
            return ExitCode::from(tell(&ui, &cli.name, cli.wants_json(), &error));
        }
    };
    ui.install_tracing();
    let now = settings.now.unwrap_or_else(Utc::now);
    let json = settings.json;
    let app = App::new(settings, environment, ui.clone(), now, cli.name.clone());
    let code = match dispatch(&app, cli.command) {
        Ok(exit) => exit.code(),
        Err(error) => tell(&ui, &cli.name, json, &error),
    };
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
        let _ = ui.json(&Document::new(command, &Failure::new(error)));
    }
    ui.error(error);
    error::kind(error).exit_code()
}

/// Runs one command. Those that only look at files need no runtime, and start faster without.
fn dispatch(app: &App, command: Command) -> Result<Exit> {
    app.check_unfinished(command.effect())?;
    match command {
        Command::Version(arguments) => version::version(app, &arguments.names()),
        Command::VersionHistory(arguments) => version::history(app, &arguments.names()),
        Command::GenerateEnv(arguments) => generate_env::generate_env(app, arguments.dry_run),
        Command::Unhold(arguments) => pull::unhold(app, &arguments.service, arguments.dry_run),
        Command::HelpVersion => {
            let help = Help { text: cli::version_help() };
            app.show(&help, |help| app.ui.data(help.text))?;
            Ok(Exit::Done)
        }
        Command::Completions(arguments) => {
            app.ui.data(cli::completions(arguments.shell));
            Ok(Exit::Done)
        }
        Command::Man => {
            app.ui.data(cli::manual()?);
            Ok(Exit::Done)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let outcome = {
                let _context = runtime.enter();
                runtime.spawn(listen(app.interruption().clone(), Signals::listen()?));
                runtime.block_on(interruptible(app, command))
            };
            // What is still under way belongs to a command that has ended.
            runtime.shutdown_background();
            outcome
        }
    }
}

/// The signals that ask a command to stop.
struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            interrupts: signal(SignalKind::interrupt())?,
            terminations: signal(SignalKind::terminate())?,
        })
    }
}

/// Passes signals on for as long as the command runs.
async fn listen(interruption: Interruption, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.interrupts.recv() => {}
            _ = signals.terminations.recv() => {}
        }
        interruption.raise();
    }
}

/// Runs a command until it ends or a signal asks it to. Then it is given up where it stands, unless
/// it has safe points of its own, and not before Compose has ended, which gets such signals itself.
async fn interruptible(app: &App, command: Command) -> Result<Exit> {
    let has_safe_points = matches!(command, Command::UpdateSafe(_) | Command::RestoreData(_));
    let goes_on_until_then = shows_until_interrupted(&command);
    let mut work = pin!(dispatch_async(app, command));
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
        Poll::Ready(if goes_on_until_then {
            Ok(Exit::Interrupted)
        } else {
            Err(app.interrupted().into())
        })
    })
    .await
}

/// Whether Ctrl-C is how the command normally ends, and so no failure.
fn shows_until_interrupted(command: &Command) -> bool {
    match command {
        Command::Status(arguments) => arguments.watch,
        Command::Logs(_)
        | Command::LogsToday(_)
        | Command::LogsErrors(_)
        | Command::Dblogs(_)
        | Command::DblogsToday(_)
        | Command::DblogsErrors(_) => true,
        _ => false,
    }
}

async fn dispatch_async(app: &App, command: Command) -> Result<Exit> {
    match command {
        Command::Pull(arguments) => {
            pull::pull(app, &arguments.services.names(), arguments.keep_going, arguments.dry_run)
                .await
        }
        Command::PullLatest(arguments) => {
            let options = pull::LatestOptions {
                no_pull: arguments.no_pull,
                keep_going: arguments.keep_going,
                retry: arguments.retry,
                dry_run: arguments.dry_run,
            };
            pull::pull_latest(app, &arguments.services.names(), options).await
        }
        Command::VersionPull(arguments) => {
            let options = pull::LatestOptions {
                no_pull: arguments.no_pull,
                dry_run: arguments.dry_run,
                ..Default::default()
            };
            pull::version_pull(app, &arguments.service, &arguments.tag, Intent::Version, options)
                .await
        }
        Command::VersionSet(arguments) => {
            let options = pull::LatestOptions {
                no_pull: arguments.no_pull,
                dry_run: arguments.dry_run,
                ..Default::default()
            };
            let intent = Intent::Custom {
                reason: arguments.reason().map(str::to_owned),
                hold: arguments.hold,
            };
            pull::version_pull(app, &arguments.service, &arguments.tag, intent, options).await
        }
        Command::Rollback(arguments) => {
            rollback::rollback(
                app,
                &arguments.services.names(),
                arguments.confirmed.yes,
                arguments.confirmed.dry_run,
            )
            .await
        }
        Command::RollbackService(arguments) => {
            let confirmed = &arguments.confirmed;
            rollback::rollback(
                app,
                std::slice::from_ref(&arguments.service),
                confirmed.yes,
                confirmed.dry_run,
            )
            .await
        }
        Command::RollbackTo(arguments) => {
            let confirmed = &arguments.confirmed;
            rollback::rollback_to(
                app,
                &arguments.service,
                &arguments.target.to_string(),
                confirmed.yes,
                confirmed.dry_run,
            )
            .await
        }
        Command::CheckUpdates(arguments) => {
            updates::check_updates(app, &arguments.services.names(), arguments.exit_code).await
        }
        Command::ResolveTags(arguments) => {
            updates::resolve_tags(app, &arguments.services.names(), arguments.dry_run).await
        }
        Command::EcrLogin(arguments) => updates::ecr_login(app, arguments.docker).await,
        Command::Up(arguments) => run::up(app, start_options(&arguments)).await,
        Command::Restart(arguments) => run::restart(app, start_options(&arguments)).await,
        Command::Start(arguments) => run::start(app, start_options(&arguments)).await,
        Command::Updb(arguments) => {
            let options = StartOptions {
                timeout: arguments.timeout,
                dry_run: arguments.dry_run,
                ..Default::default()
            };
            run::updb(app, options).await
        }
        Command::Build(arguments) => build::build(app, arguments.dry_run).await,
        Command::Update(arguments) => build::update(app, arguments.dry_run).await,
        Command::UpdateSafe(arguments) => {
            let options = dkv::update::Options {
                retry: arguments.retry,
                no_data_backup: arguments.no_data_backup,
                keep_going: arguments.keep_going,
                timeout: arguments.timeout,
            };
            let request = Request {
                resume: arguments.resume,
                abort: arguments.abort,
                dry_run: arguments.dry_run,
                options,
            };
            update_safe::update_safe(app, request).await
        }
        Command::RestoreData(arguments) => {
            let confirmed = &arguments.confirmed;
            restore_data::restore_data(app, &arguments.backup, confirmed.yes, confirmed.dry_run)
                .await
        }
        Command::Down(arguments) | Command::Stop(arguments) => {
            run::down(app, arguments.dry_run).await
        }
        Command::Status(arguments) => status::status(app, arguments.watch).await,
        Command::Info => status::info(app).await,
        Command::Health => status::health(app).await,
        Command::Verify(arguments) => verify::verify(app, arguments.remote).await,
        Command::Pin(arguments) => {
            let (mode, dry_run) = (pin::mode(arguments.unpin), arguments.dry_run);
            let options =
                pin::Options { mode, check: arguments.check, latest: arguments.latest, dry_run };
            pin::pin(app, &arguments.files, options).await
        }
        Command::Prune(arguments) => prune::prune(app, arguments.yes, arguments.dry_run).await,
        Command::Logs(arguments) => logs::logs(app, arguments.into()).await,
        Command::LogsToday(arguments) => {
            logs::logs(app, LogsOptions { today: true, ..arguments.into() }).await
        }
        Command::LogsErrors(arguments) => {
            logs::logs(app, LogsOptions { errors: true, ..arguments.into() }).await
        }
        Command::Dblogs(arguments) => {
            logs::logs(app, LogsOptions { databases: true, ..arguments.into() }).await
        }
        Command::DblogsToday(arguments) => {
            logs::logs(app, LogsOptions { databases: true, today: true, ..arguments.into() }).await
        }
        Command::DblogsErrors(arguments) => {
            logs::logs(app, LogsOptions { databases: true, errors: true, ..arguments.into() }).await
        }
        Command::MigrateVersions(arguments) => {
            let confirmed = &arguments.confirmed;
            let (yes, dry_run) = (confirmed.yes, confirmed.dry_run);
            let options = migrate::Options {
                write: arguments.write,
                yes,
                dry_run,
                track: arguments.track.clone(),
            };
            migrate::migrate(app, options).await
        }
        // These need no runtime, but do no harm inside one.
        command @ (Command::Version(_)
        | Command::VersionHistory(_)
        | Command::GenerateEnv(_)
        | Command::Unhold(_)
        | Command::HelpVersion
        | Command::Completions(_)
        | Command::Man) => dispatch(app, command),
    }
}

fn start_options(arguments: &cli::Start) -> StartOptions {
    StartOptions {
        no_wait: arguments.no_wait,
        timeout: arguments.timeout,
        dry_run: arguments.dry_run,
    }
}
