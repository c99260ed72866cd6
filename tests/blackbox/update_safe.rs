//! `update-safe`: whatever happens, in the end the new versions run and are healthy, or the old
//! ones do.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::deployment::Compose;
use crate::support::{
    Daemon, Deployment, Fault, Gate, Health, Image, On, Proxy, Registry, Run, Running, wait_for,
};

/// A product of `web` and `side`, running release 1 of both.
pub(crate) struct Product {
    // Dropped first: its containers use the registry's images.
    pub(crate) deployment: Deployment,
    pub(crate) registry: Registry,
    /// Where its images are had: from the registry, or from a proxy in front of it.
    address: SocketAddr,
    compose: Compose,
}

impl Product {
    pub(crate) fn new(topic: &str) -> Self {
        Self::with(topic, Compose::V2, |_| {})
    }

    /// `arrange` may write further files before the first start.
    pub(crate) fn with(topic: &str, compose: Compose, arrange: impl FnOnce(&Self)) -> Self {
        Self::on(Deployment::new(topic), Registry::start(), compose).start(arrange)
    }

    /// Nothing is published, written or started yet.
    pub(crate) fn on(deployment: Deployment, registry: Registry, compose: Compose) -> Self {
        Self { address: registry.address(), deployment, registry, compose }
    }

    pub(crate) fn start(self, arrange: impl FnOnce(&Self)) -> Self {
        self.publish("web", "1", |image| image.health(Health::Passing));
        self.publish("side", "1", |image| image.health(Health::Passing));
        let repository = |name| (name, self.registry.repository_at(self.address, name));
        self.deployment.write_product(&["web", "side"].map(repository));
        arrange(&self);
        self.dkv(["pull-latest"]).exit(0);
        self.dkv(["start"]).exit(0);
        self
    }

    /// Pushes a release as its own tag and as `latest`.
    pub(crate) fn publish(
        &self,
        name: &str,
        version: &str,
        change: impl FnOnce(Image) -> Image,
    ) -> String {
        self.registry.push(change(Image::new(name).tag(version).tag("latest"))).digest
    }

