//! The deployment's files and the directory beside them: who may read and write there, which backup
//! is the newest, what is left lying about, and what is no file at all.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::time::Duration;

use crate::support::{Deployment, Image, Registry};

/// A deployment whose service `web` has two releases in its registry, with one recorded.
fn deployment(registry: &Registry) -> Deployment {
    registry.push(Image::new("web").tag("1.0").tag("latest"));
    let deployment = Deployment::new("files");
    deployment.write_product(&[("web", registry.repository("web"))]);
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    registry.push(Image::new("web").tag("1.1").tag("latest"));
    deployment
}

fn mode(deployment: &Deployment, name: &str) -> u32 {
    fs::metadata(deployment.path(name)).unwrap().mode() & 0o7777
}

fn set_mode(deployment: &Deployment, name: &str, mode: u32) {
    fs::set_permissions(deployment.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// What the hint of a failed command says in backquotes or after a colon, done in a shell.
fn shell(command: &str) {
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

#[test]
fn copies_are_no_wider_than_what_they_are_copies_of() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    assert_eq!(mode(&deployment, ".version-backups"), 0o700);
    let image = registry.repository("web");
    deployment.write(
        "docker-compose.yml",
        &format!("services:\n  web:\n    image: {image}:1.0\n    environment: [PASSWORD=x]\n"),
    );
    for (name, bits) in [("docker-compose.yml", 0o600), ("version-manifest.yaml", 0o640)] {
        set_mode(&deployment, name, bits);
    }
    // As an earlier dkv made it.
    set_mode(&deployment, ".version-backups", 0o755);
    let opened = deployment.dkv(["pin"]).under_strace(["-f", "-qq", "-e", "trace=openat"]).exit(0);
    let wide = |line: &&str| {
        line.contains("O_CREAT")
            && (line.contains("docker-compose.yml") || line.contains(".dkv-new"))
            && line.contains("docker-compose.yml")
            && !line.contains("0600")
    };
    assert_eq!(opened.strace.lines().find(wide), None, "0600 from the first moment");
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(mode(&deployment, ".version-backups"), 0o700);
    assert_eq!(mode(&deployment, "docker-compose.yml"), 0o600);
    assert_eq!(mode(&deployment, "version-manifest.yaml"), 0o640);
    let backups = deployment.list(".version-backups");
    let of = |name: &str| {
        let found = backups.iter().filter(|file| file.starts_with(name));
        found.map(|file| mode(&deployment, &format!(".version-backups/{file}"))).collect::<Vec<_>>()
    };
    assert_eq!(of("docker-compose.yml."), [0o600]);
    let manifests = of("version-manifest.yaml.");
    assert!(manifests.contains(&0o640), "{backups:?} {manifests:?}");
}

#[test]
fn git_leaves_out_what_dkv_makes_for_itself() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let git = |arguments: &[&str]| {
        let program = crate::support::program("git");
        let arguments = arguments.iter().copied();
        deployment.command(&program, arguments).exit(0).stdout.clone()
    };
    // The product's own logs stay as visible as they were.
    deployment.write("dblogs/own.log", "");
    for command in ["start", "down"] {
        deployment.dkv([command]).exit(0);
    }
    assert!(deployment.list("logs").iter().any(|name| name.starts_with("dkv-")));
    git(&["init", "-q"]);
    let seen = git(&["status", "--porcelain", "-uall"]);
    let seen: Vec<&str> = seen.lines().map(|line| line.trim_start_matches("?? ")).collect();
    let visible = ["dblogs/own.log", "docker-compose.yml", "version-manifest.yaml", "versions.env"];
    assert_eq!(seen, visible);
    for directory in [".version-backups", "logs"] {
        fs::remove_file(deployment.path(&format!("{directory}/.gitignore"))).unwrap();
    }
    for command in ["pull-latest", "start", "down"] {
        deployment.dkv([command]).exit(0);
    }
    assert!(git(&["status", "--porcelain", "-uall"]).contains(" logs/dkv-"), "asked for once");
}

#[test]
fn a_directory_that_anybody_can_write_to_is_not_acted_on() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let directory = deployment.directory();
    for bits in [0o777, 0o1777] {
        set_mode(&deployment, ".", bits);
        for command in [&["up"][..], &["pull-latest", "--no-pull"], &["update-safe"], &["down"]] {
            let outcome = deployment.dkv(command.iter().copied()).exit(3);
            outcome.stderr_contains("can be written by every user").stderr_contains("chmod o-w ");
        }
        deployment.dkv(["version"]).exit(0);
        shell(&format!("chmod o-w {}", directory.display()));
        deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    }
}

