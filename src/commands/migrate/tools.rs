//! Other tools that would write `versions.env` or start the deployment beside dkv, and what to put
//! in their place.

use std::path::{Path, PathBuf};

use crate::report::migrate::OtherTool;
use crate::store::{self, Kind};

/// Larger files are no scripts.
const MAX_BYTES: usize = 256 * 1024;

/// Directories inside a deployment where such tools are kept.
const NOOKS: [&str; 7] = [".", "scripts", "bin", "systemd", "cron", "deploy", "tools"];

/// Where the machine keeps units and cron tables.
const MACHINE: [&str; 5] = [
    "/etc/systemd/system",
    "/etc/cron.d",
    "/etc/crontab",
    "/var/spool/cron/crontabs",
    "/var/spool/cron",
];

/// The old version manager, in whose place dkv is.
const OLD_MANAGER: &str = "version-manager.py";

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
pub(super) fn find(directory: &Path) -> Vec<OtherTool> {
    let real = store::resolve(directory).unwrap_or_else(|_| directory.to_owned());
    let ours = NOOKS.iter().flat_map(|nook| entries(&directory.join(nook)));
    let machine = MACHINE.iter().flat_map(|place| entries(Path::new(place)));
    let mut found = Vec::new();
    for path in ours.chain(machine) {
        let own = path.strip_prefix(directory).ok();
        let is_unit = path.extension().is_some_and(|extension| extension == "service");
        let purpose = match own {
            Some(_) => purpose_of(&path),
            None if is_unit => Some(Purpose::Unit),
            None => Some(Purpose::Cron),
        };
        let Some((purpose, text)) = purpose.and_then(|purpose| Some((purpose, read(&path)?)))
        else {
            continue;
        };
        if own.is_some() || names(&text, &real) {
            let shown = own.unwrap_or(&path);
            found.extend(judge(&shown.display().to_string(), &text, purpose, &real));
        }
    }
    found
}

/// The files of a directory in order, or the file itself; what cannot be read is nobody's tool.
fn entries(place: &Path) -> Vec<PathBuf> {
    let is_file = |path: &Path| matches!(store::look(path), Ok(Some(Kind::File)));
    if is_file(place) {
        return vec![place.to_owned()];
    }
    let names = store::list(place).unwrap_or_default();
    names.iter().map(|name| place.join(name)).filter(|path| is_file(path)).collect()
}

fn read(path: &Path) -> Option<String> {
    let found = store::read(path).ok()??;
    String::from_utf8(found.bytes).ok().filter(|text| text.len() <= MAX_BYTES)
}

fn purpose_of(path: &Path) -> Option<Purpose> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    let (_, ending) = name.rsplit_once('.').unwrap_or_default();
    match ending {
        "service" | "timer" => Some(Purpose::Unit),
        _ if name.contains("crontab") || ending == "cron" => Some(Purpose::Cron),
        _ if matches!(name.as_str(), "makefile" | "gnumakefile") || ending == "mk" => {
            Some(Purpose::Makefile)
        }
        _ => matches!(ending, "sh" | "bash" | "py").then_some(Purpose::Script),
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
    let tool = |line, text: &str, instead| OtherTool {
        file: file.to_owned(),
        line,
        text: text.chars().take(160).collect(),
        instead,
    };
    if file.ends_with(OLD_MANAGER) {
        let instead = "remove it: dkv reads its manifest, and two writers of versions.env \
            contradict each other";
        return vec![tool(1, "the old version manager", instead.to_owned())];
    }
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter_map(|(at, line)| Some(tool(at + 1, line, instead_of(line, purpose, directory)?)))
        .collect()
}

/// What to put instead of `line`, if it starts the deployment or writes its versions.
fn instead_of(line: &str, purpose: Purpose, directory: &Path) -> Option<String> {
    const MAKE: &str = "the targets of examples/Makefile, which call dkv";
    let words: Vec<&str> = line
        .split(|c: char| c.is_whitespace() || matches!(c, '=' | ';' | '"' | '\'' | '&' | '|'))
        .collect();
    let is_said_only = words
        .first()
        .is_some_and(|word| matches!(word.trim_start_matches('@'), "echo" | "printf" | "print"));
    let writes_env = writes(line, "versions.env");
    let is_dkv = words.iter().any(|word| *word == "dkv" || word.ends_with("/dkv"));
    if line.starts_with('#') || (is_said_only && !writes_env) || is_dkv {
        return None;
    }
    let here = directory.display();
    let starts_unit =
        [("ExecStart", "start"), ("ExecStop", "stop")].into_iter().find(|(key, _)| {
            let value = line.strip_prefix(key);
            purpose == Purpose::Unit && value.is_some_and(|value| value.starts_with('='))
        });
    if let Some((key, verb)) = starts_unit {
        return Some(format!(
            "{key}=/usr/local/bin/dkv -C {here} {verb}; examples/systemd/dkv-deployment.service is \
            a whole unit"
        ));
    }
    let is_manager = words.iter().any(|word| word.ends_with(OLD_MANAGER));
    let verb = compose_verb(&words);
    Some(match (purpose, verb) {
        (Purpose::Makefile, _) if is_manager => MAKE.to_owned(),
        _ if is_manager => format!("the dkv command of the same name: dkv -C {here} …"),
        _ if writes_env => format!("dkv -C {here} generate-env"),
        (Purpose::Makefile, Some(_)) => MAKE.to_owned(),
        (Purpose::Cron, Some("pull")) => format!("dkv -C {here} update-safe -q"),
        (Purpose::Cron, Some(_)) => format!("dkv -C {here} start -q"),
        (_, Some(verb @ ("pull" | "restart"))) => format!("dkv -C {here} {verb}"),
        (_, Some(_)) => format!("dkv -C {here} start"),
        (_, None) => return None,
    })
}

