//! What is known about one registry: how it is spoken to, how it wants logins, and its tokens.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio::time::Instant;

use super::auth::Challenge;
use super::credentials::{Found, Secret};
use super::error::{Error, Result};
use super::retry::lock;

/// The most scopes in one token request: the address has to stay shorter than servers accept.
const SHARED_SCOPES: usize = 40;

/// One registry, shared by all tasks.
#[derive(Default)]
pub(super) struct Host {
    /// The first contact, which says whether the registry speaks TLS.
    pub(super) contact: SingleFlight<Scheme>,
    /// What the last 401 asked for.
    challenge: Mutex<Option<Arc<Challenge>>>,
    /// The user's login, looked up when it is first needed.
    pub(super) login: OnceCell<Found>,
    /// The paths of the repositories that were announced.
    expected: Mutex<BTreeSet<String>>,
    tokens: Mutex<HashMap<Slot, Arc<SingleFlight<Token>>>>,
    /// Whether the login was refused where anonymous access works.
    is_anonymous: AtomicBool,
    /// The repositories for which that is so, where the login itself is good.
    anonymous_paths: Mutex<HashSet<String>>,
    /// The repositories that a shared token did not open, with whether that token was anonymous.
    single_paths: Mutex<HashSet<(bool, String)>>,
    has_warned: AtomicBool,
    pub(super) patience: Patience,
}

/// The time that one registry takes from a run: that in which it is asked at all, however many ask
/// at once. What goes on in between, such as the daemon's pulls, is not its own.
#[derive(Default)]
pub(super) struct Patience(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    /// What earlier waits have taken.
    taken: Duration,
    /// Since when there is somebody who waits.
    since: Option<Instant>,
    /// How many wait.
    count: usize,
}

/// Somebody who waits for a registry; no longer when it is dropped.
pub(super) struct Wait<'a>(&'a Patience);

impl Patience {
    /// Begins to wait.
    pub(super) fn wait(&self) -> Wait<'_> {
        let mut waiting = lock(&self.0);
        waiting.since.get_or_insert_with(Instant::now);
        waiting.count += 1;
        Wait(self)
    }

    /// When the registry has taken the `total` that it may, for those who wait.
    pub(super) fn deadline(&self, total: Duration) -> Instant {
        let waiting = lock(&self.0);
        waiting.since.unwrap_or_else(Instant::now) + total.saturating_sub(waiting.taken)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.0);
        waiting.count -= 1;
        if waiting.count == 0
            && let Some(since) = waiting.since.take()
        {
            waiting.taken += since.elapsed();
        }
    }
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Which token: for whom, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) is_anonymous: bool,
    /// `None`: for all announced repositories.
    pub(super) scope: Option<String>,
}

/// A bearer token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) text: Secret,
    pub(super) usable_until: Instant,
    /// The scopes that it was asked for.
    pub(super) scopes: Arc<[String]>,
}

impl Token {
    /// Whether it serves a request for `scope` now.
    fn serves(&self, scope: &str) -> bool {
        self.usable_until > Instant::now() && self.scopes.iter().any(|covered| covered == scope)
    }
}

impl Host {
    /// The challenge, if the registry has given one.
    pub(super) fn challenge(&self) -> Option<Arc<Challenge>> {
        lock(&self.challenge).clone()
    }

    pub(super) fn learn(&self, challenge: Challenge) {
        *lock(&self.challenge) = Some(Arc::new(challenge));
    }

    /// Announces a repository of this run.
    pub(super) fn expect(&self, path: &str) {
        lock(&self.expected).insert(path.to_owned());
    }

    /// The scopes that one token should serve, if `path` is among them and there are several.
    pub(super) fn shared_scopes(
        &self,
        challenge: &Challenge,
        path: &str,
        is_anonymous: bool,
    ) -> Option<Vec<String>> {
        if lock(&self.single_paths).contains(&(is_anonymous, path.to_owned())) {
            return None;
        }
        let expected = lock(&self.expected);
        let mut scopes: Vec<String> =
            expected.iter().take(SHARED_SCOPES).map(|path| challenge.scope_for(path)).collect();
        scopes.dedup();
        (scopes.len() > 1 && scopes.contains(&challenge.scope_for(path))).then_some(scopes)
    }

