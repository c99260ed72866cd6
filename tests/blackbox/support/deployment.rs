//! A deployment directory and the programs that run in it: the built dkv above all, in an
//! environment that holds nothing of the developer's.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use super::{Engine, Image, TEST_LABEL, image, program, tools, unique, wait_for};

/// The height of terminals.
const TERMINAL_ROWS: u16 = 40;

/// What dkv finds on its `PATH`, besides Docker and Compose.
const PROGRAMS: [&str; 12] = [
    "sh",
    "bash",
    "cat",
    "env",
    "sleep",
    "true",
    "false",
    "tar",
    "gpg",
    "gpg-agent",
    "gpgconf",
    "gpg-connect-agent",
];

/// Which Compose there is for dkv.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compose {
    /// `docker compose`, the plugin.
    V2,
    /// `docker-compose` 1.29.
    V1,
    Both,
    Neither,
}

/// A directory with Compose files and manifest, named as its Compose project; dropping it removes
/// the project's containers, networks and volumes from the daemon.
pub struct Deployment {
    root: TempDir,
    project: String,
    engine: Engine,
}

impl Deployment {
    /// On the machine's daemon; the topic becomes part of the project's name.
    pub fn new(topic: &str) -> Self {
        Self::on(Engine::machine(), topic)
    }

    /// On another daemon.
    pub fn on(engine: Engine, topic: &str) -> Self {
        let root = super::temporary("deployment");
        let project = unique(topic);
        for directory in [project.as_str(), "home", "bin", "docker-config"] {
            fs::create_dir(root.path().join(directory)).expect("a temporary directory");
        }
        for name in PROGRAMS {
            if let Some(path) = ["/usr/bin", "/bin"]
                .map(|place| Path::new(place).join(name))
                .into_iter()
                .find(|path| path.exists())
            {
                symlink(path, root.path().join("bin").join(name)).expect("a temporary directory");
            }
        }
        Self { root, project, engine }
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The Compose project, also the directory's name.
    pub fn project(&self) -> &str {
        &self.project
    }

    pub fn directory(&self) -> PathBuf {
        self.root.path().join(&self.project)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// The `HOME` that dkv gets.
    pub fn home(&self) -> PathBuf {
        self.root.path().join("home")
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a temporary directory");
        fs::write(path, text).expect("a temporary file");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name))
            .unwrap_or_else(|error| panic!("cannot read {name}: {error}"))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The text of `version-manifest.yaml`.
    pub fn manifest(&self) -> String {
        self.read("version-manifest.yaml")
    }

    /// The manifest as data.
    pub fn manifest_data(&self) -> serde_json::Value {
        serde_yaml::from_str(&self.manifest())
            .unwrap_or_else(|error| panic!("{error} in\n{}", self.manifest()))
    }

    /// The text of `versions.env`.
    pub fn versions_env(&self) -> String {
        self.read("versions.env")
    }

    /// Sorted names of what is in a directory of the deployment; none when it does not exist.
    pub fn list(&self, directory: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(directory)) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Sorted paths of all files below a directory of the deployment, from the deployment on.
    pub fn files_below(&self, directory: &str) -> Vec<String> {
        let names = self.list(directory).into_iter().map(|name| format!("{directory}/{name}"));
        names
            .flat_map(|name| match self.path(&name).is_dir() {
                true => self.files_below(&name),
                false => vec![name],
            })
            .collect()
    }

    /// A manifest of schema 1.1 and a Compose file in the field's style
    /// (`${DK_WEB_IMAGE:-…}:${DK_WEB_TAG:-latest}`) for services given as name and repository;
    /// nothing is recorded yet.
    pub fn write_product(&self, services: &[(&str, String)]) {
        self.write("docker-compose.yml", &compose_file(services));
        let mut manifest =
            format!("schema_version: '1.1'\ndeployment_id: {}\nservices:\n", self.project);
        for (name, repository) in services {
            manifest += &format!(
                "  {name}:\n    image: {repository}\n    current_tag: latest\n    image_digest: \
                    ''\n"
            );
        }
        self.write("version-manifest.yaml", &manifest);
    }

    /// Gives the daemon an image that no registry has, as `repository` with the image's tags, and
    /// returns its ID. The name should contain [`Deployment::project`]; the image goes with the
    /// deployment.
    pub fn load(&self, repository: &str, image: Image) -> String {
        self.engine.load(&image.archive(&self.project, repository));
        self.engine
            .image_id(&format!("{repository}:{}", image.tags[0]))
            .expect("the image just loaded")
    }

    /// Writes a build context with a Dockerfile for an image whose `/version` says this; it serves
    /// as the pushed images do, and goes with the deployment.
    pub fn write_build_context(&self, directory: &str, version: &str) {
        self.write(&format!("{directory}/rootfs/version"), &format!("{version}\n"));
        let bin = self.path(directory).join("rootfs/bin");
        fs::create_dir_all(&bin).expect("a temporary directory");
        let busybox = bin.join("busybox");
        fs::write(&busybox, image::busybox_binary()).expect("a temporary file");
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).expect("a temporary file");
        for applet in ["sh", "cat", "sleep"]
            .map(|applet| bin.join(applet))
            .iter()
            .filter(|applet| !applet.is_symlink())
        {
            symlink("busybox", applet).expect("a temporary link");
        }
        let command = serde_json::json!(["/bin/sh", "-c", image::SERVE]);
        let dockerfile = format!(
            "FROM scratch\nCOPY rootfs /\nENV PATH=/bin\nLABEL {TEST_LABEL}={}\nCMD {command}\n",
            self.project
        );
        self.write(&format!("{directory}/Dockerfile"), &dockerfile);
    }

