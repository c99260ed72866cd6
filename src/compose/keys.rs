//! The keys of the Compose specification, and who decides on each: dkv or Compose.
//!
//! Where both would decide, one of them decides wrongly. So every key has a state here: what dkv
//! reads or refuses ([`KEYS`]), it decides on, and tells Compose the outcome at every call; what it
//! passes on ([`PASSED_ON`]) Compose decides, and dkv goes by its answer, its labels, or what runs.
//! A test holds both lists against the readers, and against the specification of the Compose that
//! the tests run with: a key that is new there has no state yet. One in a deployment's files that
//! is in neither list is told.

use super::argv::Generation;
use super::config::{Peer, Project, ServiceConfig, Shared};
use super::text::HOOKS;

/// What dkv does with a key that it decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// dkv reads it, and acts by it.
    Read,
    /// dkv reads it, and refuses the value or the combination that a start cannot keep, with its
    /// line.
    Refused,
}

/// Where keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// At the top of a file.
    Top,
    /// In an entry of `include`.
    Include,
    /// In a service.
    Service,
    /// In a service's `deploy`.
    Deploy,
    /// In a service's `healthcheck`.
    Healthcheck,
    /// In a service's `develop`.
    Develop,
}

/// A key, its state, and what for.
pub type Key = (&'static str, State, &'static str);

/// What bears on pulling, choosing, replacing, counting or health.
pub const KEYS: &[(Section, &[Key])] = &[
    (
        Section::Top,
        &[
            ("include", State::Read, "the included files are the deployment's too"),
            ("models", State::Read, "named as what cannot be compared"),
            ("name", State::Read, "the project whose containers are looked at, for all calls"),
            ("services", State::Read, "what follows"),
            ("volumes", State::Read, "the daemon's names of what is saved"),
        ],
    ),
    (
        Section::Include,
        &[
            ("path", State::Read, "which files"),
            ("project_directory", State::Read, "what paths in them are relative to"),
            ("env_file", State::Read, "where their variables come from"),
        ],
    ),
    (
        Section::Service,
        &[
            ("build", State::Read, "made before a start where the image is not here, by `build`"),
            ("container_name", State::Refused, "there can be one such container only"),
            ("depends_on", State::Read, "what waits for whom; who is restarted after whom"),
            ("deploy", State::Read, "see there"),
            ("extends", State::Read, "the image of the other service"),
            ("healthcheck", State::Read, "see there"),
            ("image", State::Read, "made local by its digest before anything is stopped"),
            ("ipc", State::Refused, "goes along with the service whose namespace it has"),
            ("network_mode", State::Refused, "goes along with the service whose network it has"),
            ("pid", State::Refused, "goes along with the service whose namespace it has"),
            ("platform", State::Read, "whose image is pulled and compared"),
            ("post_start", State::Read, "the image of what runs after it"),
            ("pre_stop", State::Read, "the image of what runs before its end"),
            ("profiles", State::Read, "what runs by a profile is the deployment's"),
            ("provider", State::Read, "has no image to compare"),
            ("pull_policy", State::Read, "dkv pulls and builds; `up` is told never to"),
            ("restart", State::Read, "what is a job, and what was stopped on purpose"),
            ("scale", State::Read, "how many there shall be, unless scaled at run time"),
            ("stop_grace_period", State::Read, "how long Compose may take"),
            ("volumes", State::Read, "what is saved; images that are mounted"),
            ("volumes_from", State::Refused, "goes along with the service whose volumes it has"),
        ],
    ),
    (
        Section::Deploy,
        &[
            ("mode", State::Read, "what is a job"),
            ("replicas", State::Read, "how many there shall be, unless scaled at run time"),
            ("restart_policy", State::Read, "as `restart`"),
        ],
    ),
    (
        Section::Healthcheck,
        &[
            ("disable", State::Read, "whether there is a check"),
            ("interval", State::Read, "how long it may take"),
            ("retries", State::Read, "how long it may take"),
            ("start_period", State::Read, "how long it may take"),
            ("test", State::Read, "whether there is a check"),
            ("timeout", State::Read, "how long it may take"),
        ],
    ),
];

