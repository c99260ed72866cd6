//! What a Compose command line that an operator wrote asks for, as far as dkv must know. It is
//! passed on as it stands.

use std::ffi::OsString;

/// The options before the command that take a value in a word of its own, of both Composes.
const WITH_VALUE: [&str; 17] = [
    "-f",
    "--file",
    "-p",
    "--project-name",
    "--profile",
    "--env-file",
    "--project-directory",
    "--workdir",
    "--ansi",
    "--parallel",
    "--progress",
    "--log-level",
    "-H",
    "--host",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
];

/// The options of `run` and `exec` that take a value in a word of its own, of both Composes.
const OWN_WITH_VALUE: [&str; 19] = [
    "-e",
    "--env",
    "--env-from-file",
    "--entrypoint",
    "-l",
    "--label",
    "--name",
    "-p",
    "--publish",
    "--pull",
    "-u",
    "--user",
    "-v",
    "--volume",
    "-w",
    "--workdir",
    "--cap-add",
    "--cap-drop",
    "--index",
];

/// What such a command does to containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// It shows something, or works inside of what runs.
    Looks,
    /// It starts a container of its own beside the others, and stays with it.
    Runs,
    /// It starts what the files describe and stays with it, for as long as the operator likes.
    Attends,
    /// It starts, stops, replaces or removes containers, and ends.
    Changes,
    /// It builds images.
    Builds,
}

/// A Compose command line as an operator wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed<'a> {
    /// The command; none where only options were given.
    pub command: Option<&'a str>,
    /// Whether it names Compose files itself.
    pub names_files: bool,
    /// Whether it names the project itself.
    pub names_project: bool,
    /// Whether it names the directory that files are relative to itself.
    pub names_directory: bool,
    rest: &'a [OsString],
}

impl<'a> Passed<'a> {
    /// Reads `arguments`, without the program.
    #[must_use]
    pub fn read(arguments: &'a [OsString]) -> Self {
        let mut passed = Self {
            command: None,
            names_files: false,
            names_project: false,
            names_directory: false,
            rest: &[],
        };
        let mut at = 0;
        while let Some(word) = arguments.get(at).map(|word| word.to_str().unwrap_or_default()) {
            at += 1;
            if !word.starts_with('-') {
                passed.command = Some(word);
                passed.rest = &arguments[at..];
                break;
            }
            let names = |short: &str, long: &str| {
                let is_long = word.split('=').next() == Some(long);
                is_long || (!word.starts_with("--") && word.starts_with(short))
            };
            passed.names_files |= names("-f", "--file");
            passed.names_project |= names("-p", "--project-name");
            passed.names_directory |= ["--project-directory", "--workdir"]
                .iter()
                .any(|long| word.split('=').next() == Some(long));
            if WITH_VALUE.contains(&word) {
                at += 1;
            }
        }
        passed
    }

    /// What it does to containers. What is not known is taken for something that changes them,
    /// except where it can only look.
    #[must_use]
    pub fn does(&self) -> Passing {
        if self.has(&["-h", "--help"]) {
            return Passing::Looks;
        }
        match self.command {
            Some("up" | "create" | "run" | "watch") if self.has(&["--build"]) => Passing::Builds,
            Some("build" | "watch") => Passing::Builds,
            Some("run") => Passing::Runs,
            Some("up") if !self.has(&["-d", "--detach", "--wait", "--no-start"]) => {
                Passing::Attends
            }
            Some(
                "up" | "create" | "down" | "start" | "stop" | "restart" | "rm" | "kill" | "pause"
                | "unpause" | "scale",
            ) => Passing::Changes,
            _ => Passing::Looks,
        }
    }

    /// Whether it says something of Compose itself, which takes no deployment.
    #[must_use]
    pub fn is_about_compose(&self) -> bool {
        matches!(self.command, None | Some("version" | "help")) || self.has(&["-h", "--help"])
    }

    /// Whether it only builds, and starts nothing.
    #[must_use]
    pub fn only_builds(&self) -> bool {
        self.command == Some("build")
    }

    /// Whether it starts containers of what the files say.
    #[must_use]
    pub fn starts(&self) -> bool {
        matches!(self.command, Some("up" | "create" | "run" | "scale" | "watch"))
    }

    /// Whether one of `options` stands after the command and before any `--`.
    fn has(&self, options: &[&str]) -> bool {
        let words = self.rest.iter().map(|word| word.to_str().unwrap_or_default());
        let mut own = words.take_while(|word| *word != "--");
        // What follows the service is a command in its container.
        match self.command {
            Some("run" | "exec") => {
                let mut is_value = false;
                let mut own = own.take_while(|word| {
                    let was_value = std::mem::replace(&mut is_value, OWN_WITH_VALUE.contains(word));
                    was_value || word.starts_with('-')
                });
                own.any(|word| options.contains(&word))
            }
            _ => own.any(|word| options.contains(&word)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn what_a_line_does_to_containers() {
        for (line, expected) in [
            ("", Passing::Looks),
            ("--version", Passing::Looks),
            ("ps", Passing::Looks),
            ("exec web kill 1", Passing::Looks),
            ("logs -f", Passing::Looks),
            ("-f up ps", Passing::Looks),
            ("--profile down config", Passing::Looks),
            ("up", Passing::Attends),
            ("up web", Passing::Attends),
            ("up -d", Passing::Changes),
            ("up --wait web", Passing::Changes),
            ("-f other.yml up --detach", Passing::Changes),
            ("--file=other.yml down -v", Passing::Changes),
            ("up -h", Passing::Looks),
            ("restart web", Passing::Changes),
            ("run --rm web sh -c date --build", Passing::Runs),
            ("run --build web", Passing::Builds),
            ("run -e A=1 --build web", Passing::Builds),
            ("run -e A=1 web --build", Passing::Runs),
            ("up -d --build", Passing::Builds),
            ("build --no-cache", Passing::Builds),
        ] {
            assert_eq!(Passed::read(&words(line)).does(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_about_compose_itself() {
        for (line, expected) in [
            ("--help", true),
            ("version --short", true),
            ("help up", true),
            ("up --help", true),
            ("--profile x ps", false),
            ("exec web ls --help", false),
        ] {
            assert_eq!(Passed::read(&words(line)).is_about_compose(), expected, "{line}");
        }
    }

    #[test]
    fn what_a_line_names_itself() {
        for (line, files, project, directory) in [
            ("ps -f x -p y", false, false, false),
            ("-f x ps", true, false, false),
            ("-fx ps", true, false, false),
            ("--file=x ps", true, false, false),
            ("-p y ps", false, true, false),
            ("--project-name=y ps", false, true, false),
            ("--profile x ps", false, false, false),
            ("--project-directory . ps", false, false, true),
            ("--progress plain ps", false, false, false),
        ] {
            let line_words = words(line);
            let passed = Passed::read(&line_words);
            assert_eq!(passed.names_files, files, "{line}");
            assert_eq!(passed.names_project, project, "{line}");
            assert_eq!(passed.names_directory, directory, "{line}");
            assert_eq!(passed.command, Some("ps"), "{line}");
        }
    }
}
