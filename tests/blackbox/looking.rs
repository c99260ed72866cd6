//! What is shown: tables, marks, help, and the JSON of every command.

use crate::support::{Deployment, Image, Registry};

fn digest(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

/// Every mark that a history can have.
fn marked() -> Deployment {
    let deployment = Deployment::new("marks");
    let entries = [
        ('5', "1.5", "rolled-back"),
        ('4', "1.4-fix", "current"),
        ('3', "1.3", "previous"),
        ('2', "1.2", "archived"),
    ];
    let history: String = entries
        .iter()
        .map(|(digit, tag, status)| {
            format!(
                "  - {{tag: {tag}, digest: '{}', deployed_at: '2026-01-12T12:29:08Z', \
                    deployed_by: ci, status: {status}}}\n",
                digest(*digit)
            )
        })
        .collect();
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  web:\n    image: localhost/web\n    held: \
                true\n    current_tag: 1.4-fix\n    image_digest: {}\n    deployed_at: \
                '2026-01-12T12:29:08Z'\n    deployed_by: alice\n  a_service_with_a_long_name: \
                {{image: localhost/other, current_tag: latest}}\nhistory:\n  \
                web:\n{history}custom_overrides:\n  web: {{tag: 1.4-fix, reason: customer \
                patch}}\n",
            digest('4')
        ),
    );
    deployment
}

#[test]
fn versions_and_history_are_aligned_tables_with_all_marks() {
    let deployment = marked();
    let versions = deployment.dkv(["version"]).exit(0);
    for text in [
        "web",
        "1.4-fix",
        &digest('4')[7..19],
        "2026-01-12",
        "alice",
        "[custom]",
        "customer patch",
        "[held]",
    ] {
        versions.stdout_contains(text);
    }
    let column = |line: &str, word: &str| {
        line.find(word).unwrap_or_else(|| panic!("no {word:?} in {line:?}"))
    };
    let lines: Vec<&str> = versions.stdout.lines().collect();
    assert_eq!(column(lines[0], "VERSION"), column(lines[1], "1.4-fix"), "{versions}");
    assert_eq!(column(lines[0], "VERSION"), column(lines[2], "latest"), "{versions}");
    assert_eq!(deployment.dkv(["whatversion"]).exit(0).stdout, versions.stdout);

    let history = deployment.dkv(["version-history"]).exit(0);
    for text in
        ["[current] [custom] [held]", "[previous] ← rollback goes here", "[rolled-back]", "1.2"]
    {
        history.stdout_contains(text);
    }
    assert_eq!(history.stdout.matches("rollback goes here").count(), 1, "{history}");
    assert_eq!(deployment.dkv(["history"]).exit(0).stdout, history.stdout);
    // `make version-history SERVICE=` passes an empty word.
    assert_eq!(deployment.dkv(["version-history", ""]).exit(0).stdout, history.stdout);
    let one = deployment.dkv(["version-history", "web"]).exit(0);
    one.stdout_lacks("a_service_with_a_long_name");
    // `-` and `_` are alike where one service fits.
    deployment.dkv(["version", "a-service-with-a-long-name"]).exit(0).stdout_contains("latest");
    deployment.dkv(["version", "wbe"]).exit(2).stderr_contains("did you mean `web`?");
    assert!(!versions.stdout.contains('\u{1b}'));
    deployment
        .dkv(["version", "--color", "always"])
        .env_remove("NO_COLOR")
        .exit(0)
        .stdout_contains("\u{1b}[");
    deployment
        .dkv(["version", "--color", "never"])
        .env_remove("NO_COLOR")
        .tty()
        .exit(0)
        .stdout_lacks("\u{1b}[3");
}

#[test]
fn the_json_of_every_command_has_schema_and_command() {
    let registry = Registry::start();
    registry.push(Image::new("web").tag("latest").version("one"));
    registry.push(Image::new("web").tag("1.0").version("fixed"));
    let deployment = Deployment::new("json");
    deployment.write_product(&[("web", registry.repository("web"))]);
    let commands: &[&[&str]] = &[
        &["generate-env"],
        &["pull-latest", "--dry-run"],
        &["pull-latest", "--no-pull"],
        &["pull-latest"],
        &["pull"],
        &["pull", "--dry-run"],
        &["version-pull", "web", "1.0"],
        &["version-set", "web", "latest", "--reason", "why", "--hold"],
        &["unhold", "web"],
        &["version"],
        &["version-history"],
        &["rollback", "--dry-run"],
        &["rollback", "-y"],
        &["rollback-to", "web", "latest", "-y"],
        &["rollback-service", "web", "--dry-run"],
        &["up", "--dry-run"],
        &["updb", "--dry-run"],
        &["restart", "--dry-run"],
        &["start", "--dry-run"],
        &["down", "--dry-run"],
        &["stop", "--dry-run"],
        &["help-version"],
    ];
    for command in commands {
        let outcome = deployment.dkv(command.iter().copied().chain(["--json"])).finish();
        let json = outcome.json();
        assert_eq!(
            (json["schema"].as_u64(), json["command"].as_str()),
            (Some(1), Some(command[0])),
            "{command:?}: {outcome}"
        );
        if outcome.code() != Some(0) {
            assert!(
                json["error"]["exit_code"].as_i64() == outcome.code().map(i64::from)
                    && command[0] == "rollback-service",
                "{outcome}"
            );
        }
    }
    let aliases = [("history", "version-history"), ("whatversion", "version")];
    for (alias, name) in aliases {
        assert_eq!(deployment.dkv([alias, "--json"]).exit(0).json()["command"], name);
    }
    let version = deployment.dkv(["version", "--json"]).exit(0).json()["services"][0].clone();
    let keys: Vec<&str> = version.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "name",
        "image",
        "tag",
        "digest",
        "deployed_at",
        "deployed_by",
        "track",
        "source",
        "held",
        "custom",
        "previous",
    ] {
        assert!(keys.contains(&key), "{key}: {version}");
    }
}