/// What Compose alone decides on: how a container is made. A change of these makes Compose replace
/// it at the next start, as it always does.
pub const PASSED_ON: &[(Section, &[&str])] = &[
    (Section::Top, &["configs", "networks", "secrets", "version"]),
    (
        Section::Service,
        &[
            "annotations",
            "attach",
            "blkio_config",
            "cap_add",
            "cap_drop",
            "cgroup",
            "cgroup_parent",
            "command",
            "configs",
            "cpu_count",
            "cpu_percent",
            "cpu_period",
            "cpu_quota",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "cpu_shares",
            "cpus",
            "cpuset",
            "credential_spec",
            "develop",
            "device_cgroup_rules",
            "devices",
            "dns",
            "dns_opt",
            "dns_search",
            "domainname",
            "entrypoint",
            "env_file",
            "environment",
            "expose",
            "external_links",
            "extra_hosts",
            "gpus",
            "group_add",
            "hostname",
            "init",
            "isolation",
            "label_file",
            "labels",
            // Compose 2 says itself what depends on what by its links.
            "links",
            "logging",
            "mac_address",
            "mem_limit",
            "mem_reservation",
            "mem_swappiness",
            "memswap_limit",
            "models",
            "networks",
            "oom_kill_disable",
            "oom_score_adj",
            "pids_limit",
            "ports",
            "privileged",
            // Goes with `pull_policy`, which `up` is told to leave alone.
            "pull_refresh_after",
            "read_only",
            "runtime",
            "secrets",
            "security_opt",
            "shm_size",
            "stdin_open",
            "stop_signal",
            "storage_opt",
            "sysctls",
            "tmpfs",
            "tty",
            "ulimits",
            "use_api_socket",
            "user",
            "userns_mode",
            "uts",
            "working_dir",
        ],
    ),
    (
        Section::Deploy,
        &["endpoint_mode", "labels", "placement", "resources", "rollback_config", "update_config"],
    ),
    (Section::Healthcheck, &["start_interval"]),
    (Section::Develop, &["watch"]),
];

/// Whether a key is in one of the lists, is read though the specification of today's Compose does
/// not have it yet, or is one that it leaves to others.
#[must_use]
pub fn is_known(section: Section, key: &str) -> bool {
    let decided = KEYS.iter().filter(|(of, _)| *of == section);
    let passed_on = PASSED_ON.iter().filter(|(of, _)| *of == section);
    key.starts_with("x-")
        || (section == Section::Service && HOOKS.contains(&key))
        || decided.flat_map(|(_, keys)| *keys).any(|(known, ..)| *known == key)
        || passed_on.flat_map(|(_, keys)| *keys).any(|known| *known == key)
}

/// What a start cannot keep, and is refused before anything is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The Compose service.
    pub service: String,
    /// The key that asks for it.
    pub key: &'static str,
    /// Why, as the end of a sentence that names the service.
    pub why: String,
    /// What to write in its place.
    pub hint: String,
}

/// What of `project` would end in a start that fails halfway. `is_there` knows whether a container
/// will be there by the time that Compose begins.
#[must_use]
pub fn refusals(
    project: &Project,
    generation: Generation,
    is_there: &dyn Fn(&str) -> bool,
) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for service in &project.services {
        let count = service.scale;
        if let Some(name) = service.container_name.as_ref().filter(|_| count > 1) {
            refusals.push(Refusal {
                service: service.name.clone(),
                key: "container_name",
                why: format!("shall have {count} containers, and all of them the name {name}"),
                hint: "leave the container_name out, or start one container only".to_owned(),
            });
        }
        for share in &service.shares {
            let Peer::Container(name) = &share.of else { continue };
            let of_name = |one: &&ServiceConfig| one.container_name.as_ref() == Some(name);
            let Some(owner) = project.services.iter().find(of_name) else { continue };
            // Compose 1 looks for the container before it makes any; Compose 2 when it makes this
            // one, which may be before that one.
            let comes_first = generation == Generation::V2
                && depends_on(project, &service.name, &owner.name, project.services.len());
            if comes_first || is_there(name) {
                continue;
            }
            let key = match share.what {
                Shared::Network => "network_mode",
                Shared::Ipc => "ipc",
                Shared::Pid => "pid",
                Shared::Volumes => "volumes_from",
            };
            let instead = match share.what {
                Shared::Volumes => owner.name.clone(),
                _ => format!("service:{}", owner.name),
            };
            refusals.push(Refusal {
                service: service.name.clone(),
                key,
                why: format!(
                    "needs the container {name} before Compose begins, and {} makes that only then",
                    owner.name
                ),
                hint: format!("write `{instead}` there, which Compose starts in order"),
            });
        }
    }
    refusals
}