    /// Mounts a tmpfs of this size (`64k`) in place of the deployment's directory, which is then
    /// empty. Hold the guard in a variable declared after the deployment.
    pub fn mount_tmpfs(&self, size: &str) -> Mounted {
        let directory = self.directory();
        mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "dkv-tests"], &directory);
        Mounted { directory }
    }

    /// Puts an executable script on the `PATH` of dkv, a credential helper for example.
    pub fn install(&self, name: &str, script: &str) {
        let path = self.root.path().join("bin").join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, script).expect("a temporary file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a temporary file");
    }

    /// Writes the `config.json` of `DOCKER_CONFIG`.
    pub fn docker_config(&self, config: &serde_json::Value) {
        fs::write(self.docker_config_file(), config.to_string()).expect("a temporary file");
    }

    pub fn docker_config_file(&self) -> PathBuf {
        self.root.path().join("docker-config/config.json")
    }

    /// The built dkv with these arguments, in the deployment's directory.
    pub fn dkv<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.command(Path::new(env!("CARGO_BIN_EXE_dkv")), args)
    }

    /// Compose v2 itself, to arrange or to compare.
    pub fn compose_v2<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.command(&program("docker"), ["compose"].into_iter().chain(args)).compose(Compose::V2)
    }

    /// Compose v1 itself.
    pub fn compose_v1<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        self.command(&program("docker-compose"), args).compose(Compose::V1)
    }

    /// Any program, in the same environment.
    pub fn command<'a>(&self, program: &Path, args: impl IntoIterator<Item = &'a str>) -> Run {
        let mut environment = vec![
            ("PATH".to_owned(), self.root.path().join("bin").display().to_string()),
            ("HOME".to_owned(), self.home().display().to_string()),
            (
                "DOCKER_CONFIG".to_owned(),
                self.root.path().join("docker-config").display().to_string(),
            ),
            ("USER".to_owned(), "tester".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("NO_COLOR".to_owned(), "1".to_owned()),
            // Debian's Compose v1 otherwise loads all of setuptools each time, half its cost.
            ("SETUPTOOLS_USE_DISTUTILS".to_owned(), "stdlib".to_owned()),
        ];
        environment.extend(self.engine.host().map(|host| ("DOCKER_HOST".to_owned(), host)));
        let compose = match std::env::var("DKV_TEST_COMPOSE").as_deref() {
            Ok("v1") => Compose::V1,
            _ => Compose::V2,
        };
        Run {
            root: self.root.path().to_owned(),
            directory: self.directory(),
            program: program.to_owned(),
            args: args.into_iter().map(str::to_owned).collect(),
            environment,
            compose,
            stdin: None,
            strace: None,
            tty: None,
            interactive: false,
            timeout: Duration::from_secs(300),
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.engine.remove_project(&self.project);
        self.engine.remove_images_of(&self.project);
    }
}

/// A mounted file system; dropping it unmounts.
pub struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    /// Makes it read-only, or writable again.
    pub fn read_only(&self, read_only: bool) {
        mount(&["-o", if read_only { "remount,ro" } else { "remount,rw" }], &self.directory);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.directory).status();
    }
}

