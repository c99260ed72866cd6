//! How the AWS SDK is used: whose credentials, how patiently, and how its errors read.

use std::time::Duration;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecr::error::{ProvideErrorMetadata, SdkError};

use super::error::printable;

/// The longest wait for a connection to AWS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest time for one call, credentials and retries included.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why AWS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It might know sooner what the registry knows as well: asked once, and only with credentials
    /// from the environment, files and the processes or services that these name.
    Shortcut,
    /// There is no other way: tried again when it fails, and with the instance's own role at last.
    Necessity,
}

/// The SDK's configuration for calls to `region`. Endpoints can be overridden as everywhere in AWS,
/// with `AWS_ENDPOINT_URL` and its variants.
pub(super) async fn config(region: &str, purpose: Purpose) -> SdkConfig {
    let region = Region::new(region.to_owned());
    let provider = ProviderConfig::without_region().with_region(Some(region.clone()));
    // The SDK's default chain, but without the probe of the instance metadata address, which takes
    // seconds where there is none. The container provider stays: it does nothing unless it is told
    // where.
    let chain = CredentialsProviderChain::first_try(
        "environment",
        EnvironmentVariableCredentialsProvider::new(),
    )
    .or_else("profile", ProfileFileCredentialsProvider::builder().configure(&provider).build())
    .or_else(
        "web identity",
        WebIdentityTokenCredentialsProvider::builder().configure(&provider).build(),
    )
    .or_else("container", EcsCredentialsProvider::builder().configure(&provider).build());
    let (chain, tries) = match purpose {
        Purpose::Shortcut => (chain, 1),
        Purpose::Necessity => (
            chain.or_else(
                "instance",
                ImdsCredentialsProvider::builder().configure(&provider).build(),
            ),
            3,
        ),
    };
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .credentials_provider(chain)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(tries))
        .load()
        .await
}

/// What went wrong, in one line: what AWS said, else what stood in the way.
pub(super) fn describe<E, R>(error: &SdkError<E, R>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let said = [error.code(), error.message()].into_iter().flatten().collect::<Vec<_>>().join(": ");
    match error {
        SdkError::ServiceError(_) if !said.is_empty() => printable(&said),
        SdkError::TimeoutError(_) => "AWS does not answer in time".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            "AWS does not answer in time".to_owned()
        }
        SdkError::DispatchFailure(failure) if failure.is_io() => "AWS cannot be reached".to_owned(),
        // The sources behind this one could quote what a credential process printed.
        SdkError::DispatchFailure(_) => "there are no usable AWS credentials".to_owned(),
        _ => "AWS gives an unusable answer".to_owned(),
    }
}

/// A configuration for a server on loopback that stands for AWS.
#[cfg(test)]
pub(super) fn loopback_config(address: std::net::SocketAddr) -> SdkConfig {
    use aws_sdk_ecr::config::{Credentials, SharedCredentialsProvider};
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "id",
            "AWSSECRET",
            None,
            None,
            "test",
        )))
        .retry_config(RetryConfig::standard().with_max_attempts(1))
        .build()
}