#[test]
fn a_state_directory_that_is_a_link_or_somebody_elses_is_refused() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let (state, aside) = (deployment.path(".version-backups"), deployment.path("aside"));
    fs::rename(&state, &aside).unwrap();
    symlink("aside", &state).unwrap();
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(3);
    outcome.stderr_contains(".version-backups` is a link");
    fs::remove_file(&state).unwrap();
    fs::rename(&aside, &state).unwrap();

    std::os::unix::fs::chown(&state, Some(12345), None).unwrap();
    let outcome = deployment.dkv(["pull-latest", "--no-pull"]).exit(3);
    outcome.stderr_contains("belongs to another user (12345)");
    let mend = outcome.stderr.split('`').find(|text| text.starts_with("chown")).unwrap();
    shell(&mend.replace("./", &format!("{}/", deployment.directory().display())));
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
}

/// The newest backup is the one that was made last, whatever the clock said.
#[test]
fn the_newest_backup_is_the_last_made_and_a_bad_ledger_is_mended() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let set = |tag: &str, now: &str| {
        deployment.dkv(["version-pull", "web", tag, "--no-pull"]).env("DKV_NOW", now).exit(0);
    };
    set("1.1", "2030-01-01T12:00:00Z");
    set("1.0", "2026-01-01T12:00:00Z");
    let whole = deployment.manifest();
    deployment.write("version-manifest.yaml", "services: [\n");
    let outcome = deployment.dkv(["version"]).exit(3);
    outcome.stderr_contains("version-manifest.yaml.2026");
    deployment.write("version-manifest.yaml", &whole);

    let ledger = deployment.path(".version-backups/.dkv-backups");
    let mut bytes = fs::read(&ledger).unwrap();
    bytes.extend(b"\xff\xfe\n");
    fs::write(&ledger, bytes).unwrap();
    let outcome = deployment.dkv(["version-pull", "web", "1.1", "--no-pull"]).exit(0);
    outcome.stderr_contains("damaged");
    assert!(String::from_utf8(fs::read(&ledger).unwrap()).is_ok());
}

#[test]
fn what_killed_commands_left_is_swept_by_the_next() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let left = [
        ".dkv-probe-999999999",
        ".old.yml.dkv-new",
        ".version-backups/.pins.json.dkv-new",
        ".version-backups/.dkv-probe-999999999",
    ];
    // What looks like it, and is not.
    let others = [".dkv-probe-notes", "a.dkv-new", ".version-backups/.update-journal.json.dkv-new"];
    left.iter().chain(&others).for_each(|name| deployment.write(name, "x"));
    deployment.dkv(["version"]).exit(0);
    assert!(deployment.exists(left[0]), "what only looks changes nothing");
    deployment.dkv(["pull-latest", "--no-pull"]).exit(0);
    assert_eq!(left.iter().find(|name| deployment.exists(name)), None);
    assert_eq!(others.iter().find(|name| !deployment.exists(name)), None);
}

/// Killed between the ledger and the backup, dkv leaves no copy that nobody knows.
#[test]
fn no_backup_is_unknown_to_the_ledger() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let order = deployment
        .dkv(["pull-latest", "--no-pull"])
        .under_strace(["-f", "-qq", "-e", "trace=openat,rename"])
        .exit(0)
        .strace;
    let ledger =
        order.lines().position(|line| line.contains("rename(") && line.contains("/.dkv-backups\""));
    let copy = order.lines().position(|line| {
        line.contains("O_CREAT") && line.contains(".version-backups/version-manifest.yaml.")
    });
    assert!(ledger.is_some() && copy.is_some() && ledger < copy, "{order}");
}