fn mount(args: &[&str], directory: &Path) {
    let output = Command::new("mount").args(args).arg(directory).output().expect("mount runs");
    assert!(output.status.success(), "mount {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A Compose file in the field's style for services given as name and repository.
pub fn compose_file(services: &[(&str, String)]) -> String {
    let mut text = "services:\n".to_owned();
    for (name, repository) in services {
        let variable = name.to_uppercase().replace('-', "_");
        text += &format!(
            "  {name}:\n    image: \
                ${{DK_{variable}_IMAGE:-{repository}}}:${{DK_{variable}_TAG:-latest}}\n"
        );
    }
    text
}

/// A command about to run.
#[must_use = "nothing runs before exit(), finish() or spawn()"]
pub struct Run {
    root: PathBuf,
    directory: PathBuf,
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    compose: Compose,
    stdin: Option<String>,
    strace: Option<Vec<String>>,
    tty: Option<u16>,
    interactive: bool,
    timeout: Duration,
}

impl Run {
    /// Sets a variable; the last one of a name wins.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn env_remove(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Another working directory than the deployment's.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Which Compose dkv finds; v2 by default, or what `DKV_TEST_COMPOSE` says (`v1`).
    pub fn compose(mut self, compose: Compose) -> Self {
        self.compose = compose;
        self
    }

    /// Text on standard input, which is empty otherwise.
    pub fn stdin(mut self, text: &str) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// Runs it on a terminal of 120 columns; standard output then holds both outputs.
    pub fn tty(self) -> Self {
        self.terminal(120)
    }

    /// As [`Run::tty`], on a terminal of so many columns.
    pub fn terminal(mut self, columns: u16) -> Self {
        self.tty = Some(columns);
        self
    }

    /// Keeps standard input open for [`Running::answer`].
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Runs it under strace with these arguments; the trace is in [`Outcome::strace`].
    pub fn under_strace<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.strace = Some(args.into_iter().map(str::to_owned).collect());
        self
    }

    /// Runs it at another time, `@2026-01-12 12:29:08` or `-1d` for example, by libfaketime.
    pub fn faketime(self, time: &str) -> Self {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let library = format!("/usr/lib/{triplet}/faketime/libfaketimeMT.so.1");
        assert!(Path::new(&library).is_file(), "no {library}: run tests/setup.sh first");
        self.env("LD_PRELOAD", library).env("FAKETIME", time).env("TZ", "UTC")
    }

    /// How long it may take before its process group is killed; five minutes by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it to its end and asserts the exit code.
    #[track_caller]
    pub fn exit(self, code: i32) -> Outcome {
        let outcome = self.finish();
        assert!(outcome.code() == Some(code), "expected exit code {code}:\n{outcome}");
        outcome
    }

    /// Runs it to its end, whatever that is.
    #[track_caller]
    pub fn finish(self) -> Outcome {
        self.spawn().finish()
    }

    /// Starts it.
    #[track_caller]
    pub fn spawn(self) -> Running {
        self.arrange_compose();
        let strace = self.strace.as_ref().map(|_| self.root.join(unique("strace")));
        let mut words = vec![self.program.display().to_string()];
        words.extend(self.args.iter().cloned());
        if let (Some(args), Some(file)) = (&self.strace, &strace) {
            let tracer =
                [program("strace").display().to_string(), "-o".into(), file.display().to_string()];
            words = tracer.into_iter().chain(args.iter().cloned()).chain(words).collect();
        }
        if let Some(columns) = self.tty {
            let quoted: Vec<String> =
                words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            let size = format!("cols {columns} rows {TERMINAL_ROWS}");
            let command = format!(
                "/usr/bin/stty {size} 2>/dev/null || /bin/stty {size}; exec {}",
                quoted.join(" ")
            );
            words = vec![
                program("script").display().to_string(),
                "-q".into(),
                "-e".into(),
                "-c".into(),
                command,
                "/dev/null".into(),
            ];
        }
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.directory)
            .env_clear()
            .envs(self.environment.iter().cloned());
        if self.tty.is_some() {
            command.env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        }
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let stdin = match self.interactive || self.stdin.is_some() {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
        let mut stdin = child.stdin.take();
        if let (Some(text), Some(pipe)) = (self.stdin, &mut stdin) {
            // A program that reads nothing may be gone already.
            let _ = pipe.write_all(text.as_bytes());
        }
        let stdout = Capture::start(child.stdout.take().expect("a pipe"));
        let stderr = Capture::start(child.stderr.take().expect("a pipe"));
        let started = Instant::now();
        let line = format!("{} {}", self.program.display(), self.args.join(" "));
        Running {
            child: Some(child),
            stdin: stdin.filter(|_| self.interactive),
            heard: 0,
            stdout,
            stderr,
            started,
            deadline: started + self.timeout,
            strace,
            line,
        }
    }

    /// Puts exactly the Compose that is wanted within dkv's reach.
    fn arrange_compose(&self) {
        let (bin, plugins) = (self.root.join("bin"), self.root.join("docker-config/cli-plugins"));
        let (v1, v2) = (bin.join("docker-compose"), plugins.join("docker-compose"));
        for link in [&v1, &v2, &bin.join("docker")] {
            if link.is_symlink() {
                fs::remove_file(link).expect("a temporary link");
            }
        }
        if matches!(self.compose, Compose::V1 | Compose::Both) && !v1.exists() {
            symlink(program("docker-compose"), &v1).expect("a temporary link");
        }
        let has_v2 = matches!(self.compose, Compose::V2 | Compose::Both);
        if has_v2 && !v2.exists() {
            fs::create_dir_all(&plugins).expect("a temporary directory");
            symlink(compose_plugin(), &v2).expect("a temporary link");
        }
        // A plugin installed for the whole machine is found by any `docker`, so there must be none.
        let machine_wide = ["/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"];
        let everywhere = machine_wide
            .iter()
            .any(|place| Path::new(place).join("docker/cli-plugins/docker-compose").exists());
        if (has_v2 || !everywhere) && !bin.join("docker").exists() {
            symlink(program("docker"), bin.join("docker")).expect("a temporary link");
        }
    }
}

/// The Compose plugin. Each `docker compose` asks it first what it is, which a script answers at a
/// tenth of the cost: with what the plugin itself said the first time.
fn compose_plugin() -> &'static Path {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN.get_or_init(|| {
        let plugin = tools().join("cli-plugins/docker-compose");
        assert!(plugin.is_file(), "no {}: run tests/setup.sh first", plugin.display());
        let asked = Command::new(&plugin).arg("docker-cli-plugin-metadata").output();
        let metadata = String::from_utf8_lossy(&asked.expect("Compose runs").stdout).into_owned();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = docker-cli-plugin-metadata ] || exec '{}' \"$@\"\n\
                echo '{metadata}'\n",
            plugin.display(),
        );
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-compose");
        let new = path.with_extension(std::process::id().to_string());
        fs::write(&new, script).expect("a file in the target directory");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("a file just made");
        fs::rename(&new, &path).expect("a file just made");
        path
    })
}

