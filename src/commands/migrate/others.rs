//! Other tools that would write `versions.env` or start the deployment beside dkv, and what to put
//! in their place.

use std::path::{Path, PathBuf};

use crate::report::migrate::OtherTool;

/// Larger files are no scripts.
const MAX_BYTES: u64 = 256 * 1024;

/// Directories inside a deployment where such tools are kept.
const NOOKS: [&str; 6] = ["scripts", "bin", "systemd", "cron", "deploy", "tools"];

/// Where the machine keeps units and cron tables.
const MACHINE: [&str; 5] = [
    "/etc/systemd/system",
    "/etc/cron.d",
    "/etc/crontab",
    "/var/spool/cron/crontabs",
    "/var/spool/cron",
];

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Unit,
    Cron,
    Makefile,
    Script,
}

/// The lines of other tools in `directory`, and of units and cron tables of the machine that name
/// it.
#[must_use]
pub fn find(directory: &Path) -> Vec<OtherTool> {
    let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let mut found = Vec::new();
    let mut files = entries(directory);
    files.extend(NOOKS.iter().flat_map(|nook| entries(&directory.join(nook))));
    for path in files {
        let Some(purpose) = purpose_of(&path) else { continue };
        let Some(text) = read(&path) else { continue };
        let shown = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
        found.extend(judge(&shown, &text, purpose, &real));
    }
    for path in MACHINE.iter().flat_map(|place| entries(Path::new(place))) {
        let is_unit = path.extension().is_some_and(|extension| extension == "service");
        let purpose = if is_unit { Purpose::Unit } else { Purpose::Cron };
        let Some(text) = read(&path).filter(|text| names(text, &real)) else { continue };
        found.extend(judge(&path.display().to_string(), &text, purpose, &real));
    }
    found
}

/// The files of a directory in order, or the file itself; what cannot be read is nobody's tool.
fn entries(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Option<String> {
    if std::fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    String::from_utf8(std::fs::read(path).ok()?).ok()
}

fn purpose_of(path: &Path) -> Option<Purpose> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".service", ".timer"]) {
        Some(Purpose::Unit)
    } else if name.contains("crontab") || ends(&[".cron"]) {
        Some(Purpose::Cron)
    } else if matches!(name.as_str(), "makefile" | "gnumakefile") || ends(&[".mk"]) {
        Some(Purpose::Makefile)
    } else {
        ends(&[".sh", ".bash", ".py"]).then_some(Purpose::Script)
    }
}

/// Whether `text` names the deployment's directory, as a path of its own and not as part of a
/// longer name.
fn names(text: &str, directory: &Path) -> bool {
    let Some(directory) = directory.to_str() else { return false };
    text.match_indices(directory).any(|(at, _)| {
        let after = text[at + directory.len()..].chars().next();
        after.is_none_or(|after| !(after.is_alphanumeric() || matches!(after, '-' | '_' | '.')))
    })
}

/// The lines of one file that should be dkv's.
fn judge(file: &str, text: &str, purpose: Purpose, directory: &Path) -> Vec<OtherTool> {
    if file.ends_with("version-manager.py") {
        let instead = "remove it: dkv reads its manifest, and two writers of versions.env \
            contradict each other"
            .to_owned();
        return vec![OtherTool {
            file: file.to_owned(),
            line: 1,
            text: "the old version manager".to_owned(),
            instead,
        }];
    }
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let line = line.trim();
        let instead = instead_of(line, purpose, directory)?;
        Some(OtherTool {
            file: file.to_owned(),
            line: index + 1,
            text: line.chars().take(160).collect(),
            instead,
        })
    });
    lines.collect()
}

/// What to put instead of `line`, if it starts the deployment or writes its versions.
fn instead_of(line: &str, purpose: Purpose, directory: &Path) -> Option<String> {
    let words: Vec<&str> = line
        .split(|c: char| c.is_whitespace() || matches!(c, '=' | ';' | '"' | '\'' | '&' | '|'))
        .collect();
    let is_said_only = words
        .first()
        .is_some_and(|word| matches!(word.trim_start_matches('@'), "echo" | "printf" | "print"));
    let writes_env = writes(line, "versions.env");
    if line.starts_with('#')
        || (is_said_only && !writes_env)
        || words.iter().any(|word| *word == "dkv" || word.ends_with("/dkv"))
    {
        return None;
    }
    let here = directory.display();
    let manager = words.iter().any(|word| word.ends_with("version-manager.py"));
    let verb = compose_verb(&words);
    let starts_unit = purpose == Purpose::Unit
        && (line.starts_with("ExecStart=") || line.starts_with("ExecStop="));
    if starts_unit {
        let verb = if line.starts_with("ExecStop=") { "stop" } else { "start" };
        let key = line.split('=').next().unwrap_or_default();
        return Some(format!(
            "{key}=/usr/local/bin/dkv -C {here} {verb}; examples/systemd/dkv-deployment.service \
                is a whole unit"
        ));
    }
    if manager {
        return Some(match purpose {
            Purpose::Makefile => "the targets of examples/Makefile, which call dkv".to_owned(),
            _ => format!("the dkv command of the same name: dkv -C {here} …"),
        });
    }
    if writes_env {
        return Some(format!("dkv -C {here} generate-env"));
    }
    let verb = verb?;
    Some(match (purpose, verb) {
        (Purpose::Makefile, _) => "the targets of examples/Makefile, which call dkv".to_owned(),
        (Purpose::Cron, _) => {
            format!("dkv -C {here} {}", if verb == "pull" { "update-safe -q" } else { "start -q" })
        }
        (_, "pull") => format!("dkv -C {here} pull"),
        (_, "restart") => format!("dkv -C {here} restart"),
        _ => format!("dkv -C {here} start"),
    })
}

