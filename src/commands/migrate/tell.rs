//! A migration in words.

use std::collections::BTreeSet;

use super::Migrating;
use crate::model::manifest::Source;
use crate::plan::migrate::Proposal;
use crate::report::migrate::{ComposeChange, Migration, OtherVersion, UntrackedImage};
use crate::report::short_digest;
use crate::ui::{Cell, Style, Table};

impl Migrating<'_> {
    /// What would be tracked and what not, each with its reason.
    pub(super) fn show_lists(&self, proposal: &Proposal<'_>) {
        let mut table = Table::new(&["TRACKED", "IMAGE", "COMPOSE SERVICES", "WHY"]);
        for new in &proposal.services {
            let service = &new.service;
            table.row([
                Cell::new(service.name.as_str(), Style::Bold),
                Cell::plain(service.image.as_ref().map_or_else(String::new, ToString::to_string)),
                Cell::plain(service.compose_services.join(", ")),
                Cell::plain(&new.reason),
            ]);
        }
        if !table.is_empty() {
            self.app.ui.table(&table);
        }
        self.show_untracked(&proposal.untracked);
    }

    fn show_untracked(&self, untracked: &[UntrackedImage]) {
        let mut table = Table::new(&["NOT TRACKED", "IMAGE", "WHY"]);
        for image in untracked {
            table.row([
                Cell::plain(image.compose_services.join(", ")),
                Cell::plain(&image.image),
                Cell::plain(&image.reason),
            ]);
        }
        if !table.is_empty() {
            self.app.ui.table(&table);
        }
    }

    pub(super) fn show_services(&self, report: &Migration) {
        let mut table = Table::new(&[
            "SERVICE",
            "IMAGE",
            "TRACK",
            "VERSION",
            "DIGEST",
            "FROM",
            "COMPOSE SERVICES",
            "WHY",
        ]);
        for service in &report.services {
            let digest = service.digest.as_ref().or(service.image_id.as_ref());
            let is_local = service.source == Source::Local;
            table.row([
                Cell::new(service.name.as_str(), Style::Bold),
                Cell::plain(service.image.as_ref().map_or_else(String::new, ToString::to_string)),
                Cell::plain(if service.held { "held" } else { &service.track }),
                Cell::plain(&service.tag),
                Cell::new(digest.map_or("-", |digest| digest.short()), Style::Dim),
                Cell::plain(if is_local { "local build" } else { service.found.word() }),
                Cell::plain(service.compose_services.join(", ")),
                Cell::plain(&service.reason),
            ]);
        }
        if !table.is_empty() {
            self.app.ui.table(&table);
        }
    }

    pub(super) fn tell_dry_run(&self, report: &Migration, text: &str) {
        let ui = &self.app.ui;
        self.show_services(report);
        self.tell(report);
        let rewrites = self.rewrites(report);
        for file in files_of(report, |change| rewrites && change.is_writable()) {
            ui.status(format!("would write {file}, after a backup"));
        }
        ui.status(format!("would write {}:", report.manifest));
        ui.data(text);
    }

    /// What the operator should know besides the services.
    pub(super) fn tell(&self, report: &Migration) {
        let ui = &self.app.ui;
        for service in &report.services {
            service.notes.iter().for_each(|note| ui.note(format!("{}: {note}", service.name)));
            if let Some(variable) = &service.env_tag {
                ui.note(format!(
                    "{}: the Compose files take its tag from {variable}, which versions.env sets",
                    service.name
                ));
            }
        }
        report.stay.iter().for_each(|note| ui.note(note));
        report.notes.iter().for_each(|note| ui.note(note));
        for image in &report.untracked {
            let (names, first) = (image.compose_services.join(", "), &image.compose_services[0]);
            ui.note(format!(
                "not tracked: {} ({names}), {}; `dkv migrate-versions --track {first}` adds it",
                image.image, image.reason
            ));
        }
        let mut told = BTreeSet::new();
        // Services that share a line through an anchor or `extends` and want the same need it changed
        // once.
        for change in &report.compose_changes {
            if told.insert((&change.file, change.line, &change.to)) {
                self.tell_change(change);
            }
        }
        for other in &report.other_versions {
            ui.warn(self.about_other(report, other));
        }
        for tool in &report.other_tools {
            let place = format!("{}:{}", tool.file, tool.line);
            ui.warn(format!("{place}: {}\ninstead: {}", tool.text, tool.instead));
        }
    }

    /// An image line that does not follow, or did not until now.
    fn tell_change(&self, change: &ComposeChange) {
        let file = &change.file;
        let line = change.line.map_or_else(String::new, |line| format!(":{line}"));
        let is_pinned = change.from.as_ref().is_some_and(|from| from.contains("@sha256:"));
        let what = if let Some(template) = &change.template {
            format!("is made from {template}; change it there to follow versions.env")
        } else if change.written {
            "follows versions.env now".to_owned()
        } else if let Some(why) = &change.left {
            let pin = match change.to {
                Some(_) => "",
                None => "; `dkv pin` keeps its digest current",
            };
            format!(
                "does not follow versions.env and is left as it is, with --write too: {why}{pin}"
            )
        } else if self.options.write && self.options.dry_run {
            format!("would follow versions.env: {file} would be written, after a backup")
        } else if is_pinned {
            "does not follow versions.env; keep its digest current with `dkv pin`, or make it \
            follow (--write)"
                .to_owned()
        } else {
            "does not follow versions.env; with this one line it does (--write makes it)".to_owned()
        };
        let cut = match (change.cut.as_slice(), &change.left) {
            ([], _) | (_, Some(_)) => String::new(),
            (cut, None) => format!("; {} then has no effect on it", cut.join(", ")),
        };
        let old = change.from.iter().map(|from| format!("\n- image: {from}"));
        let new = change.to.iter().filter(|_| change.left.is_none());
        let lines: String = old.chain(new.map(|to| format!("\n+ image: {to}"))).collect();
        self.app.ui.note(format!("{file}{line}, {} {what}{cut}:{lines}", change.compose_service));
    }

    /// A Compose service that has another version than is recorded.
    fn about_other(&self, report: &Migration, other: &OtherVersion) -> String {
        let OtherVersion { compose_service, image, service, recorded, .. } = other;
        let runs = other.runs.as_deref().map(|id| format!(" (it runs {})", short_digest(id)));
        let runs = runs.unwrap_or_default();
        let has =
            format!("{compose_service} has {image}{runs}, but of {service} {recorded} is recorded");
        if other.will_change {
            return format!("{has}: the next start changes its version");
        }
        let mut changes = report.compose_changes.iter();
        let line = changes.find(|change| change.compose_service == *compose_service);
        let has_variables =
            line.and_then(|line| line.from.as_ref()).is_some_and(|from| from.contains('$'));
        let mend = match line.and_then(|line| line.template.as_ref()) {
            Some(template) => {
                format!("To change it, write the recorded version into {template}")
            }
            None if has_variables => "To change it, write the recorded version there".to_owned(),
            None => "`dkv pin` writes the recorded version there".to_owned(),
        };
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name =
            format!("{}{}", self.prefix, compose_service.chars().map(upper).collect::<String>());
        format!(
            "{has}: its line stays as it is. {mend}; variables of its own, {name}_IMAGE and \
            {name}_TAG, make it a service of its own"
        )
    }

    /// What was done, and what starts now.
    pub(super) fn conclude(&self, report: &Migration, runs: bool) {
        let ui = &self.app.ui;
        for difference in &report.differences {
            let why = match difference.line_does_not_follow {
                true => ", because its image line does not follow versions.env",
                false => "",
            };
            ui.warn(format!(
                "{}: Compose would start {} now, not what runs ({}){why}",
                difference.compose_service,
                difference.would_start,
                short_digest(&difference.runs)
            ));
        }
        let services: Vec<&str> =
            report.services.iter().map(|service| service.name.as_str()).collect();
        if !services.is_empty() {
            let verb = if report.created { "wrote" } else { "added to" };
            ui.status(format!("{verb} {}: {}", report.manifest, services.join(", ")));
        }
        for name in &report.removed {
            ui.status(format!(
                "took {name} out of {}: its lines start what they say without it, and `dkv \
                migrate-versions` leaves it out until --track names it",
                report.manifest
            ));
        }
        let is_literal = report.compose_changes.iter().any(|change| !change.written);
        let lines = files_of(report, |change| {
            let is_literal = change.from.as_ref().is_some_and(|from| !from.contains('$'));
            let is_open = change.left.is_none() || is_literal;
            is_open && !change.written && change.template.is_none()
        });
        if !lines.is_empty() {
            ui.status(format!(
                "Image lines in {} do not follow the manifest: until `dkv migrate-versions \
                --write` or `dkv pin` changes them, Compose starts what they say, whatever is \
                recorded",
                lines.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        if !runs {
            ui.status(
                "Nothing of this deployment runs, so there was nothing to compare; nothing was \
                started",
            );
        } else if report.differences.is_empty() && report.other_versions.is_empty() {
            let with = if is_literal { "Compose" } else { "With versions.env, Compose" };
            ui.status(format!(
                "{with} starts exactly what runs now; nothing was started or stopped"
            ));
        }
        if report.created {
            ui.note(
                "plain `docker compose` does not read versions.env: `dkv compose …` passes \
                anything on to it with the recorded versions",
            );
        }
        let restart = how_to_start(report);
        ui.hint(format!("{restart}; `dkv pull-latest` looks for updates"));
    }
}

/// What starts what is recorded, also where image lines do not follow it.
fn how_to_start(report: &Migration) -> &'static str {
    let mut open = report.compose_changes.iter().filter(|change| !change.written).peekable();
    if open.peek().is_none() {
        "`dkv restart` starts everything from the manifest"
    } else if open.clone().any(ComposeChange::is_writable) {
        "`dkv migrate-versions --write` makes those lines follow, and `dkv restart` then starts \
        everything from the manifest"
    } else if open.any(|change| change.template.is_some()) {
        "once those lines follow versions.env, `dkv restart` starts everything from the manifest"
    } else {
        "`dkv pin` writes what is recorded into those lines, and `dkv restart` then starts it"
    }
}

/// The files with image lines that are `wanted`, each once.
fn files_of(report: &Migration, wanted: impl Fn(&ComposeChange) -> bool) -> BTreeSet<&str> {
    let changes = report.compose_changes.iter().filter(|change| wanted(change));
    changes.map(|change| change.file.as_str()).collect()
}
