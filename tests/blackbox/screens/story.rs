//! A deployment that is led through a story, and the transcript of what was seen on the way.

use std::fmt::Write as _;

use rustix::process::Signal;

use crate::screens::placeholders::Placeholders;
use crate::screens::talk::{self, COLUMNS};
use crate::support::deployment::Compose;
use crate::support::{Deployment, Health, Image, Outcome, Pushed, Registry, Run};

/// One deployment, the registry of its images, and what was seen so far.
pub struct Story {
    // Dropped first: its containers use the registry's images.
    pub deployment: Deployment,
    pub registry: Registry,
    name: &'static str,
    /// What dkv takes for the time.
    now: String,
    placeholders: Placeholders,
    transcript: String,
}

impl Story {
    pub fn new(name: &'static str) -> Self {
        Self::with(name, Registry::start())
    }

    /// With a registry that the story may stop.
    pub fn with(name: &'static str, registry: Registry) -> Self {
        let deployment = Deployment::new("screens");
        let mut placeholders = Placeholders::new();
        placeholders.word(deployment.directory().display().to_string(), "[directory]");
        placeholders.word(deployment.home().display().to_string(), "[home]");
        placeholders.word(deployment.project(), "[project]");
        placeholders.word(format!("{}/{}", registry.address(), registry.namespace()), "[registry]");
        placeholders.word(registry.namespace(), "[namespace]");
        placeholders.word(registry.address().to_string(), "[address]");
        Self {
            deployment,
            registry,
            name,
            now: "2026-01-12T12:00:00Z".to_owned(),
            placeholders,
            transcript: String::new(),
        }
    }

    /// Pushes an image of its own under `version` and `latest`; see [`Story::push`].
    pub fn publish(&mut self, name: &str, version: &str) -> Pushed {
        self.push(name, version, |image| image.tag(version).tag("latest"))
    }

    /// As [`Story::publish`], with a health check that passes soon.
    pub fn publish_healthy(&mut self, name: &str, version: &str) -> Pushed {
        self.push(name, version, |image| {
            image.tag(version).tag("latest").health(Health::Passing).health_interval_ms(300)
        })
    }

    /// Pushes an image; its digests are called after its name and version from now on.
    pub fn push(
        &mut self,
        name: &str,
        version: &str,
        change: impl FnOnce(Image) -> Image,
    ) -> Pushed {
        let image = Image::new(name).version(&format!("{name} {version}"));
        let pushed = self.registry.push(change(image));
        self.placeholders.digest(&pushed.digest, &format!("{name} {version}"));
        for (architecture, digest, id) in &pushed.platforms {
            self.placeholders.digest(digest, &format!("{name} {version} {architecture}"));
            self.placeholders.digest(id, &format!("{name} {version} id"));
        }
        pushed
    }

    /// Writes a manifest and a Compose file for services whose repositories are called as they are.
    pub fn product(&self, names: &[&str]) {
        let services: Vec<(&str, String)> =
            names.iter().map(|name| (*name, self.registry.repository(name))).collect();
        self.deployment.write_product(&services);
    }

    /// Shows a placeholder for a text that differs from run to run.
    pub fn hide(&mut self, text: impl Into<String>, placeholder: &str) {
        self.placeholders.word(text, placeholder);
    }

    /// Lets time pass, until an RFC 3339 time in January 2026.
    pub fn at(&mut self, now: &str) {
        self.now = now.to_owned();
        self.remark(now);
    }

    /// Says in the transcript what happened beside dkv.
    pub fn remark(&mut self, text: &str) {
        self.part(&format!("# {text}"), Vec::new());
    }

    /// Shows a file of the deployment.
    pub fn file(&mut self, name: &str) {
        let text = self.deployment.read(name);
        self.part(name, labelled("   ", text.lines()));
    }

    /// Runs dkv for what it does only.
    #[track_caller]
    pub fn quietly(&self, line: &str) {
        self.run(line).exit(0);
    }

    /// Runs dkv in a pipe.
    #[track_caller]
    pub fn dkv(&mut self, line: &str) {
        self.seen(line, &self.run(line).finish());
    }