    pub(crate) fn dkv<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.deployment.dkv(args).compose(self.compose)
    }

    pub(crate) fn update(&self) -> Run {
        self.dkv(["update-safe", "--timeout", "8s"])
    }

    pub(crate) fn version(&self, service: &str) -> String {
        self.deployment.engine().version(self.deployment.project(), service)
    }

    pub(crate) fn container(&self, service: &str) -> String {
        self.inspected(service)["Id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn health(&self, service: &str) -> String {
        self.inspected(service)["State"]["Health"]["Status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn inspected(&self, service: &str) -> serde_json::Value {
        let engine = self.deployment.engine();
        let name = &engine.containers(self.deployment.project(), service)[0];
        engine.container(name).unwrap()
    }

    pub(crate) fn current_tag(&self, service: &str) -> String {
        self.deployment.manifest_data()["services"][service]["current_tag"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn journal_state(&self) -> Option<String> {
        let text =
            std::fs::read_to_string(self.deployment.path(".version-backups/update-journal.json"))
                .ok()?;
        let journal: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(journal["state"].as_str()?.to_owned())
    }

    /// Runs `update` until its journal is in `state`, then sends it `signal`.
    pub(crate) fn stop_in(&self, state: &str, update: Run, signal: Signal) -> Running {
        let mut running = update.spawn();
        wait_for(&format!("the state {state}"), Duration::from_secs(120), || {
            assert!(running.is_running(), "it ended before:\n{}", running.output());
            (self.journal_state().as_deref() == Some(state)).then_some(())
        });
        running.signal(signal);
        running
    }

    /// That what is kept from being pruned is these releases, and nothing else.
    fn assert_keeps(&self, releases: &[(&str, &str)]) {
        let digits = |digest: &str| digest[7..19].to_owned();
        let wanted = releases.iter().map(|(name, digest)| ((*name).to_owned(), digits(digest)));
        let found = self.deployment.engine().keep_tags(self.registry.namespace());
        assert_eq!(found, wanted.collect());
    }

    fn digest(&self, service: &str) -> String {
        let data = self.deployment.manifest_data();
        data["services"][service]["image_digest"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn assert_runs(&self, version: &str) {
        assert_eq!(self.version("web"), version);
        assert_eq!(self.health("web"), "healthy");
        assert_eq!(self.journal_state(), None);
    }
}

fn good_update(compose: Compose) {
    let product = Product::with("good", compose, |_| {});
    let (web, side) = (product.container("web"), product.container("side"));
    let (old, other) = (product.digest("web"), product.digest("side"));
    let new = product.publish("web", "2", |image| image.health(Health::Passing));

    let plan = product.dkv(["update-safe", "--dry-run"]).exit(0);
    plan.stdout_contains("would restart: web");
    assert_eq!((product.version("web").as_str(), product.journal_state()), ("1", None));

    let done = product.update().exit(0);
    done.stdout_contains("web: 1 ").stderr_contains("web was away for");
    product.assert_runs("2");
    assert_ne!(product.container("web"), web);
    assert_eq!(product.container("side"), side);
    assert_eq!(product.current_tag("web"), "2");
    assert!(product.deployment.versions_env().contains("DK_WEB_TAG=2@sha256:"));
    product.assert_keeps(&[("web", &old), ("web", &new), ("side", &other)]);

    let web = product.container("web");
    product.update().exit(0).stderr_contains("Nothing new");
    product.dkv(["up"]).exit(0);
    assert_eq!(product.container("web"), web);
}

#[test]
fn a_good_release_replaces_only_what_changed_v2() {
    good_update(Compose::V2);
}

#[test]
fn a_good_release_replaces_only_what_changed_v1() {
    good_update(Compose::V1);
}

fn bad_update(compose: Compose) {
    let product = Product::with("bad", compose, |_| {});
    let side = product.container("side");
    let (manifest, env) = (product.deployment.manifest(), product.deployment.versions_env());
    let bad = product.publish("web", "2", |image| image.health(Health::Failing));

    let failed = product.update().exit(7);
    failed.stderr_contains("no database").stderr_contains("--retry");
    product.assert_runs("1");
    assert_eq!(product.container("side"), side);
    let rejected = &product.deployment.manifest_data()["rejected"]["web"][0];
    assert_eq!(
        (rejected["digest"].as_str(), rejected["tag"].as_str()),
        (Some(bad.as_str()), Some("2"))
    );
    assert!(
        product
            .deployment
            .manifest()
            .starts_with(manifest.trim_end().trim_end_matches("rejected: {}").trim_end())
    );
    let assignments = |text: &str| {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(assignments(&product.deployment.versions_env()), assignments(&env));
    product.assert_keeps(&[("web", &product.digest("web")), ("side", &product.digest("side"))]);

    let web = product.container("web");
    product.dkv(["up"]).exit(0);
    assert_eq!(product.container("web"), web);
    product.dkv(["pull-latest"]).exit(0).stdout_contains("--retry");
    assert_eq!(product.current_tag("web"), "1");
    product.update().exit(0).stdout_contains("--retry");
    product.assert_runs("1");
}

#[test]
fn a_release_that_is_never_healthy_is_undone_and_rejected_v2() {
    bad_update(Compose::V2);
}

#[test]
fn a_release_that_is_never_healthy_is_undone_and_rejected_v1() {
    bad_update(Compose::V1);
}

#[test]
fn what_crashes_or_flaps_is_undone() {
    let product = Product::new("crash");
    for (version, change) in [
        ("2", (|image: Image| image.crashing(3)) as fn(Image) -> Image),
        ("3", |image| image.script("sleep 1; exit 4")),
        ("4", |image| image.health(Health::Flapping(1)).health_interval_ms(400)),
    ] {
        product.publish("web", version, change);
        product.dkv(["update-safe", "--timeout", "8s"]).exit(7);
        product.assert_runs("1");
    }
    // Passes more than once first; the other is still on its way then.
    let often = |image: Image, health| image.health(health).health_interval_ms(400);
    product.publish("web", "5", |image| often(image, Health::Flapping(3)));
    product.publish("side", "5", |image| often(image, Health::FromProbe(6)));
    product.dkv(["update-safe", "--timeout", "8s"]).exit(7);
    product.assert_runs("1");
    let rejected = &product.deployment.manifest_data()["rejected"];
    let tags = |service: &str| rejected[service].as_array().map(|list| list.len());
    assert_eq!((tags("web"), tags("side")), (Some(4), None));
}

#[test]
fn a_server_that_ends_well_has_failed_and_a_job_has_not() {
    let product = Product::with("ended", Compose::V2, |product| {
        product.publish("web", "1", |image| image);
        product.publish("side", "1", |image| image.script("exit 0"));
    });
    wait_for("a web server that has run for long enough", Duration::from_secs(30), || {
        let status = product.dkv(["status", "--json"]).exit(0).json();
        let containers = status["containers"].as_array().cloned().unwrap_or_default();
        containers
            .iter()
            .any(|line| line["compose_service"] == "web" && line["verdict"] == "unchecked")
            .then_some(())
    });
    product.publish("side", "2", |image| image.script("exit 0"));
    product.update().exit(0);
    product.publish("web", "2", |image| image.script("exit 0"));
    product.update().exit(7).stderr_contains("it should keep running");
    assert_eq!(product.version("web"), "1");
    let running = product.deployment.engine().docker(&[
        "inspect",
        "--format",
        "{{.State.Running}}",
        &product.container("web"),
    ]);
    assert_eq!((running.as_str(), product.current_tag("side").as_str()), ("true", "2"));
}

#[test]
fn one_bad_release_of_two_can_be_left_out() {
    let product = Product::new("partly");
    let (bad, version) = (product.publish("web", "2", |image| image.crashing(3)), "2");
    product.publish("side", version, |image| image.health(Health::Passing));
    let partly = product.dkv(["--json", "update-safe", "--keep-going", "--timeout", "8s"]).exit(9);
    partly
        .stderr_contains("web was not updated")
        .stderr_contains("code 3")
        .stderr_contains("--retry");
    assert_eq!(
        (partly.json()["result"].as_str(), partly.json()["given_up"][0]["service"].as_str()),
        (Some("partly-updated"), Some("web"))
    );
    product.assert_runs("1");
    assert_eq!(
        (product.version("side").as_str(), product.health("side").as_str()),
        ("2", "healthy")
    );
    assert_eq!(
        (product.current_tag("web").as_str(), product.current_tag("side").as_str()),
        ("1", "2")
    );
    assert_eq!(
        product.deployment.manifest_data()["rejected"]["web"][0]["digest"].as_str(),
        Some(bad.as_str())
    );
    let before = [product.container("web"), product.container("side")];
    product.dkv(["up"]).exit(0);
    assert_eq!(
        [product.container("web"), product.container("side")],
        before,
        "what runs is what is recorded"
    );

    // Nothing is left to go on with: all goes back, as without the option.
    product.publish("web", "3", |image| image.crashing(3));
    product.dkv(["update-safe", "--keep-going", "--timeout", "8s"]).exit(7);
    product.assert_runs("1");
}

#[test]
fn a_migration_that_fails_keeps_the_application_as_it_was() {
    let product = Product::with("migration", Compose::V2, |product| {
        let image = "${DK_WEB_IMAGE}:${DK_WEB_TAG:-latest}";
        let compose = format!(
            "services:\n  migrate:\n    image: {image}\n    command: [/bin/sh, -c, \"test $$(cat \
                /version) != 2\"]\n    \
             healthcheck: {{disable: true}}\n    restart: 'no'\n  web:\n    image: {image}\n    \
             depends_on: {{migrate: \
             {{condition: service_completed_successfully}}}}\n  side:\n    image: \
             ${{DK_SIDE_IMAGE}}:${{DK_SIDE_TAG:-latest}}\n"
        );
        product.deployment.write("docker-compose.yml", &compose);
    });
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(7).stderr_contains("migrate");
    product.assert_runs("1");

    product.publish("web", "3", |image| image.health(Health::Passing));
    product.update().exit(0);
    product.assert_runs("3");
}

#[test]
fn nothing_stops_when_something_cannot_be_pulled() {
    let deployment = Deployment::new("unpulled");
    let mut product = Product::on(deployment, Registry::alone(), Compose::V2).start(|_| {});
    let before = [product.container("web"), product.container("side")];
    let manifest = product.deployment.manifest();
    product.registry.stop();
    product.update().exit(5);
    assert_eq!([product.container("web"), product.container("side")], before);
    assert_eq!((product.deployment.manifest(), product.journal_state()), (manifest, None));
    product.dkv(["version"]).exit(0).stderr_lacks("update-safe");
}

#[test]
fn a_restore_that_fails_says_so_and_can_be_tried_again() {
    let product = Product::with("norestore", Compose::V2, |product| {
        let web = "echo x; test -e /state/ok || exit 1; trap 'exit 0' TERM; while :; do sleep \
            3600 & wait $!; done";
        product.publish("web", "1", |image| image.script(web).health(Health::Passing));
        let compose = product.deployment.read("docker-compose.yml");
        let compose = compose.replace("  side:", "    volumes: ['./state:/state']\n  side:");
        product.deployment.write("docker-compose.yml", &compose);
        product.deployment.write("state/ok", "");
    });
    product.publish("web", "2", |image| image.script("rm -f /state/ok; exit 5"));
    product.update().exit(8).stderr_contains("--abort");
    assert_eq!(product.journal_state().as_deref(), Some("restore-failed"));
    product.dkv(["version"]).exit(0).stderr_contains("failed");

    product.deployment.write("state/ok", "");
    product.dkv(["update-safe", "--abort"]).exit(0);
    product.assert_runs("1");
}

#[test]
fn what_ran_comes_back_not_what_is_recorded() {
    let product = Product::new("ran");
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.dkv(["pull-latest"]).exit(0);
    assert_eq!((product.version("web").as_str(), product.current_tag("web").as_str()), ("1", "2"));

    product.publish("web", "3", |image| image.crashing(1));
    product.update().exit(7);
    product.assert_runs("1");
    assert_eq!(product.current_tag("web"), "2");
    assert_eq!(product.deployment.manifest_data()["rejected"]["web"][0]["tag"].as_str(), Some("3"));
}

/// A new release under way, slow in `state`.
fn slow_update(product: &Product, state: &str, version: &str) -> Run {
    let health = match state {
        "judging" => Health::FromProbe(4),
        "restoring" => Health::Failing,
        _ => Health::Passing,
    };
    product.publish("web", version, |image| image.health(health));
    product.dkv(["update-safe", "--timeout", if state == "restoring" { "4s" } else { "20s" }])
}

/// Kills updates in `state`: one is then undone, the next one finished.
fn killed_in(state: &str) {
    let registry = Registry::start();
    let proxy = Proxy::to(&registry);
    let deployment = Deployment::new(&format!("kill-{state}"));
    let mut product = Product::on(deployment, registry, Compose::V2);
    product.address = proxy.address();
    let product = product.start(|product| {
        let manifest = product.deployment.manifest();
        product.deployment.write(
            "version-manifest.yaml",
            &format!("{manifest}data_backup: {{command: sleep 1}}\n"),
        );
    });
    let side = product.container("side");
    let kill_update_to = |version: &str| {
        // What is pulled is not there before the update is gone.
        let gate = Gate::default();
        proxy.reset();
        if state == "preparing" {
            proxy.fault(On::target("/blobs/"), Fault::Hold(gate.clone()));
        }
        let update = slow_update(&product, state, version);
        let killed = product.stop_in(state, update, Signal::KILL).finish();
        gate.open();
        killed
    };

    assert_eq!(kill_update_to("2").code(), None);
    product.dkv(["version"]).exit(0).stderr_contains("--resume");
    product.dkv(["pull-latest"]).exit(3).stderr_contains("--abort").stderr_contains("--resume");
    product.dkv(["update-safe"]).exit(3);
    product.dkv(["update-safe", "--abort", "--timeout", "20s", "--lock-timeout", "60"]).exit(0);
    product.assert_runs("1");
    assert_eq!(product.current_tag("web"), "1");

    kill_update_to("3");
    let resumed = product
        .dkv(["update-safe", "--resume", "--timeout", "20s", "--lock-timeout", "60"])
        .finish();
    let (code, version) = if state == "restoring" { (7, "1") } else { (0, "3") };
    assert_eq!(resumed.code(), Some(code), "{resumed}");
    product.assert_runs(version);
    assert_eq!(product.current_tag("web"), version);
    assert_eq!(product.container("side"), side);
}

#[test]
fn killed_while_pulling() {
    killed_in("preparing");
}

#[test]
fn killed_while_saving_data() {
    killed_in("saving");
}

#[test]
fn killed_while_replacing() {
    killed_in("replacing");
}

#[test]
fn killed_while_judging() {
    killed_in("judging");
}

#[test]
fn killed_while_restoring() {
    killed_in("restoring");
}

#[test]
fn killed_while_recording() {
    for (option, version) in [("--abort", "2"), ("--resume", "2")] {
        let product = Product::new("kill-recording");
        product.publish("web", version, |image| image.health(Health::Passing));
        let new = product.deployment.path(".version-manifest.yaml.dkv-new").display().to_string();
        let renames = "rename,renameat,renameat2";
        let (trace, inject) =
            (format!("trace={renames}"), format!("inject={renames}:signal=KILL:when=1"));
        product
            .update()
            .under_strace(["-f", "-qq", "-P", &new, "-e", &trace, "-e", &inject])
            .finish();
        assert_eq!(product.journal_state().as_deref(), Some("recording"));
        // Found healthy: whoever takes it up brings it to its end.
        product.dkv(["update-safe", option]).exit(0);
        product.assert_runs(version);
        assert_eq!(product.current_tag("web"), version);
    }
}

#[test]
fn ctrl_c_brings_back_what_ran_and_a_second_one_stops_at_once() {
    let product = Product::new("ctrlc");
    for (state, version) in [("judging", "2"), ("replacing", "3")] {
        let update = slow_update(&product, "judging", version);
        // To the whole group, as Ctrl-C on a terminal does.
        let running = product.stop_in(state, update, Signal::CONT);
        running.signal_group(Signal::INT);
        let stopped = running.exit(130);
        stopped.stderr_contains("interrupted, and what ran before is back and healthy");
        product.assert_runs("1");
        assert!(product.deployment.manifest_data()["rejected"]["web"].is_null());
    }

    let update = slow_update(&product, "judging", "4");
    let mut running = product.stop_in("judging", update, Signal::TERM);
    running.wait_for_output("Restoring what ran before");
    running.signal(Signal::TERM);
    running.exit(130).stderr_contains("--resume").stderr_contains("--abort");
    assert_eq!(product.journal_state().as_deref(), Some("restoring"));
    product.dkv(["update-safe", "--abort", "--lock-timeout", "60"]).exit(0);
    product.assert_runs("1");
}

#[test]
fn an_update_outlives_its_terminal_and_says_the_rest_in_a_file() {
    let product = Product::new("hangup");
    let update = slow_update(&product, "judging", "2");
    product.stop_in("judging", update, Signal::HUP).exit(0);
    product.assert_runs("2");
    assert!(!product.deployment.exists(".version-backups/output.log"));

    // The terminal goes, and with it whoever held it.
    let update = slow_update(&product, "judging", "3").tty();
    let running = product.stop_in("judging", update, Signal::CONT);
    running.signal_group(Signal::KILL);
    wait_for("the end of the update", Duration::from_secs(60), || {
        product.journal_state().is_none().then_some(())
    });
    product.assert_runs("3");
    let status = product.dkv(["status"]).exit(0);
    status.stderr_contains(".version-backups/output.log");
    let said = || product.deployment.read(".version-backups/output.log");
    wait_for("its last words", Duration::from_secs(10), || {
        said().contains("web was away for").then_some(())
    });
    drop(running);
}

/// A database with data in a directory and in a volume.
pub(crate) fn with_database(product: &Product) {
    product.publish("db", "1", |image| image.health(Health::Passing));
    let image = product.registry.repository("db");
    product.deployment.write(
        "db-docker-compose.yml",
        &format!(
            "services:\n  db:\n    image: {image}:1\n    volumes: ['./pgdata:/pgdata', \
                'files:/files']\nvolumes: {{files: {{}}}}\n"
        ),
    );
    product.deployment.write("pgdata/table", "rows of 1");
}

/// The data backups and their checksums, without the ledger.
fn data_backups(product: &Product) -> Vec<String> {
    let mut names = product.deployment.list(".version-backups/data");
    names.retain(|name| name.starts_with("data-"));
    names
}

#[test]
fn data_is_saved_and_can_be_put_back() {
    let product = Product::with("data", Compose::V2, with_database);
    let db = product.container("db");
    let engine = product.deployment.engine();
    let name = &engine.containers(product.deployment.project(), "db")[0];
    engine.docker(&["exec", name, "sh", "-c", "echo kept > /files/file"]);

    product.publish("web", "2", |image| image.health(Health::Passing));
    product
        .dkv(["update-safe", "--dry-run"])
        .exit(0)
        .stdout_contains("would stop while their data is saved: db");
    let done = product.dkv(["--json", "update-safe"]).exit(0);
    let paused = &done.json()["paused"][0];
    assert!(
        paused["compose_service"] == "db" && paused["downtime_seconds"].as_f64().unwrap() > 0.0,
        "{done}"
    );
    let backup = done.json()["data_backup"].as_str().unwrap().to_owned();
    assert!(done.json()["replaced"][0]["downtime_seconds"].as_f64().unwrap() > 0.0, "{done}");
    assert_eq!(product.container("db"), db);
    assert_eq!(product.health("db"), "healthy");
    let file = product.deployment.path(&format!(".version-backups/data/{backup}"));
    assert!(file.is_file() && file.with_file_name(format!("{backup}.sha256")).is_file());

    product.deployment.write("pgdata/table", "rows of 2");
    product.deployment.write("pgdata/new", "");
    engine.docker(&["exec", name, "sh", "-c", "echo lost > /files/file"]);
    product.dkv(["restore-data", &backup]).exit(2);
    product.dkv(["restore-data", &backup, "-y"]).exit(0);
    assert_eq!(product.deployment.read("pgdata/table"), "rows of 1");
    assert_eq!(product.deployment.list("pgdata"), ["table"]);
    assert_eq!(engine.docker(&["exec", name, "cat", "/files/file"]), "kept");

    product.publish("web", "3", |image| image.crashing(1));
    product.update().exit(7).stderr_contains("dkv restore-data data-");
    product.publish("web", "4", |image| image.health(Health::Passing));
    product.dkv(["update-safe", "--no-data-backup"]).exit(0);
    // Two of updates and one of what the restore replaced, with their checksums.
    assert_eq!(data_backups(&product).len(), 6);

    let manifest = product.deployment.manifest();
    product
        .deployment
        .write("version-manifest.yaml", &format!("{manifest}data_backup: {{command: 'false'}}\n"));
    product.publish("web", "5", |image| image.health(Health::Passing));
    product.update().exit(3).stderr_contains("data_backup");
    product.assert_runs("4");
}

#[test]
fn what_a_backup_command_prints_is_kept() {
    let product = Product::with("printed", Compose::V2, |product| {
        let manifest = product.deployment.manifest();
        let backup = "data_backup: {command: 'echo rows; test ! -e broken'}\n";
        product.deployment.write("version-manifest.yaml", &(manifest + backup));
    });
    product.publish("web", "2", |image| image.crashing(1));
    let failed = product.update().exit(7);
    let dumps = data_backups(&product);
    let [dump, sums] = dumps.as_slice() else { panic!("{dumps:?}") };
    failed.stderr_contains(&format!(".version-backups/data/{dump} is the dump"));
    assert_eq!(product.deployment.read(&format!(".version-backups/data/{dump}")), "rows\n");
    assert!(dump.ends_with(".dump") && *sums == format!("{dump}.sha256"), "{dumps:?}");
    product
        .dkv(["restore-data", dump, "-y"])
        .exit(3)
        .stderr_contains("does not know what reads it");

    // Half a dump is none.
    product.deployment.write("broken", "");
    product.publish("web", "3", |image| image.health(Health::Passing));
    product.update().exit(3).stderr_contains("data_backup");
    assert_eq!(data_backups(&product), dumps);
    product.assert_runs("1");
}

#[test]
fn who_has_a_named_path_mounted_is_stopped_for_its_copy() {
    let product = Product::with("paths", Compose::V2, |product| {
        with_database(product);
        let manifest = product.deployment.manifest();
        product
            .deployment
            .write("version-manifest.yaml", &(manifest + "data_backup: {paths: [./pgdata]}\n"));
    });
    let db = product.deployment.engine().containers(product.deployment.project(), "db")[0].clone();
    let started = || {
        product.deployment.engine().docker(&["inspect", "--format", "{{.State.StartedAt}}", &db])
    };
    let before = started();
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(0).stderr_contains("db was stopped for");
    assert_ne!(started(), before);
    assert_eq!(product.health("db"), "healthy");
}

#[test]
fn an_encrypted_environment_reaches_containers_and_a_wrong_passphrase_stops_nothing() {
    let product = Product::with("gpg", Compose::V2, |product| {
        let compose = product.deployment.read("docker-compose.yml");
        let compose =
            compose.replace("  side:", "    environment: {SECRET: '${SECRET:?}'}\n  side:");
        product.deployment.write("docker-compose.yml", &compose);
        encrypt(product, "SECRET=correct-horse\n");
    });
    let name =
        product.deployment.engine().containers(product.deployment.project(), "web")[0].clone();
    assert_eq!(
        product.deployment.engine().docker(&["exec", &name, "sh", "-c", "echo $SECRET"]),
        "correct-horse"
    );
    assert!(!product.deployment.exists(".env"));

    product.publish("web", "2", |image| image.crashing(1));
    let failed = product.update().exit(7);
    failed.stderr_lacks("correct-horse").stdout_lacks("correct-horse");
    for name in product.deployment.list(".version-backups") {
        let path = product.deployment.path(".version-backups").join(&name);
        let text = std::fs::read(&path).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&text).contains("correct-horse"), "{name}");
    }
    product.assert_runs("1");

    std::fs::write(product.deployment.home().join(".gnupg/passphrase"), "wrong").unwrap();
    let web = product.container("web");
    product.publish("web", "3", |image| image.health(Health::Passing));
    for command in ["restart", "update-safe", "up", "build"] {
        product.dkv([command]).exit(3).stderr_contains(".env.gpg");
    }
    assert_eq!(product.container("web"), web);
}

/// Leaves `.env` only encrypted; gpg takes the passphrase from a file.
fn encrypt(product: &Product, text: &str) {
    let gnupg = product.deployment.home().join(".gnupg");
    std::fs::create_dir_all(&gnupg).unwrap();
    std::fs::set_permissions(&gnupg, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let passphrase = gnupg.join("passphrase");
    std::fs::write(&passphrase, "sesame").unwrap();
    let options = format!(
        "batch\npinentry-mode loopback\npassphrase-file {}\nno-symkey-cache\n",
        passphrase.display()
    );
    std::fs::write(gnupg.join("gpg.conf"), options).unwrap();
    product.deployment.write(".env", text);
    let gpg = crate::support::program("gpg");
    product.deployment.command(&gpg, ["-c", ".env"]).exit(0);
    std::fs::remove_file(product.deployment.path(".env")).unwrap();
}

#[test]
fn what_hangs_is_ended_and_what_ran_comes_back() {
    let product = Product::with("hang", Compose::V2, with_database);
    let before = [product.container("web"), product.container("db")];
    let docker = crate::support::program("docker");
    let script = format!(
        "#!/bin/sh\nif [ -e hang ]; then case \" $* \" in *\" $(/bin/cat hang) \"*) /bin/rm hang; \
            exec /bin/sleep 1000;; esac; fi\n\
         exec {} \"$@\"\n",
        docker.display()
    );
    product.deployment.install("docker", &script);
    let hanging = |version: &str, action: &str| {
        product.publish("web", version, |image| image.health(Health::Passing));
        product.deployment.write("hang", action);
        product.dkv(["update-safe", "--timeout", "4s"]).timeout(Duration::from_secs(180)).spawn()
    };
    let stopping = hanging("2", "stop").exit(6);
    stopping.stderr_contains("had not ended after").stderr_contains("stop");
    assert_eq!([product.container("web"), product.container("db")], before);
    product.assert_runs("1");
    assert_eq!(product.health("db"), "healthy");

    let replacing = hanging("3", "up").exit(7);
    replacing.stderr_contains("had not ended after");
    product.assert_runs("1");
    assert_eq!(
        (product.container("db"), product.current_tag("web")),
        (before[1].clone(), "1".to_owned())
    );
}

#[test]
fn a_backup_command_that_hangs_is_ended_with_its_children() {
    let product = Product::with("dump", Compose::V2, |product| {
        let manifest = product.deployment.manifest();
        let backup = "data_backup: {command: 'sleep 1000 & echo $! >pid; wait', timeout: 1s}\n";
        product.deployment.write("version-manifest.yaml", &(manifest + backup));
    });
    let web = product.container("web");
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(3).stderr_contains("had not ended after 1 s").stderr_contains("timeout");
    let pid = product.deployment.read("pid").trim().to_owned();
    wait_for("the end of its child", Duration::from_secs(10), || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
    assert_eq!(product.container("web"), web);
    product.assert_runs("1");
}

#[test]
fn a_daemon_that_hangs_for_a_while_ends_old_and_healthy_or_new_and_healthy() {
    let daemon = Daemon::private();
    let deployment = Deployment::on(daemon.engine(), "stall");
    let product = Product::on(deployment, Registry::start(), Compose::V2).start(|_| {});
    product.publish("web", "2", |image| image.health(Health::Failing));
    let running =
        product.stop_in("judging", product.dkv(["update-safe", "--timeout", "90s"]), Signal::CONT);
    daemon.signal(Signal::STOP);
    wait_for("the restore", Duration::from_secs(120), || {
        (product.journal_state().as_deref() == Some("restoring")).then_some(())
    });
    daemon.signal(Signal::CONT);
    running.exit(7).stderr_contains("has not answered for");
    product.assert_runs("1");
}

#[test]
fn a_closed_output_does_not_change_what_is_done() {
    let product = Product::new("closed");
    product.publish("web", "2", |image| image.health(Health::Passing));
    let command =
        format!("{} update-safe --timeout 8s 2>&1 | /usr/bin/head -c 0", env!("CARGO_BIN_EXE_dkv"));
    product.deployment.command(std::path::Path::new("/bin/sh"), ["-c", &command]).exit(0);
    product.assert_runs("2");
    assert_eq!(product.current_tag("web"), "2");
}

#[test]
fn the_newest_three_data_backups_are_kept() {
    let product = Product::with("three", Compose::V2, with_database);
    let mut made = Vec::new();
    for version in ["2", "3", "4", "5"] {
        product.publish("web", version, |image| image.health(Health::Passing));
        let done = product.dkv(["--json", "update-safe"]).exit(0);
        made.push(done.json()["data_backup"].as_str().unwrap().to_owned());
    }
    let mut kept: Vec<String> =
        made[1..].iter().flat_map(|name| [name.clone(), format!("{name}.sha256")]).collect();
    kept.sort();
    assert_eq!(data_backups(&product), kept);
}

#[test]
fn a_disk_too_small_for_the_data_stops_nothing() {
    let deployment = Deployment::new("small");
    let _mounted = deployment.mount_tmpfs("8m");
    let product = Product::on(deployment, Registry::start(), Compose::V2);
    product.publish("web", "1", |image| image.health(Health::Passing));
    product.deployment.write_product(&[("web", product.registry.repository("web"))]);
    with_database(&product);
    product.dkv(["pull-latest"]).exit(0);
    product.dkv(["start"]).exit(0);
    let before = [product.container("web"), product.container("db")];
    let db = product.deployment.engine().containers(product.deployment.project(), "db")[0].clone();
    let started = || {
        product.deployment.engine().docker(&["inspect", "--format", "{{.State.StartedAt}}", &db])
    };
    let since = started();

    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(3).stderr_contains("MiB free");
    assert_eq!([product.container("web"), product.container("db")], before);
    assert_eq!((started(), product.journal_state()), (since, None));
}

#[test]
fn where_nothing_runs_everything_is_started_or_stopped_again() {
    let product = Product::new("down");
    product.dkv(["down"]).exit(0);
    product.publish("web", "2", |image| image.crashing(1));
    product
        .update()
        .exit(7)
        .stderr_contains("nothing of what changed runs")
        .stderr_lacks("healthy:");
    let engine = product.deployment.engine();
    let project = format!("label=com.docker.compose.project={}", product.deployment.project());
    assert_eq!(engine.docker(&["ps", "-a", "-q", "--filter", &project]), "");
    product.dkv(["down"]).exit(0);

    product.publish("web", "3", |image| image.health(Health::Passing));
    product.update().exit(0);
    product.assert_runs("3");
    assert_eq!(product.health("side"), "healthy");
}

#[test]
fn what_failed_before_and_is_no_part_of_the_update_is_only_reported() {
    let product = Product::new("before");
    let side =
        product.deployment.engine().containers(product.deployment.project(), "side")[0].clone();
    product.deployment.engine().docker(&["kill", &side]);
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(0).stderr_contains("side");
    product.assert_runs("2");
}

#[test]
fn what_runs_already_and_fails_is_not_recorded() {
    let product = Product::new("unproven");
    product.publish("web", "2", |image| image.crashing(3));
    product.publish("side", "2", |image| image.health(Health::Passing));
    // By hand, past dkv: without versions.env the line says `latest`.
    product.deployment.compose_v2(["up", "-d", "--pull", "always", "web"]).exit(0);
    wait_for("the end of web", Duration::from_secs(30), || {
        (product.inspected("web")["State"]["ExitCode"] == 3).then_some(())
    });
    let plan = product.dkv(["update-safe", "--dry-run", "--json"]).exit(9).json();
    assert_eq!(plan["failing"], serde_json::json!(["web"]));
    let outcome = product.update().exit(9);
    outcome.stderr_contains("web was not updated").stdout_contains("web: skipped");
    assert_eq!((product.current_tag("web"), product.current_tag("side")), ("1".into(), "2".into()));
    assert_eq!(product.version("side"), "2");
    // With nothing else to do it is told as well.
    let again = product.dkv(["update-safe", "--json"]).exit(9).json();
    assert_eq!((&again["result"], &again["failing"][0]), (&"partly-updated".into(), &"web".into()));
    // What it advises: the recorded one runs, and then the new one is tried.
    product.dkv(["up"]).exit(0);
    product.assert_runs("1");
    product.update().exit(7).stderr_contains("the new release of web is rejected");
    product.assert_runs("1");
}

#[test]
fn files_that_do_not_follow_the_versions_are_refused() {
    let product = Product::new("deaf");
    let compose = product.deployment.read("docker-compose.yml");
    let hard = format!("{}:1", product.registry.repository("web"));
    let line = compose.lines().find(|line| line.contains("DK_WEB_TAG")).unwrap();
    product
        .deployment
        .write("docker-compose.yml", &compose.replace(line, &format!("    image: {hard}")));
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(3).stderr_contains("does not follow");
    product.dkv(["update-safe", "--dry-run"]).exit(3).stderr_contains("does not follow");
    product.assert_runs("1");
}

fn builds(compose: Compose) {
    let deployment = Deployment::new("build");
    let repository = format!("{}-bot", deployment.project());
    deployment.write_build_context("bot", "1");
    let image = format!("{repository}:${{VERSION:-latest}}");
    deployment.write(
        "docker-compose.yml",
        &format!("services:\n  bot:\n    build: bot\n    image: {image}\n"),
    );
    deployment.write(
        "version-manifest.yaml",
        &format!(
            "schema_version: '1.1'\nservices:\n  bot: {{image: {repository}, source: local, \
            env_tag: VERSION}}\n"
        ),
    );
    let dkv = |args: &[&str]| deployment.dkv(args.iter().copied()).compose(compose).exit(0);
    dkv(&["build"]);
    dkv(&["up"]);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "1");

    deployment.write_build_context("bot", "2");
    dkv(&["update"]).stderr_contains("dkv up");
    assert!(deployment.engine().containers(deployment.project(), "bot").is_empty());
    dkv(&["up"]);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "2");

    dkv(&["rollback", "-y"]);
    dkv(&["restart"]);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "1");
    dkv(&["build"]);
    dkv(&["restart"]);
    assert_eq!(deployment.engine().version(deployment.project(), "bot"), "2");
}

#[test]
fn builds_are_recorded_and_rolled_back_v2() {
    builds(Compose::V2);
}

#[test]
fn builds_are_recorded_and_rolled_back_v1() {
    builds(Compose::V1);
}

#[test]
fn what_was_rolled_back_by_hand_comes_again_only_when_it_is_asked_for() {
    let product = Product::new("judged");
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.update().exit(0);
    product.dkv(["rollback", "web", "-y"]).exit(0);
    product.dkv(["up"]).exit(0);
    product.assert_runs("1");
    let before = product.deployment.manifest();
    for line in [&["update-safe", "--dry-run"][..], &["update-safe"]] {
        let left = product.dkv(line.iter().copied()).exit(0);
        left.stdout_contains("rolled back by hand").stdout_contains("--retry");
    }
    product.dkv(["check-updates"]).exit(0).stdout_contains("`update-safe` does not");
    product.assert_runs("1");
    assert_eq!(product.deployment.manifest(), before);
    product.dkv(["pull-latest", "--dry-run"]).exit(0).stdout_contains("1 ");
    product.dkv(["update-safe", "--retry"]).exit(0);
    product.assert_runs("2");
    // A newer one is none that somebody went back from.
    product.dkv(["rollback", "web", "-y"]).exit(0);
    product.dkv(["up"]).exit(0);
    product.publish("web", "3", |image| image.health(Health::Passing));
    product.update().exit(0);
    product.assert_runs("3");
}

#[test]
fn a_way_back_is_as_safe_as_an_update() {
    let product = Product::new("way-back");
    let side = product.container("side");
    product.publish("web", "2", |image| image.health(Health::Passing));
    product.publish("side", "2", |image| image.health(Health::Passing));
    product.dkv(["update-safe", "web"]).exit(0);
    product.assert_runs("2");
    assert_eq!(product.container("side"), side, "only what was named");
    assert_eq!(product.current_tag("side"), "1");

    // Back, and it runs.
    let plan = product.dkv(["rollback", "web", "--apply", "--dry-run"]).exit(0);
    plan.stdout_contains("would restart: web");
    product.dkv(["rollback", "web", "--apply", "-y"]).exit(0).stdout_contains("web: 2 ");
    product.assert_runs("1");
    assert_eq!(
        (product.current_tag("web").as_str(), product.container("side")),
        ("1", side.clone())
    );
    product.dkv(["undo", "--apply", "-y"]).exit(0);
    product.assert_runs("2");
    assert_eq!(product.current_tag("web"), "2");
    product.dkv(["rollback-to", "web", "1", "--apply", "-y"]).exit(0);
    product.assert_runs("1");
    product.dkv(["update-safe", "web", "--to", "2"]).exit(0);
    product.assert_runs("2");
    product.dkv(["undo", "--apply", "-y"]).exit(0);

    // A version that does not become healthy: what ran is back, and the record with it.
    product.registry.push(Image::new("web").tag("0").health(Health::Failing));
    product.dkv(["version-pull", "web", "0"]).exit(0);
    product.dkv(["version-pull", "web", "1"]).exit(0);
    product.dkv(["up"]).exit(0);
    product.assert_runs("1");
    for line in [
        &["rollback", "web", "--apply", "-y", "--timeout", "8s"][..],
        &["undo", "--apply", "-y", "--timeout", "8s"],
    ] {
        let failed = product.dkv(line.iter().copied()).exit(7);
        failed.stderr_contains("what ran before is back and healthy");
        product.assert_runs("1");
        assert_eq!(product.current_tag("web"), "1", "{line:?}");
        assert_eq!(product.container("side"), side);
        let operations = product.dkv(["operations", "--json"]).exit(0).json();
        let last = &operations["operations"][0];
        assert_eq!(
            (last["exit_code"].as_u64(), last["command"][0].as_str()),
            (Some(7), Some(line[0]))
        );
    }
    for names in [&["web", "side"][..], &[""]] {
        let words = ["update-safe"].into_iter().chain(names.iter().copied()).chain(["--to", "0"]);
        product.dkv(words).exit(2).stderr_contains("one service");
    }
}
