//! Mirrors of Docker Hub, as the daemon is told to use them.
//!
//! The daemon asks its `registry-mirrors` first for every name on Docker Hub, and Docker Hub itself
//! for what none of them has. dkv asks likewise, so that it finds what the daemon would pull, and
//! works where only the mirror can be reached. The list is wanted only when the first such name is
//! asked about.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use reqwest::Url;
use tokio::sync::OnceCell;

use super::host::Scheme;
use super::transport::authority;
use crate::model::reference::Repository;

/// Finds out the addresses of the mirrors.
pub type FindMirrors = Box<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>;

/// The mirrors, once they are known.
#[derive(Default)]
pub(super) struct Mirrors {
    find: Option<FindMirrors>,
    found: OnceCell<Vec<Mirror>>,
}

/// One mirror.
pub(super) struct Mirror {
    pub(super) host: String,
    pub(super) scheme: Scheme,
    is_down: AtomicBool,
}

impl Mirrors {
    pub(super) fn new(find: FindMirrors) -> Self {
        Self { find: Some(find), found: OnceCell::new() }
    }

    /// Those to ask about a repository, in their order.
    pub(super) async fn of(&self, repository: &Repository) -> impl Iterator<Item = &Mirror> {
        let found = match &self.find {
            Some(find) if repository.is_docker_hub() => {
                let find =
                    async { find().await.iter().filter_map(|one| Mirror::parse(one)).collect() };
                self.found.get_or_init(|| find).await.as_slice()
            }
            _ => &[],
        };
        found.iter().filter(|mirror| !mirror.is_down.load(Ordering::Relaxed))
    }
}

impl Mirror {
    /// A mirror by its address, which has no path.
    fn parse(address: &str) -> Option<Self> {
        let url = Url::parse(address).ok()?;
        let scheme = match url.scheme() {
            "https" => Scheme::Https,
            // The daemon's administrator has said so.
            "http" => Scheme::Http,
            _ => return None,
        };
        url.host_str()?;
        Some(Self { host: authority(&url), scheme, is_down: AtomicBool::new(false) })
    }

    /// From now on it is left out: it cannot be reached.
    pub(super) fn leave_out(&self) {
        self.is_down.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_hosts_with_a_scheme() {
        let parse = |text| Mirror::parse(text).map(|mirror| (mirror.host, mirror.scheme));
        for (text, expected) in [
            ("https://mirror.example/", Some(("mirror.example", Scheme::Https))),
            ("http://10.0.0.1:5000", Some(("10.0.0.1:5000", Scheme::Http))),
            ("http://mirror", Some(("mirror", Scheme::Http))),
            ("unix:///x", None),
            ("mirror.example", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, scheme)| (host.to_owned(), scheme));
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn only_for_docker_hub_is_the_list_wanted() {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = std::sync::Arc::clone(&asked);
        let mirrors = Mirrors::new(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { vec!["http://m:1".to_owned(), "https://n".to_owned()] })
        }));
        for (image, hosts) in [("quay.io/a/b", vec![]), ("nginx", vec!["m:1", "n"])] {
            let repository: Repository = image.parse().unwrap();
            for _ in 0..2 {
                let found = mirrors.of(&repository).await.map(|mirror| mirror.host.as_str());
                assert_eq!(found.collect::<Vec<_>>(), hosts, "{image}");
            }
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let nginx: Repository = "nginx".parse().unwrap();
        mirrors.of(&nginx).await.next().unwrap().leave_out();
        assert_eq!(mirrors.of(&nginx).await.count(), 1);
    }
}