/// What a line has Compose do with containers or images, if it calls Compose.
fn compose_verb<'a>(words: &[&'a str]) -> Option<&'a str> {
    let at = words.iter().position(|word| {
        let word = word.to_lowercase();
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        word == "compose"
            || word.ends_with("docker-compose")
            || word.ends_with("docker_compose")
            || word == "dc"
    })?;
    words[at + 1..]
        .iter()
        .copied()
        .find(|word| matches!(*word, "up" | "start" | "restart" | "pull"))
}

/// Whether a shell line redirects into `file`, copies over it, or edits it.
fn writes(line: &str, file: &str) -> bool {
    let redirected = line.split('>').skip(1).any(|target| {
        let target = target.trim_start_matches('>').split_whitespace().next().unwrap_or_default();
        target.trim_matches(['"', '\'']).ends_with(file)
    });
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default().trim_start_matches('@');
    let last = words.last().unwrap_or_default().trim_matches(['"', '\'']);
    redirected
        || (last.ends_with(file)
            && (matches!(program, "cp" | "mv" | "tee")
                || line.contains("sed -i")
                || line.contains("| tee")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, purpose: Purpose) -> Option<String> {
        instead_of(line, purpose, Path::new("/srv/app"))
    }

    #[test]
    fn lines_that_start_or_write_are_told_what_to_be() {
        for (line, purpose, expected) in [
            ("docker compose up -d", Purpose::Script, "dkv -C /srv/app start"),
            (
                "cd /srv/app && /usr/bin/docker-compose -f a.yml up -d",
                Purpose::Script,
                "dkv -C /srv/app start",
            ),
            ("subprocess.run(['docker-compose', 'pull'])", Purpose::Script, "dkv -C /srv/app pull"),
            (
                "python3 version-manager.py pull-latest",
                Purpose::Script,
                "the dkv command of the same name: dkv -C /srv/app …",
            ),
            (
                "@python3 version-manager.py show",
                Purpose::Makefile,
                "the targets of examples/Makefile, which call dkv",
            ),
            (
                "$(DOCKER_COMPOSE) up -d",
                Purpose::Makefile,
                "the targets of examples/Makefile, which call dkv",
            ),
            (
                "echo DK_A_TAG=1 >> \"/srv/app/versions.env\"",
                Purpose::Script,
                "dkv -C /srv/app generate-env",
            ),
            ("printf x > versions.env", Purpose::Script, "dkv -C /srv/app generate-env"),
            ("cp good.env versions.env", Purpose::Script, "dkv -C /srv/app generate-env"),
            ("sed -i s/1/2/ versions.env", Purpose::Script, "dkv -C /srv/app generate-env"),
            (
                "0 3 * * * root cd /srv/app && docker compose pull && docker compose up -d",
                Purpose::Cron,
                "dkv -C /srv/app update-safe -q",
            ),
            (
                "ExecStop=/srv/app/stop.sh",
                Purpose::Unit,
                "ExecStop=/usr/local/bin/dkv -C /srv/app stop; \
                    examples/systemd/dkv-deployment.service is a whole unit",
            ),
        ] {
            assert_eq!(of(line, purpose).as_deref(), Some(expected), "{line}");
        }
    }

    #[test]
    fn harmless_lines_are_left_alone() {
        for line in [
            "# docker compose up -d",
            "echo 'now run docker compose up'",
            ". ./versions.env",
            "set -a && source versions.env",
            "docker compose --env-file versions.env config",
            "docker compose ps",
            "dkv -C /srv/app start",
            "ExecStart=/usr/local/bin/dkv -C /srv/app start",
            "grep TAG versions.env > /tmp/out",
        ] {
            assert_eq!(of(line, Purpose::Unit), None, "{line}");
        }
    }

    #[test]
    fn files_are_told_apart_by_their_names_and_lines_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("dkapp-startup.sh", "#!/bin/sh\ncd /x\ndocker-compose up -d\n"),
            ("version-manager.py", "import yaml\n"),
            ("notes.txt", "docker compose up\n"),
            ("Makefile", "up:\n\tdocker compose up -d\n"),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let found = find(directory.path());
        let places: Vec<(&str, usize)> =
            found.iter().map(|tool| (tool.file.as_str(), tool.line)).collect();
        assert_eq!(places, [("Makefile", 2), ("dkapp-startup.sh", 3), ("version-manager.py", 1)]);
    }

    #[test]
    fn a_directory_is_named_by_its_whole_path() {
        let directory = Path::new("/srv/app");
        assert!(names("WorkingDirectory=/srv/app\n", directory));
        assert!(names("ExecStart=/srv/app/start.sh", directory));
        assert!(!names("WorkingDirectory=/srv/app2\n", directory));
    }
}