    /// Runs dkv in a pipe for a program, which gets one document.
    #[track_caller]
    pub fn json(&mut self, line: &str) {
        let line = format!("{line} --json");
        let outcome = self.run(&line).finish();
        self.seen(&line, &outcome);
        outcome.json();
    }

    /// Runs dkv in a pipe for people, then for a program.
    #[track_caller]
    pub fn both(&mut self, line: &str) {
        self.dkv(line);
        self.json(line);
    }

    /// Runs dkv in a pipe, by the machine's clock, which is also that of the daemon's logs.
    #[track_caller]
    pub fn today(&mut self, line: &str) {
        self.seen(line, &self.run(line).env_remove("DKV_NOW").finish());
    }

    /// Runs dkv in a pipe until it has said something, then presses Ctrl-C.
    #[track_caller]
    pub fn interrupted(&mut self, line: &str, text: &str) {
        let mut running = self.run(line).env_remove("DKV_NOW").spawn();
        running.wait_for_output(text);
        running.signal_group(Signal::INT);
        self.seen(&format!("{line}    (until Ctrl-C)"), &running.finish());
    }

    /// Runs dkv on a terminal.
    #[track_caller]
    pub fn terminal(&mut self, line: &str) {
        self.dialogue(line, &[]);
    }

    /// Runs dkv on a terminal, and answers questions, of which a part is given.
    #[track_caller]
    pub fn dialogue(&mut self, line: &str, answers: &[(&str, &str)]) {
        let mut running = self.run(line).terminal(COLUMNS.get()).interactive().spawn();
        for (question, answer) in answers {
            running.answer(question, answer);
        }
        let outcome = running.finish();
        let mut lines = Vec::new();
        for line in talk::screen(&outcome.stdout) {
            let width = self.placeholders.unmeasured(&line).chars().count();
            let label = match width.div_ceil(usize::from(COLUMNS.get())) {
                0 | 1 => "scr".to_owned(),
                rows => format!("{rows}ro"),
            };
            lines.push((label, line));
        }
        lines.push(end(&outcome));
        self.part(&format!("$ dkv {line}    (terminal of {COLUMNS} columns)"), lines);
    }

    /// dkv with these words, about to run: on one image at a time, so that they are told of in one
    /// order.
    pub fn run(&self, line: &str) -> Run {
        self.words(line.split_whitespace().chain(["--jobs", "1"]))
    }

    /// As [`Story::run`], with these words and no others.
    pub fn words<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Run {
        self.deployment
            .dkv(words)
            .compose(Compose::V2)
            .env("DKV_NOW", self.now.clone())
            .env("TZ", "UTC")
    }

    /// Takes down what a command in a pipe said.
    pub fn seen(&mut self, line: &str, outcome: &Outcome) {
        let mut lines = labelled("out", outcome.stdout.lines());
        lines.extend(labelled("err", talk::steady(&outcome.stderr)));
        lines.push(end(outcome));
        self.part(&format!("$ dkv {line}"), lines);
    }

    /// Compares the transcript with the one that is kept.
    #[track_caller]
    pub fn ends(self) {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(self.name, self.transcript));
    }

    fn part(&mut self, head: &str, lines: Vec<(String, String)>) {
        let _ = writeln!(self.transcript, "{}", self.placeholders.apply(head.trim_end()));
        for (label, line) in lines {
            let line = self.placeholders.apply(&talk::visible(&line));
            let _ = writeln!(self.transcript, "{}", format!("{label}| {line}").trim_end());
        }
        self.transcript.push('\n');
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("What was seen:\n\n{}", self.transcript);
        }
    }
}

/// Lines, each with where it was seen.
fn labelled(
    label: &str,
    lines: impl IntoIterator<Item = impl Into<String>>,
) -> Vec<(String, String)> {
    lines.into_iter().map(|line| (label.to_owned(), line.into())).collect()
}

fn end(outcome: &Outcome) -> (String, String) {
    let end = outcome.code().map_or("by a signal".to_owned(), |code| format!("exit {code}"));
    ("end".to_owned(), end)
}