    /// From now on the repository gets a token of its own.
    pub(super) fn go_single(&self, path: &str, is_anonymous: bool) {
        lock(&self.single_paths).insert((is_anonymous, path.to_owned()));
    }

    /// The place of a token.
    pub(super) fn slot(&self, slot: Slot) -> Arc<SingleFlight<Token>> {
        Arc::clone(lock(&self.tokens).entry(slot).or_default())
    }

    /// Whether requests for the repository go without the user's login.
    pub(super) fn is_anonymous(&self, path: &str) -> bool {
        self.is_anonymous.load(Ordering::Relaxed) || lock(&self.anonymous_paths).contains(path)
    }

    /// From now on the registry is used without the user's login.
    pub(super) fn go_anonymous(&self) {
        self.is_anonymous.store(true, Ordering::Relaxed);
    }

    /// From now on the repository is used without the user's login.
    pub(super) fn go_anonymous_for(&self, path: &str) {
        lock(&self.anonymous_paths).insert(path.to_owned());
    }

    /// Whether the user has not been warned yet; true once.
    pub(super) fn may_warn(&self) -> bool {
        !self.has_warned.swap(true, Ordering::Relaxed)
    }
}

/// A value that many tasks want and one fetches. A failure is given to all who were waiting for
/// that fetch, so that an unreachable host costs one series of tries and not one per task.
pub(super) struct SingleFlight<T>(AsyncMutex<Flight<T>>);

struct Flight<T> {
    value: Option<T>,
    failure: Option<(Instant, Error)>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(AsyncMutex::new(Flight { value: None, failure: None }))
    }
}

impl<T: Clone> SingleFlight<T> {
    /// The value if it `is_usable`, else what `fetch` brings.
    pub(super) async fn get(
        &self,
        is_usable: impl Fn(&T) -> bool,
        fetch: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let arrived = Instant::now();
        let mut flight = self.0.lock().await;
        if let Some(value) = flight.value.as_ref().filter(|value| is_usable(value)) {
            return Ok(value.clone());
        }
        if let Some((_, error)) = flight.failure.as_ref().filter(|(at, _)| *at > arrived) {
            return Err(error.clone());
        }
        match fetch.await {
            Ok(value) => {
                flight.value = Some(value.clone());
                Ok(value)
            }
            Err(error) => {
                flight.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

impl SingleFlight<Token> {
    /// The token for `scope`.
    pub(super) async fn token(
        &self,
        scope: &str,
        fetch: impl Future<Output = Result<Token>>,
    ) -> Result<Token> {
        self.get(|token| token.serves(scope), fetch).await
    }

    /// Forgets a token that was refused, unless another task has replaced it already.
    pub(super) async fn discard(&self, refused: &Token) {
        let mut flight = self.0.lock().await;
        if flight.value.as_ref().is_some_and(|token| token.text == refused.text) {
            flight.value = None;
        }
    }
}

impl Token {
    /// A token that may be used for `lifetime` from `start` on, which is when it was asked for.
    pub(super) fn new(
        text: Secret,
        start: Instant,
        lifetime: Duration,
        scopes: Vec<String>,
    ) -> Self {
        Self { text, usable_until: start + lifetime, scopes: scopes.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_registry_takes_time_only_while_somebody_waits_for_it() {
        let (patience, total) = (Patience::default(), Duration::from_secs(60));
        let left = || (patience.deadline(total) - Instant::now()).as_secs();
        let pass = |seconds| tokio::time::advance(Duration::from_secs(seconds));
        let (one, two) = (patience.wait(), patience.wait());
        pass(10).await;
        assert_eq!(left(), 50, "two wait as long as one");
        drop(one);
        pass(10).await;
        drop(two);
        // A pull through the daemon, say.
        pass(600).await;
        assert_eq!(left(), 40);
        let _three = patience.wait();
        pass(39).await;
        assert_eq!(left(), 1);
        pass(10).await;
        assert_eq!(left(), 0);
    }
}
