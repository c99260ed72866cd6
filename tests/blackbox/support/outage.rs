//! The machine's engine behind a door that fails at one call: which one and how is chosen.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::http::{self, Request, Response};

/// Numbers for what is under way.
static NUMBERS: AtomicUsize = AtomicUsize::new(0);

/// How an engine fails at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// It answers with 500 and has done nothing.
    Refused,
    /// It does what was asked and breaks off before it says so.
    Unanswered,
    /// It never answers this call; it answers others.
    Hanging,
    /// From this call on it is not there for a while, for anybody.
    Gone(Duration),
}

#[derive(Default)]
struct State {
    calls: usize,
    planned: Option<(usize, Outage)>,
    /// What it never answers: every call whose target contains this.
    silent: Option<&'static str>,
    /// What it refuses once: the first call that changes something and whose target contains this.
    refused: Option<&'static str>,
    hit: Option<String>,
    /// What is under way, by a number of its own.
    open: BTreeMap<usize, UnixStream>,
}

/// A running door: a socket of its own.
pub struct Door {
    directory: TempDir,
    state: Arc<Mutex<State>>,
}

impl Door {
    pub fn open() -> Self {
        let directory = super::temporary("door");
        let door = Self { directory, state: Arc::default() };
        let listener = UnixListener::bind(door.socket()).expect("a socket in a new directory");
        let (state, socket) = (Arc::clone(&door.state), door.socket());
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (state, socket) = (Arc::clone(&state), socket.clone());
                // An error ends one connection.
                thread::spawn(move || drop(serve(client, &state, &socket)));
            }
        });
        door
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// `DOCKER_HOST` of the engine behind it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Counts from here, and fails at the n-th call from now on, counted from 1.
    pub fn fail(&self, planned: Option<(usize, Outage)>) {
        let mut state = locked(&self.state);
        *state = State { planned, open: std::mem::take(&mut state.open), ..State::default() };
    }

    /// From now on calls whose target contains `part` are never answered.
    pub fn silence(&self, part: &'static str) {
        locked(&self.state).silent = Some(part);
    }

    /// Counts from here, and refuses the first call that posts to a target that contains `part`.
    pub fn refuse_once(&self, part: &'static str) {
        self.fail(None);
        locked(&self.state).refused = Some(part);
    }

    /// How many calls there were since then.
    pub fn calls(&self) -> usize {
        locked(&self.state).calls
    }

    /// The call that failed, if it came to that.
    pub fn hit(&self) -> Option<String> {
        locked(&self.state).hit.clone()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test panicked here")
}

/// What becomes of a call.
fn outage(state: &Mutex<State>, request: &Request) -> Option<Outage> {
    let mut state = locked(state);
    state.calls += 1;
    if state.silent.is_some_and(|part| request.target.contains(part)) {
        return Some(Outage::Hanging);
    }
    let is_refused = state.refused.is_some_and(|part| request.target.contains(part));
    if is_refused && request.method == "POST" {
        state.refused = None;
        state.hit = Some(format!("{} {}", request.method, request.target));
        return Some(Outage::Refused);
    }
    let (at, outage) = state.planned?;
    if state.calls != at {
        return None;
    }
    state.hit = Some(format!("{} {}", request.method, request.target));
    if matches!(outage, Outage::Gone(_)) {
        for stream in std::mem::take(&mut state.open).into_values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
    Some(outage)
}

/// One request a connection, so that each is seen.
fn serve(mut client: UnixStream, state: &Mutex<State>, socket: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let Some(mut request) = http::read_request(&mut reader)? else { return Ok(()) };
    let outage = outage(state, &request);
    match outage {
        Some(Outage::Refused) => {
            let words = serde_json::json!({"message": "the door of the tests says no"});
            let response = Response::json(500, &words).with_header("Connection", "close");
            return http::write_response(&mut client, &response, request.method == "HEAD");
        }
        // Until the client gives up.
        Some(Outage::Hanging) => return io::copy(&mut reader, &mut io::sink()).map(drop),
        Some(Outage::Gone(time)) => {
            let aside = socket.with_extension("gone");
            fs::rename(socket, &aside)?;
            client.shutdown(Shutdown::Both)?;
            thread::sleep(time);
            return fs::rename(aside, socket);
        }
        Some(Outage::Unanswered) | None => {}
    }
    request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
    request.headers.push(("Connection".to_owned(), "close".to_owned()));
    let mut engine = UnixStream::connect(super::engine::machine_socket())?;
    http::write_request(&mut engine, &request)?;
    if outage.is_some() {
        // An answer to its end, or as much as comes of one that has none.
        engine.set_read_timeout(Some(Duration::from_secs(5)))?;
        let _ = io::copy(&mut engine, &mut io::sink());
        return Ok(());
    }
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    locked(state).open.insert(number, engine.try_clone()?);
    let passed = pass_on(reader, client, engine);
    locked(state).open.remove(&number);
    passed
}

/// Hands an answer on to its end.
fn pass_on(
    mut reader: BufReader<UnixStream>,
    mut client: UnixStream,
    mut engine: UnixStream,
) -> io::Result<()> {
    // A client that has gone needs no more of what goes on without end.
    let other = engine.try_clone()?;
    thread::spawn(move || {
        let _ = io::copy(&mut reader, &mut io::sink());
        let _ = other.shutdown(Shutdown::Both);
    });
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = engine.read(&mut buffer)?;
        if count == 0 {
            return client.shutdown(Shutdown::Both);
        }
        client.write_all(&buffer[..count])?;
    }
}