#[test]
fn a_compose_services_name_leads_to_the_service_that_was_meant() {
    let deployment = Deployment::new("name");
    deployment.write(
        "version-manifest.yaml",
        "schema_version: '1.1'\nservices:\n  product_bot:\n    image: r.example/bot\n  api:\n    \
            image: r.example/api\n    \
         compose_services: [front]\n  worker:\n    image: r.example/w\n    env_tag: VERSION\n",
    );
    deployment.write(
        "docker-compose.yml",
        "services:\n  bot: {image: 'r.example/bot:1'}\n  front: {image: 'r.example/x:1'}\n  jobs: \
            {image: 'other:${VERSION:-1}'}\n",
    );
    for (name, service) in [("bot", "product_bot"), ("front", "api"), ("jobs", "worker")] {
        for command in ["version-history", "version", "check-updates", "rollback", "resolve-tags"] {
            let hint =
                format!("`{name}` is a Compose service; in the manifest its image is `{service}`");
            deployment.dkv([command, name]).exit(2).stderr_contains(&hint);
        }
    }
    deployment
        .dkv(["version", "nothing"])
        .exit(2)
        .stderr_contains("the manifest has product_bot, api, worker");
}

#[test]
fn what_a_manifest_says_in_vain_is_told_once_with_its_place() {
    let deployment = Deployment::new("typo");
    let text = "schema_version: '1.1'\nservices:\n  web:\n    image: r.example/web\n    \
        current_tag: '1'\n    helth_timeout: 5s\n";
    deployment.write("version-manifest.yaml", text);
    deployment
        .dkv(["version"])
        .exit(0)
        .stderr_contains("line 6, column 5")
        .stderr_contains("did you mean `health_timeout`?");
    // A command that writes reads twice.
    let written = deployment.dkv(["generate-env"]).exit(0);
    assert_eq!(written.stderr.matches("helth_timeout").count(), 1, "{written}");
    deployment.write(
        "version-manifest.yaml",
        &text.replace("helth_timeout: 5s", "version_pattern: '^v[0-9]+$'"),
    );
    let refused = deployment.dkv(["version"]).exit(3);
    refused
        .stderr_contains("line 6, column 22")
        .stderr_contains("no regular expression")
        .stderr_contains("hint:");
    std::fs::remove_file(deployment.path("version-manifest.yaml")).unwrap();
    std::fs::create_dir(deployment.path("version-manifest.yaml")).unwrap();
    deployment.dkv(["version"]).exit(3).stderr_contains("is a directory").stderr_contains("hint:");
}

#[test]
fn help_is_there_grouped_and_with_examples() {
    let deployment = Deployment::new("help");
    let help = deployment.dkv(["help-version"]).exit(0);
    for command in [
        "pull-latest",
        "version-pull",
        "version-set",
        "rollback",
        "rollback-service",
        "rollback-to",
        "resolve-tags",
        "generate-env",
        "version-history",
        "check-updates",
    ] {
        help.stdout_contains(command);
    }
    help.stdout_contains("dkv pull-latest && dkv restart");
    deployment.dkv(["--help"]).exit(0).stdout_contains("pull-latest");
    deployment.dkv([]).exit(2).stderr_contains("Usage");
    deployment.dkv(["pul-latest"]).exit(2).stderr_contains("pull-latest");
    deployment.dkv(["--version"]).exit(0).stdout_contains("dkv ");
    deployment.dkv(["version", "--nonsense"]).exit(2);
    for command in ["rollback-service", "version-pull", "version-set", "rollback-to", "unhold"] {
        deployment.dkv([command]).exit(2).stderr_contains("Usage");
    }
}

#[test]
fn looking_writes_nothing_at_all() {
    let deployment = marked();
    let before = deployment.list(".");
    for command in [
        &["version"][..],
        &["history"],
        &["version", "--json"],
        &["help-version"],
        &["rollback", "--dry-run"],
    ] {
        deployment.dkv(command.iter().copied()).env("DOCKER_HOST", "unix:///nonexistent").exit(0);
    }
    assert_eq!(deployment.list("."), before);
}
