//! What an earlier call of Compose has left half made.

use anyhow::Result;

use super::RunningUpdate;
use crate::docker::{ContainerFilter, ContainerState};
use crate::health;
use crate::update::State;

/// How many digits of the container that it replaces a half made one has before its name.
const DIGITS: usize = 12;

impl RunningUpdate<'_> {
    /// Brings containers of `services` to an end that Compose has made and never come to name or
    /// start, because it was ended or the engine failed. Compose takes them for what they should
    /// become: it would start them under the name that they have for a while, or, where a service
    /// has several, remove one that ran and fail at the name.
    ///
    /// Where what it replaces still stands, the half made one goes; where that is gone, it has its
    /// volumes, and gets its name.
    ///
    /// # Errors
    ///
    /// The daemon does not answer, or somebody else has the name (exit 6).
    pub(super) async fn settle_half_made(&self, services: &[String]) -> Result<()> {
        let filter = ContainerFilter::project(&self.journal.project);
        let present = health::patiently(async || self.docker.containers(&filter).await).await?;
        for one in present.iter().filter(|one| one.state == ContainerState::Created) {
            let service = one.labels.service().filter(|_| !one.labels.is_one_off());
            let is_meant = service.is_some_and(|service| services.iter().any(|it| it == service));
            let Some(name) = name_to_be(&one.name).filter(|_| is_meant) else { continue };
            if present.iter().any(|other| other.name == name) {
                self.docker.remove_container(&one.id).await?;
                continue;
            }
            match self.docker.rename_container(&one.id, name).await {
                // Back to what ran, Compose makes it anew, whatever it is called.
                Err(error) if self.journal.state == State::Restoring => {
                    tracing::info!("{} keeps its name: {error:#}", one.name);
                }
                renamed => renamed?,
            }
        }
        Ok(())
    }
}

/// The name of a container that has another until what it replaces is gone:
/// `1b2c3d4e5f60_shop-web-1`.
fn name_to_be(name: &str) -> Option<&str> {
    let (digits, name) = name.split_once('_')?;
    let is_id = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::name_to_be;

    #[test]
    fn names_that_compose_gives_for_a_while_are_known() {
        for (name, expected) in [
            ("1b2c3d4e5f60_shop-web-1", Some("shop-web-1")),
            ("shop-web-1", None),
            ("shop_web_1", None),
            ("deadbeef_shop_web_1", None),
            ("a_long_enough_name_1", None),
        ] {
            assert_eq!(name_to_be(name), expected, "{name}");
        }
    }
}