/// Collects what a pipe delivers while the program runs.
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                sink.lock().expect("no reader panicked").extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panicked")).into_owned()
    }

    /// Whether everything has been read.
    fn is_closed(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the end of the pipe, which a child left behind would keep open.
    fn finish(&mut self, what: &str) -> String {
        wait_for(&format!("{what} is closed"), Duration::from_secs(30), || {
            self.is_closed().then_some(())
        });
        self.reader = None;
        self.text()
    }
}

/// A command that runs; dropped before its end it is killed with its process group.
pub struct Running {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    /// How much of the output was there at the last answer.
    heard: usize,
    stdout: Capture,
    stderr: Capture,
    started: Instant,
    deadline: Instant,
    strace: Option<PathBuf>,
    line: String,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running child").id()
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("a running child")), signal)
            .expect("a running child");
    }

    /// Sends a signal to its process group, as Ctrl-C on a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(Pid::from_child(self.child.as_ref().expect("a running child")), signal)
            .expect("a running child");
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().expect("a running child").try_wait(), Ok(None))
    }

    /// Standard output and standard error so far.
    pub fn output(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    /// Waits until either output contains `text`.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str) {
        loop {
            // Looked at first: what it says at its end comes before it has ended.
            let may_say_more =
                self.is_running() || !self.stdout.is_closed() || !self.stderr.is_closed();
            if self.output().contains(text) {
                return;
            }
            assert!(
                may_say_more && Instant::now() < self.deadline,
                "no {text:?} in the output:\n{}",
                self.output()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a question on an interactive terminal, and types a line.
    #[track_caller]
    pub fn answer(&mut self, question: &str, line: &str) {
        let heard = self.heard;
        wait_for(&format!("the question {question:?}"), Duration::from_secs(60), || {
            assert!(self.is_running(), "it ended before {question:?}:\n{}", self.output());
            self.stdout
                .text()
                .get(heard..)
                .is_some_and(|text| text.contains(question))
                .then_some(())
        });
        self.heard = self.stdout.text().len();
        let pipe = self.stdin.as_mut().expect("an interactive command");
        writeln!(pipe, "{line}").expect("a program that reads");
    }

    /// Waits for its end and asserts the exit code.
    #[track_caller]
    pub fn exit(self, code: i32) -> Outcome {
        let outcome = self.finish();
        assert!(outcome.code() == Some(code), "expected exit code {code}:\n{outcome}");
        outcome
    }

    /// Waits for its end; kills it and panics when its time is over.
    #[track_caller]
    pub fn finish(mut self) -> Outcome {
        let status = loop {
            let child = self.child.as_mut().expect("a running child");
            if let Some(status) = child.try_wait().expect("the state of a child") {
                break status;
            }
            if Instant::now() >= self.deadline {
                self.kill();
                panic!(
                    "still running after {:?}, killed: {}\n{}",
                    self.started.elapsed(),
                    self.line,
                    self.output()
                );
            }
            // Often enough for what is quick, and seldom for what takes its time.
            let pause = self.started.elapsed() / 50;
            thread::sleep(pause.clamp(Duration::from_millis(1), Duration::from_millis(20)));
        };
        let elapsed = self.started.elapsed();
        self.child = None;
        let strace = self
            .strace
            .as_ref()
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .unwrap_or_default();
        let (stdout, stderr) =
            (self.stdout.finish("standard output"), self.stderr.finish("standard error"));
        Outcome { status, stdout, stderr, strace, elapsed, line: std::mem::take(&mut self.line) }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a command ended.
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub strace: String,
    pub elapsed: Duration,
    line: String,
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    #[track_caller]
    pub fn stdout_contains(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no {text:?} on standard output:\n{self}");
        self
    }

    #[track_caller]
    pub fn stdout_lacks(&self, text: &str) -> &Self {
        assert!(!self.stdout.contains(text), "{text:?} on standard output:\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_contains(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} on standard error:\n{self}");
        self
    }

    #[track_caller]
    pub fn stderr_lacks(&self, text: &str) -> &Self {
        assert!(!self.stderr.contains(text), "{text:?} on standard error:\n{self}");
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("standard output is not JSON: {error}\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stdout, stderr, line, elapsed, .. } = self;
        let end = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {signal:?}"),
        };
        write!(
            f,
            "$ {line}\n{end} after {elapsed:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---"
        )
    }
}
