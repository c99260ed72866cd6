//! Help, mistakes on the command line, and what is said where there is nothing.

use crate::screens::story::Story;
use crate::support::deployment::compose_file;

/// A help text with the options that all commands share only where they are not as in the first.
fn without_global_options(text: &str, first: &mut Option<String>) -> String {
    let Some(start) = text.find("Global options:") else { return text.to_owned() };
    let Some(first) = first else {
        *first = Some(text[start..].trim_end().to_owned());
        return text.to_owned();
    };
    text.replace(first.as_str(), "Global options: as above")
}

/// The names under `Commands:`.
fn commands(help: &str) -> Vec<String> {
    let (_, list) = help.split_once("Commands:\n").expect("a list of commands");
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().expect("a name").to_owned()).collect()
}

#[test]
fn help() {
    let mut story = Story::new("help");
    let mut first = None;
    let overview = story.words(["--help"]).exit(0);
    story.seen("--help", &overview);
    for line in ["", "-h", "--version"] {
        let outcome = story.words(line.split_whitespace()).finish();
        story.seen(line, &outcome);
    }
    for name in commands(&overview.stdout) {
        let mut outcome = story.words(["help", &name]).exit(0);
        outcome.stdout = without_global_options(&outcome.stdout, &mut first);
        story.seen(&format!("help {name}"), &outcome);
    }
    story.terminal("pull-latest --help");
    story.both("help-version");
    for line in [
        "pull-latst",
        "pull --dryrun",
        "rollback-service",
        "rollback-to web",
        "version-pull web $(date)",
        "version-set 1web- 1.0",
        "up --no-wait --timeout 5",
        "up --timeout soon",
        "pin --check --unpin",
        "update-safe --resume --abort",
        "logs --since yesterday",
        "completions",
        "completions tcsh",
        "--color pink version",
        "--lock-timeout never version",
        "-C /nonexistent version",
        "--manifest nowhere/m.yaml version",
        "--jobs 0 version",
        "--json",
        "pull-latst --json",
        "rollback-service --json",
    ] {
        let outcome = story.words(line.split_whitespace()).finish();
        story.seen(line, &outcome);
    }
    let outcome = story.words(["version"]).env("DKV_NOW", "today").finish();
    story.seen("version    (with DKV_NOW=today)", &outcome);
    story.ends();
}

/// The commands that work with a record, or make one.
const RECORDED: [&str; 17] = [
    "version-pull web 1.0",
    "version-set web 1.0",
    "unhold web",
    "rollback -y",
    "rollback-service web -y",
    "rollback-to web 1.0 -y",
    "resolve-tags",
    "generate-env",
    "version",
    "version-history",
    "check-updates",
    "update-safe",
    "restore-data data.tar.zst -y",
    "verify",
    "migrate-versions -y",
    "prune -y",
    "ecr-login",
];

/// The commands that Compose files are enough for.
const UNRECORDED: [&str; 20] = [
    "pull",
    "pull-latest",
    "up",
    "updb",
    "down",
    "restart",
    "start",
    "stop",
    "build",
    "update",
    "status",
    "info",
    "health",
    "logs",
    "logs-today",
    "logs-errors",
    "dblogs",
    "dblogs-today",
    "dblogs-errors",
    "pin",
];

#[test]
fn nothing() {
    let mut story = Story::new("nothing");
    for line in RECORDED.into_iter().chain(UNRECORDED) {
        story.dkv(line);
    }
    story.json("status");
    story.json("pull-latest");

    story.remark("a Compose file, and no manifest");
    let web = [("web", story.registry.repository("web"))];
    story.deployment.write("docker-compose.yml", &compose_file(&web));
    for line in UNRECORDED {
        story.dkv(line);
    }

    story.remark("a manifest without services");
    story.deployment.write("version-manifest.yaml", "schema_version: '1.1'\nservices: {}\n");
    for line in ["version", "version-history", "pull", "pull-latest", "check-updates", "verify"] {
        story.both(line);
    }
    for line in ["rollback -y", "version-pull web 1.0", "resolve-tags", "generate-env", "pin"] {
        story.dkv(line);
    }

    for (remark, text) in [
        ("no YAML", "services:\n  web: {image: [\n"),
        ("a newer schema", "schema_version: '2.0'\nservices: {}\n"),
        ("another type", "schema_version: '1.1'\nservices: [web]\n"),
        ("an odd name", "schema_version: '1.1'\nservices: {'$x': {current_tag: '1'}}\n"),
    ] {
        story.remark(&format!("a manifest with {remark}"));
        story.deployment.write("version-manifest.yaml", text);
        story.both("version");
        story.dkv("up --dry-run");
    }
    story.remark("a manifest without images");
    let manifest = format!(
        "schema_version: '1.1'\necr: {{registry: '{}', repository_alias: {}}}\nservices: {{api: \
         {{current_tag: '1'}}}}\n",
        story.registry.address(),
        story.registry.namespace()
    );
    story.deployment.write("version-manifest.yaml", &manifest);
    for line in ["version --json", "pull-latest --no-pull", "generate-env", "up --dry-run"] {
        story.dkv(line);
    }
    story.dkv("verify");
    story.json("verify");
    story.ends();
}