/// What a line has Compose do with containers or images, if it calls Compose.
fn compose_verb<'a>(words: &[&'a str]) -> Option<&'a str> {
    let at = words.iter().position(|word| {
        let word = word.to_lowercase();
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        matches!(word, "compose" | "dc")
            || word.ends_with("docker-compose")
            || word.ends_with("docker_compose")
    })?;
    let mut rest = words[at + 1..].iter().copied();
    rest.find(|word| matches!(*word, "up" | "start" | "restart" | "pull"))
}

/// Whether a shell line redirects into `file`, copies over it, or edits it.
fn writes(line: &str, file: &str) -> bool {
    let is_file = |word: &str| word.trim_matches(['"', '\'']).ends_with(file);
    let redirected = line.split('>').skip(1).any(|target| {
        is_file(target.trim_start_matches('>').split_whitespace().next().unwrap_or_default())
    });
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default().trim_start_matches('@');
    let edits = matches!(program, "cp" | "mv" | "tee")
        || ["sed -i", "| tee"].iter().any(|edit| line.contains(edit));
    redirected || (edits && words.last().is_some_and(is_file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_start_or_write_are_told_what_to_be() {
        use Purpose::{Cron, Makefile, Script, Unit};
        let make = "the targets of examples/Makefile, which call dkv";
        let manager = "the dkv command of the same name: dkv -C /srv/app …";
        let env = "dkv -C /srv/app generate-env";
        let unit = "ExecStop=/usr/local/bin/dkv -C /srv/app stop; \
            examples/systemd/dkv-deployment.service is a whole unit";
        for (line, purpose, expected) in [
            ("docker compose up -d", Script, "dkv -C /srv/app start"),
            ("cd /x && /usr/bin/docker-compose -f a.yml up -d", Script, "dkv -C /srv/app start"),
            ("subprocess.run(['docker-compose', 'pull'])", Script, "dkv -C /srv/app pull"),
            ("docker compose restart", Script, "dkv -C /srv/app restart"),
            ("python3 version-manager.py pull-latest", Script, manager),
            ("@python3 version-manager.py show", Makefile, make),
            ("$(DOCKER_COMPOSE) up -d", Makefile, make),
            ("echo DK_A_TAG=1 >> \"/srv/app/versions.env\"", Script, env),
            ("printf x > versions.env", Script, env),
            ("cp good.env versions.env", Script, env),
            ("sed -i s/1/2/ versions.env", Script, env),
            (
                "0 3 * * * root cd /srv && docker compose pull",
                Cron,
                "dkv -C /srv/app update-safe -q",
            ),
            ("@reboot root docker compose up -d", Cron, "dkv -C /srv/app start -q"),
            ("ExecStop=/srv/app/stop.sh", Unit, unit),
        ] {
            let instead = instead_of(line, purpose, Path::new("/srv/app"));
            assert_eq!(instead.as_deref(), Some(expected), "{line}");
        }
        for harmless in [
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
            assert_eq!(instead_of(harmless, Unit, Path::new("/srv/app")), None, "{harmless}");
        }
    }

    #[test]
    fn files_are_told_apart_by_their_names_and_lines_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        for (name, text) in [
            ("dkapp-startup.sh", "#!/bin/sh\ncd /x\ndocker-compose up -d\n"),
            ("version-manager.py", "import yaml\n"),
            ("notes.txt", "docker compose up\n"),
            ("Makefile", "up:\n\tdocker compose up -d\n"),
            ("bin/up.bash", "docker compose up\n"),
        ] {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let found = find(directory.path());
        let places: Vec<String> =
            found.iter().map(|tool| format!("{}:{}", tool.file, tool.line)).collect();
        let expected =
            ["Makefile:2", "dkapp-startup.sh:3", "version-manager.py:1", "bin/up.bash:1"];
        assert_eq!(places, expected);
        // A directory is named by its whole path.
        for (text, is_named) in
            [("cd /srv/app\n", true), ("/srv/app/x", true), ("/srv/app2", false)]
        {
            assert_eq!(names(text, Path::new("/srv/app")), is_named, "{text}");
        }
    }
}