/// Every file is read by one reader, which takes what fits and what is a file.
#[test]
fn what_is_no_file_or_too_large_is_refused_at_once() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let fifo = |name: &str| shell(&format!("mkfifo {}", deployment.path(name).display()));
    let zero = |name: &str| symlink("/dev/zero", deployment.path(name)).unwrap();
    let large = |name: &str| {
        fs::File::create(deployment.path(name)).unwrap().set_len(2 << 30).unwrap();
    };
    let pull = &["pull-latest", "--no-pull"][..];
    let ledger = ".version-backups/.dkv-backups";
    for (name, commands) in [
        ("docker-compose.yml", &[&["pin"][..], &["verify"], &["up"]][..]),
        (".env", &[&["up"], &["verify"], &["migrate-versions", "-y"]]),
        ("versions.env", &[&["verify"], pull, &["generate-env"]]),
        (ledger, &[pull]),
        (".version-backups/pins.json", &[&["pin"]]),
        (".version-backups/update-journal.json", &[&["up"]]),
    ] {
        let kept = fs::read(deployment.path(name)).ok();
        let makes: [&dyn Fn(&str); 3] = [&fifo, &zero, &large];
        for make in makes {
            let _ = fs::remove_file(deployment.path(name));
            make(name);
            for command in commands {
                let outcome = deployment
                    .dkv(command.iter().copied())
                    .timeout(Duration::from_secs(60))
                    .finish();
                assert_eq!(outcome.code(), Some(3), "{name}: {outcome}");
                outcome.stderr_contains(name.rsplit('/').next().unwrap());
                assert!(outcome.elapsed < Duration::from_secs(20), "{name}: {outcome}");
            }
        }
        fs::remove_file(deployment.path(name)).unwrap();
        if let Some(kept) = kept {
            fs::write(deployment.path(name), kept).unwrap();
        }
    }
}

/// So are those of Docker and those that the Compose files name: no command waits for them.
#[test]
fn what_others_files_name_is_refused_at_once_too() {
    let registry = Registry::start();
    let deployment = deployment(&registry);
    let image = registry.repository("web");
    let text = "services:\n  web:\n    image: IMAGE:1.0\n    env_file: [{path: web.env}]\n    \
        extends: {file: base.yml, service: base}\n";
    deployment.write("docker-compose.yml", &text.replace("IMAGE", &image));
    deployment.write("base.yml", "services: {base: {env_file: base.env}}\n");
    ["web.env", "base.env"].iter().for_each(|name| deployment.write(name, "A=b\n"));
    let docker = deployment.docker_config_file();
    // Where Docker has the context `far`.
    let far = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
    let far = docker.with_file_name(format!("contexts/meta/{far}/meta.json"));
    let backup = deployment
        .list(".version-backups")
        .into_iter()
        .find(|name| name.starts_with("version-manifest.yaml."))
        .unwrap();
    let whole = deployment.manifest();
    let of = |name: &str| deployment.path(name);
    for (path, command, code) in [
        (of("web.env"), &["up"][..], 3),
        (of("base.env"), &["up"], 3),
        (of("base.yml"), &["up"], 3),
        (docker.clone(), &["pull"], 0),
        (of(&format!(".version-backups/{backup}")), &["version"], 3),
        (of("logs/.saved.json"), &["down"], 0),
        (far.clone(), &["pull"], 6),
    ] {
        let is_backup = path.to_string_lossy().contains(&backup);
        if is_backup {
            deployment.write("version-manifest.yaml", "services: [\n");
        }
        let kept = fs::read(&path).ok();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        for make in ["mkfifo", "ln -s /dev/zero", "truncate -s 300M"] {
            let _ = fs::remove_file(&path);
            shell(&format!("{make} {}", path.display()));
            let run = deployment.dkv(command.iter().copied()).timeout(Duration::from_secs(60));
            let run = if path == far { run.env("DOCKER_CONTEXT", "far") } else { run };
            let outcome = run.finish();
            assert_eq!(outcome.code(), Some(code), "{make} {}: {outcome}", path.display());
            assert!(outcome.elapsed < Duration::from_secs(20), "{make}: {outcome}");
            let is_told = !is_backup && !path.ends_with(".saved.json");
            if is_told && (path != docker || deployment.engine().host().is_none()) {
                outcome.stderr_contains(path.file_name().unwrap().to_str().unwrap());
            }
        }
        fs::remove_file(&path).unwrap();
        if let Some(kept) = kept {
            fs::write(&path, kept).unwrap();
        }
        deployment.write("version-manifest.yaml", &whole);
    }
}

#[test]
fn a_time_zone_that_is_no_file_does_not_hang() {
    let deployment = Deployment::new("files");
    let fifo = deployment.path("zone");
    shell(&format!("mkfifo {}", fifo.display()));
    for zone in [fifo.display().to_string(), format!(":{}", fifo.display()), "/dev/zero".into()] {
        let outcome = deployment
            .dkv(["version"])
            .env("TZ", zone.as_str())
            .timeout(Duration::from_secs(30))
            .exit(2);
        outcome.stderr_contains("TZ");
    }
}
