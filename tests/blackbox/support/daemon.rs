//! A private Docker daemon, for tests that stop, freeze or kill one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

use super::registry::free_address;
use super::{Engine, program, wait_for};

const READY: Duration = Duration::from_secs(120);

/// A daemon with its own data, socket, containerd and bridge. Pulling works, it uses the host's
/// network itself; its containers reach one another but, without rules in the firewall, nothing
/// else.
pub struct Daemon {
    directory: TempDir,
    bridge: String,
    child: Option<Child>,
    config: String,
}

impl Daemon {
    pub fn private() -> Self {
        Self::configured("{}")
    }

    /// As [`Daemon::private`], with this text as its `daemon.json`.
    pub fn configured(config: &str) -> Self {
        let directory = super::temporary("daemon");
        // Told to have no bridge, a daemon deletes `docker0`, which is the machine's.
        let number = free_address().port();
        let bridge = format!("dkvt{number}");
        let mut daemon = Self { directory, bridge, child: None, config: config.into() };
        ip(&["link", "add", &daemon.bridge, "type", "bridge"]);
        ip(&[
            "address",
            "add",
            &format!("198.{}.{}.1/24", 18 + number % 2, number / 2 % 256),
            "dev",
            &daemon.bridge,
        ]);
        ip(&["link", "set", &daemon.bridge, "up"]);
        daemon.start();
        daemon
    }

    /// Starts the daemon (again, with the data it had) and waits until it answers.
    pub fn start(&mut self) {
        let directory = self.directory.path();
        let log =
            File::options().create(true).append(true).open(self.log()).expect("a temporary file");
        let _ = fs::remove_file(directory.join("docker.pid"));
        // The machine's own configuration does not apply.
        fs::write(directory.join("daemon.json"), &self.config).expect("a temporary file");
        let mut child = Command::new(program("dockerd"))
            .arg("--config-file")
            .arg(directory.join("daemon.json"))
            .arg("--data-root")
            .arg(directory.join("data"))
            .arg("--exec-root")
            .arg(directory.join("exec"))
            .arg("--pidfile")
            .arg(directory.join("docker.pid"))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(format!("--bridge={}", self.bridge))
            .args([
                "--iptables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--storage-driver=vfs",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let engine = self.engine();
        wait_for("the private daemon answers", READY, || {
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(
                child.try_wait().expect("the state of a child").is_none(),
                "dockerd ended:\n{}",
                log()
            );
            engine.try_docker(&["version"]).status.success().then_some(())
        });
        self.child = Some(child);
    }

    pub fn engine(&self) -> Engine {
        Engine::at(self.socket())
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.directory.path().join("dockerd.log")
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`) to the daemon.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running daemon");
        kill_process(Pid::from_child(child), signal).expect("the daemon is ours");
    }

    /// Stops it as `systemctl stop docker` does, with all its containers, and starts it again.
    pub fn restart(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("the daemon is ours");
        wait_for("the daemon ends", READY, || child.try_wait().expect("a child").map(drop));
        self.start();
    }

    /// Kills the daemon as a power cut would and forgets it; [`Daemon::start`] brings it back.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let pid_file = self.directory.path().join("exec/containerd/containerd.pid");
        for process in processes_with(&pid_file.with_file_name("containerd.toml")) {
            end(process);
        }
        // A daemon that finds it waits for a containerd that is not there.
        let _ = fs::remove_file(pid_file);
    }

    /// Ends what a killed daemon left: containers, their shims and mounts.
    fn sweep(&self) {
        let directory = self.directory.path();
        for shim in processes_with(directory) {
            let children = format!("/proc/{0}/task/{0}/children", shim.as_raw_nonzero());
            let children = fs::read_to_string(children).unwrap_or_default();
            children
                .split_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                .for_each(end);
            end(shim);
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| Path::new(place).starts_with(directory)) {
            let _ = Command::new("umount").args(["-l", place]).status();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
            // Asked politely it ends its containers and unmounts what it mounted; it gives them a
            // while.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
            let deadline = Instant::now() + Duration::from_secs(20);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(20));
            }
        }
        self.kill();
        self.sweep();
        let _ = Command::new(program("ip")).args(["link", "delete", &self.bridge]).status();
    }
}

fn ip(args: &[&str]) {
    let output = Command::new(program("ip")).args(args).output().expect("ip runs");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Processes with this path among their arguments: in a directory of the test's own they can only
/// be ours.
fn processes_with(path: &Path) -> Vec<Pid> {
    let path = path.display().to_string();
    let processes = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter(|pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&path))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// Kills a process and waits until it is gone.
fn end(process: Pid) {
    let _ = kill_process(process, Signal::KILL);
    let deadline = Instant::now() + Duration::from_secs(30);
    while test_kill_process(process).is_ok() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
}