/// Whether `name` waits for `other`, by however many others.
fn depends_on(project: &Project, name: &str, other: &str, depth: usize) -> bool {
    let Some(service) = project.service(name).filter(|_| depth > 0) else { return false };
    service.depends_on.contains_key(other)
        || service.depends_on.keys().any(|on| depends_on(project, on, other, depth - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compose::{ComposeFiles, config};

    /// A value that leaves its trace where the key is read.
    fn sample(section: Section, key: &str) -> &'static str {
        match (section, key) {
            (Section::Top, "include") => "[other.yaml]",
            (Section::Top, "models") => "{m: {model: ai/m}}",
            (Section::Top, "name") => "named",
            (Section::Top, "services") => "{more: {image: m}}",
            (Section::Top, "volumes") => "{data: {}}",
            (Section::Include, "path") => "[other.yaml]",
            (Section::Include, "project_directory" | "env_file") => "elsewhere",
            (Section::Service, "build") => ".",
            (Section::Service, "depends_on") => "{more: {condition: service_healthy}}",
            (Section::Service, "deploy") => "{replicas: 2}",
            (Section::Service, "extends") => "{service: base}",
            (Section::Service, "healthcheck") => "{interval: 7s}",
            (Section::Service, "ipc" | "network_mode" | "pid") => "service:more",
            (Section::Service, "post_start" | "pre_stop") => "[{image: hook, command: x}]",
            (Section::Service, "profiles" | "volumes_from") => "[more]",
            (Section::Service, "provider") => "{type: model}",
            (Section::Service, "scale") => "7",
            (Section::Service, "stop_grace_period") => "7s",
            (Section::Service, "volumes") => "['/a:/b']",
            (Section::Deploy, "mode") => "replicated-job",
            (Section::Deploy, "replicas") => "7",
            (Section::Deploy, "restart_policy") => "{condition: any}",
            (Section::Healthcheck, "disable") => "true",
            (Section::Healthcheck, "test") => "[CMD, x]",
            (Section::Healthcheck, "retries") => "7",
            (Section::Healthcheck, _) => "7s",
            (Section::Service, "pull_policy") => "always",
            _ => "text",
        }
    }

    /// A file without a key, and the same with it.
    fn files(section: Section, key: &str) -> [String; 2] {
        let pair = format!("{key}: {}", sample(section, key));
        let service = |body: String| format!("services:\n  base: {{image: b}}\n  s: {{{body}}}\n");
        let plain = || service("image: i".to_owned());
        let within = |parent: &str| service(format!("image: i, {parent}: {{{pair}}}"));
        let include = |body: &str| format!("{}include: [{{{body}}}]\n", plain());
        match (section, key) {
            (Section::Top, "services") => ["x-nothing: 1\n".to_owned(), plain()],
            (Section::Top, _) => [plain(), format!("{}{pair}\n", plain())],
            (Section::Include, "path") => [plain(), include(&pair)],
            (Section::Include, _) => {
                [include("path: other.yaml"), include(&format!("path: other.yaml, {pair}"))]
            }
            // They give the image where the service itself has none.
            (Section::Service, "image" | "extends" | "provider") => {
                [service("init: true".to_owned()), service(format!("init: true, {pair}"))]
            }
            (Section::Service, _) => [plain(), service(format!("image: i, {pair}"))],
            (Section::Deploy, _) => [plain(), within("deploy")],
            (Section::Healthcheck, _) => [plain(), within("healthcheck")],
            (Section::Develop, _) => [plain(), within("develop")],
        }
    }

    /// Everything that dkv's readers make of a file.
    fn read(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("compose.yaml"), text).unwrap();
        std::fs::write(directory.path().join("other.yaml"), "services: {o: {image: o}}\n").unwrap();
        let names = ["compose.yaml".into()];
        let files = ComposeFiles::of(directory.path(), &names);
        let includes: Vec<String> =
            files.texts().map(|text| format!("{:?}", text.includes)).collect();
        let mut json: serde_json::Value = serde_yaml::from_str(text).unwrap();
        if json.get("name").is_none() {
            json["name"] = "shop".into();
        }
        let answer = config::parse_v2(&json.to_string());
        let seen = (files.lines(), files.other_images(), files.not_compared(), includes);
        let seen = format!("{seen:?} {:?} {answer:?}", files.names_project(&names));
        seen.replace(&directory.path().display().to_string(), "")
    }

    #[test]
    fn what_is_said_to_be_read_is_read_and_nothing_else() {
        for (section, keys) in KEYS {
            for (key, state, _) in *keys {
                let [without, with] = files(*section, key);
                let told = format!("{section:?} {key}, {state:?}, is not read:\n{with}");
                assert_ne!(read(&with), read(&without), "{told}");
            }
        }
        for (section, keys) in PASSED_ON {
            for key in *keys {
                let [without, with] = files(*section, key);
                assert_eq!(read(&with), read(&without), "{section:?} {key} is read:\n{with}");
            }
        }
    }

    /// The specification as the Compose that the tests run with has it.
    fn specification() -> serde_json::Value {
        let program = std::env::var_os("DKV_TEST_COMPOSE_V2").expect("tests/run.sh sets it");
        let bytes = std::fs::read(program).unwrap();
        let id = b"\"$id\": \"compose_spec.json\"";
        let at = bytes.windows(id.len()).position(|window| window == id).unwrap();
        let start = bytes[..at].iter().rposition(|byte| *byte == b'{').unwrap();
        let mut values = serde_json::Deserializer::from_slice(&bytes[start..]).into_iter();
        values.next().unwrap().unwrap()
    }

    #[test]
    fn every_key_of_the_specification_has_a_state() {
        let specification = specification();
        let definition = |name: &str| {
            ["definitions", "$defs"]
                .iter()
                .find_map(|all| specification.get(all)?.get(name))
                .unwrap()
        };
        for (section, properties) in [
            (Section::Top, &specification["properties"]),
            (Section::Include, &definition("include")["oneOf"][1]["properties"]),
            (Section::Service, &definition("service")["properties"]),
            (Section::Deploy, &definition("deployment")["properties"]),
            (Section::Healthcheck, &definition("healthcheck")["properties"]),
            (Section::Develop, &definition("development")["properties"]),
        ] {
            let specified: BTreeSet<&str> =
                properties.as_object().unwrap().keys().map(String::as_str).collect();
            let read = KEYS.iter().filter(|(of, _)| *of == section).flat_map(|(_, keys)| *keys);
            let passed_on = PASSED_ON.iter().filter(|(of, _)| *of == section);
            let mut stated: Vec<&str> = read.map(|(key, ..)| *key).collect();
            stated.extend(passed_on.flat_map(|(_, keys)| *keys));
            let count = stated.len();
            let stated: BTreeSet<&str> = stated.into_iter().collect();
            assert_eq!(stated.len(), count, "{section:?}: a key has two states");
            assert_eq!(stated, specified, "{section:?}");
        }
    }

    #[test]
    fn what_a_start_cannot_keep_is_refused() {
        for (services, generation, is_there, expected) in [
            ("{web: {container_name: w, scale: 2}}", Generation::V2, true, "web container_name"),
            ("{web: {container_name: w}}", Generation::V2, true, ""),
            (
                "{web: {container_name: w}, side: {network_mode: 'container:w'}}",
                Generation::V2,
                false,
                "side network_mode",
            ),
            (
                "{web: {container_name: w}, side: {network_mode: 'container:w'}}",
                Generation::V2,
                true,
                "",
            ),
            (
                "{web: {container_name: w}, mid: {depends_on: [web]}, \
                    side: {pid: 'container:w', depends_on: [mid]}}",
                Generation::V2,
                false,
                "",
            ),
            (
                "{web: {container_name: w}, side: {volumes_from: ['container:w'], \
                    depends_on: [web]}}",
                Generation::V1,
                false,
                "side volumes_from",
            ),
            ("{web: {}, side: {ipc: 'container:theirs'}}", Generation::V1, false, ""),
        ] {
            let text = format!("name: shop\nservices: {services}");
            let json: serde_json::Value = serde_yaml::from_str(&text).unwrap();
            let project = config::parse_v2(&json.to_string()).unwrap();
            let found = refusals(&project, generation, &|_| is_there);
            let words: Vec<String> =
                found.iter().map(|one| format!("{} {}", one.service, one.key)).collect();
            assert_eq!(words.join("; "), expected, "{services} {generation:?}");
        }
    }
}
